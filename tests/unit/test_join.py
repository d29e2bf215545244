from __future__ import annotations

import pytest
from join_cases import DEDUPE_MS, ID, KEY, WITHIN_MS, Partition, signal, subscription

from signal_router.core import join_sets
from signal_router.core.join import Chore, Ended, Fired, Limits
from signal_router.core.tables import Progress
from signal_router.errors import StateError
from signal_router.model.candidates import Candidate, Mark
from signal_router.model.signals import Position
from signal_router.model.subscriptions import Policy

# ---- a candidate


def test_first_signal_waits() -> None:
    partition = Partition(subscription("ab"))

    assert partition.becomes(signal("a1"), "a") == ["a1 waits"]


def test_second_signal_completes_the_set_in_order_of_declaration() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("b1"), "b")

    assert partition.becomes(signal("a1"), "a") == ["a1 b1 fire"]


def test_completing_signal_is_the_one_that_arrived_last() -> None:
    partition = Partition(subscription("ab"))
    partition.takes(signal("a1"), "a")

    (fired,) = partition.takes(signal("b1", 990), "b")

    assert isinstance(fired, Fired)
    assert fired.completing.signal.id == "b1"
    assert fired.completing.sequence == 2


def test_what_fired_is_consumed() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    partition.becomes(signal("b1"), "b")

    assert partition.becomes(signal("b2"), "b") == ["b2 waits"]


def test_one_member_fires_at_once() -> None:
    partition = Partition(subscription("a"))

    assert partition.becomes(signal("a1"), "a") == ["a1 fire"]
    assert partition.becomes(signal("a2"), "a") == ["a2 fire"]


def test_join_keys_do_not_mix() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a", key='{"ds":"2026-03-10"}')

    assert partition.becomes(signal("b1"), "b", key='{"ds":"2026-03-11"}') == ["b1 waits"]


def test_earlier_arrivals_fire_first() -> None:
    partition = Partition(subscription("ab"))
    for name in ("a1", "a2", "a3"):
        partition.becomes(signal(name), "a")

    assert partition.becomes(signal("b1"), "b") == ["a1 b1 fire"]
    assert partition.becomes(signal("b2"), "b") == ["a2 b2 fire"]


def test_repeat_of_a_pending_signal_is_a_duplicate_of_the_first_copy() -> None:
    partition = Partition(subscription("ab"))
    partition.takes(signal("a1", offset=5), "a")

    (ended,) = partition.takes(signal("a1", offset=9), "a")

    assert isinstance(ended, Ended)
    assert (ended.outcome.value, ended.reason.value) == ("duplicate", "repeat")
    assert ended.cause == Position("signals", 0, 5)
    assert ended.aliases == ("a",)


def test_repeat_with_other_content_is_a_conflict() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")

    assert partition.becomes(signal("a1", content="other"), "a") == ["a1 duplicate conflict"]


def test_repeat_of_a_fired_signal_is_a_duplicate() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    partition.becomes(signal("b1"), "b")

    assert partition.becomes(signal("a1"), "a") == ["a1 duplicate repeat"]
    assert partition.becomes(signal("b1"), "b") == ["b1 duplicate repeat"]


def test_repeat_beyond_the_horizon_joins_again() -> None:
    partition = Partition(subscription("a"))
    partition.becomes(signal("a1", 1_000), "a")

    partition.clock(1_000 + DEDUPE_MS)
    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 duplicate repeat"]
    partition.clock(1_000 + DEDUPE_MS + 1)
    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 fire"]


