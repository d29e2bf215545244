"""The table of one candidates partition: staged writes over a store.

Everything a stage writes stays here, decoded, until its transaction is known to be committed; then `staged` gives the
changelog's records and the store's writes from one and the same list. A void stage is dropped by `discard`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import groupby
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from signal_router.core.tables import Due, JoinSet, Life, Pending, Progress, Remembered
from signal_router.state import keys
from signal_router.state.store import Store

_encode = msgspec.msgpack.Encoder().encode
_Value = TypeVar("_Value")
_ABSENT = object()

Savepoint: TypeAlias = tuple[Progress | None, Progress | None, int]
"""A point to which a table can return: the progress, the staged progress, the floor of the time index."""


class _Entries(Generic[_Value]):
    """Entries of one kind by their key without the partition's prefix, read and staged. None stands for "not there"."""

    __slots__ = ("_decode", "_journal", "_prefix", "_store", "read", "staged")

    def __init__(self, kind: type[_Value], store: Store, prefix: bytes, journal: list[_Undo]) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._store = store
        self._prefix = prefix
        self._journal = journal
        self.read: dict[bytes, _Value | None] = {}
        self.staged: dict[bytes, _Value | None] = {}

    def get(self, key: bytes) -> _Value | None:
        if key in self.read:
            return self.read[key]
        raw = self._store.get(self._prefix + key)
        value = self.read[key] = None if raw is None else self._decode(raw)
        return value

    def put(self, key: bytes, value: _Value | None) -> None:
        staged = self.staged
        self._journal.append((self, key, staged.get(key, _ABSENT)))
        staged[key] = self.read[key] = value

    def undo(self, key: bytes, before: Any) -> None:  # noqa: ANN401 - a value, or that there was none
        if before is not _ABSENT:
            self.staged[key] = self.read[key] = before
        else:
            del self.staged[key], self.read[key]


_Undo: TypeAlias = tuple[_Entries[Any] | None, Any, Any]
"""What was written, by its kind and key, and what was staged there before; for counts: None, the subscription, and
its count, or None where the count was not staged."""


