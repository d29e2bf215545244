"""Where members are posted: nodes of postings, which grow into nodes of nodes where many members share a value."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

from signal_router.core.access import Access, ByValues, access_paths, proves
from signal_router.core.join_keys import JoinPlan
from signal_router.core.postings import Postings
from signal_router.core.predicates import ABSENT, Check, Fields, compile_check
from signal_router.model.subscriptions import Member, Subscription

LIST_BOUND = 24
"""Entries of a posting list before it becomes a node: checking a few costs less than a node's lookups and memory."""


class Entry:
    """One member in the index. `check` is what its place in the index does not prove, None where that is nothing."""

    __slots__ = ("bit", "check", "member", "plan", "subscription")

    def __init__(self, subscription: Subscription, member: Member, bit: int, plan: JoinPlan | None) -> None:
        self.subscription = subscription
        self.member = member
        self.bit = bit
        self.plan = plan
        self.check: Check | None = None

    def found_by(self, path: Access | None) -> None:
        """Notes by which path, of all its paths, every signal comes to this entry."""
        predicates = self.member.predicates
        self.check = compile_check([each for each in predicates if path is None or not proves(path, each)])


class Node:
    """Members posted by their access paths, but for those over the parameters `used` on the way here."""

    __slots__ = ("_by_parameter", "_placed", "_rest", "_used")

    def __init__(self, used: frozenset[str]) -> None:
        self._used = used
        self._by_parameter: dict[str, Postings[_Bucket]] = {}
        self._placed: dict[Entry, int] = {}
        self._rest: dict[Entry, None] = {}

    @property
    def count(self) -> int:
        return len(self._placed)

    def add(self, entry: Entry, paths: tuple[Access, ...]) -> None:
        """Posts an entry under the most selective of its `access_paths`."""
        position = self._cheapest(paths)
        self._placed[entry] = position
        if not self._used:
            entry.found_by(None if position < 0 else paths[position])
        if position < 0:
            self._rest[entry] = None
            return
        path = paths[position]
        postings = self._by_parameter.setdefault(path.parameter, Postings())
        used = self._used | {path.parameter}
        for key in _keys(path):
            bucket = postings.get(path, key)
            changed = _with_entry(bucket, entry, paths, used)
            if changed is not bucket:
                postings.put(path, key, changed)

    def remove(self, entry: Entry) -> None:
        """Takes an entry out."""
        position = self._placed.pop(entry)
        if position < 0:
            del self._rest[entry]
            return
        path = access_paths(entry.member)[position]
        postings = self._by_parameter[path.parameter]
        for key in _keys(path):
            bucket = postings.get(path, key)
            if bucket is not None and _without_entry(bucket, entry):
                postings.drop(path, key)
        if postings.empty:
            del self._by_parameter[path.parameter]

    def visit(self, fields: Fields, visited: list[Entry]) -> None:
        """Collects the entries that may match."""
        by_parameter = self._by_parameter
        if by_parameter:
            for name in fields if len(fields) < len(by_parameter) else by_parameter:
                postings = by_parameter.get(name)
                value = fields.get(name, ABSENT)
                if postings is None or value is ABSENT:
                    continue
                values = postings.values
                if values is not None:
                    bucket = values.get(value if type(value) is not bool else ("boolean", value))
                    if bucket is not None:
                        if type(bucket) is list:
                            visited += bucket
                        else:
                            _visit(bucket, fields, visited)
                if postings.others:
                    for bucket in postings.found(value):
                        if type(bucket) is list:
                            visited += bucket
                        else:
                            _visit(bucket, fields, visited)
        if self._rest:
            visited += self._rest

    def _cheapest(self, paths: tuple[Access, ...]) -> int:
        """Picks the path with the rarest values, then the most selective of the others; -1 where none is left."""
        best = other = -1
        fewest = 0
        for position, path in enumerate(paths):
            if path.parameter in self._used:
                continue
            if isinstance(path, ByValues):
                size = self._posted(path)
                if best < 0 or size < fewest:
                    best, fewest = position, size
            elif other < 0:
                other = position
        return other if best < 0 else best

    def _posted(self, path: ByValues) -> int:
        postings = self._by_parameter.get(path.parameter)
        if postings is None:
            return 0
        return max(_size(postings.get(path, value)) for value in path.values)


_Bucket: TypeAlias = "list[Entry] | Node"


def _size(bucket: _Bucket | None) -> int:
    if bucket is None:
        return 0
    return len(bucket) if isinstance(bucket, list) else bucket.count


def _with_entry(bucket: _Bucket | None, entry: Entry, paths: tuple[Access, ...], used: frozenset[str]) -> _Bucket:
    if bucket is None:
        return [entry]
    if isinstance(bucket, Node):
        bucket.add(entry, paths)
        return bucket
    bucket.append(entry)
    if len(bucket) <= LIST_BOUND:
        return bucket
    node = Node(used)
    for each in bucket:
        node.add(each, access_paths(each.member))
    return node


def _without_entry(bucket: _Bucket, entry: Entry) -> bool:
    """Takes an entry out; True if nothing is left."""
    bucket.remove(entry)
    return _size(bucket) == 0


def _visit(bucket: _Bucket, fields: Fields, visited: list[Entry]) -> None:
    if isinstance(bucket, list):
        visited += bucket
    else:
        bucket.visit(fields, visited)


def _keys(path: Access) -> tuple[Hashable, ...]:
    """The keys under which a path is posted; all but `in` have one."""
    return path.values if isinstance(path, ByValues) else (None,)