def test_repeat_does_not_prolong_the_horizon() -> None:
    partition = Partition(subscription("a"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.becomes(signal("a1", 1_900), "a")

    partition.clock(1_000 + DEDUPE_MS + 1)

    assert partition.becomes(signal("a1", 1_900), "a") == ["a1 fire"]


def test_identities_of_one_set_are_forgotten_each_at_its_own_time() -> None:
    partition = Partition(subscription("a"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.becomes(signal("a2", 1_001), "a")

    partition.clock(1_001 + DEDUPE_MS)

    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 fire"]
    assert partition.becomes(signal("a2", 1_000), "a") == ["a2 duplicate repeat"]


def test_signal_that_fits_two_aliases_is_bound_when_the_set_fires() -> None:
    partition = Partition(subscription("ab"))

    assert partition.becomes(signal("x1"), "ab") == ["x1 waits"]
    assert partition.becomes(signal("a1"), "a") == ["a1 x1 fire"]


def test_self_join_binds_earlier_arrivals_to_earlier_aliases() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("x1"), "ab")

    assert partition.becomes(signal("x2"), "ab") == ["x1 x2 fire"]


# ---- time


def test_signal_too_far_from_the_arriving_one_is_passed_over_and_not_ended() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.becomes(signal("a2", 1_150), "a")

    assert partition.becomes(signal("b1", 1_101), "b") == ["a2 b1 fire"]
    assert partition.becomes(signal("b2", 1_100), "b") == ["a1 b2 fire"]


def test_too_wide_a_spread_passes_over_the_oldest() -> None:
    partition = Partition(subscription("abc"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.becomes(signal("a2", 1_050), "a")
    partition.becomes(signal("b1", 1_150), "b")

    assert partition.becomes(signal("c1", 1_090), "c") == ["a2 b1 c1 fire"]


def test_no_complete_set_is_lost_where_passing_over_the_oldest_finds_none() -> None:
    partition = Partition(subscription("abc"))
    partition.becomes(signal("b1", 1_190), "b")
    partition.becomes(signal("b2", 1_010), "b")
    partition.becomes(signal("a1", 1_020), "a")

    assert partition.becomes(signal("c1", 1_095), "c") == ["a1 b2 c1 fire"]


def test_pending_signal_expires_after_its_own_deadline() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.becomes(signal("a2", 1_001), "a")

    assert partition.clock(1_000 + WITHIN_MS) == []
    assert partition.clock(1_001 + WITHIN_MS) == ["a1 expired within"]
    assert partition.becomes(signal("a1"), "a") == ["a1 duplicate repeat"]


def test_late_signal_takes_part() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_100), "a")
    partition.clock(1_150)

    assert partition.becomes(signal("b1", 1_010), "b") == ["a1 b1 fire"]


def test_late_signal_that_completes_nothing_expires_at_once() -> None:
    partition = Partition(subscription("ab"))
    partition.clock(2_000)

    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 expired within"]
    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 duplicate repeat"]


def test_signal_whose_deadline_is_the_clock_still_waits() -> None:
    partition = Partition(subscription("ab"))
    partition.clock(1_000 + WITHIN_MS)

    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 waits"]
    assert partition.clock(1_001 + WITHIN_MS) == ["a1 expired within"]


def test_clock_is_the_smallest_announced_time_and_unknown_while_one_input_is_silent() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_000), "a")

    partition.joiner.mark(Mark("w", {"signals/0": 9_000}, ("signals/0", "signals/1")))
    assert partition.works() == []
    partition.joiner.mark(Mark("w", {"signals/1": 1_050}, ()))
    assert partition.works() == []
    assert partition.table.progress().clock == 1_050
    partition.joiner.mark(Mark("w", {"signals/1": 1_040}, ()))
    assert partition.table.progress().clock == 1_050
    partition.joiner.mark(Mark("w", {}, (), ("signals/1",)))
    assert partition.works() == ["a1 expired within"]


def test_deadline_given_while_the_clock_was_back_is_kept() -> None:
    partition = Partition(subscription("ab"))
    partition.clock(2_000)
    partition.joiner.mark(Mark("w", {"signals/1": 900}, ("signals/1",)))
    partition.works()
    partition.becomes(signal("a1", 1_000), "a")
    partition.commit()

    partition.joiner.mark(Mark("w", {"signals/0": 3_000, "signals/1": 3_000}, ()))

    assert partition.works() == ["a1 expired within"]


# ---- latest


def test_latest_replaces_the_pending_signal_of_its_alias() -> None:
    partition = Partition(subscription("ab", policy=Policy.LATEST))
    partition.takes(signal("a1"), "a")

    superseded, _ = partition.takes(signal("a2", offset=7), "a")

    assert isinstance(superseded, Ended)
    assert (superseded.signal.id, superseded.reason.value) == ("a1", "newer")
    assert superseded.cause == Position("signals", 0, 7)
    assert partition.becomes(signal("b1"), "b") == ["a2 b1 fire"]


def test_latest_keeps_a_signal_that_is_the_newest_of_one_of_its_aliases() -> None:
    partition = Partition(subscription("abc", policy=Policy.LATEST))
    partition.becomes(signal("x1"), "ab")

    assert partition.becomes(signal("a1"), "a") == ["a1 waits"]
    assert partition.becomes(signal("b1"), "b") == ["x1 superseded newer", "b1 waits"]


def test_cause_of_being_superseded_is_the_newest_that_shares_an_alias() -> None:
    partition = Partition(subscription("abc", policy=Policy.LATEST))
    partition.takes(signal("x1", offset=1), "ab")
    partition.takes(signal("a1", offset=2), "a")

    superseded, _ = partition.takes(signal("b1", offset=3), "b")

    assert isinstance(superseded, Ended)
    assert (superseded.signal.id, superseded.cause) == ("x1", Position("signals", 0, 3))


def test_latest_is_not_replaced_by_a_repeat() -> None:
    partition = Partition(subscription("ab", policy=Policy.LATEST))
    partition.becomes(signal("a1"), "a")
    partition.becomes(signal("a2"), "a")

    assert partition.becomes(signal("a1"), "a") == ["a1 duplicate repeat"]
    assert partition.becomes(signal("b1"), "b") == ["a2 b1 fire"]


def test_edit_to_latest_keeps_the_newest_when_the_set_is_next_touched() -> None:
    partition = Partition(subscription("ab"))
    for name in ("a1", "a2", "a3"):
        partition.becomes(signal(name), "a")

    assert partition.applies(ID, subscription("ab", policy=Policy.LATEST, revision=1)) == []

    assert partition.becomes(signal("b1"), "b") == ["a2 superseded newer", "a1 superseded newer", "a3 b1 fire"]


# ---- limits


@pytest.mark.parametrize("limits", [Limits(per_key=2), Limits(per_subscription=2), Limits(per_partition=2)])
def test_newest_over_a_limit_is_discarded_and_remembered(limits: Limits) -> None:
    partition = Partition(subscription("ab"), limits=limits)
    partition.becomes(signal("a1"), "a")
    partition.becomes(signal("a2"), "a")

    assert partition.becomes(signal("a3"), "a") == ["a3 discarded limit"]
    assert partition.becomes(signal("a3"), "a") == ["a3 duplicate repeat"]
    assert partition.becomes(signal("b1"), "b") == ["a1 b1 fire"]
    assert partition.becomes(signal("a4"), "a") == ["a4 waits"]


def test_limit_of_a_key_leaves_other_keys_alone() -> None:
    partition = Partition(subscription("ab"), limits=Limits(per_key=1))
    partition.becomes(signal("a1"), "a")

    assert partition.becomes(signal("a1"), "a", key="{}") == ["a1 waits"]


# ---- edits


def test_edit_of_the_template_keeps_what_is_pending_with_its_deadline() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_000), "a")

    assert partition.applies(ID, subscription("ab", revision=1, within_ms=5_000)) == []
    assert partition.clock(1_000 + WITHIN_MS + 1) == ["a1 expired within"]


