"""The rules of the model, each as the reference evaluation sees it."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from signal_router.testing import reference
from signal_router.testing.reference import (
    CandidateInput,
    Evaluation,
    Limits,
    MarkInput,
    View,
    ViewInput,
    compare,
    count_any_order,
    evidence_from_lineage,
    lineage_key,
    read_input,
)
from signal_router.testing.reference_definitions import holds, join_value
from signal_router.testing.reference_signals import ABSENT
from signal_router.testing.reference_values import (
    Json,
    UnreadableError,
    canonical,
    duration_ms,
    join_key_hash,
    read_json,
    rfc3339,
    time_text,
)
from signal_router.testing.scenario import START_MS, TOPIC, TOPIC_ID, Scenario

PAIR = {"a": "A", "b": "B"}
DOCS = Path(__file__).parents[2] / "docs"
MODEL_PAGE = DOCS / "model.md"
Outputs = list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def pair(**changes) -> Scenario:
    """A scenario with one subscription that joins a signal A with a signal B on k."""
    return Scenario(limits=changes.pop("limits", Limits())).subscription(
        "t/pair", **{"members": PAIR, "join": ["k"], **changes}
    )


# --- complete sets ----------------------------------------------------------------------------------------------------


def test_second_signal_completes_the_set():
    story = pair().signal("A", k=1).signal("B", k=1)

    assert story.fired() == [{"a": "A1", "b": "B1"}]
    assert story.outcomes() == {"A1": "fired", "B1": "fired"}


def test_interleaved_keys_give_one_trigger_each():
    story = pair().signal("A", k=1).signal("A", k=2).signal("B", k=2).signal("B", k=1)

    assert story.fired() == [{"a": "A2", "b": "B1"}, {"a": "A1", "b": "B2"}]


def test_a_number_and_its_text_are_two_keys():
    story = pair().signal("A", k=1).signal("B", k="1")

    assert story.outcomes() == {"A1": "pending", "B1": "pending"}


def test_one_and_one_point_zero_are_one_key():
    story = pair().signal("A", k=1).signal("B", k=1.0)

    assert len(story.fired()) == 1


def test_true_and_one_are_two_keys():
    story = pair().signal("A", k=1).signal("B", k=True)

    assert story.fired() == []


def test_earlier_arrivals_fire_first():
    story = pair().signal("A", k=1).signal("A", k=1).signal("B", k=1).signal("B", k=1)

    assert story.fired() == [{"a": "A1", "b": "B1"}, {"a": "A2", "b": "B2"}]


def test_one_member_without_join_fires_each_signal_by_itself():
    story = Scenario().subscription("t/each", members={"a": "A"}).signal("A").signal("A")

    first, second = story.evaluate().triggers
    assert (first.value["join_key"], second.value["join_key"]) == ({}, {})
    assert first.key == '["t/each",{},["A","source","A1"]]'


def test_one_member_with_join_fires_under_its_key():
    story = Scenario().subscription("t/each", members={"a": "A"}, join=["k"]).signal("A", k="x")

    (trigger,) = story.evaluate().triggers
    assert trigger.key == '["t/each",{"k":"x"}]'


def test_several_members_without_join_make_one_set():
    story = Scenario().subscription("t/all", members=PAIR).signal("A", k=1).signal("B", k=2)

    (trigger,) = story.evaluate().triggers
    assert trigger.key == '["t/all",{}]'


def test_two_subscriptions_join_one_signal_on_different_parameters():
    story = (
        pair()
        .subscription("t/other", members={"a": "A", "c": "C"}, join=["m"])
        .signal("A", k=1, m=2)
        .signal("B", k=1)
        .signal("C", m=2)
    )

    assert story.fired() == [{"a": "A1", "b": "B1"}, {"a": "A1", "c": "C1"}]


# --- signals that fit several aliases ---------------------------------------------------------------------------------

SELF = {"first": "A", "second": "A"}


def test_a_self_join_takes_two_signals():
    story = Scenario().subscription("t/self", members=SELF, join=["k"]).signal("A", k=1).signal("A", k=1)

    assert story.fired() == [{"first": "A1", "second": "A2"}]


def test_a_signal_fills_only_one_alias_of_its_set():
    story = Scenario().subscription("t/self", members=SELF, join=["k"]).signal("A", k=1)

    assert story.outcomes() == {"A1": "pending"}


def test_a_signal_is_bound_only_when_its_set_fires():
    """The one that fits both aliases came first, but leaves the narrow alias to nobody else."""
    members = {"any": {"signal": "A"}, "large": {"signal": "A", "match": {"rows": {">": 10}}}}
    story = Scenario().subscription("t/self", members=members, join=["k"])

    story.signal("A", id="large", k=1, rows=20).signal("A", id="small", k=1, rows=5)

    assert story.fired() == [{"any": "small", "large": "large"}]


def test_signals_that_fit_fewer_aliases_are_bound_first():
    members = {alias: {"signal": "A", "match": {alias: True}} for alias in ("a", "b", "c")}
    story = Scenario().subscription("t/three", members=members, join=["k"])

    story.signal("A", id="wide", k=1, a=True, b=True, c=True)
    story.signal("A", id="narrow", k=1, a=True, b=True).signal("A", id="other", k=1, a=True, c=True)

    assert story.fired() == [{"a": "narrow", "b": "wide", "c": "other"}]


def test_signals_of_one_subscription_may_have_a_key_per_member():
    members = {"today": {"signal": "A", "join": {"d": "day"}}, "before": {"signal": "A", "join": {"d": "next"}}}
    story = Scenario().subscription("t/days", members=members, join=["d"])

    story.signal("A", id="one", day=1, next=2).signal("A", id="two", day=2, next=3)

    assert story.fired() == [{"today": "two", "before": "one"}]


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_a_repeat_of_a_pending_signal_is_a_duplicate():
    story = pair().signal("A", id="x", k=1).signal("A", id="x", k=1)

    assert story.outcomes() == {"x": "pending", "x'": "duplicate/repeat"}


def test_a_repeat_on_another_partition_is_a_duplicate():
    story = pair().signal("A", id="x", k=1).signal("A", id="x", k=1, partition=1)

    assert story.outcomes()["x'"] == "duplicate/repeat"


def test_a_repeat_after_the_set_fired_is_a_duplicate():
    story = pair().signal("A", id="x", k=1).signal("B", k=1).signal("A", id="x", k=1).signal("B", k=1)

    assert story.outcomes() == {"x": "fired", "B1": "fired", "x'": "duplicate/repeat", "B2": "pending"}


def test_a_repeat_with_other_content_is_a_conflict():
    story = pair().signal("A", id="x", k=1, rows=1).signal("A", id="x", k=1, rows=2).signal("A", id="x", k=1, rows=1.0)

    assert story.outcomes() == {"x": "pending", "x'": "duplicate/conflict", "x''": "duplicate/repeat"}


def test_another_payload_is_a_conflict():
    story = pair().signal("A", id="x", k=1, payload={"n": 1}).signal("A", id="x", k=1, payload={"n": 2})

    assert story.outcomes()["x'"] == "duplicate/conflict"


def test_another_time_is_no_conflict():
    story = pair().signal("A", id="x", k=1, time="2026-03-10T00:00:00Z").signal("A", id="x", k=1)

    assert story.outcomes()["x'"] == "duplicate/repeat"


def test_the_same_identity_under_another_key_is_no_duplicate():
    story = pair().signal("A", id="x", k=1).signal("A", id="x", k=2)

    assert story.outcomes() == {"x": "pending", "x'": "pending"}


def test_the_same_id_of_another_source_is_no_duplicate():
    story = pair().signal("A", id="x", k=1).signal("A", id="x", source="other", k=1)

    assert story.outcomes() == {"x": "pending", "x'": "pending"}


def test_signals_without_an_id_are_never_duplicates():
    story = pair().signal("A", id=None, k=1).signal("A", id=None, k=1)

    assert list(story.outcomes().values()) == ["pending", "pending"]


def test_a_duplicate_names_the_first_copy():
    story = pair().signal("A", id="x", k=1).signal("A", id="x", k=1).signal("A", id="x", k=1)

    causes = [ended.cause for ended in story.evaluate().ended]
    assert causes == [(TOPIC, 0, 0), (TOPIC, 0, 0)]


def test_an_identity_is_forgotten_after_the_horizon_and_fires_again_under_the_same_id():
    story = pair(within="1h", dedupe="2h").signal("A", id="x", k=1, at=0).signal("B", id="y", k=1, at=0)

    story.mark(2 * 3_600_000 + 1).signal("A", id="x", k=1, at="3h").signal("B", id="y", k=1, at="3h")

    first, second = story.evaluate().triggers
    assert first.trigger_id == second.trigger_id
    assert first.value["order"] != second.value["order"]


def test_an_identity_is_remembered_to_the_last_millisecond_of_the_horizon():
    story = pair(within="1h", dedupe="2h").signal("A", id="x", k=1, at=0).signal("B", k=1, at=0)

    story.mark("2h").signal("A", id="x", k=1, at="3h")

    assert story.outcomes()["x'"] == "duplicate/repeat"


def test_repeats_do_not_prolong_the_horizon():
    story = pair(within="1h", dedupe="2h").signal("A", id="x", k=1, at=0).signal("B", k=1, at=0)

    story.mark("1h").signal("A", id="x", k=1, at="1h").mark(2 * 3_600_000 + 1).signal("A", id="x", k=1, at="3h")

    assert story.outcomes()["x''"] == "pending"


def test_an_expired_signal_is_remembered_from_its_end():
    story = pair(within="1h", dedupe="2h").signal("A", id="x", k=1, at=0).mark("2h")

    story.mark("4h").signal("A", id="x", k=1, at="4h")

    assert story.outcomes() == {"x": "expired/within", "x'": "duplicate/repeat"}


# --- within -----------------------------------------------------------------------------------------------------------


def test_a_signal_too_far_from_the_arriving_one_is_passed_over_and_goes_on_waiting():
    story = pair().signal("A", id="old", k=1, at=0).signal("A", id="new", k=1, at="50m").signal("B", k=1, at="90m")

    assert story.fired() == [{"a": "new", "b": "B1"}]
    assert story.outcomes()["old"] == "pending"


def test_the_partner_of_a_signal_passed_over_may_still_come():
    story = pair().signal("A", id="old", k=1, at=0).signal("B", id="far", k=1, at="90m", partition=1)

    story.signal("B", id="near", k=1, at="30m")

    assert story.fired() == [{"a": "old", "b": "near"}]


def test_exactly_within_is_near_enough():
    assert len(pair().signal("A", k=1, at=0).signal("B", k=1, at="1h").fired()) == 1
    assert len(pair().signal("A", k=1, at=0).signal("B", k=1, at=3_600_001).fired()) == 0


def test_the_oldest_is_passed_over_when_the_chosen_lie_too_far_apart():
    story = Scenario().subscription("t/three", members={"a": "A", "b": "B", "c": "C"}, join=["k"])

    story.signal("A", id="old", k=1, at=0).signal("A", id="next", k=1, at="30m")
    story.signal("B", k=1, at="80m", partition=1).signal("C", k=1, at="50m", partition=2)

    assert story.fired() == [{"a": "next", "b": "B1", "c": "C1"}]


def test_the_oldest_is_passed_over_and_not_the_youngest():
    story = Scenario().subscription("t/three", members={"a": "A", "b": "B", "c": "C"}, join=["k"])

    story.signal("A", id="old", k=1, at=0).signal("A", id="next", k=1, at="30m")
    story.signal("B", id="first", k=1, at="80m", partition=1).signal("B", id="second", k=1, at="55m", partition=2)
    story.signal("C", k=1, at="50m", partition=3)

    assert story.fired() == [{"a": "next", "b": "first", "c": "C1"}]


def test_no_complete_set_is_lost_when_passing_over_the_oldest_leads_nowhere():
    """B too young is the earlier choice; passing over the old A empties its alias, so the young B must go."""
    story = Scenario().subscription("t/three", members={"a": "A", "b": "B", "c": "C"}, join=["k"])

    story.signal("B", id="young", k=1, at="80m").signal("B", id="fitting", k=1, at="60m", partition=1)
    story.signal("A", id="old", k=1, at="10m", partition=2).signal("C", k=1, at="30m", partition=3)

    assert story.fired() == [{"a": "old", "b": "fitting", "c": "C1"}]


# --- deadlines, the clock and marks -----------------------------------------------------------------------------------


def test_a_pending_signal_expires_when_the_clock_is_past_its_deadline():
    assert pair().signal("A", k=1, at=0).mark("1h").outcomes() == {"A1": "pending"}
    assert pair().signal("A", k=1, at=0).mark(3_600_001).outcomes() == {"A1": "expired/within"}


def test_signals_expire_each_on_its_own():
    story = pair().signal("A", k=1, at=0).signal("A", k=1, at="30m").mark("70m")

    assert story.outcomes() == {"A1": "expired/within", "A2": "pending"}


def test_nothing_expires_while_an_input_has_announced_nothing():
    story = pair().signal("A", k=1, at=0).mark("5h", unannounced=[7])

    assert story.outcomes() == {"A1": "pending"}


def test_the_clock_is_the_smallest_time_announced():
    story = pair().signal("A", k=1, at=0).mark("5h", unannounced=[7]).mark("30m", partitions=[7])

    assert story.outcomes() == {"A1": "pending"}


def test_the_largest_time_announced_of_a_partition_counts():
    story = pair().signal("A", k=1, at=0).mark("50m").mark("40m").signal("A", k=1, at="50m").mark("61m")

    assert story.outcomes() == {"A1": "expired/within", "A2": "pending"}


def test_a_retired_input_no_longer_holds_the_clock():
    story = pair().signal("A", k=1, at=0).mark("5h", unannounced=[7]).mark("5h", partitions=[0], retired=[7])

    assert story.outcomes() == {"A1": "expired/within"}


def test_a_late_signal_takes_part_like_any_other():
    story = pair().mark("9h", partitions=[0]).signal("A", k=1, at=0).signal("B", k=1, at="8h").signal("B", k=1, at="9h")

    assert story.outcomes() == {"A1": "expired/within", "B1": "pending", "B2": "pending"}


def test_a_late_signal_that_completes_a_set_fires():
    story = pair().signal("A", k=1, at="2h").mark("3h").signal("B", k=1, at="90m")

    assert story.fired() == [{"a": "A1", "b": "B1"}]


# --- latest -----------------------------------------------------------------------------------------------------------


def test_latest_replaces_the_pending_signal_of_an_alias():
    story = pair(policy="latest").signal("A", k=1).signal("A", k=1).signal("B", k=1)

    assert story.outcomes() == {"A1": "superseded/newer", "A2": "fired", "B1": "fired"}


def test_a_superseded_signal_names_the_newer_one():
    story = pair(policy="latest").signal("A", k=1).signal("A", k=1)

    (ended,) = story.evaluate().ended
    assert ended.cause == (TOPIC, 0, 1)


def test_a_repeat_replaces_nothing():
    story = pair(policy="latest").signal("A", id="x", k=1).signal("A", id="y", k=1).signal("A", id="x", k=1)

    assert story.outcomes() == {"x": "superseded/newer", "y": "pending", "x'": "duplicate/repeat"}


def test_latest_keeps_a_signal_that_is_the_newest_of_one_of_its_aliases():
    members = {"any": {"signal": "A"}, "large": {"signal": "A", "match": {"rows": {">": 10}}}, "b": "B"}
    story = Scenario().subscription("t/three", members=members, join=["k"], policy="latest")

    story.signal("A", id="large", k=1, rows=20).signal("A", id="small", k=1, rows=5)

    assert story.outcomes() == {"large": "pending", "small": "pending"}
    assert story.signal("B", k=1).fired() == [{"any": "small", "large": "large", "b": "B1"}]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_newest_over_the_limit_per_key_is_discarded():
    story = pair(limits=Limits(per_key=2)).signal("A", k=1).signal("A", k=1).signal("A", k=1).signal("A", k=2)

    assert story.outcomes() == {"A1": "pending", "A2": "pending", "A3": "discarded/limit", "A4": "pending"}


def test_a_signal_that_completes_a_set_fires_at_the_limit():
    story = pair(limits=Limits(per_key=1)).signal("A", k=1).signal("B", k=1)

    assert len(story.fired()) == 1


def test_the_limit_per_subscription_counts_all_its_keys():
    story = pair(limits=Limits(per_subscription=1)).subscription("t/other", members=PAIR, join=["k"])

    story.signal("A", id="x", k=1).signal("A", id="y", k=2)

    assert story.outcomes("t/pair") == {"x": "pending", "y": "discarded/limit"}
    assert story.outcomes("t/other") == {"x": "pending", "y": "discarded/limit"}


def test_the_limit_per_partition_counts_all_subscriptions():
    story = pair(limits=Limits(per_partition=1)).subscription("t/other", members={"c": "C", "b": "B"}, join=["k"])

    story.signal("A", k=1).signal("C", k=1)

    assert story.outcomes() == {"A1": "pending", "C1": "discarded/limit"}


def test_a_discarded_signal_is_remembered():
    story = pair(limits=Limits(per_key=1)).signal("A", k=1).signal("A", id="x", k=1).signal("A", id="x", k=1)

    assert story.outcomes()["x'"] == "duplicate/repeat"


# --- edits and deletes ------------------------------------------------------------------------------------------------


def test_an_edit_of_predicates_keeps_what_is_pending():
    story = pair().signal("A", k=1, rows=1)

    story.subscription("t/pair", members={"a": {"signal": "A", "match": {"rows": {">": 5}}}, "b": "B"}, join=["k"])

    assert story.signal("B", k=1).fired() == [{"a": "A1", "b": "B1"}]


def test_an_edited_template_applies_to_what_is_pending():
    story = pair(params={"v": "old"}).signal("A", k=1)

    story.subscription("t/pair", members=PAIR, join=["k"], params={"v": "{a.params.rows}"}).signal("B", k=1)

    (trigger,) = story.evaluate().triggers
    assert (trigger.value["params"], trigger.value["missing"]) == ({"v": None}, ["a.params.rows"])
    assert trigger.value["subscription"]["revision"] == 1


def test_deadlines_given_stay_when_within_is_edited():
    story = pair(within="1h").signal("A", k=1, at=0)

    story.subscription("t/pair", members=PAIR, join=["k"], within="9h", dedupe="9h").signal("A", k=1, at=0).mark("2h")

    assert story.outcomes() == {"A1": "expired/within", "A2": "pending"}


def test_the_within_in_force_decides_who_is_near_enough():
    story = pair(within="9h", dedupe="9h").signal("A", k=1, at=0)

    story.subscription("t/pair", members=PAIR, join=["k"], within="1h").signal("B", k=1, at="2h")

    assert story.fired() == []


def test_fifo_to_latest_keeps_the_newest_when_the_set_is_next_touched():
    story = pair().signal("A", k=1).signal("A", k=1).subscription("t/pair", members=PAIR, join=["k"], policy="latest")
    assert story.outcomes() == {"A1": "pending", "A2": "pending"}

    story.signal("B", k=1)

    assert story.outcomes() == {"A1": "superseded/newer", "A2": "fired", "B1": "fired"}


def test_another_shape_ends_what_is_pending_as_superseded():
    story = pair().signal("A", k=1).subscription("t/pair", members={"a": "A", "c": "C"}, join=["k"])

    assert story.outcomes() == {"A1": "superseded/edit"}


def test_identities_survive_another_shape_where_the_key_is_unchanged():
    story = pair().signal("A", id="x", k=1).subscription("t/pair", members={"a": "A", "c": "C"}, join=["k"])

    assert story.signal("A", id="x", k=1).outcomes()["x'"] == "duplicate/repeat"


def test_a_candidate_in_transit_of_an_older_shape_is_superseded_and_remembered():
    story = pair().signal("A", id="x", k=1, in_transit=True)

    story.subscription("t/pair", members={"a": "A", "c": "C"}, join=["k"]).arrive().signal("A", id="x", k=1)

    assert story.outcomes() == {"x": "superseded/edit", "x'": "duplicate/repeat"}


def test_deleting_ends_what_is_pending_as_discarded():
    story = pair().signal("A", k=1).delete("t/pair")

    assert story.outcomes() == {"A1": "discarded/deleted"}


def test_a_deleted_subscription_matches_nothing():
    assert pair().delete("t/pair").signal("A", k=1).evaluate().expected == ()


def test_a_subscription_created_again_remembers_nothing_and_joins_nothing_old():
    story = pair().signal("A", id="x", k=1).delete("t/pair").subscription("t/pair", members=PAIR, join=["k"])

    story.signal("A", id="x", k=1)

    assert story.outcomes() == {"x": "discarded/deleted", "x'": "pending"}


def test_a_candidate_in_transit_of_an_older_birth_is_discarded():
    story = pair().signal("A", k=1, in_transit=True).delete("t/pair").subscription("t/pair", members=PAIR, join=["k"])

    assert story.arrive().outcomes() == {"A1": "discarded/deleted"}


def test_birth_and_join_generation_are_part_of_the_trigger_id():
    def trigger_id(story: Scenario) -> str:
        return story.signal("A", id="x", k=1).signal("B", id="y", k=1).evaluate().triggers[-1].trigger_id

    again = pair().delete("t/pair").subscription("t/pair", members=PAIR, join=["k"])
    reshaped = Scenario().subscription("t/pair", members={"a": "A"}).subscription("t/pair", members=PAIR, join=["k"])

    assert len({trigger_id(pair()), trigger_id(again), trigger_id(reshaped)}) == 3
    assert trigger_id(pair()) == trigger_id(pair())


# --- matching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "value", "operand"),
    [
        ("=", 1, 1),
        ("eq", 2**53 + 1, 2**53 + 1),
        ("=", None, None),
        ("!=", 2**53 + 1, 2**53),
        ("ne", "a", "b"),
        ("<", 1, 1.5),
        ("le", 10**70, 1e71),
        (">", "b", "a"),
        (">", "\U0001f600", "\uffff"),
        ("ge", 2, 2),
        ("in", "US", ["CA", "US"]),
        ("not-in", "DE", ["CA", "US"]),
        ("not-in", 3, ["x", 2]),
        ("prefix", "abc", "ab"),
        ("exists", None, True),
        ("exists", ABSENT, False),
    ],
)
def test_the_predicate_holds(operator, value, operand):
    assert holds(operator, value, operand)


@pytest.mark.parametrize("operator", ["=", "!=", "<", "<=", ">", ">=", "prefix"])
@pytest.mark.parametrize("value", [ABSENT, 1, True, None])
def test_a_predicate_across_types_is_false_and_so_is_its_negation(operator, value):
    assert not holds(operator, value, "1")


@pytest.mark.parametrize(
    ("operator", "value", "operand"),
    [
        ("=", True, 1),
        ("=", 1, True),
        ("in", 1, ["1", True]),
        ("not-in", 1, ["1", True]),
        ("not-in", ABSENT, [1]),
        ("!=", 1, 1.0),
        ("<", True, False),
        ("<", None, None),
        ("exists", ABSENT, True),
        ("exists", 0, False),
    ],
)
def test_the_predicate_does_not_hold(operator, value, operand):
    assert not holds(operator, value, operand)


def test_several_operators_on_one_parameter_must_all_hold():
    members = {"a": {"signal": "A", "match": {"rows": {">": 1, "<": 5}, "country": "US"}}}
    story = Scenario().subscription("t/each", members=members)

    for rows in (1, 3, 5):
        story.signal("A", id=str(rows), rows=rows, country="US")

    assert story.outcomes() == {"3": "fired"}


def test_context_attributes_are_matched_with_a_dollar():
    members = {"a": {"signal": "A", "match": {"$source": {"prefix": "team/"}}}}
    story = Scenario().subscription("t/each", members=members)

    story.signal("A", source="team/x").signal("A", source="other/x").signal("A", params={"$source": "team/x"})

    assert story.outcomes() == {"A1": "fired"}


def test_a_parameter_named_by_the_template_must_exist():
    story = pair(params={"rows": "{a.params.rows}", "odd": 'x{a.params["b.c"]}'})

    story.signal("A", k=1, rows=1).signal("A", k=1, params={"b.c": None}, rows=None).signal("B", k=1)

    assert story.outcomes() == {"A2": "fired", "B1": "fired"}


@pytest.mark.parametrize(
    ("join_type", "value", "read"),
    [
        ("any", "x", "x"),
        ("any", 5, 5),
        ("any", False, False),
        ("any", 1.5, None),
        ("any", None, None),
        ("any", ABSENT, None),
        ("any", 1e64, None),
        ("string", "5", "5"),
        ("string", 5, None),
        ("integer", 5, 5),
        ("integer", True, None),
        ("integer", "5", None),
        ("date", "2026-03-10", "2026-03-10"),
        ("date", "20260310", "2026-03-10"),
        ("date", 20260310, "2026-03-10"),
        ("date", "2026-03-10T23:30:00-08:00", "2026-03-10"),
        ("date", "2026-03-10t00:00:00.5Z", "2026-03-10"),
        ("date", "2024-02-29", "2024-02-29"),
        ("date", "2026-02-29", None),
        ("date", "2026-3-10", None),
        ("date", "2026-03-10 00:00:00Z", None),
        ("date", "2026-03-10T25:00:00Z", None),
        ("date", 1773100800, None),
        ("date", "0000-01-01", None),
        ("date", True, None),
    ],
)
def test_join_types_read_what_they_take(join_type, value, read):
    given = join_value(join_type, value)

    assert (given, type(given)) == (read, type(read))


def test_date_spellings_meet_in_one_set():
    members = {"a": "A", "b": {"signal": "B", "join": {"ds": "dateint"}}}
    story = Scenario().subscription("t/days", members=members, join={"ds": "date"})

    story.signal("A", ds="2026-03-10T23:30:00-08:00").signal("B", dateint=20260310)

    assert [trigger.value["join_key"] for trigger in story.evaluate().triggers] == [{"ds": "2026-03-10"}]


# --- the trigger ------------------------------------------------------------------------------------------------------


def test_the_trigger_is_what_the_contract_shows():
    members = {"titles": "w/titles", "plays": {"signal": "w/plays", "join": {"ds": "dateint"}, "payload": True}}
    story = Scenario(app="prod").subscription(
        "content-ml/model",
        members=members,
        join={"ds": "date"},
        topic="ml",
        params={"ds": "{join.ds}", "rows": "{titles.params.rows}", "note": "from {plays.source}: {titles.params.rows}"},
    )

    story.signal("w/titles", id="t1", source="wf/titles", ds="2026-03-10", rows=1500, payload=[1], at=5)
    story.signal("w/plays", id="p1", source="wf/plays", dateint=20260310, payload={"n": 1}, at=1_123)

    (trigger,) = story.evaluate().triggers
    name = canonical(
        [
            "content-ml/model",
            1,
            1,
            {"ds": "2026-03-10"},
            [["plays", "w/plays", "wf/plays", "p1"], ["titles", "w/titles", "wf/titles", "t1"]],
        ]
    )
    identity = str(uuid.uuid5(uuid.UUID("6f0c5f5e-7d0b-5c8e-9a57-3f5d2b8f6c11"), name))
    spec = json.loads(story.definitions[0].value)["spec"]
    assert trigger.topic == "ml"
    assert trigger.key == '["content-ml/model",{"ds":"2026-03-10"}]'
    assert trigger.value == {
        "trigger_id": identity,
        "kind": "fired",
        "attempt": 1,
        "idempotency_key": f"{identity}/1",
        "subscription": {
            "id": "content-ml/model",
            "version": f"sha256:{hashlib.sha256(canonical(spec).encode()).hexdigest()}",
            "revision": 0,
        },
        "join_key": {"ds": "2026-03-10"},
        "params": {"ds": "2026-03-10", "rows": 1500, "note": "from wf/plays: 1500"},
        "opened_at": "2026-03-10T00:00:00.005Z",
        "fired_at": "2026-03-10T00:00:01.123Z",
        "order": {"partition": 0, "sequence": 3},
        "missing": [],
        "signals": [
            {
                "alias": "titles",
                "name": "w/titles",
                "source": "wf/titles",
                "id": "t1",
                "params": {"ds": "2026-03-10", "rows": 1500},
                "time": None,
                "recorded_at": "2026-03-10T00:00:00.005Z",
                "position": {"topic": "signals", "partition": 0, "offset": 0},
                "sequence": 2,
            },
            {
                "alias": "plays",
                "name": "w/plays",
                "source": "wf/plays",
                "id": "p1",
                "params": {"dateint": 20260310},
                "time": None,
                "recorded_at": "2026-03-10T00:00:01.123Z",
                "position": {"topic": "signals", "partition": 0, "offset": 1},
                "sequence": 3,
                "payload": {"n": 1},
            },
        ],
    }
    assert trigger.headers == {
        "ce_specversion": "1.0",
        "ce_id": identity,
        "ce_source": "/signal-router/prod",
        "ce_type": "signal-router.trigger.v1",
        "ce_subject": "content-ml/model",
        "ce_time": "2026-03-10T00:00:01.123Z",
        "ce_partitionkey": trigger.key,
        "content-type": "application/json",
    }
    assert "payload" not in trigger.lineage["signals"][1]


def test_the_trigger_id_has_a_test_vector():
    """The vector that docs/model.md gives."""
    story = pair().signal("A", id="1", source="s", k=1).signal("B", id=None, source=None, k=1)

    (trigger,) = story.evaluate().triggers

    name = f'["t/pair",1,1,{{"k":1}},[["a","A","s","1"],["b","B",null,{{"position":["{TOPIC_ID}",0,1]}}]]]'
    assert trigger.trigger_id == str(uuid.uuid5(reference.TRIGGER_ID_NAMESPACE, name))
    assert trigger.trigger_id in MODEL_PAGE.read_text(encoding="utf-8")
    assert name in MODEL_PAGE.read_text(encoding="utf-8")


def test_the_lineage_key_has_a_test_vector():
    (candidate, *_) = pair().signal("A", id="1", source="s", k=1).evaluate().expected

    key = lineage_key(candidate.position, candidate.subscription, candidate.join_key_hash)

    assert key == "signal/signals/0/0/t%2Fpair/a0da1fce57d0e4f9"
    assert key in MODEL_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("template", "given", "missing"),
    [
        ("{a.params.n}", 3, []),
        ("n={a.params.n}", "n=3", []),
        ("{a.params.t}|{a.params.none}|{a.params.f}", "true|null|0.5", []),
        ("{{{a.params.n}}}", "{3}", []),
        ("{{a}}", "{a}", []),
        ('{a.params["x.y"]}', "odd", []),
        ("{a.payload.list[1].deep}", "down", []),
        ("see {a.payload.list}", 'see [0,{"deep":"down"}]', []),
        ("{a.payload.list[7]}", None, ["a.payload.list[7]"]),
        ("x{a.payload.nothing}y{a.time}", "xy", ["a.payload.nothing", "a.time"]),
        ("{a.name} {a.source} {a.id}", "A source A1", []),
        (["{join.k}", {"deep": "{a.params.n}"}, 7, None], [1, {"deep": 3}, 7, None], []),
    ],
)
def test_templates_fill_in(template, given, missing):
    story = pair(members={"a": {"signal": "A", "payload": True}, "b": "B"}, params={"v": template})

    story.signal(
        "A",
        params={"k": 1, "n": 3, "t": True, "none": None, "f": 0.5, "x.y": "odd"},
        payload={"list": [0, {"deep": "down"}]},
    ).signal("B", k=1)

    (trigger,) = story.evaluate().triggers
    assert (trigger.value["params"], trigger.value["missing"]) == ({"v": given}, missing)


def test_a_payload_is_shown_only_if_it_was_asked_for_when_its_signal_was_matched():
    story = pair().signal("A", k=1, payload={"n": 1})

    story.subscription("t/pair", members={"a": {"signal": "A", "payload": True}, "b": "B"}, join=["k"])

    (trigger,) = story.signal("B", k=1).evaluate().triggers
    assert "payload" not in trigger.value["signals"][0]


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"name": ""}',
        b'{"name": 5}',
        b'{"name": "A", "id": "1"}',
        b'{"name": "A", "id": 1, "source": "s"}',
        b'{"name": "A", "time": "yesterday"}',
        b'{"name": "A", "params": {"x": []}}',
        b'{"name": "A", "params": []}',
        b'{"name": "A", "params": {"x": NaN}}',
        b'{"name": "A", "params": {"x": 1e999}}',
        b'{"name": "A", "params": {"x": ' + b"1" * 65 + b"}}",
        b'{"name": "A", "params": {"x": "\\ud800"}}',
        b'{"name": "A", "payload": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"name": "\xff"}',
        b'{"name": "A", "payload": "' + b"x" * 300_000 + b'"}',
    ],
)
def test_a_bad_record_becomes_a_dead_letter(value):
    evaluation = pair().record(value).signal("A", k=1).evaluate()

    assert [bad.position for bad in evaluation.dead_letters] == [(TOPIC, 0, 0)]
    assert len(evaluation.pending) == 1


def test_a_tombstone_is_counted_and_skipped():
    evaluation = pair().record(None).evaluate()

    assert (evaluation.tombstones, evaluation.dead_letters) == (1, ())


BINARY = [("ce_specversion", b"1.0"), ("ce_type", b"A"), ("ce_source", b"s"), ("ce_id", b"1"), ("ce_team", b"x")]


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b'{"name": "A", "source": "s", "id": "1", "params": {"k": 1}}', []),
        (b'{"params": {"k": 1}}', BINARY),
        (b'{"k": 1, "deep": {}}', BINARY),
        (b'{"k": 1}', [*BINARY, ("content-type", b"application/json; charset=utf-8")]),
        (
            b'{"specversion": "1.0", "type": "A", "source": "s", "id": "1", "data": {"k": 1}}',
            [("content-type", b"application/cloudevents+json")],
        ),
        (
            b'{"specversion": "1.0", "type": "A", "source": "s", "id": "1", "data_base64": "eyJrIjogMX0="}',
            [("Content-Type", b"application/cloudevents+json")],
        ),
    ],
)
def test_every_wire_form_gives_the_same_signal(value, headers):
    story = pair().record(value, headers=headers, label="it")

    assert story.outcomes() == {"it": "pending"}
    assert story.signal("A", id="1", source="s", k=1).outcomes()["1"].startswith("duplicate")


def test_data_that_is_no_json_has_no_params():
    story = Scenario().subscription("t/each", members={"a": {"signal": "A", "match": {"$team": "x"}, "payload": True}})

    story.record(b"\x00", headers=[*BINARY, ("content-type", b"text/plain")])

    (trigger,) = story.evaluate().triggers
    assert trigger.value["signals"][0]["params"] == {}


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("-0", "0"),
        ("1.0", "1"),
        ("1e2", "100"),
        ("-0.0", "0"),
        ("1e21", "1000000000000000000000"),
        ("1e300", "1e+300"),
        ("0.00001", "0.00001"),
        ("0.0000001", "1e-7"),
        ("123456.789", "123456.789"),
        ("5e-324", "5e-324"),
        ("-1.5e-9", "-1.5e-9"),
        ("9007199254740993", "9007199254740993"),
        ('{"b":1,"a":[true,null]}', '{"a":[true,null],"b":1}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('"\\u00e9\\u0001\\n\\u007f/"', '"é\\u0001\\n\x7f/"'),
        ('{"\\ud83d\\ude00":1,"\\uffff":2}', '{"\uffff":2,"\U0001f600":1}'),
    ],
)
def test_canonical_json_has_one_text_per_value(text, written):
    assert canonical(read_json(text.encode())) == written


def vectors(block: str) -> list[list[str]]:
    """The lines `given ⟶ expected` of a block of the published test vectors."""
    page = (DOCS / "test-vectors.md").read_text(encoding="utf-8")
    lines = page.split(f"```vectors {block}\n")[1].split("```")[0]
    return [line.split(" ⟶ ") for line in lines.splitlines()]


@pytest.mark.parametrize(("given", "written"), vectors("canonical-json"))
def test_the_published_vectors_of_canonical_json_hold_here_too(given, written):
    assert canonical(read_json(given.encode())) == written


@pytest.mark.parametrize(("given", "reason"), vectors("refused"))
def test_the_published_refusals_hold_here_too(given, reason):
    with pytest.raises(UnreadableError):
        read_json(given.encode())


@pytest.mark.parametrize(("given", "expected"), vectors("join-key-hash"))
def test_the_published_join_key_hashes_hold_here_too(given, expected):
    assert join_key_hash(canonical(read_json(given.encode()))) == expected


@pytest.mark.parametrize(("given", "expected"), vectors("trigger-id"))
def test_the_published_trigger_ids_hold_here_too(given, expected):
    assert str(uuid.uuid5(reference.TRIGGER_ID_NAMESPACE, canonical(read_json(given.encode())))) == expected


@pytest.mark.parametrize("text", [b'{"a":"\\ud800","a":1}', b'{"\\ud800":1}', b"Infinity", b'\xef\xbb\xbf"x"', b"1 2"])
def test_unreadable_json_is_refused(text):
    with pytest.raises(UnreadableError):
        read_json(text)


def test_braces_in_strings_are_no_nesting():
    assert read_json(json.dumps("[" * 500 + '"\\').encode()) == "[" * 500 + '"\\'


@pytest.mark.parametrize(("text", "expected"), [("7d", 604_800_000), ("12h 30m", 45_000_000), ("500ms", 500)])
def test_durations_are_read(text, expected):
    assert duration_ms(text) == expected


def test_times_have_milliseconds_and_a_z():
    assert time_text(START_MS + 7) == "2026-03-10T00:00:00.007Z"


@pytest.mark.parametrize(
    ("text", "valid"),
    [("2016-12-31T23:59:60Z", True), ("2016-12-31T15:59:60-08:00", True), ("2016-12-31T12:00:60Z", False)],
)
def test_leap_seconds_stand_at_the_end_of_a_utc_day(text, valid):
    assert rfc3339(text) is valid


# --- evidence that breaks a rule --------------------------------------------------------------------------------------


def two_pending() -> Scenario:
    return pair().signal("A", k=1).signal("A", k=2)


def violations(story: Scenario, inputs: list[reference.Input]) -> str:
    return "\n".join(map(str, reference.evaluate(replace(story.evidence(), inputs={0: inputs})).violations))


def test_a_faultless_story_has_no_violations():
    assert two_pending().evaluate().violations == ()


def test_a_candidate_that_nothing_matches_is_a_violation():
    story = two_pending()
    view, first, second = story.inputs

    assert "matched by nothing" in violations(story, [view, first, replace(second, join_key_hash="0" * 16)])


def test_a_candidate_taken_twice_is_a_violation():
    story = two_pending()
    view, first, second = story.inputs

    assert "taken before" in violations(story, [view, first, second, replace(second, sequence=4)])


def test_an_order_against_that_of_the_signals_partition_is_a_violation():
    story = two_pending()
    view, first, second = story.inputs

    assert "comes after offset 1" in violations(story, [view, replace(second, sequence=2), replace(first, sequence=3)])


def test_numbers_that_do_not_grow_are_a_violation():
    story = two_pending()
    view, first, second = story.inputs

    assert "sequence 2 follows 2" in violations(story, [view, first, replace(second, sequence=2)])


def test_a_candidate_left_behind_is_lost():
    story = two_pending().signal("A", k=1)
    view, _, second, third = story.inputs

    assert "is lost" in violations(story, [view, second, third])


def test_a_candidate_not_taken_yet_is_in_transit():
    story = two_pending().signal("A", k=1, in_transit=True)

    evaluation = story.evaluate()
    assert [candidate.position.offset for candidate in evaluation.in_transit] == [2]
    assert evaluation.violations == ()


def test_a_decision_under_an_older_view_is_a_violation():
    story = two_pending()
    _, first, second = story.inputs

    assert "decided under revision -1" in violations(story, [first, second])


def test_a_revision_that_was_not_in_force_is_a_violation():
    story = pair().signal("A", k=1).subscription("t/pair", members=PAIR, join=["k"], within="2h")
    view, first, second_view = story.inputs
    moved = [view, replace(second_view, sequence=2), replace(first, sequence=3, revision=1)]

    assert "gives document 0" in violations(story, moved)


def test_a_time_after_that_of_the_record_is_a_violation():
    story = two_pending()
    view, first, second = story.inputs

    assert "after its record's" in violations(story, [view, first, replace(second, recorded_at=START_MS + 10**9)])


def test_a_set_in_two_partitions_is_a_violation():
    story = pair().signal("A", k=1).signal("A", k=1)
    view, first, second = story.inputs

    found = reference.evaluate(replace(story.evidence(), inputs={0: [view, first], 1: [view, second]})).violations

    assert any("are in partition 0" in violation.text for violation in found)


def test_a_definition_that_cannot_be_read_is_ignored_and_the_one_before_stays_in_force():
    story = pair().document(b'{"format":1,"kind":"Subscription","id":"t/pair"}')

    story.signal("A", k=1).signal("B", k=1)

    assert len(story.fired()) == 1
    assert story.evaluate().ignored_definitions == (1,)


# --- comparing --------------------------------------------------------------------------------------------------------


class Topics:
    """The topics of a worker that is right; tests then spoil them."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.triggers: dict[str, Outputs] = {}
        self.lineage: Outputs = []
        self.dead_letters: Outputs = []
        for trigger in evaluation.triggers:
            headers = [(name, text.encode()) for name, text in trigger.headers.items()]
            output = (trigger.key.encode(), encoded(trigger.value), [*headers, ("sr_txn", b"x")])
            self.triggers.setdefault(trigger.topic, []).append(output)
            self.lineage.append((f"trigger/{trigger.trigger_id}".encode(), encoded(trigger.lineage), []))
        for ended in evaluation.ended:
            if ended.lineage is not None:
                key = lineage_key(ended.position, ended.subscription, ended.join_key_hash)
                value = encoded({**ended.lineage, "ended_at": "2026-03-10T00:00:00.000Z"})
                self.lineage.append((key.encode(), value, []))
        for trigger in evaluation.undelivered:
            self.dead_letters.append((trigger.trigger_id.encode(), encoded({"kind": "trigger"}), []))
        for bad in evaluation.dead_letters:
            key = f"{bad.position.topic}/{bad.position.partition}/{bad.position.offset}"
            self.dead_letters.append((key.encode(), encoded({"kind": "signal"}), []))

    def discrepancies(self) -> list[str]:
        found = compare(self.evaluation, triggers=self.triggers, lineage=self.lineage, dead_letters=self.dead_letters)
        return [each.text for each in found]


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def topics() -> Topics:
    story = pair().signal("A", id="x", k=1).signal("A", id="x", k=1).signal("B", k=1).record(b"bad")
    return Topics(story.evaluate())


