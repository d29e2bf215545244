from __future__ import annotations

import pytest

from signal_router.core.predicates import ABSENT, compile_check, compile_test, fields_of, look_up, matches
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import Operator, Predicate

BIG = 2**53
VALUES = ["", "1", "a", "b", "\U0001f600", "\uffff", 0, 1, 1.5, BIG, BIG + 1, True, False, None]


def holds(operator, operand, value):
    return compile_test(Predicate("p", Operator(operator), operand))(value)


def signal(params, **context):
    return Signal("n", None, None, params, None, None, context)


@pytest.mark.parametrize(
    ("operator", "operand", "fits"),
    [
        ("=", "1", ["1"]),
        ("=", 1, [1]),
        ("=", True, [True]),
        ("=", None, [None]),
        ("=", BIG, [BIG]),
        ("!=", "a", ["", "1", "b", "\U0001f600", "\uffff"]),
        ("!=", 1, [0, 1.5, BIG, BIG + 1]),
        ("!=", True, [False]),
        ("!=", None, []),
        ("<", "a", ["", "1"]),
        ("<=", 1, [0, 1]),
        (">", 1, [1.5, BIG, BIG + 1]),
        (">", BIG, [BIG + 1]),
        (">=", "b", ["b", "\U0001f600", "\uffff"]),
        (">", "\uffff", ["\U0001f600"]),
        ("in", (1, "a", None), ["a", 1, None]),
        ("in", (True,), [True]),
        ("not-in", ("a", 1), ["", "1", "b", "\U0001f600", "\uffff", 0, 1.5, BIG, BIG + 1]),
        ("not-in", (None,), []),
        ("not-in", (True,), [False]),
        ("prefix", "", ["", "1", "a", "b", "\U0001f600", "\uffff"]),
        ("prefix", "a", ["a"]),
        ("exists", True, VALUES),
        ("exists", False, []),
    ],
)
def test_a_predicate_fits_values_of_its_type_only(operator, operand, fits):
    fitting = [value for value in VALUES if holds(operator, operand, value)]

    assert [(type(value), value) for value in fitting] == [(type(value), value) for value in fits]


@pytest.mark.parametrize("operator", [operator for operator in Operator if operator is not Operator.EXISTS])
def test_nothing_but_exists_false_holds_on_a_missing_parameter(operator):
    for operand in ("a", 1, True, None):
        listed = (operand,) if operator in (Operator.IN, Operator.NOT_IN) else operand
        assert not holds(operator.value, listed, ABSENT)
    assert holds("exists", False, ABSENT)


def test_doubles_and_integers_compare_by_exact_value():
    assert holds("=", 1.0, 1)
    assert not holds("=", 9007199254740992.0, BIG + 1)
    assert holds("<", 1e64, 10**63)
    assert holds("in", (0.5,), 0.5)


def test_tests_of_equal_operands_of_two_types_stay_apart():
    for first, second in ((1, True), (True, 1), (0, False), (False, 0)):
        assert holds("=", first, first)
        assert not holds("=", first, second)
        assert not holds("in", (first,), second)
        assert holds("not-in", (first, "x"), second) is False


def test_a_name_with_a_dollar_reads_the_context_and_never_a_parameter():
    it = signal({"source": "p", "$source": "q", "$other": 1}, source="wf")

    assert look_up("$source", it) == "wf"
    assert look_up("source", it) == "p"
    assert look_up("$other", it) is ABSENT
    assert fields_of(it) == {"source": "p", "$source": "wf"}
    assert matches(Predicate("$source", Operator.PREFIX, "w"), it)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_all_predicates_of_a_member_must_hold(count):
    predicates = [Predicate(f"p{number}", Operator.EQ, number) for number in range(count)]
    fields = {f"p{number}": number for number in range(count)}

    check = compile_check(predicates)

    assert (check is None) is (count == 0)
    assert check is None or check(fields)
    for number in range(count):
        assert not check({**fields, f"p{number}": "x"})