def test_identity_that_ends_after_an_edit_is_remembered_for_the_new_horizon() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.applies(ID, subscription("ab", revision=1, dedupe_ms=5_000))
    partition.clock(1_101)

    partition.clock(6_101)
    assert partition.becomes(signal("a1", 6_100), "a") == ["a1 duplicate repeat"]
    partition.clock(6_102)
    assert partition.becomes(signal("a1", 6_100), "a") == ["a1 waits"]


def test_other_members_end_what_is_pending_and_keep_identities() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    partition.becomes(signal("b1"), "b")
    partition.becomes(signal("a2"), "a")

    assert partition.applies(ID, subscription("abc", join_generation=2, revision=1)) == ["a2 superseded edit"]
    assert partition.becomes(signal("a2"), "a") == ["a2 duplicate repeat"]
    assert partition.becomes(signal("a1"), "a") == ["a1 duplicate repeat"]


def test_candidate_of_an_older_join_generation_is_superseded_and_remembered() -> None:
    old = subscription("ab")
    partition = Partition(old)
    partition.applies(ID, subscription("cd", join_generation=2, revision=1))

    (ended,) = partition.takes(signal("a1"), "a", of=old)

    assert isinstance(ended, Ended)
    assert (ended.outcome.value, ended.reason.value, ended.aliases) == ("superseded", "edit", ())
    (repeat,) = partition.takes(signal("a1"), "a", of=old)
    assert isinstance(repeat, Ended)
    assert (repeat.outcome.value, repeat.aliases) == ("duplicate", ())