def test_topics_as_expected_have_no_discrepancies(topics):
    assert topics.discrepancies() == []


def test_a_missing_trigger_is_found(topics):
    topics.triggers = {"triggers": []}

    assert any("is missing" in found for found in topics.discrepancies())


def test_a_trigger_that_stands_there_twice_is_found(topics):
    topics.triggers["triggers"] *= 2

    assert any("2 times" in found for found in topics.discrepancies())


def test_a_trigger_nobody_expects_is_found(topics):
    ((key, value, headers),) = topics.triggers["triggers"]
    document = {**json.loads(value), "trigger_id": str(uuid.uuid4())}
    topics.triggers["triggers"].append((key, encoded(document), headers))

    assert any("is not expected" in found for found in topics.discrepancies())


def test_a_trigger_on_another_topic_is_found(topics):
    topics.triggers = {"other": topics.triggers["triggers"]}

    assert any('is on "other"' in found for found in topics.discrepancies())


@pytest.mark.parametrize(
    "change", [{"params": {"x": 1}}, {"fired_at": "2026-03-10T00:00:00.000Z"}, {"missing": ["x"]}, {"more": 1}]
)
def test_a_trigger_with_another_value_is_found(topics, change):
    ((key, value, headers),) = topics.triggers["triggers"]
    topics.triggers["triggers"] = [(key, encoded({**json.loads(value), **change}), headers)]

    assert any(next(iter(change)) in found for found in topics.discrepancies())


