"""The workers topic folded: which life of a slot counts."""

from __future__ import annotations

from signal_router.model.log import InputRecord
from signal_router.runtime.roster import Roster, WorkerRecord, worker_output


def record(incarnation: int, at: int, life: str = "a") -> InputRecord:
    output = worker_output("workers", WorkerRecord("w1", incarnation, "1", "here", 0, {}, at, life=life), ())
    return InputRecord(at, at, output.key, output.value)


def test_an_older_life_does_not_hide_a_newer_one() -> None:
    roster = Roster()

    roster.take([record(1, 0), record(2, 1), record(1, 2)])

    assert roster.workers["w1"].incarnation == 2


def test_the_latest_record_of_a_life_counts() -> None:
    roster = Roster()

    roster.take([record(2, 0), record(2, 5)])

    assert roster.workers["w1"].at == 5


def test_of_two_lives_that_began_at_once_the_same_one_counts_whoever_writes_last() -> None:
    one, other = Roster(), Roster()

    one.take([record(2, 0, "a"), record(2, 1, "b")])
    other.take([record(2, 0, "b"), record(2, 1, "a")])

    assert one.workers["w1"].life == other.workers["w1"].life == "b"
