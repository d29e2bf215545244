"""The workers topic folded: which life of a slot counts, and who was fenced by whom."""

from __future__ import annotations

import msgspec
import pytest

from signal_router.errors import NewerFormatError, StateError
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.roster import (
    InputStart,
    Roster,
    TakeoverRecord,
    WorkerRecord,
    input_output,
    takeover_output,
    worker_output,
)


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


def test_the_latest_take_over_of_each_slot_is_known_and_makes_nobody_a_worker() -> None:
    roster = Roster()
    takeovers = [TakeoverRecord("w1", by, {"signals": [0]}, at) for at, by in enumerate(("w2", "w3"))]

    roster.take([record(1, 0)])
    for each in takeovers:
        output = takeover_output("workers", each)
        roster.take([InputRecord(each.at, each.at, output.key, output.value)])

    assert roster.takeovers == {"w1": takeovers[1]}
    assert list(roster.workers) == ["w1"]


def test_keys_of_other_kinds_are_passed_over() -> None:
    roster = Roster()

    roster.take([InputRecord(0, 0, b"drain/w1", b"whatever"), record(1, 1)])

    assert list(roster.workers) == ["w1"]


def test_inputs_are_known_by_topic_and_partition() -> None:
    roster, start = Roster(), InputStart("id", 5, 0)
    output = input_output("workers", TopicPartition("a/b", 3), start, ())

    roster.take([InputRecord(0, 0, output.key, output.value)])

    assert roster.inputs == {TopicPartition("a/b", 3): start}


@pytest.mark.parametrize("key", [b"w1", b"input/signals/0", b"takeover/w1"])
def test_a_record_of_a_newer_format_is_refused_whatever_it_holds(key: bytes) -> None:
    with pytest.raises(NewerFormatError, match="format 2"):
        Roster().take([InputRecord(0, 0, key, msgspec.json.encode({"format": 2, "slots": ["w1"]}))])


@pytest.mark.parametrize("key", [b"w1", b"input/signals/0", b"input/signals/x", b"takeover/w1"])
def test_a_record_that_cannot_be_read_is_named(key: bytes) -> None:
    with pytest.raises(StateError, match=f'"{key.decode()}"'):
        Roster().take([InputRecord(0, 0, key, b'{"format": 1}')])
