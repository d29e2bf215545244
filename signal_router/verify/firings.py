"""What triggers, lineage and dead letters say, read for a check: which set fired, and which candidates they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

import msgspec

from signal_router.testing.reference import CandidateName, Position
from signal_router.testing.reference_values import Json, canonical, join_key_hash

Document: TypeAlias = dict[str, object]
Replayed: TypeAlias = Mapping[tuple[Position, str], str]

_decode = msgspec.json.Decoder().decode
_SIGNAL_PARTS = 6


@dataclass(frozen=True, slots=True)
class Firing:
    """A trigger, from its topic or from lineage or from a dead letter."""

    id: str
    partition: int
    sequence: int
    transaction: str
    document: Document
    names: tuple[CandidateName, ...]
    late: bool

    @property
    def which(self) -> tuple[str, int, int]:
        """Names one firing: the same set may fire again after the horizon, under the same id."""
        return self.id, self.partition, self.sequence

    @property
    def replay(self) -> bool:
        """Whether `dead-letters replay` wrote it."""
        return self.transaction.startswith("replay/")

    def __str__(self) -> str:
        return f"trigger {self.id} at {self.partition}/{self.sequence}"


def read_document(value: bytes | None) -> Document | None:
    """Reads a JSON object; None where it is none."""
    try:
        found = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def position_of(value: object) -> Position | None:
    """Reads a position; None where it is none."""
    match value:
        case {"topic": str(topic), "partition": int(partition), "offset": int(offset)}:
            return Position(topic, partition, offset)
    return None


def set_of_trigger(document: Document, topic_id: Callable[[str], str], replayed: Replayed) -> tuple[str, str] | None:
    """The subscription and the join key hash of a trigger; None where it does not say them."""
    match document:
        case {"subscription": {"id": str(subscription)}, "join_key": dict(key), "signals": [dict(first), *others]}:
            if key or others:
                return subscription, join_key_hash(canonical(key))
            at = position_of(first.get("position"))
            if at is None:
                return None
            known = replayed.get((at, subscription))
            if known is not None:
                return subscription, known
            tail: Json = {"position": [topic_id(at.topic), at.partition, at.offset]}
            identity = first.get("id")
            if isinstance(identity, str):
                tail = identity
            return subscription, join_key_hash(canonical([_text(first.get("name")), _text(first.get("source")), tail]))
    return None


def read_firing(
    document: Document,
    transaction: str,
    *,
    late: bool,
    topic_id: Callable[[str], str],
    replayed: Replayed,
) -> Firing | None:
    """Reads a trigger; None where it is none."""
    its_set = set_of_trigger(document, topic_id, replayed)
    match document:
        case {"trigger_id": str(trigger_id), "order": {"partition": int(partition), "sequence": int(sequence)}}:
            if its_set is None:
                return None
            names = tuple((position, *its_set) for position in _positions(document))
            return Firing(trigger_id, partition, sequence, transaction, document, names, late)
    return None


def named_candidate(key: bytes) -> CandidateName | None:
    """The candidate that a `signal/…` key names; None where it names none."""
    parts = key.decode(errors="replace").split("/")
    if len(parts) != _SIGNAL_PARTS or not parts[2].isdecimal() or not parts[3].isdecimal():
        return None
    return Position(unquote(parts[1]), int(parts[2]), int(parts[3])), unquote(parts[4]), parts[5]


def _positions(document: Document) -> Iterator[Position]:
    signals = document.get("signals")
    for signal in signals if isinstance(signals, list) else ():
        position = position_of(signal.get("position")) if isinstance(signal, dict) else None
        if position is not None:
            yield position


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
