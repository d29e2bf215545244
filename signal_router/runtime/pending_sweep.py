"""How many signals are pending in this worker's tables, and how old the oldest is: a pass in small slices.

The time index cannot tell, because it also holds the far more numerous remembered identities. So the tables are read
through, a few milliseconds at a time: what it costs is bounded, how fresh the answer is depends on their size.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from signal_router.core.tables import JoinSet, Pending
from signal_router.state.keys import partition_prefix
from signal_router.state.store import Store

SLICE_S = 0.02
_LOOK_EVERY = 64
"""Entries between two looks at the clock."""

_decode_set = msgspec.msgpack.Decoder(JoinSet).decode
_decode_queued = msgspec.msgpack.Decoder(Pending).decode
_decode_count = msgspec.msgpack.Decoder(int).decode


@dataclass(slots=True)
class PendingFound:
    """By subscription: how many signals are pending, and when the oldest of them was recorded (epoch ms)."""

    counts: Counter[str] = field(default_factory=Counter)
    oldest: dict[str, int] = field(default_factory=dict)

    def older(self, subscription: str, recorded_at: int) -> None:
        """Takes a pending signal."""
        known = self.oldest.get(subscription)
        if known is None or recorded_at < known:
            self.oldest[subscription] = recorded_at


def sweep(store: Store, partitions: Iterable[int], *, slice_s: float = SLICE_S) -> Iterator[PendingFound | None]:
    """Reads through the tables of some partitions: gives None after each slice, and last what was found.

    Every step reads for about `slice_s`, from a state of the store of its own. A subscription's oldest signal may have
    ended meanwhile.
    """
    found = PendingFound()
    for partition in partitions:
        for kind in (b"N", b"S", b"Q"):
            start, end = partition_prefix(partition) + kind, partition_prefix(partition) + bytes([kind[0] + 1])
            cursor: bytes | None = start
            while cursor is not None:
                cursor = _slice(store, cursor, end, found, time.monotonic() + slice_s)
                if cursor is not None:
                    yield None
    for subscription in list(found.oldest):
        if not found.counts[subscription]:
            del found.oldest[subscription]
    yield found


def _slice(store: Store, start: bytes, end: bytes, found: PendingFound, until: float) -> bytes | None:
    """Takes entries until a time; gives the key to go on from, None at the end."""
    for number, (key, value) in enumerate(store.scan(start, end)):
        if number % _LOOK_EVERY == _LOOK_EVERY - 1 and time.monotonic() > until:
            return key
        _take(key[2:], value, found)
    return None


def _take(key: bytes, value: bytes, found: PendingFound) -> None:
    kind = key[:1]
    subscription = key[1:].partition(b"\0")[0].decode()
    if kind == b"N":
        if subscription:  # the partition's own count has none
            found.counts[subscription] += _decode_count(value)
    elif kind == b"Q":
        found.older(subscription, _decode_queued(value).signal.recorded_at)
    else:
        for pending in _decode_set(value).pending:
            found.older(subscription, pending.signal.recorded_at)
