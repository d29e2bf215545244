"""The workers topic folded: which life of a slot counts."""

from __future__ import annotations

import msgspec
import pytest

from signal_router.errors import StateError
from signal_router.model.log import InputRecord
from signal_router.runtime.roster import FORMAT, InputStart, Roster, WorkerRecord, worker_output


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


@pytest.mark.parametrize(
    ("key", "known"),
    [
        (b"w1", WorkerRecord("w1", 1, "2", "here", 0, {}, 0)),
        (b"input/signals/0", InputStart("topic", 0, 0)),
        (b"w1", None),
    ],
)
def test_a_record_of_a_later_format_is_refused_whatever_else_it_says(key: bytes, known: msgspec.Struct | None) -> None:
    later = {} if known is None else msgspec.to_builtins(known)
    value = msgspec.json.encode({**later, "format": FORMAT + 1})

    with pytest.raises(StateError, match=f"is of format {FORMAT + 1}") as refused:
        Roster().take([InputRecord(0, 0, key, value)])

    assert "run the newer program version" in str(refused.value.hint)
