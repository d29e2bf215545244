from __future__ import annotations

from itertools import product

import pytest

from signal_router.model.values import compare, same, type_name, typed

# Groups of equal values; nothing equals a value of another group.
GROUPS = [
    [None],
    [True],
    [False],
    [0, 0.0, -0.0],
    [1, 1.0],
    [-1],
    [0.1],
    [2**53, float(2**53)],
    [2**53 + 1],
    [10**63],
    [1e64],
    [10**64 - 1],
    [1e300],
    [""],
    ["1"],
    ["true"],
    ["null"],
    ["a"],
    ["A"],
    ["\u00e9"],
    ["e\u0301"],
]


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_values_are_equal_only_within_their_type_and_by_exact_value(group):
    for others in GROUPS:
        for left, right in product(group, others):
            assert same(left, right) is (group is others)
            assert (typed(left) == typed(right)) is (group is others)
            assert len({typed(left), typed(right)}) == (1 if group is others else 2)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        (1, 2),
        (-0.5, 0),
        (2**53, 2**53 + 1),
        (float(2**53), 2**53 + 1),
        (10**64 - 1, 1e64),
        (1e300, 1e301),
        ("10", "9"),
        ("", "a"),
        ("Z", "a"),
        ("\uffff", "\U00010000"),  # the order of UTF-16 units would be the other way round
    ],
)
def test_numbers_are_ordered_by_value_and_strings_by_code_point(smaller, larger):
    assert compare(smaller, larger) == -1
    assert compare(larger, smaller) == 1
    assert compare(larger, larger) == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, "1"), (True, 1), (True, False), (None, None), (None, 0), (None, ""), ("true", True), (0.5, False)],
)
def test_values_of_two_types_booleans_and_nulls_have_no_order(left, right):
    assert compare(left, right) is None
    assert compare(right, left) is None


def test_integral_floats_equal_their_integers_in_order_too():
    assert compare(1, 1.0) == 0
    assert compare(2**53 + 1, float(2**53)) == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [("", "string"), (1, "number"), (0.5, "number"), (True, "boolean"), (None, "null"), ([], "array"), ({}, "object")],
)
def test_types_have_the_names_of_json(value, name):
    assert type_name(value) == name
