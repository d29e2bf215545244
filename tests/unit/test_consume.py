"""The consume thread's callbacks and its hand-off, turn by turn and without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import TopicPartition as KafkaTopicPartition

from signal_router.errors import SignalRouterError
from signal_router.kafka.consume import ConsumeThread, Fetched
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import TopicPartition

MEMBER = GroupMetadata("app", 3, "w1-1").encode()
ANONYMOUS = GroupMetadata("app", -1, "").encode()
NO_MEMBER = GroupMetadata("app", 3, "").encode()
PLACE = KafkaTopicPartition("signals", 0)


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.assignments: list[tuple[int, bytes]] = []
        self.ended: list[int] = []
        self.epochs: list[int] = []
        self.batches: list[Fetched] = []
        self.failures: list[SignalRouterError] = []

    def assigned(self, assignment: int, _tps: frozenset[TopicPartition], group_metadata: bytes) -> None:
        self.assignments.append((assignment, group_metadata))

    def revoked(self, assignment: int) -> None:
        self.ended.append(assignment)

    def lost(self, assignment: int) -> None:
        self.ended.append(assignment)

    def fetching(self, _assignment: int, epoch: int) -> None:
        self.epochs.append(epoch)

    def fetched(self, batches: Sequence[Fetched]) -> None:
        self.batches.extend(batches)

    def failed(self, error: SignalRouterError) -> None:
        self.failures.append(error)


class Group:
    """What the thread asks of a consumer: its callbacks, its metadata, and records to give."""

    def __init__(self, records: int = 0) -> None:
        self.metadata = MEMBER
        self.records = records
        self.callbacks: dict[str, Any] = {}
        self.assigned: list[Any] = []

    def subscribe(self, _topics: list[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def assign(self, places: list[Any]) -> None:
        self.assigned = places

    def unassign(self) -> None:
        self.assigned = []

    def consumer_group_metadata(self) -> bytes:
        return self.metadata

    def poll(self, _timeout: float) -> Record | None:
        return next(iter(self.consume(1, 0)), None)

    def consume(self, count: int, _timeout: float) -> list[Record]:
        given = min(count, self.records) if self.assigned else 0
        self.records -= given
        return [Record(offset) for offset in range(given)]


class Record:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None: ...

    def topic(self) -> str:
        return "signals"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None: ...


def joined(heard: Heard, group: Group, **bounds: int) -> ConsumeThread:
    """A thread that is not started: the test takes its turns."""
    thread = ConsumeThread({}, heard, slot="w1", **bounds)
    thread.subscribe(["signals"])
    thread._turn(group)  # type: ignore[arg-type]
    return thread


@pytest.mark.parametrize("metadata", [ANONYMOUS, NO_MEMBER])
def test_an_assignment_without_a_membership_is_not_begun(metadata: bytes) -> None:
    heard, group = Heard(), Group()
    thread = joined(heard, group)

    group.metadata = metadata
    group.callbacks["on_assign"](group, [PLACE])
    group.callbacks["on_lost"](group, [PLACE])
    group.metadata = MEMBER
    group.callbacks["on_assign"](group, [PLACE])
    thread._turn(group)  # type: ignore[arg-type]

    assert heard.assignments == [(3, MEMBER)]


def test_what_is_void_takes_no_room() -> None:
    heard, group = Heard(), Group(records=1_000)
    thread = joined(heard, group, max_records=10, max_pending_records=20)
    group.callbacks["on_assign"](group, [PLACE])
    thread.start_fetching(1, {TopicPartition("signals", 0): 0})
    for _ in range(9):
        thread._turn(group)  # type: ignore[arg-type]
    full = sum(len(batch.records) for batch in heard.batches)

    thread.start_fetching(1, {TopicPartition("signals", 0): 0})
    group.records = 5
    thread._turn(group)  # type: ignore[arg-type]
    for batch in heard.batches[:-1]:
        thread.taken(batch)
    waiting = thread.pending_records
    thread.taken(heard.batches[-1])

    assert 20 <= full < 100
    assert len(heard.batches[-1].records) == 5
    assert waiting == len(heard.batches[-1].records)
    assert thread.pending_records == 0
