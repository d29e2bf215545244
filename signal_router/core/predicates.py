"""Predicates: whether a signal's parameter is what a member asks for.

A predicate on a missing parameter or across types is false, and so is its negation; only `exists: false` holds there.
So every test but that one asks for the type first. Numbers compare by exact value and strings by code point, both as
Python does; that `True == 1` in Python is taken care of by the type tests.

`$name` is a context attribute. `fields_of` puts both kinds under their names into one mapping; the compiled checks read
that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import TypeAlias

from signal_router.model.signals import Signal
from signal_router.model.subscriptions import Operator, Predicate
from signal_router.model.values import Value, type_name, typed


class Absent(Enum):
    """The type of ABSENT, which stands for a parameter that is not there and is no value, as null is one."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT

_SHARED = 4096
"""Compiled tests and checks that are shared: most members of many compare with the same few values."""

Found: TypeAlias = Value | Absent
Fields: TypeAlias = Mapping[str, Value]
Test: TypeAlias = Callable[[Found], bool]
Check: TypeAlias = Callable[[Fields], bool]


def fields_of(signal: Signal) -> Fields:
    """Gives parameters by name and context attributes by `$name`; parameters that are named `$…` are not seen."""
    fields: dict[str, Value] = {name: value for name, value in signal.params.items() if not name.startswith("$")}
    fields.update((f"${name}", value) for name, value in signal.context.items())
    return fields


def look_up(parameter: str, signal: Signal) -> Found:
    """Finds what a predicate or a join parameter of this name reads."""
    if parameter.startswith("$"):
        return signal.context.get(parameter[1:], ABSENT)
    return signal.params.get(parameter, ABSENT)


def matches(predicate: Predicate, signal: Signal) -> bool:
    """Whether one predicate holds for a signal."""
    return compile_test(predicate)(look_up(predicate.parameter, signal))


def compile_check(predicates: Sequence[Predicate]) -> Check | None:
    """Makes one function of all predicates of a member, to be called with `fields_of` a signal; None for none."""
    return _check(tuple((predicate.parameter, compile_test(predicate)) for predicate in predicates))


@lru_cache(maxsize=_SHARED)
def _check(tests: tuple[tuple[str, Test], ...]) -> Check | None:
    if not tests:
        return None
    first, test_first = tests[0]
    if len(tests) == 1:
        return lambda fields: test_first(fields.get(first, ABSENT))
    second, test_second = tests[1]
    if len(tests) == 2:
        return lambda fields: test_first(fields.get(first, ABSENT)) and test_second(fields.get(second, ABSENT))

    def check(fields: Fields) -> bool:
        for parameter, test in tests:  # noqa: SIM110 - a generator costs twice as much, once per candidate
            if not test(fields.get(parameter, ABSENT)):
                return False
        return True

    return check


def compile_test(predicate: Predicate) -> Test:
    """Makes a function that tells whether a value, or ABSENT, satisfies the predicate."""
    operand = predicate.operand
    if isinstance(operand, tuple):
        return _elements(predicate.operator, tuple(map(type_name, operand)), operand)
    return _scalar_test(predicate.operator, type_name(operand), operand)


# The types are arguments so that the shared tests of 1 and True stay apart.


@lru_cache(maxsize=_SHARED)
def _scalar_test(operator: Operator, _: str, operand: Value) -> Test:
    if operator in _SIMPLE:
        return _SIMPLE[operator](operand)
    if isinstance(operand, str):
        return _string_order(operator, operand)
    if isinstance(operand, int | float) and not isinstance(operand, bool):
        return _number_order(operator, operand)
    return _never


def _present(value: Found) -> bool:
    return value is not ABSENT


def _absent(value: Found) -> bool:
    return value is ABSENT


def _never(_: Found) -> bool:
    return False


def _equal(operand: Value) -> Test:
    if operand is None or isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, str):
        return lambda value: value == operand
    return lambda value: value == operand and value is not True and value is not False


def _unequal(operand: Value) -> Test:
    name = type_name(operand)
    if name == "null":
        return _never  # the only value of its type
    if name == "boolean":
        return lambda value: value is (not operand)
    if name == "string":
        return lambda value: type(value) is str and value != operand
    return lambda value: (type(value) is int or type(value) is float) and value != operand


def _prefix(operand: Value) -> Test:
    prefix = str(operand)
    return lambda value: type(value) is str and value.startswith(prefix)


def _exists(operand: Value) -> Test:
    return _present if operand is True else _absent


@lru_cache(maxsize=_SHARED)
def _elements(operator: Operator, names: tuple[str, ...], operand: tuple[Value, ...]) -> Test:
    elements = frozenset(typed(element) for element in operand)
    if operator is Operator.IN:
        return lambda value: value is not ABSENT and typed(value) in elements
    types = frozenset(names)
    return lambda value: value is not ABSENT and type_name(value) in types and typed(value) not in elements


def _string_order(operator: Operator, operand: str) -> Test:
    if operator is Operator.LT:
        return lambda value: type(value) is str and value < operand
    if operator is Operator.LE:
        return lambda value: type(value) is str and value <= operand
    if operator is Operator.GT:
        return lambda value: type(value) is str and value > operand
    if operator is Operator.GE:
        return lambda value: type(value) is str and value >= operand
    return _never


def _number_order(operator: Operator, operand: float) -> Test:
    if operator is Operator.LT:
        return lambda value: (type(value) is int or type(value) is float) and value < operand
    if operator is Operator.LE:
        return lambda value: (type(value) is int or type(value) is float) and value <= operand
    if operator is Operator.GT:
        return lambda value: (type(value) is int or type(value) is float) and value > operand
    if operator is Operator.GE:
        return lambda value: (type(value) is int or type(value) is float) and value >= operand
    return _never


_SIMPLE: dict[Operator, Callable[[Value], Test]] = {
    Operator.EQ: _equal,
    Operator.NE: _unequal,
    Operator.PREFIX: _prefix,
    Operator.EXISTS: _exists,
}
