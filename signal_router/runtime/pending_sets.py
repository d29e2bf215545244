"""What is pending, read from the changelog: nobody but a worker may open its tables.

The fold keeps the newest value of every entry that matters and drops the rest as it goes, so memory grows with what is
asked for: with all pending signals (about a kilobyte each) for a list, with one signal's entries for a question.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.core.tables import JoinSet, Life, Pending
from signal_router.errors import StateError
from signal_router.kafka.offsets import end_offsets, start_offsets
from signal_router.kafka.restore import restore
from signal_router.kafka.settings import Connection
from signal_router.kafka.tail import partitions_of
from signal_router.model.log import TopicPartition

_decode_set = msgspec.msgpack.Decoder(JoinSet).decode
_decode_pending = msgspec.msgpack.Decoder(Pending).decode
_decode_life = msgspec.msgpack.Decoder(Life).decode

SetName = tuple[str, str]
"""A subscription's id and the text of a join key (or of the identity, where every signal fires by itself)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Filling:
    """How far a set is: the aliases it can fill now and those it cannot, both in declaration order."""

    has: tuple[str, ...]
    waits_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PendingSet:
    """What waits for one (subscription, join key), in joining order. `aliases` are those the masks speak of."""

    subscription: str
    key: str
    partition: int
    aliases: tuple[str, ...]
    join_generation: int
    pending: tuple[Pending, ...]

    @property
    def opened_at(self) -> int:
        """When the oldest signal was recorded."""
        return min(pending.signal.recorded_at for pending in self.pending)

    @property
    def deadline(self) -> int:
        """When the first signal expires."""
        return min(pending.deadline for pending in self.pending)

    @property
    def filling(self) -> Filling:
        """What the set has and what it waits for. A set that waits for nothing has its signals too far apart."""
        filled = filled_aliases((pending.aliases for pending in self.pending), len(self.aliases))
        return Filling(
            tuple(alias for bit, alias in enumerate(self.aliases) if bit in filled),
            tuple(alias for bit, alias in enumerate(self.aliases) if bit not in filled),
        )

    def aliases_of(self, pending: Pending) -> tuple[str, ...]:
        """The aliases that one signal fits."""
        return tuple(alias for bit, alias in enumerate(self.aliases) if pending.aliases >> bit & 1)


def filled_aliases(masks: Iterable[int], aliases: int) -> frozenset[int]:
    """The bits of the aliases that signals with these alias masks can fill, one each: a maximum matching (Kuhn's)."""
    counts: dict[int, int] = {}
    bound: dict[int, int] = {}
    signals: list[int] = []
    for mask in masks:
        counts[mask] = counts.get(mask, 0) + 1
        if counts[mask] <= aliases:  # more of the same kind fill nothing more
            signals.append(mask)
            _bind(len(signals) - 1, signals, bound, set(), aliases)
        if len(bound) == aliases:
            break
    return frozenset(bound)


def _bind(signal: int, signals: Sequence[int], bound: dict[int, int], tried: set[int], aliases: int) -> bool:
    for bit in range(aliases):
        if signals[signal] >> bit & 1 and bit not in tried:
            tried.add(bit)
            if bit not in bound or _bind(bound[bit], signals, bound, tried, aliases):
                bound[bit] = signal
                return True
    return False


@dataclass(slots=True)
class PendingFold:
    """Folds changelog records. `keep` says which heads and queued signals matter, by their set and their bytes."""

    keep: Callable[[SetName, bytes], bool] = lambda _name, _value: True
    _heads: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    _queued: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    _lives: dict[tuple[int, str], Life] = field(default_factory=dict)

    def take(self, partition: int, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Takes the next records of a partition. Raises `StateError` for one that cannot be read."""
        for key, value in records:
            try:
                self._take(partition, key, value)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                raise StateError(
                    f"changelog record {key!r} cannot be read: {error}",
                    hint="was it written by a newer version? run the same version as the workers",
                ) from error

    def sets(self) -> Iterator[PendingSet]:
        """The sets with something pending."""
        queues: dict[tuple[int, SetName], list[bytes]] = {}
        for (partition, key), value in self._queued.items():
            queues.setdefault((partition, _queued_set(key)), []).append(value)
        for (partition, key), value in self._heads.items():
            name = _head_set(key)
            queued = queues.pop((partition, name), [])
            yield self._set(partition, name, [*_decode_set(value).pending, *map(_decode_pending, queued)])
        for (partition, name), queued in queues.items():
            yield self._set(partition, name, list(map(_decode_pending, queued)))

    def _take(self, partition: int, key: bytes, value: bytes | None) -> None:
        kind, place = key[:1], (partition, key)
        if kind == b"S":
            wanted = value is not None and self.keep(_head_set(key), value) and bool(_decode_set(value).pending)
            _put(self._heads, place, value if wanted else None)
        elif kind == b"Q":
            wanted = value is not None and self.keep(_queued_set(key), value)
            _put(self._queued, place, value if wanted else None)
        elif kind == b"D":
            name = (partition, key[1:].decode())
            if value is None:
                self._lives.pop(name, None)
            else:
                self._lives[name] = _decode_life(value)

    def _set(self, partition: int, name: SetName, pending: list[Pending]) -> PendingSet:
        life = self._lives.get((partition, name[0]))
        pending.sort(key=lambda each: each.sequence)
        return PendingSet(
            *name,
            partition,
            () if life is None else life.aliases,
            0 if life is None else life.join_generation,
            tuple(pending),
        )


def fold_pending(
    connection: Connection, admin: AdminClient, changelog: str, fold: PendingFold, progress: Progress
) -> list[PendingSet]:
    """Reads the whole changelog into a fold and returns its sets. Raises `BrokerError`, `StateError`."""
    tps = partitions_of(admin, [changelog])
    starts, ends = _by_partition(start_offsets(admin, tps)), _by_partition(end_offsets(admin, tps))

    def take(partition: int, records: list[tuple[bytes, bytes | None]], _behind: int) -> None:
        fold.take(partition, records)

    restore(connection, changelog, starts, ends, take, interrupted=threading.Event(), progress=progress)
    return list(fold.sets())


def pending_of(
    connection: Connection,
    admin: AdminClient,
    changelog: str,
    has: Callable[[Pending], bool],
    hint: bytes,
    progress: Progress,
) -> list[PendingSet]:
    """The sets in which a signal waits; `hint` stands in the bytes of every entry of it.

    Reads the changelog once to find them and, where there are any, once more for what else is in them.
    """
    found = fold_pending(connection, admin, changelog, PendingFold(lambda _name, value: hint in value), progress)
    names = {(each.subscription, each.key) for each in found if any(map(has, each.pending))}
    if not names:
        return []
    whole = fold_pending(connection, admin, changelog, PendingFold(lambda name, _value: name in names), progress)
    return [each for each in whole if any(map(has, each.pending))]


def _put(entries: dict[tuple[int, bytes], bytes], place: tuple[int, bytes], value: bytes | None) -> None:
    if value is None:
        entries.pop(place, None)
    else:
        entries[place] = value


def _head_set(key: bytes) -> SetName:
    subscription, join_key = key[1:].decode().split("\0")
    return subscription, join_key


def _queued_set(key: bytes) -> SetName:
    subscription, join_key = key[1:-13].decode().split("\0")  # before its last zero byte, mask and index
    return subscription, join_key


def _by_partition(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {tp.partition: offset for tp, offset in offsets.items()}
