"""Access paths: by which of its predicates a member can be found, without looking at all members.

For every parameter a member asks about there is one: by its values (`=`, `in`), by an interval (`<` to `>=`), by a
prefix, or by its mere presence (all others but `exists: false`, as none of them holds on a missing parameter). The
match index posts a member under the most selective of them and checks the rest when it is found.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from signal_router.core.intervals import HIGHEST, LOWEST, Bound, Interval, above, below
from signal_router.model.subscriptions import Member, Operator, Predicate
from signal_router.model.values import typed


class Selectivity(IntEnum):
    """How much an access path is expected to leave out; less is better."""

    VALUES = 0
    PREFIX = 1
    INTERVAL = 2
    HALF_LINE = 3
    PRESENCE = 4


class ByValues(NamedTuple):
    """The parameter has one of these typed values."""

    parameter: str
    values: tuple[Hashable, ...]


class ByInterval(NamedTuple):
    """The parameter is a number, or a string, in this interval."""

    parameter: str
    strings: bool
    interval: Interval


class ByPrefix(NamedTuple):
    """The parameter is a string that begins so."""

    parameter: str
    prefix: str


class ByPresence(NamedTuple):
    """The parameter is there."""

    parameter: str


Access = ByValues | ByInterval | ByPrefix | ByPresence

_VALUED = {Operator.EQ, Operator.IN}
_ORDER = {Operator.LT, Operator.LE, Operator.GT, Operator.GE}


def access_paths(member: Member) -> tuple[Access, ...]:
    """Gives one path per parameter, the most selective kinds first, in declaration order among equals."""
    if len(member.predicates) == 1:
        path = _path(member.predicates[0].parameter, member.predicates)
        return () if path is None else (path,)
    by_parameter: dict[str, list[Predicate]] = {}
    for predicate in member.predicates:
        by_parameter.setdefault(predicate.parameter, []).append(predicate)
    paths = (_path(parameter, predicates) for parameter, predicates in by_parameter.items())
    return tuple(sorted((path for path in paths if path is not None), key=selectivity))


def selectivity(path: Access) -> Selectivity:
    """Says of what kind a path is."""
    if isinstance(path, ByValues):
        return Selectivity.VALUES
    if isinstance(path, ByPrefix):
        return Selectivity.PREFIX
    if isinstance(path, ByPresence):
        return Selectivity.PRESENCE
    return Selectivity.HALF_LINE if LOWEST in path.interval or HIGHEST in path.interval else Selectivity.INTERVAL


def proves(path: Access, predicate: Predicate) -> bool:
    """Whether a member that was found by the path satisfies the predicate, so that it need not be checked."""
    if predicate.parameter != path.parameter:
        return False
    operator, operand = predicate.operator, predicate.operand
    if isinstance(path, ByValues):
        return operator in _VALUED and _values(predicate) == path.values
    if isinstance(path, ByInterval):
        return operator in _ORDER and isinstance(operand, str) is path.strings
    if isinstance(path, ByPrefix):
        return operator is Operator.PREFIX and path.prefix.startswith(str(operand))
    return operator is Operator.EXISTS and operand is True


def _path(parameter: str, predicates: Sequence[Predicate]) -> Access | None:
    valued = [_values(each) for each in predicates if each.operator in _VALUED]
    if valued:
        return ByValues(parameter, min(valued, key=len))
    prefixes = [str(each.operand) for each in predicates if each.operator is Operator.PREFIX]
    if prefixes:
        return ByPrefix(parameter, max(prefixes, key=len))
    ordered = [each for each in predicates if each.operator in _ORDER]
    if ordered:
        return _interval(parameter, ordered)
    if all(each.operator is Operator.EXISTS and each.operand is False for each in predicates):
        return None
    return ByPresence(parameter)


def _values(predicate: Predicate) -> tuple[Hashable, ...]:
    operand = predicate.operand
    elements: Iterable[Hashable] = map(typed, operand) if isinstance(operand, tuple) else (typed(operand),)
    return tuple(dict.fromkeys(elements))


def _interval(parameter: str, predicates: Sequence[Predicate]) -> Access:
    """Intersects the bounds. Where some are numbers and some strings nothing matches, so either kind will do."""
    strings = isinstance(predicates[0].operand, str)
    low: Bound = LOWEST
    high: Bound = HIGHEST
    for predicate in predicates:
        operand = predicate.operand
        if not isinstance(operand, str | int | float) or isinstance(operand, str) is not strings:
            continue
        if predicate.operator in (Operator.GT, Operator.GE):
            low = max(low, above(operand, closed=predicate.operator is Operator.GE))
        else:
            high = min(high, below(operand, closed=predicate.operator is Operator.LE))
    return ByInterval(parameter, strings, (low, high))
