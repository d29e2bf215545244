"""Which signals fire with an arriving one, for the reference evaluation.

A set is complete when signals that lie at most `within` apart can fill all aliases, one each. The arriving signal is
always one of them: before it came nothing was complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class Joining(Protocol):
    """What the choice looks at: the place in the order of joining, the time, the aliases that the signal fits."""

    @property
    def sequence(self) -> int: ...
    @property
    def recorded_at(self) -> int: ...
    @property
    def aliases(self) -> frozenset[str]: ...


T = TypeVar("T", bound=Joining)


def choose(
    arriving: T, waiting: Sequence[T], aliases: Sequence[str], within_ms: int, *, newest_first: bool
) -> dict[str, T] | None:
    """The signal for each alias, in declaration order; None where no complete set holds the arriving signal.

    `waiting` is what is pending in the set, in the order of joining; earlier arrivals are preferred, under
    `newest_first` later ones.
    """
    preferred = list(reversed(waiting)) if newest_first else list(waiting)
    eligible = [taken for taken in preferred if abs(taken.recorded_at - arriving.recorded_at) <= within_ms]
    chosen = _greedily(arriving, eligible, aliases)
    if chosen is None:
        return None  # not even with all that is near enough to the arriving signal
    passed_over: set[int] = set()
    while chosen is not None:
        if _spread(chosen) <= within_ms:
            return _bind(chosen, aliases)
        # The arriving signal is never the oldest here: all others lie within reach of it.
        others = [taken for taken in chosen if taken is not arriving]
        passed_over.add(min(others, key=lambda taken: (taken.recorded_at, taken.sequence)).sequence)
        chosen = _greedily(arriving, [taken for taken in eligible if taken.sequence not in passed_over], aliases)
    for start in sorted({taken.recorded_at for taken in [*eligible, arriving]}):
        if start <= arriving.recorded_at <= start + within_ms:
            near = [taken for taken in eligible if start <= taken.recorded_at <= start + within_ms]
            chosen = _greedily(arriving, near, aliases)
            if chosen is not None:
                return _bind(chosen, aliases)
    return None


def _greedily(arriving: T, eligible: Sequence[T], aliases: Sequence[str]) -> list[T] | None:
    """Takes signals in order of preference while all taken ones can be bound; None if they do not fill the aliases."""
    chosen = [arriving]
    refused: set[frozenset[str]] = set()  # who fits the same aliases as a refused one is refused as well
    for taken in eligible:
        if len(chosen) == len(aliases):
            break
        if taken.aliases in refused:
            continue
        if bindable([*chosen, taken], aliases):
            chosen.append(taken)
        else:
            refused.add(taken.aliases)
    return chosen if len(chosen) == len(aliases) else None


def _spread(chosen: Iterable[Joining]) -> int:
    times = [taken.recorded_at for taken in chosen]
    return max(times) - min(times)


def bindable(signals: Sequence[Joining], aliases: Iterable[str]) -> bool:
    """Whether the signals can be given aliases that they fit, each one of its own (Kuhn's augmenting paths)."""
    holders: dict[str, Joining] = {}

    def place(taken: Joining, tried: set[str]) -> bool:
        for alias in aliases:
            if alias in taken.aliases and alias not in tried:
                tried.add(alias)
                if alias not in holders or place(holders[alias], tried):
                    holders[alias] = taken
                    return True
        return False

    return all(place(taken, set()) for taken in signals)


def _bind(chosen: Sequence[T], aliases: Sequence[str]) -> dict[str, T]:
    """Binds what fits fewer aliases first, then what came earlier: to the first alias that leaves the rest bindable."""
    bound: dict[str, T] = {}
    waiting = sorted(chosen, key=lambda taken: (len(taken.aliases & set(aliases)), taken.sequence))
    while waiting:
        taken = waiting.pop(0)
        for alias in aliases:
            free = [other for other in aliases if other not in bound and other != alias]
            if alias in taken.aliases and alias not in bound and bindable(waiting, free):
                bound[alias] = taken
                break
    return {alias: bound[alias] for alias in aliases}
