"""The postings over one parameter: what is kept under a value, an interval, a prefix, or its presence."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from signal_router.core.access import Access, ByInterval, ByPrefix, ByPresence, ByValues
from signal_router.core.intervals import IntervalMap
from signal_router.model.values import Value

Bucket = TypeVar("Bucket")


class Postings(Generic[Bucket]):
    """One bucket per value, interval, prefix, and one for presence. What is not used is not made.

    `values` is public for the one reader that looks into it for every signal; `others` says whether `found` has more.
    """

    __slots__ = ("_numbers", "_prefixes", "_present", "_strings", "others", "values")

    def __init__(self) -> None:
        self.values: dict[Hashable, Bucket] | None = None
        self.others = False
        self._numbers: IntervalMap[Bucket] | None = None
        self._strings: IntervalMap[Bucket] | None = None
        self._prefixes: dict[int, dict[str, Bucket]] | None = None
        self._present: Bucket | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is posted."""
        return not (self.values or self.others)

    def found(self, value: Value) -> list[Bucket]:
        """Gives the buckets, other than that of the value itself, that hold what may match it."""
        found: list[Bucket] = [] if self._present is None else [self._present]
        if isinstance(value, str):
            if self._strings is not None:
                found += self._strings.holding(value)
            if self._prefixes is not None:
                for length, table in self._prefixes.items():
                    bucket = table.get(value[:length])  # shorter than length: equal to no prefix of that length
                    if bucket is not None:
                        found.append(bucket)
        elif self._numbers is not None and value is not None and type(value) is not bool:
            found += self._numbers.holding(value)
        return found

    def get(self, path: Access, key: Hashable) -> Bucket | None:
        """Gives the bucket of a path; `key` is the typed value of a path by values, and unused for others."""
        if isinstance(path, ByValues):
            return None if self.values is None else self.values.get(key)
        if isinstance(path, ByInterval):
            intervals = self._strings if path.strings else self._numbers
            return None if intervals is None else intervals.get(path.interval)
        if isinstance(path, ByPrefix):
            return None if self._prefixes is None else self._prefixes.get(len(path.prefix), {}).get(path.prefix)
        return self._present

    def put(self, path: Access, key: Hashable, bucket: Bucket) -> None:
        """Sets the bucket of a path."""
        if isinstance(path, ByValues):
            if self.values is None:
                self.values = {}
            self.values[key] = bucket
            return
        self.others = True
        if isinstance(path, ByInterval):
            self._intervals(strings=path.strings).put(path.interval, bucket)
        elif isinstance(path, ByPrefix):
            if self._prefixes is None:
                self._prefixes = {}
            self._prefixes.setdefault(len(path.prefix), {})[path.prefix] = bucket
        else:
            self._present = bucket

    def drop(self, path: Access, key: Hashable) -> None:
        """Forgets the bucket of a path."""
        if isinstance(path, ByValues):
            if self.values is not None:
                del self.values[key]
            return
        if isinstance(path, ByInterval):
            self._intervals(strings=path.strings).remove(path.interval)
        elif isinstance(path, ByPrefix):
            self._drop_prefix(path.prefix)
        elif isinstance(path, ByPresence):
            self._present = None
        self.others = bool(self._numbers or self._strings or self._prefixes or self._present is not None)

    def _drop_prefix(self, prefix: str) -> None:
        if self._prefixes is None:
            return
        table = self._prefixes[len(prefix)]
        del table[prefix]
        if not table:
            del self._prefixes[len(prefix)]

    def _intervals(self, *, strings: bool) -> IntervalMap[Bucket]:
        intervals = self._strings if strings else self._numbers
        if intervals is None:
            intervals = IntervalMap()
            if strings:
                self._strings = intervals
            else:
                self._numbers = intervals
        return intervals
