from __future__ import annotations

import pytest

from signal_router.core.explain import explain
from signal_router.model.documents import compile_subscription, read_document
from signal_router.model.signals import Signal


def subscription(match, *, join=None, params=None):
    return compile_subscription(
        read_document(
            {
                "apiVersion": "signal-router/v1",
                "kind": "Subscription",
                "metadata": {"id": "a/b"},
                "spec": {
                    "join": join or {},
                    "members": [
                        {"alias": "x", "signal": "n", "match": match},
                        {"alias": "other", "signal": "m", "match": {"z": 1}},
                    ],
                    "trigger": {"params": params or {}},
                },
            }
        )
    )


def told(match, found, **more):
    explanation = explain(subscription(match, **more), Signal("n", None, None, found, None, None, {"source": "wf"}))
    return explanation.members[0]


@pytest.mark.parametrize(
    ("comparison", "params", "reason", "text"),
    [
        ({">": 1000}, {"p": 1500}, "", "p > 1000: holds, found 1500 (number)"),
        ({">": 1000}, {"p": 15}, "value", "p > 1000: found 15 (number)"),
        ({">": 1000}, {"p": "1500"}, "type", 'p > 1000: found "1500" (string), which is never compared with a number'),
        ({"!=": "US"}, {}, "missing", 'p != "US": the signal has no such parameter'),
        (
            {"in": ["a", 1]},
            {"p": True},
            "type",
            'p in ["a", 1]: found true (boolean), which is never compared with a string or a number',
        ),
        ({"exists": True}, {}, "missing", "p exists true: the signal has no such parameter"),
        ({"exists": False}, {"p": None}, "value", "p exists false: found null (null)"),
        ({"exists": False}, {}, "", "p exists false: holds, found nothing"),
    ],
)
def test_a_comparison_says_what_was_found_and_why_it_does_not_hold(comparison, params, reason, text):
    member = told({"p": comparison}, params)
    [predicate] = member.predicates

    assert (predicate.reason, predicate.text) == (reason, text)
    assert predicate.holds is member.matches is (reason == "")
    assert member.reason == ("predicate" if reason else "")


def test_a_context_attribute_that_is_missing_is_called_one():
    [predicate] = told({"$subject": "x"}, {}).predicates

    assert predicate.text == '$subject = "x": the signal has no such context attribute'


def test_what_the_template_asks_for_is_told_apart():
    [predicate] = told({}, {}, params={"r": "{x.params.rows}"}).predicates

    assert (predicate.parameter, predicate.from_template, predicate.reason) == ("rows", True, "missing")


def test_the_join_is_told_part_by_part():
    member = told({}, {"ds": 20260310, "n": "7"}, join={"ds": "date", "n": "integer", "gone": "any"})

    assert (member.matches, member.reason) == (False, "join")
    assert [(part.name, part.in_key, part.reason, part.text) for part in member.join] == [
        ("ds", "2026-03-10", "", 'ds: ds is 20260310 (number), in the key "2026-03-10"'),
        ("n", None, "join", 'n: n is "7" (string): a string, not an integer'),
        ("gone", None, "join", "gone: gone is nothing: missing"),
    ]


def test_a_member_of_another_name_is_not_compared():
    explanation = explain(subscription({}), Signal("n", None, None, {}, None, None, {}))

    other = explanation.members[1]
    assert (other.name_fits, other.matches, other.reason, other.predicates) == (False, False, "name", ())
    assert explanation.matches
