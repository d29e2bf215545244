"""Lives and transactions, as the records of one partition show them."""

from __future__ import annotations

from signal_router.model.log import InputRecord
from signal_router.verify.transactions import Fence, aborted_and_redone


def wrong(*transactions: str, left_out: tuple[str, ...] = ()) -> list[str]:
    fence = Fence(left_out)
    return [found for each in transactions if (found := fence.take((("sr_txn", each.encode()),))) is not None]


def test_lives_that_follow_each_other_are_as_they_should_be() -> None:
    assert wrong("w1/1/1", "w1/1/1", "w2/1/1", "w1/1/7", "w1/2/1", "w2/1/2", "w1/3/1") == []


def test_a_life_behind_a_later_one_is_wrong() -> None:
    assert wrong("w1/1/5", "w1/2/1", "w1/1/6", "w1/2/2") == ["transaction w1/1/6 behind w1/2/1"]


def test_slots_that_are_left_out_hide_no_others() -> None:
    behind = ("w1/2/1", "w1/1/6", "w2/2/1", "w2/1/1")

    assert wrong(*behind, left_out=("w1",)) == ["transaction w2/1/1 behind w2/2/1"]


def test_of_two_with_one_incarnation_one_goes_on_and_they_do_not_write_by_turns() -> None:
    assert wrong("w1/1/4", "w1/1/1", "w1/1/2", "w1/1/9") == []
    assert wrong("w1/1/4", "w1/1/1", "w1/1/5", "w1/1/2") == ["transaction w1/1/2 behind w1/1/5"]


def test_replays_and_other_writers_have_no_lives() -> None:
    assert wrong("replay/ab12/3", "replay/0f/1", "by hand") == []
    assert Fence().take(None) is None


def record(offset: int, key: bytes) -> InputRecord:
    return InputRecord(offset, 0, key, b"")


def test_what_was_aborted_is_told_from_what_came_again() -> None:
    everything = [record(0, b"a"), record(1, b"b"), record(3, b"a"), record(5, b"c")]

    assert aborted_and_redone([everything[2], everything[3]], everything) == (2, 1)
    assert aborted_and_redone(everything, everything) == (0, 0)
    assert aborted_and_redone([everything[3]], everything) == (3, 0)
