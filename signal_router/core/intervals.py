"""A set of intervals that says which of them hold a value: what the match index asks for ranges.

A treap (Seidel and Aragon, 1996) ordered by lower bound, each node knowing the largest upper bound below it. Finding
the k intervals that hold a value takes O(log n + k) steps where they lie apart, O(k log n) at worst; an edit takes
O(log n), so that one edit among 100,000 intervals costs microseconds; many edits at once are put off until the next
look and built in one go. Own code, because the interval trees on the package index are rebuilt on edits or compare with
floats only.

A bound is a tuple, so that open, closed and missing ones compare with each other and with the looked-up value without
cases: `(1, x, 0)` stands just below x, `(1, x, 1)` at x, `(1, x, 2)` just above it, `(0,)` below and `(2,)` above
everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Generic, TypeAlias, TypeVar

Bound: TypeAlias = tuple[int | float | str, ...]
Interval: TypeAlias = tuple[Bound, Bound]

LOWEST: Bound = (0,)
HIGHEST: Bound = (2,)

Held = TypeVar("Held")

_BULK = 64
"""Waiting edits from which rebuilding may be cheaper than inserting one by one."""


def above(value: float | str, *, closed: bool) -> Bound:
    """The lower bound of what is greater than `value`, with `value` itself where it is closed."""
    return (1, value, 0 if closed else 2)


def below(value: float | str, *, closed: bool) -> Bound:
    """The upper bound of what is less than `value`, with `value` itself where it is closed."""
    return (1, value, 2 if closed else 0)


class _Node(Generic[Held]):
    __slots__ = ("held", "highest", "interval", "left", "priority", "right")

    def __init__(self, interval: Interval, held: Held, priority: float) -> None:
        self.interval = interval
        self.held = held
        self.priority = priority
        self.highest = interval[1]
        self.left: _Node[Held] | None = None
        self.right: _Node[Held] | None = None


class IntervalMap(Generic[Held]):
    """Distinct intervals, all over numbers or all over strings, each holding one thing."""

    __slots__ = ("_nodes", "_random", "_root", "_waiting")

    def __init__(self) -> None:
        self._nodes: dict[Interval, _Node[Held]] = {}
        self._waiting: list[_Node[Held]] = []
        self._root: _Node[Held] | None = None
        self._random = Random(0)  # seeded: the same edits give the same tree

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Held]:
        return (node.held for node in self._nodes.values())

    def get(self, interval: Interval) -> Held | None:
        """Gives what an interval holds."""
        node = self._nodes.get(interval)
        return None if node is None else node.held

    def put(self, interval: Interval, held: Held) -> None:
        """Sets what an interval holds; an interval that no value can satisfy is kept and never found."""
        node = self._nodes.get(interval)
        if node is not None:
            node.held = held
            return
        node = self._nodes[interval] = _Node(interval, held, self._random.random())
        self._waiting.append(node)

    def remove(self, interval: Interval) -> None:
        """Forgets an interval."""
        self._settle()
        del self._nodes[interval]
        self._root = _without(self._root, interval)

    def holding(self, value: float | str) -> list[Held]:
        """Gives what the intervals around `value` hold, in no particular order."""
        if self._waiting:
            self._settle()
        point: Bound = (1, value, 1)
        found: list[Held] = []
        stack = [self._root] if self._root is not None else []
        while stack:
            node = stack.pop()
            left = node.left
            if left is not None and left.highest > point:
                stack.append(left)
            low, high = node.interval
            if low < point:
                if high > point:
                    found.append(node.held)
                right = node.right
                if right is not None and right.highest > point:
                    stack.append(right)
        return found

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        if len(waiting) > _BULK and len(waiting) * 16 > len(self._nodes):
            self._root = _built(sorted(self._nodes.values(), key=_interval_of))
            return
        for node in waiting:
            self._root = _with(self._root, node)


def _interval_of(node: _Node[Held]) -> Interval:
    return node.interval


def _update(node: _Node[Held]) -> None:
    highest = node.interval[1]
    if node.left is not None and node.left.highest > highest:
        highest = node.left.highest
    if node.right is not None and node.right.highest > highest:
        highest = node.right.highest
    node.highest = highest


def _built(nodes: list[_Node[Held]]) -> _Node[Held] | None:
    """Builds the treap of sorted nodes in one pass; `spine` is its right edge, finished from its lower end."""
    spine: list[_Node[Held]] = []
    for node in nodes:
        node.left = node.right = last = None
        while spine and spine[-1].priority < node.priority:
            last = spine.pop()
            _update(last)
        node.left = last
        if spine:
            spine[-1].right = node
        spine.append(node)
    root = spine[0] if spine else None
    while spine:
        _update(spine.pop())
    return root


def _with(root: _Node[Held] | None, node: _Node[Held]) -> _Node[Held]:
    if root is None:
        node.left = node.right = None
        _update(node)
        return node
    if node.priority > root.priority:
        node.left, node.right = _split(root, node.interval)
        _update(node)
        return node
    if node.interval < root.interval:
        root.left = _with(root.left, node)
    else:
        root.right = _with(root.right, node)
    _update(root)
    return root


def _split(root: _Node[Held] | None, at: Interval) -> tuple[_Node[Held] | None, _Node[Held] | None]:
    if root is None:
        return None, None
    if root.interval < at:
        root.right, above_it = _split(root.right, at)
        _update(root)
        return root, above_it
    below_it, root.left = _split(root.left, at)
    _update(root)
    return below_it, root


def _without(root: _Node[Held] | None, interval: Interval) -> _Node[Held] | None:
    if root is None:
        return None
    if root.interval == interval:
        return _merged(root.left, root.right)
    if interval < root.interval:
        root.left = _without(root.left, interval)
    else:
        root.right = _without(root.right, interval)
    _update(root)
    return root


def _merged(left: _Node[Held] | None, right: _Node[Held] | None) -> _Node[Held] | None:
    if left is None or right is None:
        return left or right
    if left.priority > right.priority:
        left.right = _merged(left.right, right)
        _update(left)
        return left
    right.left = _merged(left, right.left)
    _update(right)
    return right
