"""Which pending signals fire with an arriving one: a bipartite choice between signals and aliases.

The choice is the greedy basis of a transversal matroid: taking signals in order of arrival, keeping each one with which
all chosen ones can still be bound to aliases of their own, gives the set that is earliest in every place (Edmonds and
Fulkerson, 1965). Because a queue of signals with the same aliases can contribute no more signals than it has aliases,
only its first few are ever read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from signal_router.core.join_sets import OpenSet
from signal_router.core.tables import Pending
from signal_router.model.subscriptions import Policy, Subscription


def choose(join_set: OpenSet, arriving: Pending, subscription: Subscription) -> tuple[Pending, ...] | None:
    """Returns the signals that fire with the arriving one, in the aliases' order of declaration; None if none do."""
    count = len(subscription.members)
    if count == 1:
        return (arriving,)
    if not join_set.pending_count:
        return None
    newest_first = subscription.policy is Policy.LATEST
    if not join_set.queued:
        found = choose_in_head(join_set.head, arriving, count, subscription.within_ms, newest_first=newest_first)
        if found is not UNCLEAR:
            return found
    return _choose_anywhere(join_set, arriving, count, subscription.within_ms, newest_first=newest_first)


def _choose_anywhere(
    join_set: OpenSet, arriving: Pending, count: int, within_ms: int, *, newest_first: bool
) -> tuple[Pending, ...] | None:
    masks = join_set.masks()
    everything = arriving.aliases
    for mask in masks:
        everything |= mask
    if everything != (1 << count) - 1:
        return None
    masks.add(arriving.aliases)
    if all(mask & (mask - 1) == 0 for mask in masks):
        chosen = _one_alias_each(join_set, arriving, count, within_ms, newest_first=newest_first)
        if chosen is None:
            return None
        if _spread(chosen) <= within_ms:
            return chosen
    return _Search(join_set, arriving, count, within_ms, newest_first=newest_first).run()


UNCLEAR: tuple[Pending, ...] = ()
"""The answer of `choose_in_head` where the plain rule does not decide."""


def choose_in_head(
    head: Sequence[Pending], arriving: Pending, count: int, within_ms: int, *, newest_first: bool
) -> tuple[Pending, ...] | None:
    """The common case in one pass: all that is pending stands in the head, and every signal fits one alias."""
    arrived_at = arriving.signal.recorded_at
    chosen: list[Pending | None] = [None] * count
    if arriving.aliases & (arriving.aliases - 1):
        return UNCLEAR
    chosen[arriving.aliases.bit_length() - 1] = arriving
    missing = count - 1
    earliest = latest = arrived_at
    for pending in reversed(head) if newest_first else head:
        aliases, recorded_at = pending.aliases, pending.signal.recorded_at
        if aliases & (aliases - 1):
            return UNCLEAR
        bit = aliases.bit_length() - 1
        if chosen[bit] is None and abs(recorded_at - arrived_at) <= within_ms:
            chosen[bit] = pending
            missing -= 1
            if recorded_at < earliest:
                earliest = recorded_at
            elif recorded_at > latest:
                latest = recorded_at
    if missing:
        return None
    return tuple(chosen) if latest - earliest <= within_ms else UNCLEAR  # type: ignore[arg-type]  # none is missing


def _one_alias_each(
    join_set: OpenSet, arriving: Pending, count: int, within_ms: int, *, newest_first: bool
) -> tuple[Pending, ...] | None:
    low, high = arriving.signal.recorded_at - within_ms, arriving.signal.recorded_at + within_ms
    chosen = []
    for bit in range(count):
        if arriving.aliases == 1 << bit:
            chosen.append(arriving)
            continue
        for pending in join_set.arrivals(1 << bit, newest_first=newest_first):
            if low <= pending.signal.recorded_at <= high:
                chosen.append(pending)
                break
        else:
            return None
    return tuple(chosen)


def _spread(chosen: Iterable[Pending]) -> int:
    times = [pending.signal.recorded_at for pending in chosen]
    return max(times) - min(times)


