"""The seam to a local store: ordered bytes to bytes, written in atomic batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

Writes: TypeAlias = Sequence[tuple[bytes, bytes | None]]
"""Keys and their new values; None deletes."""


class Store(Protocol):
    """Ordered bytes to bytes. One process has it open at a time."""

    def get(self, key: bytes) -> bytes | None:
        """Reads one value."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Reads start ≤ key < end in order of the keys, as they were when the iteration began or later."""

    def write(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Writes all or nothing. A batch may be split where its order is kept and its last entries make it valid."""

    def load(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Writes many entries, all or nothing, in any order; faster than `write` where there are thousands."""

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Deletes start ≤ key < end."""

    def close(self) -> None:
        """Closes the store. Idempotent."""


class MemoryStore:
    """A store in memory, under the same contract as the one on disk."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []  # in order, as of the last scan; may name keys that are gone
        self._grown = False

    def get(self, key: bytes) -> bytes | None:
        """Reads one value."""
        return self._values.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Reads start ≤ key < end in order of the keys."""
        if self._grown:
            self._keys = sorted(self._values)
            self._grown = False
        for key in self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]:
            value = self._values.get(key)
            if value is not None:
                yield key, value

    def write(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Writes all."""
        for key, value in writes:
            if value is None:
                self._values.pop(key, None)
                continue
            self._grown = self._grown or key not in self._values
            self._values[key] = value

    def load(self, entries: Mapping[bytes, bytes | None]) -> None:
        """Writes all."""
        self.write(entries.items())

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Deletes start ≤ key < end."""
        self.write([(key, None) for key, _ in list(self.scan(start, end))])

    def close(self) -> None:
        """Does nothing: the values live as long as the object."""
