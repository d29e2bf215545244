"""What a handler gives its transaction is refused where it is given: in the commit it would be nobody's fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from signal_router.client import RecordError, Transaction, decode_trigger
from signal_router.client.signal_writer import SignalWriter
from signal_router.kafka.topics import topic_text
from signal_router.kafka.transaction import MAX_RECORD_BYTES
from signal_router.model.log import OutputRecord

TRIGGER = decode_trigger(json.dumps(json.loads(topic_text("examples/trigger.json"))).encode())


def transaction() -> Transaction:
    return Transaction(SignalWriter(source="wf/test"), "signals", TRIGGER)


@pytest.mark.parametrize("given", [
    {"topic": None}, {"topic": b"outputs"}, {"topic": ""}, {"topic": "two words"}, {"topic": "x" * 250},
    {"value": 7}, {"value": {"n": 1}}, {"value": bytearray(b"v")},
    {"key": 7}, {"key": ("a",)},
    {"partition": None}, {"partition": "0"}, {"partition": True}, {"partition": -2}, {"partition": 1 << 31},
    {"headers": ["ab"]}, {"headers": [("a", 1)]}, {"headers": [(b"a", b"1")]}, {"headers": [("a", b"1", b"2")]},
    {"headers": 5}, {"headers": None},
])  # fmt: skip
def test_what_the_client_would_refuse_is_refused_at_once(given: dict[str, Any]) -> None:
    outputs = transaction()

    with pytest.raises((TypeError, ValueError)):
        outputs.produce(**{"topic": "outputs", "value": b"v", **given})

    assert outputs.records == []


@pytest.mark.parametrize("given", [
    {"value": bytes(MAX_RECORD_BYTES)},
    {"key": bytes(MAX_RECORD_BYTES)},
    {"headers": [("h", bytes(MAX_RECORD_BYTES))]},
    {"key": bytes(MAX_RECORD_BYTES // 3), "value": bytes(MAX_RECORD_BYTES // 3), "headers": [
        ("h", bytes(MAX_RECORD_BYTES // 3))
    ]},
], ids=["value", "key", "header", "together"])  # fmt: skip
def test_key_value_and_headers_together_are_bounded(given: dict[str, Any]) -> None:
    outputs = transaction()

    with pytest.raises(RecordError) as caught:
        outputs.produce(**{"topic": "outputs", "value": b"v", **given})

    assert caught.value.reason == "too-large"
    assert outputs.records == []


@pytest.mark.parametrize("key", [7, bytes(MAX_RECORD_BYTES)], ids=["type", "size"])
def test_the_key_of_a_signal_is_looked_at_too(key: Any) -> None:
    outputs = transaction()

    with pytest.raises((TypeError, RecordError)):
        outputs.publish("A", key=key)

    assert outputs.records == []


def test_what_the_client_takes_is_kept_as_it_was_given() -> None:
    outputs = transaction()

    outputs.produce("outputs", "v", key="k", headers=[("h", b"1")], partition=3)
    outputs.produce("outputs", None)

    assert outputs.records == [
        OutputRecord("outputs", b"k", b"v", 3, (("h", b"1"),)),
        OutputRecord("outputs", None, None),
    ]
