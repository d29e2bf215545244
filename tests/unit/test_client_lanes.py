"""What is next and up to where all are done: whoever waits holds up its lane only, and nothing is skipped."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from signal_router.client.lanes import Item, Lanes
from signal_router.model.log import TopicPartition

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


def lanes(*tps: TopicPartition, at: int = 0) -> Lanes[str]:
    made: Lanes[str] = Lanes()
    for tp in tps:
        made.begin(tp, at, known=True)
    return made


def drain(of: Lanes[str], now: float = 0.0) -> list[Item[str]]:
    found = []
    while (item := of.take(now)) is not None:
        found.append(item)
    return found


def test_records_of_one_lane_are_taken_one_after_the_other():
    work = lanes(P0)
    for offset in range(3):
        work.add(P0, offset, b"k", f"{offset}")

    (first,) = drain(work)
    work.finish(first)
    (second,) = drain(work)

    assert (first.work, second.work) == ("0", "1")


def test_a_record_that_waits_holds_up_its_own_lane_only():
    work = lanes(P0)
    work.add(P0, 0, b"a", "a0")
    work.add(P0, 1, b"a", "a1")
    work.add(P0, 2, b"b", "b2")
    failed, other = drain(work)

    work.again(failed, at=5.0)
    work.finish(other)

    assert work.take(4.9) is None
    assert work.next_at() == 5.0
    assert [item.work for item in drain(work, 5.0)] == ["a0"]
    assert work.next_offsets() == {}  # nothing before the one that waits is left out
    work.finish(failed)
    assert work.next_offsets() == {P0: 1}
    work.finish(drain(work)[0])
    assert work.next_offsets() == {P0: 3}


def test_the_group_is_told_each_offset_once():
    work = lanes(P0, P1)
    work.add(P0, 4, b"k", "x")
    work.finish(drain(work)[0])
    work.pass_over(P1, 9)

    offsets = work.next_offsets()
    work.known(offsets)

    assert offsets == {P0: 5, P1: 10}
    assert work.next_offsets() == {}
    assert work.resume_at() == {P0: (5, True), P1: (10, True)}


def test_the_start_of_a_partition_that_the_group_does_not_know_is_told():
    work: Lanes[str] = Lanes()
    work.begin(P0, 7, known=False)

    assert work.next_offsets() == {P0: 7}
    work.add(P0, 7, None, "x")
    work.finish(drain(work)[0])
    assert work.resume_at() == {P0: (7, False)}


def test_a_record_that_is_passed_over_behind_one_in_work_does_not_end_it():
    work = lanes(P0)
    work.add(P0, 0, b"k", "x")
    work.pass_over(P0, 1)

    assert work.next_offsets() == {}
    work.finish(drain(work)[0])
    assert work.next_offsets() == {P0: 2}


def test_what_went_with_its_partition_is_neither_taken_nor_finished():
    work = lanes(P0, P1)
    in_hand = work.add(P0, 0, b"k", "in hand")
    work.add(P0, 1, b"k", "behind")
    work.add(P0, 2, b"later", "later")
    work.add(P1, 0, b"k", "stays")
    taken = drain(work)
    work.again(taken[1], at=1.0)

    work.drop([P0])
    assert in_hand is not None
    work.finish(in_hand)
    work.again(in_hand, at=1.0)

    assert drain(work, 2.0) == []
    assert work.next_offsets() == {}
    assert work.waiting(P0) == 0
    assert work.add(P0, 3, b"k", "not ours") is None
    work.finish(taken[2])
    assert work.next_offsets() == {P1: 1}


def test_a_partition_that_begins_anew_takes_its_records_again():
    work = lanes(P0)
    work.add(P0, 0, b"k", "x")
    work.finish(drain(work)[0])

    work.begin(P0, 0, known=True)

    assert work.add(P0, 0, b"k", "x") is not None
    assert work.add(P0, 0, b"k", "twice") is None
    assert [item.work for item in drain(work)] == ["x"]


@settings(deadline=None, max_examples=300)
@given(
    keys=st.lists(st.sampled_from([b"a", b"b", b"c", None]), min_size=1, max_size=30),
    fates=st.lists(st.sampled_from(["finish", "again", "receive"]), max_size=200),
)
def test_whatever_fails_when_every_key_keeps_its_order_and_no_offset_runs_ahead(keys, fates):
    work = lanes(P0)
    handled: dict[bytes | None, list[int]] = {}
    done: set[int] = set()
    received, now = 0, 0.0

    def attempt(fate: str) -> None:
        nonlocal now
        item = work.take(now)
        if item is None:
            now = work.next_at() or now
        elif fate == "again":
            work.again(item, now + 1)
        else:
            handled.setdefault(item.lane[1], []).append(item.offset)
            done.add(item.offset)
            work.finish(item)

    for fate in fates:
        if fate == "receive" and received < len(keys):
            work.add(P0, received, keys[received], "x")
            received += 1
        else:
            attempt(fate)
        told = work.next_offsets().get(P0, 0)
        assert set(range(told)) <= done
    while received < len(keys):
        work.add(P0, received, keys[received], "x")
        received += 1
    for _ in range(4 * len(keys) + len(fates)):
        attempt("finish")

    assert handled == {key: [n for n, each in enumerate(keys) if each == key] for key in set(keys)}
    assert work.next_offsets() == {P0: len(keys)}
    assert work.waiting(P0) == 0
