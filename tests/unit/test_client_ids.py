"""Each recipe says what makes two publications one signal, and no two recipes meet."""

from __future__ import annotations

import pytest

from signal_router.client import once_per_attempt, once_per_revision, once_per_run, once_per_task
from signal_router.errors import RecordError


def test_a_run_is_one_signal_whatever_runs_again_inside_it():
    assert once_per_run("run-7") == once_per_run("run-7") != once_per_run("run-8")


def test_a_retry_of_a_task_is_a_repeat_and_another_task_is_not():
    assert once_per_task("run-7", "load") == once_per_task("run-7", "load")
    assert len({once_per_task("run-7", "load"), once_per_task("run-7", "check"), once_per_task("run-8", "load")}) == 3


def test_every_attempt_is_a_signal_of_its_own():
    assert once_per_attempt("run-7", "load", 1) != once_per_attempt("run-7", "load", 2)


def test_a_revision_does_not_ask_which_run_it_was():
    assert once_per_revision("titles/2026-03-10", 3) == once_per_revision("titles/2026-03-10", 3)
    assert once_per_revision("titles/2026-03-10", 3) != once_per_revision("titles/2026-03-10", 4)


def test_parts_tell_signals_of_one_task_apart_and_are_never_mistaken_for_one_another():
    assert once_per_task("r", "t", "US") != once_per_task("r", "t", "CA")
    assert once_per_task("r", "a/b") != once_per_task("r", "a", "b")
    assert once_per_task("r", "a%2Fb") != once_per_task("r", "a/b")
    assert once_per_run("r", "t") != once_per_task("r", "t")
    assert once_per_task("r", "t", 2) != once_per_attempt("r", "t", 2)


def test_an_empty_part_is_refused_before_it_makes_runs_one():
    with pytest.raises(RecordError, match="a part of the id is empty"):
        once_per_run("")
