"""Whose open transactions a take-over ends."""

from __future__ import annotations

import pytest

from signal_router.errors import BrokerError, ConfigurationError, SignalRouterError
from signal_router.model.log import LogError, TopicPartition, UnknownOutcomeError
from signal_router.runtime.former_owners import LATELY_MS, FormerOwners
from signal_router.runtime.roster import Roster, TakeoverRecord, WorkerRecord, now_ms

MINE = (TopicPartition("signals", 0), TopicPartition("candidates", 1))


def said(slot: str, partitions: dict[str, list[int]], *, ago_ms: int = 0, left: bool = False) -> WorkerRecord:
    return WorkerRecord(slot, 1, "0", "here", 0, partitions, now_ms() - ago_ms, left)


def fenced(*workers: WorkerRecord) -> list[str]:
    found: list[str] = []
    roster = Roster({each.slot: each for each in workers})
    owners = FormerOwners(roster, "me", MINE, lambda _: None, found.append)
    owners()
    owners()
    return found


def test_who_last_held_one_of_the_partitions_is_fenced_once() -> None:
    assert fenced(said("dead", {"signals": [0, 3]}), said("other", {"signals": [1], "candidates": [0]})) == ["dead"]


@pytest.mark.parametrize(
    "worker",
    [
        said("me", {"signals": [0]}),
        said("gone", {"signals": [0]}, left=True),
        said("old", {"signals": [0]}, ago_ms=LATELY_MS + 1_000),
        said("spare", {}),
    ],
    ids=lambda worker: worker.slot,
)
def test_who_cannot_have_it_open_is_left_alone(worker: WorkerRecord) -> None:
    assert fenced(worker) == []


def test_one_that_cannot_be_fenced_does_not_save_the_next() -> None:
    found: list[str] = []

    def fence(slot: str) -> None:
        if slot == "a":
            raise UnknownOutcomeError("no answer")
        found.append(slot)

    workers = {slot: said(slot, {"candidates": [1]}) for slot in ("a", "b")}
    FormerOwners(Roster(workers), "me", MINE, lambda _: None, fence)()

    assert issubclass(UnknownOutcomeError, LogError)
    assert found == ["b"]


def test_who_is_fenced_is_announced_before() -> None:
    done: list[object] = []
    owners = Roster({"dead": said("dead", {"signals": [0, 3], "candidates": [1]})})

    FormerOwners(owners, "me", MINE, done.append, done.append)()

    announced, fenced_slot = done
    assert isinstance(announced, TakeoverRecord)
    assert (announced.slot, announced.by) == ("dead", "me")
    assert announced.partitions == {"signals": [0], "candidates": [1]}
    assert abs(now_ms() - announced.at) < 10_000
    assert fenced_slot == "dead"


@pytest.mark.parametrize("refusal", [BrokerError("away"), ConfigurationError("no permission to write")])
def test_nobody_is_fenced_without_an_announcement(refusal: SignalRouterError) -> None:
    found: list[str] = []

    def announce(takeover: TakeoverRecord) -> None:
        if takeover.slot == "a":
            raise refusal

    workers = {slot: said(slot, {"candidates": [1]}) for slot in ("a", "b")}
    FormerOwners(Roster(workers), "me", MINE, announce, found.append)()

    assert found == ["b"]