class PartitionTable:
    """The entries of one candidates partition, as `signal_router.core.tables.Table`."""

    def __init__(self, store: Store, partition: int) -> None:
        self.partition = partition
        self._store = store
        self._prefix = prefix = keys.partition_prefix(partition)
        self._journal: list[_Undo] = []
        self._sets = _Entries(JoinSet, store, prefix, self._journal)
        self._queued = _Entries(Pending, store, prefix, self._journal)
        self._noted = _Entries(Remembered, store, prefix, self._journal)
        self._pending_counts: dict[str, int] = {}
        self._counted: set[str] = set()
        self._lives = _Entries(Life, store, prefix, self._journal)
        self._due = _Entries(bytes, store, prefix, self._journal)
        self._progress: Progress | None = None
        self._staged_progress: Progress | None = None
        # Below this time the index holds nothing. RocksDB would pass over every deleted entry there, again and again.
        self._due_floor = 0
        self._next_due_floor = 0

    # ---- the entries (see core.tables.Table for what each means)

    def join_set(self, subscription: str, key: str) -> JoinSet | None:
        """Reads the head of a set."""
        return self._sets.get(keys.set_key(subscription, key))

    def put_join_set(self, subscription: str, key: str, value: JoinSet | None) -> None:
        """Writes or deletes the head of a set."""
        self._sets.put(keys.set_key(subscription, key), value)

    def replace_join_set(self, subscription: str, key: str, due: int, value: JoinSet) -> None:
        """Writes the head of a set, and moves its entry of the time index from `due` (0 = none) to `value.due`."""
        name = keys.set_key(subscription, key)
        self._sets.put(name, value)
        at = value.due
        if at != due:
            if due:
                self._due.put(keys.set_due_key(due, name), None)
            if at:
                self._open_index(at)
                self._due.put(keys.set_due_key(at, name), b"")

    def queued(self, subscription: str, key: str, aliases: int, index: int) -> Pending | None:
        """Reads a queued signal."""
        return self._queued.get(keys.queued_key(subscription, key, aliases, index))

    def put_queued(self, subscription: str, key: str, aliases: int, index: int, value: Pending | None) -> None:
        """Writes or deletes a queued signal."""
        self._queued.put(keys.queued_key(subscription, key, aliases, index), value)

    def noted(self, subscription: str, key: str, identity: str) -> Remembered | None:
        """Reads an identity noted outside the head."""
        return self._noted.get(keys.noted_key(subscription, key, identity))

    def put_noted(self, subscription: str, key: str, identity: str, value: Remembered | None) -> None:
        """Writes or deletes an identity noted outside the head."""
        self._noted.put(keys.noted_key(subscription, key, identity), value)

    def noted_of(self, subscription: str, key: str) -> Iterator[Remembered]:
        """All identities of a set noted outside its head."""
        prefix = keys.noted_prefix(subscription, key)
        for name in self._keys(prefix, keys.after(prefix), self._noted.staged):
            value = self._noted.get(name)
            if value is not None:
                yield value

    def pending_count(self, subscription: str) -> int:
        """How many signals are pending for a subscription (for `""`: in the partition)."""
        count = self._pending_counts.get(subscription)
        if count is None:
            raw = self._store.get(self._prefix + keys.count_key(subscription))
            count = self._pending_counts[subscription] = 0 if raw is None else msgspec.msgpack.decode(raw, type=int)
        return count

    def add_pending(self, subscription: str, by: int) -> None:
        """Changes the counts of a subscription and of the partition."""
        counts = self._pending_counts
        for of in (subscription, ""):
            count = counts.get(of)
            if count is None:
                count = self.pending_count(of)
            self._journal.append((None, of, count))
            counts[of] = count + by
            if of not in self._counted:
                self._stage_count(of)

    def put_pending_count(self, subscription: str, count: int) -> None:
        """Writes a count; 0 deletes it."""
        self._journal.append((None, subscription, self.pending_count(subscription)))
        self._pending_counts[subscription] = count
        if subscription not in self._counted:
            self._stage_count(subscription)

    def _stage_count(self, subscription: str) -> None:
        self._journal.append((None, subscription, None))
        self._counted.add(subscription)

    def life(self, subscription: str) -> Life | None:
        """Reads which shape of a subscription the sets here belong to."""
        return self._lives.get(keys.life_key(subscription))

    def put_life(self, subscription: str, value: Life | None) -> None:
        """Writes or deletes it."""
        self._lives.put(keys.life_key(subscription), value)

    def progress(self) -> Progress:
        """Reads where the partition stands."""
        progress = self._progress
        if progress is None:
            raw = self._store.get(self._prefix + keys.PROGRESS)
            progress = Progress() if raw is None else msgspec.msgpack.decode(raw, type=Progress)
            self._progress = progress
        return progress

    def put_progress(self, value: Progress) -> None:
        """Writes it."""
        self._progress = self._staged_progress = value

    def keys_of(self, subscription: str, after: str = "") -> Iterator[str]:
        """The join keys of a subscription's sets behind a key, in order of their text."""
        prefix = keys.set_key(subscription, "")
        # No key's text holds a zero byte, so this lies behind `after` and before all that come later.
        start = keys.set_key(subscription, f"{after}\0") if after else prefix
        for name in self._keys(start, keys.after(prefix), self._sets.staged):
            yield name[len(prefix) :].decode()

    def due(self, before: int) -> Iterator[Due]:
        """The entries of the time index before a time, earliest first; those added meanwhile are left for later."""
        if before <= self._due_floor:
            return
        self._next_due_floor = before
        for key in self._keys(keys.due_bound(self._due_floor), keys.due_bound(before), self._due.staged):
            yield keys.due_of(key)
        self._due_floor = max(self._due_floor, self._next_due_floor)

    def put_due(self, due: Due) -> None:
        """Adds an entry to the time index."""
        self._open_index(due.at)
        self._due.put(keys.due_key(due), b"")

    def drop_due(self, due: Due) -> None:
        """Takes an entry out of the time index."""
        self._due.put(keys.due_key(due), None)

    # ---- staging

    @property
    def touched(self) -> bool:
        """Whether anything is staged."""
        staged = self._staged_progress is not None or bool(self._counted)
        return staged or any(entries.staged for entries in self._all())

    def savepoint(self) -> Savepoint:
        """Marks a point to which `rollback` can return; earlier savepoints are given up."""
        self._journal.clear()
        return self._progress, self._staged_progress, self._due_floor

    def rollback(self, savepoint: Savepoint) -> None:
        """Undoes every write since the savepoint."""
        for entries, key, before in reversed(self._journal):
            if entries is not None:
                entries.undo(key, before)
            elif before is None:
                self._counted.discard(key)
            else:
                self._pending_counts[key] = before
        self._journal.clear()
        self._progress, self._staged_progress, due_floor = savepoint
        self._due_floor = min(self._due_floor, due_floor)

    def staged(self) -> list[tuple[bytes, bytes | None]]:
        """The staged writes, encoded, without the partition's prefix: what goes to the changelog."""
        writes = [
            (key, None if value is None else _encode(value))
            for entries in (self._sets, self._queued, self._noted, self._lives)
            for key, value in entries.staged.items()
        ]
        for subscription in self._counted:
            count = self._pending_counts[subscription]
            writes.append((keys.count_key(subscription), _encode(count) if count else None))
        if self._staged_progress is not None:
            writes.append((keys.PROGRESS, _encode(self._staged_progress)))
        return writes

    def staged_locally(self) -> list[tuple[bytes, bytes | None]]:
        """The staged writes of the time index, which the changelog does not carry."""
        return list(self._due.staged.items())

    def apply(self, writes: list[tuple[bytes, bytes | None]]) -> None:
        """Writes what was staged to the store, in the order given (the position last), then forgets the stage."""
        prefix = self._prefix
        self._store.write([(prefix + key, value) for key, value in writes])
        self.settle()

    def settle(self) -> None:
        """Forgets the staged writes, which the store has now; small entries stay at hand."""
        for entries in self._all():
            entries.staged.clear()
        self._journal.clear()
        self._counted.clear()
        self._staged_progress = None
        for entries in (self._sets, self._queued, self._noted, self._due):
            entries.read.clear()

    def discard(self) -> None:
        """Drops the staged writes and everything read: the next read comes from the store."""
        self.settle()
        self._pending_counts.clear()
        self._lives.read.clear()
        self._progress = None
        self._due_floor = 0

    def _open_index(self, at: int) -> None:
        """Lets the next look at the time index begin at a time at the latest."""
        if at < self._due_floor:  # noqa: PLR1730 - a call, for nearly every candidate
            self._due_floor = at
        if at < self._next_due_floor:  # noqa: PLR1730
            self._next_due_floor = at

    def _all(self) -> tuple[_Entries[Any], ...]:
        return (self._sets, self._queued, self._noted, self._lives, self._due)

    def _keys(self, start: bytes, end: bytes, staged: Mapping[bytes, object]) -> Iterator[bytes]:
        """The keys of start ≤ key < end, in order: those in the store and those staged when the iteration began.

        A key that was deleted before its turn is passed over.
        """
        added = sorted(key for key, value in staged.items() if value is not None and start <= key < end)
        length = len(self._prefix)
        stored = (key[length:] for key, _ in self._store.scan(self._prefix + start, self._prefix + end))
        for key, _ in groupby(merge(stored, added)):
            if staged.get(key, _ABSENT) is not None:
                yield key
