"""Pauses grow, are bounded, and differ; a parked record says why it was parked."""

from __future__ import annotations

import pytest

from signal_router.client import Parked, Retries
from signal_router.model.signals import Position


def test_pauses_double_up_to_the_longest():
    retries = Retries(first_s=1, longest_s=10, jitter=0)

    assert [retries.pause_s(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


def test_jitter_only_shortens_and_by_its_share_at_most():
    retries = Retries(first_s=1, longest_s=10, jitter=0.5)

    assert retries.pause_s(2, chance=0.0) == 2
    assert retries.pause_s(2, chance=0.5) == 1.5
    assert {1 <= retries.pause_s(2) <= 2 for _ in range(100)} == {True}
    assert len({retries.pause_s(2) for _ in range(10)}) > 1


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_s": -1}, {"first_s": 100}, {"jitter": 1.0}])
def test_retries_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="these are no retries"):
        Retries(**wrong)


def test_a_parked_record_is_the_trigger_s_own_with_the_reason():
    headers = (("ce_id", b"1"), ("empty", None), ("sr_parked_reason", b"earlier"))
    parked = Parked(Position("triggers", 2, 7), b"k", b"{}", headers, "failed", "OSError: no", 5, "g", None)

    record = parked.record("p")

    assert (record.topic, record.key, record.value) == ("p", b"k", b"{}")
    assert record.headers == (
        ("ce_id", b"1"),
        ("empty", None),
        ("sr_parked_reason", b"failed"),
        ("sr_parked_error", b"OSError: no"),
        ("sr_parked_attempts", b"5"),
        ("sr_parked_from", b"triggers/2/7"),
        ("sr_parked_group", b"g"),
    )