def test_true_in_place_of_one_is_found(topics):
    ((key, value, headers),) = topics.triggers["triggers"]
    document = json.loads(value)
    document["attempt"] = True
    topics.triggers["triggers"] = [(key, encoded(document), headers)]

    assert any("attempt" in found for found in topics.discrepancies())


def test_another_key_or_header_is_found(topics):
    ((_, value, headers),) = topics.triggers["triggers"]
    topics.triggers["triggers"] = [(b"key", value, headers[1:])]

    found = "\n".join(topics.discrepancies())
    assert "has the key" in found
    assert "ce_specversion" in found


def test_lineage_that_lacks_a_trigger_or_an_outcome_is_found(topics):
    topics.lineage = []

    found = topics.discrepancies()
    assert len(found) == 2
    assert all("is missing" in each for each in found)


def test_lineage_with_another_outcome_is_found(topics):
    key, value, headers = topics.lineage[-1]
    topics.lineage[-1] = (key, encoded({**json.loads(value), "outcome": "expired"}), headers)

    assert any('outcome "expired", not "duplicate"' in found for found in topics.discrepancies())


def test_lineage_of_fired_candidates_and_of_inputs_is_allowed(topics):
    fired = next(ended for ended in topics.evaluation.ended if ended.outcome == "fired")
    key = lineage_key(fired.position, fired.subscription, fired.join_key_hash)
    topics.lineage.append((key.encode(), encoded({"outcome": "fired"}), []))
    topics.lineage.append((b"input/0/1", b"{}", []))

    assert topics.discrepancies() == []