def test_deleting_discards_what_is_pending_and_forgets_identities() -> None:
    old = subscription("ab")
    partition = Partition(old)
    partition.becomes(signal("a1"), "a")
    partition.becomes(signal("b1"), "b")
    partition.becomes(signal("a2"), "a")

    assert partition.applies(ID, None) == ["a2 discarded deleted"]
    assert partition.becomes(signal("a3"), "a", of=old) == ["a3 discarded deleted"]
    reborn = subscription("ab", birth=2, revision=2)
    partition.applies(ID, reborn)
    assert partition.becomes(signal("a1"), "a", of=old) == ["a1 discarded deleted"]
    assert partition.becomes(signal("a1"), "a") == ["a1 waits"]
    assert partition.becomes(signal("b1"), "b") == ["a1 b1 fire"]


def test_delete_and_rebirth_seen_at_once_discards() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    partition.definitions.put(ID, None)

    assert partition.applies(ID, subscription("ab", birth=2, revision=2)) == ["a1 discarded deleted"]
    assert partition.becomes(signal("b1"), "b") == ["b1 waits"]


def test_deleted_sets_leave_nothing_behind() -> None:
    partition = Partition(subscription("ab"))
    for number in range(30):
        partition.becomes(signal(f"a{number}"), "a")
        partition.becomes(signal(f"b{number % 11}"), "b")

    partition.applies(ID, None)
    partition.commit()

    assert {key[2:3] for key, _ in partition.store.scan(b"", b"\xff")} == {b"V"}


# ---- what must not be


def test_unknown_subscription_stops_the_worker() -> None:
    partition = Partition()

    with pytest.raises(StateError, match='subscription "team/job" of a candidate is not on the definitions topic'):
        partition.takes(signal("a1"), "a", of=subscription("ab"))


def test_definitions_older_than_a_candidate_stop_the_worker() -> None:
    partition = Partition(subscription("ab"))
    newer = Candidate(ID, 1, 1, 1, KEY, 1, signal("a1"))

    with pytest.raises(StateError, match="a candidate of revision 1 met definitions of revision 0"):
        partition.joiner.candidate(1, newer)


def test_definitions_do_not_change_while_the_last_change_is_carried_out() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    partition.definitions.put(ID, None)
    partition.joiner.change_view()

    with pytest.raises(StateError, match="revision 1 are still being carried out"):
        partition.joiner.change_view()


# ---- work in pieces


