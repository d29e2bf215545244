"""The vectors of docs/test-vectors.md hold, so that other programs can rely on the page."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest

from signal_router.errors import RecordError
from signal_router.model import lineage
from signal_router.model.candidates import SignalCopy, identity_of
from signal_router.model.canonical import canonical_text, canonicalize_json_text
from signal_router.model.dead_letters import Kind, dead_letter, dead_letter_key
from signal_router.model.json_values import decode_json
from signal_router.model.records import decode_signal
from signal_router.model.signals import Position
from signal_router.model.subscriptions import Member, Policy, Subscription
from signal_router.model.templates import parse_template
from signal_router.model.triggers import NAMESPACE, Bound, key_of, trigger_id

PAGE = (Path(__file__).parents[2] / "docs" / "test-vectors.md").read_text(encoding="utf-8")
BLOCKS = {
    name: [tuple(line.split(" ⟶ ")) for line in lines.splitlines()]
    for name, lines in re.findall(r"^```vectors ([a-z-]+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
}


def vectors(name):
    return pytest.mark.parametrize(("given", "expected"), BLOCKS[name], ids=lambda text: text[:40])


def value_of(text):
    return decode_json(text.encode(), what="vector")


def test_every_block_of_the_page_is_checked():
    checked = set(re.findall(r'^@vectors\("([a-z-]+)"\)', Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))

    assert checked == set(BLOCKS)
    assert all(len(vector) == 2 for block in BLOCKS.values() for vector in block)


@vectors("canonical-json")
def test_canonical_json(given, expected):
    assert canonicalize_json_text(given.encode()) == expected.encode()
    assert canonicalize_json_text(expected.encode()) == expected.encode()


@vectors("refused")
def test_refused_json(given, expected):
    with pytest.raises(RecordError) as caught:
        canonicalize_json_text(given.encode())

    assert caught.value.reason == expected


@vectors("identity")
def test_identity(given, expected):
    signal, topic_id, partition, offset = value_of(given)

    assert identity_of(
        decode_signal(json.dumps(signal).encode(), None, limit_bytes=1000), topic_id, partition, offset
    ) == (expected)


def subscription(id_, *, birth=1, join_generation=1, by_identity=False) -> Subscription:
    return Subscription(
        id=id_,
        birth=birth,
        join_generation=join_generation,
        revision=1,
        version="sha256:0",
        contact=None,
        members=(Member("a", "x", (), (), payload=False),) * (1 if by_identity else 2),
        join_names=(),
        policy=Policy.FIFO,
        within_ms=1,
        dedupe_ms=1,
        topic="triggers",
        template=parse_template({}),
    )


def bound(alias, *identity) -> Bound:
    name, source, id_ = identity
    written = canonical_text(list(identity))
    copy = SignalCopy(written, name, source, id_, b"{}", None, None, 0, "signals", 0, 0, b"")
    return Bound(alias, 0, copy, with_payload=False)


@vectors("trigger-key")
def test_trigger_key(given, expected):
    id_, join_key, *identity = value_of(given)
    key = canonical_text(identity[0] if identity else join_key)

    assert key_of(subscription(id_, by_identity=bool(identity)), key).decode() == expected


@vectors("trigger-id")
def test_trigger_id(given, expected):
    assert str(NAMESPACE) in PAGE
    assert str(uuid.uuid5(NAMESPACE, canonical_text(value_of(given)))) == expected

    id_, birth, join_generation, join_key, members = value_of(given)
    declared = subscription(id_, birth=birth, join_generation=join_generation)
    found = trigger_id(declared, canonical_text(join_key), [bound(*member) for member in reversed(members)])

    assert found == expected


@vectors("join-key-hash")
def test_join_key_hash(given, expected):
    assert lineage.join_key_hash(canonical_text(value_of(given))) == expected


@vectors("lineage-key")
def test_lineage_key(given, expected):
    kind, *parts = value_of(given)
    if kind == "signal":
        topic, partition, offset, subscription, join_key = parts
        key = lineage.signal_key(Position(topic, partition, offset), subscription, canonical_text(join_key))
    else:
        key = {"trigger": lineage.trigger_key, "view": lineage.view_key}[kind](*parts)

    assert key.decode() == expected


@vectors("dead-letter-key")
def test_dead_letter_key(given, expected):
    kind, topic, partition, offset, *trigger_id = value_of(given)
    letter = dead_letter(
        kind=Kind(kind),
        position=Position(topic, partition, offset),
        error=RecordError("reason", "message"),
        key=None,
        headers=None,
        value=None,
        trigger_id=trigger_id[0] if trigger_id else None,
    )

    assert dead_letter_key(letter).decode() == expected