def test_a_dead_letter_too_many_or_too_few_is_found(topics):
    topics.dead_letters = [(b"signals/0/0", encoded({"kind": "signal"}), [])]

    found = "\n".join(topics.discrepancies())
    assert "dead letter signal signals/0/0: 1 found, 0 expected" in found
    assert "dead letter signal signals/0/3: 0 found, 1 expected" in found


def test_an_undeliverable_trigger_is_a_dead_letter_and_no_trigger():
    story = pair().signal("A", id="x", k=1).signal("B", k=1)
    (trigger,) = story.evaluate().triggers
    story.undeliverable[trigger.trigger_id] = "destination"

    evaluation = story.signal("A", id="x", k=1).evaluate()

    assert evaluation.triggers == ()
    assert story.outcomes() == {
        "x": "undeliverable/destination",
        "B1": "undeliverable/destination",
        "x'": "duplicate/repeat",
    }
    assert Topics(evaluation).discrepancies() == []


def test_a_trigger_by_position_is_accepted_without_params(topics):
    ((key, value, headers),) = topics.triggers["triggers"]
    document = json.loads(value)
    document["by_position"] = True
    for signal in document["signals"]:
        signal["params"] = {}
    topics.triggers["triggers"] = [(key, encoded(document), headers)]

    assert topics.discrepancies() == []


