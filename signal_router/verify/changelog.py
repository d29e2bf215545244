"""What a changelog adds up to, in the words of the reference evaluation: who is pending, who is remembered.

The layout is `signal_router.state.keys`'; the entries are read one by one and never through a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from signal_router.core.tables import JoinSet, Life, Pending, Progress, Remembered
from signal_router.errors import StateError
from signal_router.runtime.positions import TablePosition, decode_position
from signal_router.state import keys

_decode_set = msgspec.msgpack.Decoder(JoinSet).decode
_decode_pending = msgspec.msgpack.Decoder(Pending).decode
_decode_remembered = msgspec.msgpack.Decoder(Remembered).decode
_decode_life = msgspec.msgpack.Decoder(Life).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode
_decode_count = msgspec.msgpack.Decoder(int).decode

_Value = TypeVar("_Value")
_OF_SETS = b"SQI"
LOCAL = b"TL"
"""Kinds of entries that no changelog carries."""


class PendingEntry(NamedTuple):
    """A signal that waits, as the entries say."""

    subscription: str
    key: str
    pending: Pending


class RememberedEntry(NamedTuple):
    """An identity that has ended, as the entries say."""

    subscription: str
    key: str
    remembered: Remembered


@dataclass(slots=True)
class PartitionFold:
    """The entries of one changelog partition that belong to no set."""

    position: TablePosition | None = None
    progress: Progress = field(default_factory=Progress)
    lives: dict[str, Life] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Takes the next record. Raises `StateError` for what cannot be read, as a newer format."""
        kind, name = key[:1], key[1:].decode()
        try:
            if kind == b"D":
                _put(self.lives, name, None if value is None else _decode_life(value))
            elif kind == b"N":
                _put(self.counts, name, None if value is None else _decode_count(value))
            elif key == keys.PROGRESS and value is not None:
                self.progress = _decode_progress(value)
            elif key == keys.POSITION and value is not None:
                self.position = decode_position(value)
        except msgspec.DecodeError as error:
            raise StateError(f"changelog record {key!r} cannot be read: {error}") from error

    @property
    def sequence(self) -> int:
        """The number of the next decision input."""
        return 0 if self.position is None else self.position.sequence

    @property
    def next_offset(self) -> int:
        """The next offset of the candidates partition."""
        return 0 if self.position is None else self.position.next_offset


def set_of(key: bytes) -> tuple[str, str] | None:
    """The subscription and join key text that an entry's key names; None for an entry that belongs to no set."""
    kind = key[:1]
    if kind not in _OF_SETS or not kind:
        return None
    text = key[1:-13] if kind == b"Q" else key[1:]  # a queue's mask and index, behind a zero byte
    subscription, join_key = text.decode().split("\0")[:2]
    return subscription, join_key


def entries_of(entries: Mapping[bytes, bytes]) -> Iterator[PendingEntry | RememberedEntry]:
    """What the entries of sets say. Raises `StateError` for one that cannot be read."""
    for key, value in entries.items():
        name = set_of(key)
        if name is None:
            continue
        try:
            yield from _entries(key[:1], name, value)
        except msgspec.DecodeError as error:
            raise StateError(f"changelog record {key!r} cannot be read: {error}") from error


def _entries(kind: bytes, name: tuple[str, str], value: bytes) -> Iterator[PendingEntry | RememberedEntry]:
    if kind == b"S":
        head = _decode_set(value)
        for pending in head.pending:
            yield PendingEntry(*name, pending)
        for remembered in head.remembered:
            yield RememberedEntry(*name, remembered)
    elif kind == b"Q":
        yield PendingEntry(*name, _decode_pending(value))
    else:
        remembered = _decode_remembered(value)
        if remembered.forget_at:  # others stand for a queued signal
            yield RememberedEntry(*name, remembered)


def _put(into: dict[str, _Value], name: str, value: _Value | None) -> None:
    if value is None:
        into.pop(name, None)
    else:
        into[name] = value
