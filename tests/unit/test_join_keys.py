from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.core.join_keys import READERS, JoinPlan, join_key, refusal
from signal_router.core.predicates import ABSENT, fields_of
from signal_router.model.canonical import canonical_text
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import JoinParameter, JoinType, Member

DATES = [
    "2026-03-10",
    "20260310",
    20260310,
    "2026-03-10T00:00:00Z",
    "2026-03-10t23:59:59.5-11:00",
    "2026-03-10T12:00:00+14:00",
]
NO_DATES = [
    "",
    "2026-3-10",
    "2026-02-30",
    "2025-02-29",
    "20261301",
    "0000-01-01",
    "2026-03-10T25:00:00Z",
    "2026-03-10 10:00:00Z",
]
NO_DATES += [
    "2026-03-10T10:00:00",
    " 2026-03-10",
    "2026-0310",
    "\u0662026-03-10",
    0,
    -20260310,
    1773100800,
    1773100800000,
    2026031,
]
NO_DATES += [20260310.5, True, None, ABSENT]


def member(*parts):
    return Member("a", "n", (), tuple(JoinParameter(*part) for part in parts), payload=False)


def signal(params, **context):
    return Signal("n", None, None, params, None, None, context)


@pytest.mark.parametrize("written", DATES)
def test_a_date_is_the_day_as_written_in_every_spelling(written):
    assert READERS[JoinType.DATE](written) == "2026-03-10"


@pytest.mark.parametrize("written", NO_DATES)
def test_what_is_no_day_joins_nothing(written):
    assert READERS[JoinType.DATE](written) is None
    assert refusal(JoinType.DATE, written)


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [
        (JoinType.ANY, ["", "1", 1, -(10**63), True, False], [1.5, 1e70, None, ABSENT]),
        (JoinType.STRING, ["", "1"], [1, 1.5, True, None, ABSENT]),
        (JoinType.INTEGER, [0, -1, 10**63], ["1", 1.5, True, False, None, ABSENT]),
    ],
)
def test_other_types_check_and_never_convert(kind, taken, refused):
    for value in taken:
        assert READERS[kind](value) is value
    for value in refused:
        assert READERS[kind](value) is None
        assert refusal(kind, value)


def test_a_member_reads_its_own_parameters_under_the_names_of_the_join():
    it = member(("ds", JoinType.DATE, "dateint"), ("who", JoinType.ANY, "$source"))

    assert join_key(it, signal({"dateint": 20260310}, source="wf")) == {"ds": "2026-03-10", "who": "wf"}
    assert join_key(it, signal({"ds": 20260310}, source="wf")) is None
    assert join_key(it, signal({"dateint": 20260310, "source": "wf"})) is None


SCALARS = st.one_of(
    st.text(), st.integers(-(10**63), 10**63), st.booleans(), st.none(), st.sampled_from(DATES), st.just(1.5)
)
NAMES = ["a", "B", "\u00e9", "\U0001f600", "\uffff", 'q"\\']


def test_the_parts_of_the_key_text_stand_in_the_order_of_code_points():
    for names in permutations(NAMES, 3):
        it = member(*((name, JoinType.ANY, name) for name in names))
        params = dict.fromkeys(names, "x")

        assert JoinPlan(it.join).key_text(params) == canonical_text(params)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(JoinType), max_size=3),
    st.fixed_dictionaries(dict.fromkeys(NAMES, SCALARS)),
)
def test_the_key_text_is_the_canonical_json_of_the_key(types, params):
    it = member(*((name, kind, name) for name, kind in types.items()))
    key = join_key(it, signal(params))

    assert JoinPlan(it.join).key_text(fields_of(signal(params))) == (None if key is None else canonical_text(key))