def test_lineage_of_a_set_that_fired_again_may_be_compacted():
    story = pair().signal("A", id="x", k=1, at=0).signal("B", id="y", k=1, at=0).mark("3h")
    topics = Topics(story.signal("A", id="x", k=1, at="3h").signal("B", id="y", k=1).evaluate())

    assert topics.discrepancies() == []
    first, second = topics.lineage
    topics.lineage = [second]
    assert topics.discrepancies() == []
    topics.lineage = [first]
    assert topics.discrepancies() != []


# --- counts that hold in any order ------------------------------------------------------------------------------------


def test_counts_in_any_order_are_the_smallest_number_of_identities_of_an_alias():
    story = pair().signal("B", id="b", k=1).signal("B", id="b", k=1, partition=1).signal("B", id="c", k=1)
    story.signal("A", k=1).signal("A", k=1).signal("A", k=1).signal("A", k=2)

    assert count_any_order(story.definitions, story.signals, {TOPIC: TOPIC_ID}) == {("t/pair", '{"k":1}'): 2}
    assert len(story.fired()) == 2


# --- reading evidence -------------------------------------------------------------------------------------------------


def test_decision_inputs_are_read_from_json():
    candidate = {
        "sequence": 3,
        "kind": "candidate",
        "position": {"topic": "signals", "partition": 1, "offset": 5},
        "subscription": "t/pair",
        "join_key_hash": "0123456789abcdef",
        "revision": 4,
        "recorded_at": 17,
    }
    mark = {"sequence": 2, "kind": "mark", "announced": {"signals/0": 9}, "inputs": ["signals/0"], "retired": []}

    assert read_input(candidate) == CandidateInput(
        3, reference.Position("signals", 1, 5), "t/pair", "0123456789abcdef", 4, 17
    )
    assert read_input(mark) == MarkInput(2, {"signals/0": 9}, ("signals/0",), ())
    assert read_input({"sequence": 1, "kind": "view", "revision": 7}) == ViewInput(1, 7)


def test_evidence_is_read_from_lineage():
    view: dict[str, Json] = {"kind": "view", "topic": "signals", "partition": 1, "offset": 6, "revision": 2}
    second: dict[str, Json] = {"partition": 3, "sequence": 9, "input": {"kind": "view", "revision": 2}}
    first: dict[str, Json] = {"partition": 3, "sequence": 8, "input": {"kind": "view", "revision": 1}}

    views, inputs = evidence_from_lineage(
        [
            (b"input/3/9", encoded(second), []),
            (b"view/signals/1/2", encoded(view), []),
            (b"trigger/x", b"{}", []),
            (b"input/3/8", encoded(first), []),
        ]
    )

    assert views == {("signals", 1): [View(6, 2)]}
    assert inputs == {3: [ViewInput(8, 1), ViewInput(9, 2)]}


def test_the_reference_shares_no_code_with_the_engine():
    """It imports the standard library, itself, and the names of the invariants, nothing else."""
    for path in sorted(Path(reference.__file__).parent.glob("reference*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                assert module.startswith(("signal_router.testing.reference", "signal_router.verify.report")) or (
                    module.split(".")[0] in sys.stdlib_module_names
                ), f"{path.name} imports {module}"