def pieces_of_work(partition: Partition, *, lose: bool) -> list[str]:
    """Does one piece at a time, each in a stage of its own; with `lose` every stage is voided once before."""
    done: list[str] = []
    while True:
        if lose:
            for _, _ in zip(range(2), partition.joiner.work(), strict=False):
                pass
            partition.table.discard()
        decision = next(partition.joiner.work(), None)
        if decision is None:
            return done
        if isinstance(decision, Ended):
            done.append(str(decision.signal.id))
        else:
            assert isinstance(decision, Chore)
        partition.commit()
        partition.open()


@pytest.mark.parametrize("lose", [False, True])
def test_expiry_given_up_at_any_piece_goes_on_where_it_was(lose: bool) -> None:
    partition = Partition(subscription("ab"))
    for number in range(20):
        partition.becomes(signal(f"a{number}", 1_000 + number), "a")
    partition.joiner.mark(Mark("w", {"signals/0": 5_000}, ("signals/0",)))
    partition.commit()

    done = pieces_of_work(partition, lose=lose)

    assert sorted(done) == sorted(f"a{number}" for number in range(20))
    assert partition.table.pending_count("") == 0


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("after", [None, subscription("abc", join_generation=2, revision=1)], ids=["delete", "edit"])
def test_change_of_definitions_given_up_at_any_piece_goes_on_where_it_was(lose: bool, after: object) -> None:
    partition = Partition(subscription("ab"))
    for number in range(20):
        partition.becomes(signal(f"a{number}"), "a", key=f'{{"ds":"{number % 3}"}}')
    partition.definitions.put(ID, after)  # type: ignore[arg-type]
    partition.joiner.change_view()
    partition.commit()

    done = pieces_of_work(partition, lose=lose)

    assert sorted(done) == sorted(f"a{number}" for number in range(20))
    assert partition.table.progress().changes == ()
    assert partition.table.pending_count(ID) == 0


def test_work_does_not_look_at_definitions_that_are_newer_than_the_partition() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1", 1_000), "a")
    partition.joiner.mark(Mark("w", {"signals/0": 1_500}, ("signals/0",)))
    partition.definitions.put(ID, None)

    assert partition.works() == ["a1 expired within"]

    remembered = partition.table.join_set(ID, KEY)
    assert remembered is not None
    assert [one.forget_at for one in remembered.remembered] == [1_500 + DEDUPE_MS]


def test_discarded_stage_is_decided_again_alike() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    partition.commit()
    first = [partition.becomes(signal(name), name[0]) for name in ("a2", "b1", "b2", "b3")]

    partition.table.discard()

    assert [partition.becomes(signal(name), name[0]) for name in ("a2", "b1", "b2", "b3")] == first


def test_rolled_back_candidate_leaves_no_trace() -> None:
    partition = Partition(subscription("ab"))
    partition.becomes(signal("a1"), "a")
    before = (partition.table.staged(), partition.table.staged_locally())
    savepoint = partition.table.savepoint()
    partition.becomes(signal("b1"), "b")

    partition.table.rollback(savepoint)

    assert (partition.table.staged(), partition.table.staged_locally()) == before
    assert partition.becomes(signal("b1"), "b") == ["a1 b1 fire"]


def test_clock_survives_a_restart() -> None:
    partition = Partition(subscription("ab"))
    partition.clock(2_000)
    partition.commit()

    partition.open()

    assert partition.table.progress() == Progress(0, (), {"signals/0": 2_000})
    assert partition.becomes(signal("a1", 1_000), "a") == ["a1 expired within"]


def test_hot_key_gives_the_same_as_a_small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[list[str]]:
        partition = Partition(subscription("abc"))
        taken = []
        for number in range(60):
            name = "aabacab"[number % 7]
            taken.append(partition.becomes(signal(f"{name}{number % 50}", 1_000 + number), name))
            if number % 9 == 8:
                taken.append(sorted(partition.clock(1_000 + number // 2)))
                partition.commit()
        return taken

    large = run()
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", 1)

    assert run() == large
    assert any("fire" in text for texts in large for text in texts)