class _Search:
    """The general case: signals that fit several aliases, or first choices that lie too far apart in time."""

    def __init__(self, join_set: OpenSet, arriving: Pending, count: int, within_ms: int, *, newest_first: bool) -> None:
        self._set = join_set
        self._arriving = arriving
        self._count = count
        self._within_ms = within_ms
        self._newest_first = newest_first
        self._masks = sorted(join_set.masks())

    def run(self) -> tuple[Pending, ...] | None:
        arrived_at = self._arriving.signal.recorded_at
        low, high = arrived_at - self._within_ms, arrived_at + self._within_ms
        passed_over: set[int] = set()
        chosen = self._choose(low, high, passed_over)
        if chosen is None:
            return None
        while chosen is not None:
            if _spread(chosen) <= self._within_ms:
                return self._bind(chosen)
            passed_over.add(self._oldest(chosen).sequence)
            chosen = self._choose(low, high, passed_over)
        return self._slide(low, high)

    def _slide(self, low: int, high: int) -> tuple[Pending, ...] | None:
        """Tries every stretch of time of the allowed length with the arriving signal in it: no complete set is lost."""
        arrived_at = self._arriving.signal.recorded_at
        starts = {
            pending.signal.recorded_at
            for mask in self._masks
            for pending in self._set.arrivals(mask)
            if low <= pending.signal.recorded_at <= min(high, arrived_at)
        }
        starts.add(arrived_at)
        for start in sorted(starts):
            chosen = self._choose(start, start + self._within_ms, set())
            if chosen is not None:
                return self._bind(chosen)
        return None

    def _choose(self, low: int, high: int, passed_over: set[int]) -> list[Pending] | None:
        pool = [
            pending
            for mask in self._masks
            for pending in islice(
                (
                    pending
                    for pending in self._set.arrivals(mask, newest_first=self._newest_first)
                    if low <= pending.signal.recorded_at <= high and pending.sequence not in passed_over
                ),
                mask.bit_count(),
            )
        ]
        pool.sort(key=lambda pending: pending.sequence, reverse=self._newest_first)
        chosen = [self._arriving]
        bound: dict[int, int] = {}
        _augment(chosen, 0, bound, set(), self._count)
        for pending in pool:
            if len(chosen) == self._count:
                break
            chosen.append(pending)
            if not _augment(chosen, len(chosen) - 1, bound, set(), self._count):
                chosen.pop()
        return chosen if len(chosen) == self._count else None

    def _oldest(self, chosen: list[Pending]) -> Pending:
        """The one to pass over. Never the arriving one: all others lie within reach of it, so it is not too old."""
        others = (pending for pending in chosen if pending is not self._arriving)
        return min(others, key=lambda pending: (pending.signal.recorded_at, pending.sequence))

    def _bind(self, chosen: list[Pending]) -> tuple[Pending, ...]:
        """Binds those with fewer aliases first, then earlier ones, to the first alias that leaves the rest bindable."""
        waiting = sorted(chosen, key=lambda pending: (pending.aliases.bit_count(), pending.sequence))
        free = (1 << self._count) - 1
        bound: dict[int, Pending] = {}
        while waiting:
            pending = waiting.pop(0)
            for bit in range(self._count):
                if pending.aliases & free & (1 << bit) and _bindable(waiting, free & ~(1 << bit), self._count):
                    bound[bit] = pending
                    free &= ~(1 << bit)
                    break
        return tuple(bound[bit] for bit in range(self._count))


def _augment(signals: list[Pending], which: int, bound: dict[int, int], seen: set[int], count: int) -> bool:
    """Kuhn's augmenting path: binds signal `which`, moving others where needed. `bound` maps alias bits to signals."""
    for bit in range(count):
        if not signals[which].aliases >> bit & 1 or bit in seen:
            continue
        seen.add(bit)
        if bit not in bound or _augment(signals, bound[bit], bound, seen, count):
            bound[bit] = which
            return True
    return False


def _bindable(signals: list[Pending], free: int, count: int) -> bool:
    bound: dict[int, int] = {}
    taken = {bit for bit in range(count) if not free >> bit & 1}
    return all(_augment(signals, which, bound, set(taken), count) for which in range(len(signals)))
