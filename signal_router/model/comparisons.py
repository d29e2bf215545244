"""What stands behind a parameter in `match`: a bare value, or operators with their operands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from signal_router.model.placeholders import Field, nearest
from signal_router.model.subscriptions import Operator, Predicate
from signal_router.model.values import Value

OPERATORS: dict[str, Operator] = {
    **{operator.value: operator for operator in Operator},
    "eq": Operator.EQ,
    "ne": Operator.NE,
    "lt": Operator.LT,
    "le": Operator.LE,
    "gt": Operator.GT,
    "ge": Operator.GE,
}
"""Every spelling of every operator."""

ELEMENTS_BOUND = 10_000
"""Elements of one `in` list: each is an entry of the match index, which would have no bound without it."""

_ORDER = frozenset({Operator.LT, Operator.LE, Operator.GT, Operator.GE})


class ComparisonProblem(NamedTuple):
    """One thing wrong behind a parameter; `field` is relative to it."""

    field: Field
    message: str
    hint: str | None


def read_comparisons(parameter: str, written: object) -> tuple[list[Predicate], list[ComparisonProblem]]:
    """Reads what is written behind a parameter: the predicates that must all hold, and everything that is wrong."""
    if isinstance(written, list):
        listed = ", ".join(shown(each) for each in written[:3])
        return [], [
            ComparisonProblem((), "a list is no value", f"write {{in: [{listed}{', …' * (len(written) > 3)}]}}")
        ]
    if not isinstance(written, Mapping):
        return [Predicate(parameter, Operator.EQ, _scalar(written))], []
    if not written:
        return [], [ComparisonProblem((), "no operator is given", f"known are {', '.join(OPERATORS)}")]
    predicates: list[Predicate] = []
    problems: list[ComparisonProblem] = []
    for spelling, operand in written.items():
        operator = OPERATORS.get(spelling)
        if operator is None:
            hint = nearest(spelling, OPERATORS) or f"known are {', '.join(OPERATORS)}"
            problems.append(ComparisonProblem((spelling,), f'unknown operator "{spelling}"', hint))
        elif (wrong := _wrong_operand(operator, operand)) is not None:
            problems.append(ComparisonProblem((spelling,), *wrong))
        else:
            predicates.append(Predicate(parameter, operator, _operand(operand)))
    return predicates, problems


def shown(value: object) -> str:
    """Writes a value for a message: strings in quotes, lists and objects by what they are."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return "null" if value is None else f"{value}"


def _wrong_operand(operator: Operator, operand: object) -> tuple[str, str | None] | None:
    if operator in (Operator.IN, Operator.NOT_IN):
        return _wrong_elements(operator, operand)
    if isinstance(operand, Mapping | list):
        hint = "write in or not-in for a list" if isinstance(operand, list) else None
        return f"{operator.value} takes a scalar, not {shown(operand)}", hint
    if operator is Operator.EXISTS and not isinstance(operand, bool):
        return f"exists takes true or false, not {shown(operand)}", None
    if operator is Operator.PREFIX and not isinstance(operand, str):
        return f"prefix takes a string, not {shown(operand)}", "quote it if it is meant as text"
    if operator in _ORDER and (operand is None or isinstance(operand, bool)):
        return f"{operator.value} takes a number or a string, not {shown(operand)}", None
    return None


def _wrong_elements(operator: Operator, operand: object) -> tuple[str, str | None] | None:
    if not isinstance(operand, list):
        return f"{operator.value} takes a list, not {shown(operand)}", f"write {{{operator.value}: […]}}"
    if not operand:
        return f"{operator.value} takes at least one value", None
    if len(operand) > ELEMENTS_BOUND:
        return f"{operator.value} takes at most {ELEMENTS_BOUND} values, not {len(operand)}", None
    for element in operand:
        if isinstance(element, Mapping | list):
            return f"{operator.value} takes scalars, not {shown(element)}", None
    return None


def _operand(operand: object) -> Value | tuple[Value, ...]:
    return tuple(_scalar(element) for element in operand) if isinstance(operand, list) else _scalar(operand)


def _scalar(value: object) -> Value:
    if value is None or isinstance(value, str | int | float):  # bool is an int
        return value
    raise TypeError(f"{type(value).__name__} is no scalar")
