"""The table of one candidates partition: staged writes over a store.

Everything a stage writes stays here, decoded, until its transaction is known to be committed; then `staged` gives the
changelog's records and the store's writes from one and the same list. A void stage is dropped by `discard`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, TypeVar

import msgspec

from signal_router.core.tables import Due, JoinSet, Life, Pending, Progress, Remembered
from signal_router.state import keys
from signal_router.state.store import Store

_encode = msgspec.msgpack.Encoder().encode
_Entry: TypeAlias = JoinSet | Pending | Remembered | Life | Progress | int
_Value = TypeVar("_Value", JoinSet, Pending, Remembered, Life, Progress, int)


class _Kind:
    """Staged and read entries of one kind, by their key without the partition. None stands for "not there"."""

    __slots__ = ("decode", "read", "staged")

    def __init__(self, type_: type) -> None:
        self.decode = msgspec.msgpack.Decoder(type_).decode
        self.read: dict[bytes, _Entry | None] = {}
        self.staged: dict[bytes, _Entry | None] = {}


class PartitionTable:
    """The entries of one candidates partition, as `signal_router.core.tables.Table`."""

    def __init__(self, store: Store, partition: int) -> None:
        self.partition = partition
        self._store = store
        self._prefix = keys.partition_prefix(partition)
        self._sets: dict[str, JoinSet | None] = {}
        self._staged_sets: dict[str, JoinSet | None] = {}
        self._decode_set = msgspec.msgpack.Decoder(JoinSet).decode
        self._queued = _Kind(Pending)
        self._noted = _Kind(Remembered)
        self._counts = _Kind(int)
        self._lives = _Kind(Life)
        self._kinds = (self._queued, self._noted, self._counts, self._lives)
        self._progress: Progress | None = None
        self._staged_progress: Progress | None = None
        self._due: dict[bytes, bytes | None] = {}
        self._due_floor = 0
        self._journal: list[tuple[dict, object, object]] = []  # type: ignore[type-arg]

    # ---- the entries (see core.tables.Table for what each means)

    def join_set(self, subscription: str, key: str) -> JoinSet | None:
        """Reads the head of a set."""
        name = f"{subscription}\0{key}"
        try:
            return self._sets[name]
        except KeyError:
            raw = self._store.get(self._prefix + b"S" + name.encode())
            value = self._sets[name] = None if raw is None else self._decode_set(raw)
            return value

    def put_join_set(self, subscription: str, key: str, value: JoinSet | None) -> None:
        """Writes or deletes the head of a set."""
        name = f"{subscription}\0{key}"
        self._set(self._sets, name, value)
        self._set(self._staged_sets, name, value)

    def queued(self, subscription: str, key: str, aliases: int, index: int) -> Pending | None:
        """Reads a queued signal."""
        return self._get(self._queued, keys.queued_key(subscription, key, aliases, index), Pending)

    def put_queued(self, subscription: str, key: str, aliases: int, index: int, value: Pending | None) -> None:
        """Writes or deletes a queued signal."""
        self._put(self._queued, keys.queued_key(subscription, key, aliases, index), value)

    def noted(self, subscription: str, key: str, identity: str) -> Remembered | None:
        """Reads an identity noted outside the head."""
        return self._get(self._noted, keys.noted_key(subscription, key, identity), Remembered)

    def put_noted(self, subscription: str, key: str, identity: str, value: Remembered | None) -> None:
        """Writes or deletes an identity noted outside the head."""
        self._put(self._noted, keys.noted_key(subscription, key, identity), value)

    def noted_of(self, subscription: str, key: str) -> Iterator[Remembered]:
        """All identities of a set noted outside its head."""
        prefix = keys.noted_prefix(subscription, key)
        names = {raw[2:] for raw, _ in self._store.scan(self._prefix + prefix, self._prefix + keys.after(prefix))}
        names.update(name for name in self._noted.staged if name.startswith(prefix))
        for name in sorted(names):
            value = self._get(self._noted, name, Remembered)
            if value is not None:
                yield value

    def pending_count(self, subscription: str) -> int:
        """How many signals are pending for a subscription (for `""`: in the partition)."""
        return self._get(self._counts, keys.count_key(subscription), int) or 0

    def put_pending_count(self, subscription: str, count: int) -> None:
        """Writes a count; 0 deletes it."""
        self._put(self._counts, keys.count_key(subscription), count or None)

    def life(self, subscription: str) -> Life | None:
        """Reads which shape of a subscription the sets here belong to."""
        return self._get(self._lives, keys.life_key(subscription), Life)

    def put_life(self, subscription: str, value: Life | None) -> None:
        """Writes or deletes it."""
        self._put(self._lives, keys.life_key(subscription), value)

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
        prefix = f"{subscription}\0"
        start = keys.set_key(subscription, after) + (b"\0" if after else b"")
        staged = sorted(
            (name for name in self._staged_sets if name.startswith(prefix) and name[len(prefix) :] > after),
            key=str.encode,
        )
        at = 0
        for raw, _ in self._store.scan(self._prefix + start, self._prefix + keys.after(f"S{prefix}".encode())):
            name = raw[3:].decode()
            while at < len(staged) and staged[at].encode() < name.encode():
                yield from self._present(staged[at], prefix)
                at += 1
            if at < len(staged) and staged[at] == name:
                at += 1
            yield from self._present(name, prefix)
        for name in staged[at:]:
            yield from self._present(name, prefix)

    def due(self, before: int) -> Iterator[Due]:
        """The entries of the time index before a time, earliest first; once exhausted, later calls begin there."""
        bound = keys.due_bound(before)
        staged = sorted(key for key, value in self._due.items() if value is not None and key < bound)
        at = 0
        start = self._prefix + keys.due_bound(self._due_floor)
        for raw, _ in self._store.scan(start, self._prefix + bound):
            key = raw[2:]
            while at < len(staged) and staged[at] < key:
                if self._due.get(staged[at]) is not None:
                    yield keys.due_of(staged[at])
                at += 1
            if key not in self._due:
                yield keys.due_of(key)
        for key in staged[at:]:
            if self._due.get(key) is not None:
                yield keys.due_of(key)
        self._due_floor = max(self._due_floor, before)

    def put_due(self, due: Due) -> None:
        """Adds an entry to the time index."""
        self._set(self._due, keys.due_key(due), b"")

    def drop_due(self, due: Due) -> None:
        """Takes an entry out of the time index."""
        self._set(self._due, keys.due_key(due), None)

    # ---- staging

    @property
    def touched(self) -> bool:
        """Whether anything is staged."""
        return bool(self._staged_sets or self._staged_progress or self._due or any(kind.staged for kind in self._kinds))

    def savepoint(self) -> tuple[int, Progress | None, Progress | None]:
        """Marks a point to which `rollback` can return; earlier savepoints are given up."""
        self._journal.clear()
        return 0, self._progress, self._staged_progress

    def rollback(self, savepoint: tuple[int, Progress | None, Progress | None]) -> None:
        """Undoes every write since the savepoint."""
        for values, key, old in reversed(self._journal):
            if old is _MISSING:
                values.pop(key, None)
            else:
                values[key] = old
        self._journal.clear()
        _, self._progress, self._staged_progress = savepoint

    def staged(self) -> list[tuple[bytes, bytes | None]]:
        """The staged writes, encoded, without the partition's prefix: what goes to the changelog."""
        writes: list[tuple[bytes, bytes | None]] = []
        for name, value in self._staged_sets.items():
            writes.append((b"S" + name.encode(), None if value is None else _encode(value)))
        for kind in self._kinds:
            for key, entry in kind.staged.items():
                writes.append((key, None if entry is None else _encode(entry)))
        if self._staged_progress is not None:
            writes.append((keys.PROGRESS, _encode(self._staged_progress)))
        return writes

    def staged_locally(self) -> list[tuple[bytes, bytes | None]]:
        """The staged writes of the time index, which the changelog does not carry."""
        return list(self._due.items())

    def apply(self, writes: list[tuple[bytes, bytes | None]]) -> None:
        """Writes what was staged to the store, in the order given; the caller puts the position last. Then forgets the stage."""
        prefix = self._prefix
        self._store.write([(prefix + key, value) for key, value in writes])
        self.settle()

    def settle(self) -> None:
        """Forgets the staged writes, which the store has now; small entries stay at hand."""
        self._sets.clear()
        self._staged_sets.clear()
        self._due.clear()
        self._journal.clear()
        self._staged_progress = None
        for kind in self._kinds:
            kind.staged.clear()
        self._queued.read.clear()
        self._noted.read.clear()

    def discard(self) -> None:
        """Drops the staged writes and everything read: the next read comes from the store."""
        self.settle()
        self._counts.read.clear()
        self._lives.read.clear()
        self._progress = None
        self._due_floor = 0

    def _present(self, name: str, prefix: str) -> Iterator[str]:
        if self._staged_sets.get(name, _MISSING) is not None:
            yield name[len(prefix) :]

    def _get(self, kind: _Kind, key: bytes, _type: type[_Value]) -> _Value | None:
        try:
            return kind.read[key]  # type: ignore[return-value]
        except KeyError:
            raw = self._store.get(self._prefix + key)
            value = kind.read[key] = None if raw is None else kind.decode(raw)
            return value

    def _put(self, kind: _Kind, key: bytes, value: _Entry | None) -> None:
        self._set(kind.read, key, value)
        self._set(kind.staged, key, value)

    def _set(self, values: dict, key: object, value: object) -> None:  # type: ignore[type-arg]
        self._journal.append((values, key, values.get(key, _MISSING)))
        values[key] = value


_MISSING = object()
