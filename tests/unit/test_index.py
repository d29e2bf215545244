from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.core.index import MatchIndex
from signal_router.core.intervals import HIGHEST, LOWEST, IntervalMap, above, below
from signal_router.core.predicates import matches
from signal_router.model.documents import compile_subscription, read_document
from signal_router.model.signals import Signal


def subscription(ident, *members, join=()):
    document = {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": f"t/{ident}"},
        "spec": {
            "join": list(join),
            "members": [{"alias": f"m{n}", "signal": "n", "match": match} for n, match in enumerate(members)],
        },
    }
    return compile_subscription(read_document(document))


def signal(**params):
    return Signal("n", None, None, params, None, None, {})


def filled(asked):
    index = MatchIndex()
    for number, match in enumerate(asked):
        index.add(subscription(f"s{number:04}", match))
    return index


def found(index, **params):
    return [match.subscription.id for match in index.match(signal(**params))]


def visited(index, **params):
    before = index.stats().visited
    index.match(signal(**params))
    return index.stats().visited - before


@pytest.mark.parametrize(
    ("asked", "params"),
    [
        ([{"k": f"v{n}"} for n in range(1000)], {"k": "v5"}),
        ([{"common": "x", "k": f"v{n}"} for n in range(1000)], {"common": "x", "k": "v5"}),
        ([{"a": n % 30, "b": n // 30} for n in range(900)], {"a": 5, "b": 5}),
        ([{"common": "x", "rows": {">=": n, "<": n + 1}} for n in range(1000)], {"common": "x", "rows": 5}),
        ([{"common": "x", "t": {"prefix": f"{n:04}"}} for n in range(1000)], {"common": "x", "t": "0005/a"}),
        ([{"rows": {">=": n, "<": n + 1}} for n in range(1000)], {"rows": 5.5}),
        ([{"rows": {">": n}} for n in range(1000)], {"rows": 5}),
        ([{"rows": {">": 10**9}, "k": {">": n}} for n in range(1000)], {"rows": 10, "k": 10**6}),
        ([{"day": {">=": f"{n:04}", "<": f"{n:04}x"}} for n in range(1000)], {"day": "0005"}),
        ([{"t": {"prefix": f"{n:04}"}} for n in range(1000)], {"t": "0005/a"}),
        ([{f"p{n}": {"exists": True}} for n in range(1000)], {"p5": 1}),
        ([{f"p{n}": {"!=": 1}} for n in range(1000)], {"p5": 2}),
        ([{"k": {"in": [f"v{n}", f"w{n}"]}} for n in range(1000)], {"k": "w5"}),
    ],
)
def test_a_signal_visits_few_of_many_members(asked, params):
    assert visited(filled(asked), **params) <= 60


PREDICATES = [
    *({operator: operand} for operator in ("=", "!=", "<", "<=", ">", ">=") for operand in ("a", "ab", 1, 2)),
    *({"=": operand} for operand in (True, None)),
    *({operator: operand} for operator in ("in", "not-in") for operand in (["a", 1], [1, True], ["ab", None])),
    *({"prefix": operand} for operand in ("", "a", "ab")),
    *({"exists": operand} for operand in (True, False)),
]
FOUND = [{}, *({"p": value} for value in ("", "a", "ab", "abc", "b", 0, 1, 1.5, 2, 3, True, False, None))]


def test_any_two_predicates_on_one_parameter_must_both_hold_wherever_they_are_posted():
    pairs = [(first, second) for first in PREDICATES for second in PREDICATES if first.keys() != second.keys()]
    subscriptions = [subscription(f"s{n:04}", {"p": first | second}) for n, (first, second) in enumerate(pairs)]
    index = MatchIndex()
    for each in subscriptions:
        index.add(each)

    for params in FOUND:
        expected = [
            each.id
            for each in subscriptions
            if all(matches(predicate, signal(**params)) for predicate in each.members[0].predicates)
        ]
        assert found(index, **params) == expected


def test_what_one_posting_proves_is_checked_where_another_does_not():
    index = filled([{"a": {"in": [1, 2]}, "b": {"in": [5, 6]}, "c": {"=": n}} for n in range(40)])
    for n in range(100):
        index.add(subscription(f"t{n}", {"a": 1, "b": 7}))
    index.add(subscription("x", {"a": {"in": [1, 2]}, "b": {">": 5}, "c": {"prefix": "z"}}))

    for b, c, expected in ((6, 3, ["t/s0003"]), (6, "z", ["t/x"]), (5, "z", []), (7, 3, []), (5, 40, []), (6, "y", [])):
        assert found(index, a=2, b=b, c=c) == expected


def test_members_are_found_under_every_value_of_a_list_and_forgotten_when_removed():
    index = filled([{"k": {"in": ["a", "b", 1, True]}}])

    assert [found(index, k=value) for value in ("a", "b", 1, True)] == [["t/s0000"]] * 4
    assert [found(index, k=value) for value in ("c", "1", None, False, 0)] == [[]] * 5

    index.remove("t/s0000")
    assert found(index, k="a") == []
    assert index.stats().members == 0


def test_a_subscription_of_the_same_id_takes_the_place_of_the_one_before():
    index = filled([{"k": "a"}])

    index.add(subscription("s0000", {"k": "b"}))

    assert (found(index, k="a"), found(index, k="b")) == ([], ["t/s0000"])
    assert len(index) == 1
    assert "t/s0000" in index
    assert index.get("t/s0000").members[0].predicates[0].operand == "b"


def test_matches_are_ordered_by_id_and_members_at_one_key_are_one_match():
    index = MatchIndex()
    index.add(subscription("b", {}, {"k": 1}, {"k": 2}, join=["ds"]))
    index.add(subscription("a", {"k": 1}))
    index.add(subscription("c", {}, {"k": 1}))

    fitting = index.match(signal(k=1, ds="x"))

    assert [(match.subscription.id, match.key_text, match.alias_mask) for match in fitting] == [
        ("t/a", "", 1),
        ("t/b", '{"ds":"x"}', 0b011),
        ("t/c", "{}", 0b11),
    ]


def test_a_signal_that_fits_a_member_but_gives_no_join_key_is_counted():
    index = MatchIndex()
    index.add(subscription("a", {}, join=["ds"]))

    assert index.match(signal()) == index.match(signal(ds=None)) == []

    assert index.take_refusals() == {"t/a": 2}
    assert index.take_refusals() == {}


def test_members_are_counted_by_how_they_are_found():
    index = filled(
        [
            {"k": 1},
            {"k": {"in": [1]}, "r": {">": 1}},
            {"r": {">": 1}},
            {"t": {"prefix": "a"}},
            {"e": {"exists": True}},
            {"k": {"!=": 1}},
            {"k": {"exists": False}},
            {},
        ]
    )

    stats = index.stats()

    assert (stats.subscriptions, stats.members, stats.valued, stats.ranged) == (8, 8, 2, 2)
    assert (stats.present, stats.unconditional, stats.negation_only) == (2, 2, 2)


def test_a_signal_of_a_name_that_nobody_asks_for_matches_nothing():
    assert filled([{}]).match(Signal("other", None, None, {}, None, None, {})) == []


BOUNDS = st.integers(-5, 5) | st.sampled_from([0.5, -1.5])
LOWS = st.just(LOWEST) | st.builds(lambda value, closed: above(value, closed=closed), BOUNDS, st.booleans())
HIGHS = st.just(HIGHEST) | st.builds(lambda value, closed: below(value, closed=closed), BOUNDS, st.booleans())
STEPS = st.one_of(
    st.tuples(st.just("put"), st.tuples(LOWS, HIGHS)),
    st.tuples(st.just("remove"), st.integers(0, 1000)),
    st.tuples(st.just("look"), BOUNDS),
    st.tuples(st.just("many"), st.integers(70, 200)),
)


@given(st.lists(STEPS, max_size=30))
def test_the_interval_map_finds_what_holds_a_value_through_all_edits(steps):
    intervals, plain = IntervalMap(), {}
    for step, argument in steps:
        if step == "put":
            intervals.put(argument, argument)
            plain[argument] = argument
        elif step == "many":
            for number in range(argument):
                interval = (above(number * 7 % 11 - number / 50, closed=True), below(number * 5 % 13, closed=False))
                intervals.put(interval, interval)
                plain[interval] = interval
        elif step == "remove" and plain:
            interval = sorted(plain)[argument % len(plain)]
            intervals.remove(interval)
            del plain[interval]
        elif step == "look":
            point = (1, argument, 1)
            expected = [interval for interval in plain if interval[0] < point < interval[1]]
            assert sorted(intervals.holding(argument)) == sorted(expected)
    assert sorted(intervals) == sorted(plain.values())
    assert len(intervals) == len(plain)
