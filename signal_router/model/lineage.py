"""Lineage: who caused what. Keys and records of the lineage topic, format 1.

    trigger/<trigger id>                                                     the trigger without payloads
    signal/<topic>/<partition>/<offset>/<subscription id>/<join key hash>    a candidate that ended without a trigger
    view/<topic>/<partition>/<revision>                                      from which offset definitions were in force
    input/<candidates partition>/<sequence>                                  one decision input (setting `lineage: all`)

Parts are percent-encoded; the hash is the first 16 hex digits of the SHA-256 of the join key's canonical JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from signal_router.model.candidates import SignalCopy
from signal_router.model.signals import Position
from signal_router.model.times import rfc3339

FORMAT = 1

_encode = msgspec.json.Encoder().encode


class _Order(msgspec.Struct, frozen=True, gc=False):
    partition: int
    sequence: int


class SignalLineage(msgspec.Struct, frozen=True, gc=False):
    """What became of one candidate."""

    position: Position
    subscription: str
    join_key: msgspec.Raw
    join_key_hash: str
    aliases: Sequence[str]
    name: str
    source: str | None
    id: str | None
    outcome: str
    reason: str
    cause: dict[str, object] | None
    recorded_at: str
    ended_at: str
    order: _Order
    kind: str = "signal"
    format: int = FORMAT


def join_key_hash(key: str) -> str:
    """The first 16 hex digits of the SHA-256 of a join key's canonical JSON."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def trigger_key(trigger_id: str) -> bytes:
    """Key of a trigger's lineage."""
    return f"trigger/{trigger_id}".encode()


def signal_key(position: Position, subscription: str, key: str) -> bytes:
    """Key of a candidate's lineage."""
    return (
        f"signal/{quote(position.topic, safe='')}/{position.partition}/{position.offset}"
        f"/{quote(subscription, safe='')}/{join_key_hash(key)}"
    ).encode()


def view_key(topic: str, partition: int, revision: int) -> bytes:
    """Key of the record that says from which offset a revision of the definitions was in force."""
    return f"view/{quote(topic, safe='')}/{partition}/{revision}".encode()


def input_key(partition: int, sequence: int) -> bytes:
    """Key of a decision input."""
    return f"input/{partition}/{sequence}".encode()


def signal_value(
    signal: SignalCopy,
    subscription: str,
    key: str,
    aliases: Sequence[str],
    outcome: str,
    reason: str,
    cause: dict[str, object] | None,
    ended_at: int,
    partition: int,
    sequence: int,
) -> bytes:
    """The record of a candidate; `ended_at` is the time that decided, not that of the machine."""
    return _encode(
        SignalLineage(
            position=signal.position,
            subscription=subscription,
            join_key=msgspec.Raw(key.encode() if key.startswith("{") else b"{}"),
            join_key_hash=join_key_hash(key),
            aliases=aliases,
            name=signal.name,
            source=signal.source,
            id=signal.id,
            outcome=outcome,
            reason=reason,
            cause=cause,
            recorded_at=rfc3339(signal.recorded_at),
            ended_at=rfc3339(ended_at),
            order=_Order(partition, sequence),
        )
    )


def view_value(topic: str, partition: int, offset: int, revision: int) -> bytes:
    """The record that says from which offset a revision of the definitions was in force."""
    return _encode(
        {
            "format": FORMAT,
            "kind": "view",
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "revision": revision,
        }
    )


def input_value(partition: int, sequence: int, what: dict[str, object]) -> bytes:
    """The record of one decision input."""
    return _encode({"format": FORMAT, "kind": "input", "partition": partition, "sequence": sequence, "input": what})
