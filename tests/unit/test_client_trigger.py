"""A record of the topic of triggers in types; whatever else stands there is named unreadable."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from signal_router.client import decode_trigger
from signal_router.errors import RecordError
from signal_router.kafka.topics import load_topics, topic_text
from signal_router.model.signals import Position

EXAMPLES = next(file.about.examples for file in load_topics() if file.role == "triggers")


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_published_examples_are_read_whole(example):
    document = json.loads(topic_text(example))

    trigger = decode_trigger(json.dumps(document).encode(), [("traceparent", b"00-x")], Position("t", 1, 2))

    assert trigger.trigger_id == document["trigger_id"]
    assert trigger.idempotency_key == document["idempotency_key"]
    assert trigger.params == document["params"]
    assert trigger.join_key == document["join_key"]
    assert trigger.subscription.id == document["subscription"]["id"]
    assert trigger.order.sequence == document["order"]["sequence"]
    assert [each.alias for each in trigger.signals] == [each["alias"] for each in document["signals"]]
    assert [each.payload for each in trigger.signals] == [each.get("payload") for each in document["signals"]]
    assert (trigger.traceparent, trigger.position) == ("00-x", Position("t", 1, 2))


def test_times_are_datetimes_and_signals_are_found_by_alias():
    trigger = decode_trigger(topic_text("examples/trigger.json").encode())

    assert trigger.fired_at == datetime(2026, 3, 10, 6, 30, 2, 7000, tzinfo=UTC)
    assert trigger.signal("plays").source == "wf/plays"
    with pytest.raises(KeyError):
        trigger.signal("nobody")


def test_fields_of_a_later_version_are_passed_over():
    document = json.loads(topic_text("examples/trigger.json")) | {"later": {"x": 1}}

    assert decode_trigger(json.dumps(document).encode()).params["rows"] == 1500


@pytest.mark.parametrize(
    "value", [None, b"", b"rubbish", b"{}", b"[]", b"\xff", b"[" * 5000, b'{"trigger_id": 1}', b'{"x": 1e999}']
)
def test_what_is_no_trigger_is_unreadable(value):
    with pytest.raises(RecordError) as caught:
        decode_trigger(value)

    assert caught.value.reason == "unreadable"
