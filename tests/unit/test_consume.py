"""The consume thread's callbacks and its hand-off, turn by turn and without a broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as KafkaTopicPartition

from signal_router.errors import FencedError, SignalRouterError, StateError
from signal_router.kafka import consume
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
        self.partitions: list[set[int]] = []
        self.gone: list[set[int]] = []
        self.ended: list[int] = []
        self.epochs: list[int] = []
        self.batches: list[Fetched] = []
        self.failures: list[SignalRouterError] = []
        self.rejoined: list[str] = []
        self.taken: SignalRouterError | None = None

    def assigned(self, assignment: int, tps: frozenset[TopicPartition], group_metadata: bytes) -> None:
        self.assignments.append((assignment, group_metadata))
        self.partitions.append({tp.partition for tp in tps})

    def revoked(self, assignment: int, tps: frozenset[TopicPartition]) -> None:
        self.ended.append(assignment)
        self.gone.append({tp.partition for tp in tps})

    def lost(self, assignment: int) -> None:
        self.ended.append(assignment)

    def fetching(self, _assignment: int, epoch: int) -> None:
        self.epochs.append(epoch)

    def fetched(self, batches: Sequence[Fetched]) -> None:
        self.batches.extend(batches)

    def slot_taken(self) -> SignalRouterError | None:
        return self.taken

    def rejoining(self, fence: str) -> None:
        self.rejoined.append(fence)

    def failed(self, error: SignalRouterError) -> None:
        self.failures.append(error)


class Group:
    """What the thread asks of a consumer: its callbacks, its metadata, and records to give."""

    def __init__(self, records: int = 0) -> None:
        self.metadata = MEMBER
        self.records = records
        self.callbacks: dict[str, Any] = {}
        self.assigned: list[Any] = []
        self.topics: list[str] = []
        self.fence = threading.Event()
        self.closed = False
        self.polls = 0

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        self.topics = topics
        self.callbacks = callbacks

    def assign(self, places: list[Any]) -> None:
        self.assigned = places

    def unassign(self) -> None:
        self.assigned = []

    def incremental_assign(self, places: list[Any]) -> None:
        assert not {tp_of(place) for place in places} & {tp_of(place) for place in self.assigned}
        self.assigned = [*self.assigned, *places]

    def incremental_unassign(self, places: list[Any]) -> None:
        gone = {tp_of(place) for place in places}
        assert gone <= {tp_of(place) for place in self.assigned}
        self.assigned = [place for place in self.assigned if tp_of(place) not in gone]

    def consumer_group_metadata(self) -> bytes:
        return self.metadata

    def close(self) -> None:
        self.closed = True

    def poll(self, _timeout: float) -> Record | None:
        self.polls += 1
        if self.fence.is_set():
            self.fence.clear()
            return Fence(0)
        return next(iter(self.consume(1, 0)), None)

    def consume(self, count: int, _timeout: float) -> list[Record]:
        given = min(count, self.records) if self.assigned else 0
        self.records -= given
        return [Record(offset) for offset in range(given)]


def tp_of(place: Any) -> tuple[str, int]:
    return place.topic, place.partition


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


class Fence(Record):
    """What a fenced member gets from `poll`, once."""

    def error(self) -> KafkaError:  # type: ignore[override]
        return KafkaError(KafkaError._FATAL, "Static consumer fenced by other consumer", fatal=False)


class Missing(Record):
    """What comes instead of a record that is not there any more."""

    def error(self) -> KafkaError:  # type: ignore[override]
        return KafkaError(KafkaError._AUTO_OFFSET_RESET, "fetch failed due to requested offset not available")


class Lives:
    """Makes a consumer for each life of a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Group] = []
        monkeypatch.setattr(consume, "Consumer", self._make)
        monkeypatch.setattr(consume, "SUCCESSOR_S", 0.01)

    def _make(self, *_: object, **__: object) -> Group:
        self.made.append(Group())
        return self.made[-1]

    def join(self, thread: ConsumeThread, life: int) -> Group:
        """Waits for a life, and gives it a partition in its thread."""
        until(lambda: len(self.made) == life and bool(self.made[-1].callbacks))
        group, done = self.made[-1], threading.Event()

        def assign(_consumer: object) -> None:
            group.callbacks["on_assign"](group, [PLACE])
            done.set()

        thread._commands.put(assign)
        assert done.wait(5)
        return group


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def joined(heard: Heard, group: Group, **bounds: Any) -> ConsumeThread:
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


def test_the_group_is_heard_while_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that gets no answer keeps everything that was fetched waiting; others must not wait for it, too."""
    monkeypatch.setattr(consume, "FULL_S", 0.05)
    heard, group = Heard(), Group(records=1_000)
    thread = joined(heard, group, max_records=10, max_pending_records=20)
    group.callbacks["on_assign"](group, [PLACE])
    thread.start_fetching(1, {TopicPartition("signals", 0): 0})
    while thread.pending_records < 20:
        thread._turn(group)  # type: ignore[arg-type]
    full, polls = thread.pending_records, group.polls

    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        thread._turn(group)  # type: ignore[arg-type]

    assert 2 <= group.polls - polls <= 11  # the slower the machine the fewer
    assert thread.pending_records - full == group.polls - polls


# ---- KIP-848: what changes hands comes and goes alone

LATER = GroupMetadata("app", 5, "w1-1").encode()


def places(*partitions: int) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition("signals", partition) for partition in partitions]


def tps(*partitions: int) -> dict[TopicPartition, int]:
    return {TopicPartition("signals", partition): 7 for partition in partitions}


def test_what_comes_in_addition_leaves_the_number_as_it_is_and_brings_newer_metadata() -> None:
    heard, group = Heard(), Group()
    thread = joined(heard, group, incremental=True)

    group.callbacks["on_assign"](group, places(0, 1))
    thread.start_fetching(1, tps(0, 1))
    thread._turn(group)  # type: ignore[arg-type]
    group.metadata = LATER
    group.callbacks["on_assign"](group, places(2))
    fetched = {place.partition for place in group.assigned}
    thread.start_fetching(1, tps(0, 1, 2))
    thread._turn(group)  # type: ignore[arg-type]

    assert heard.assignments == [(1, MEMBER), (1, LATER)]
    assert heard.partitions == [{0, 1}, {0, 1, 2}]
    assert fetched == {0, 1}  # until the worker knows from where
    assert {place.partition: place.offset for place in group.assigned} == {0: 7, 1: 7, 2: 7}


def test_what_a_revoke_leaves_goes_on_under_the_next_number_with_the_metadata_from_before() -> None:
    heard, group = Heard(), Group(records=5)
    thread = joined(heard, group, incremental=True)
    group.callbacks["on_assign"](group, places(0, 1))
    thread.start_fetching(1, tps(0, 1))
    thread._turn(group)  # type: ignore[arg-type]
    before = heard.epochs[-1]

    group.metadata = LATER
    group.callbacks["on_revoke"](group, places(1))
    left = list(group.assigned)
    thread.start_fetching(1, tps(0, 1))  # of the number that ended
    thread.start_fetching(2, tps(0))
    thread._turn(group)  # type: ignore[arg-type]

    assert (heard.ended, heard.gone) == ([1], [{1}])
    assert heard.assignments == [(1, MEMBER), (2, MEMBER)]
    assert heard.partitions[-1] == {0}
    assert left == []
    assert {place.partition for place in group.assigned} == {0}
    assert len(heard.epochs) == 2
    assert heard.epochs[-1] > before


def test_a_loss_takes_everything_and_what_comes_then_is_a_new_assignment() -> None:
    heard, group = Heard(), Group()
    thread = joined(heard, group, incremental=True)
    group.callbacks["on_assign"](group, places(0, 1))
    thread.start_fetching(1, tps(0, 1))
    thread._turn(group)  # type: ignore[arg-type]

    group.metadata = ANONYMOUS
    group.callbacks["on_assign"](group, places(2))  # the loss is on its way
    group.metadata = LATER
    group.callbacks["on_lost"](group, places(0, 1))
    group.callbacks["on_assign"](group, places(1))

    assert heard.ended == [1]
    assert heard.assignments == [(1, MEMBER), (3, LATER)]
    assert heard.partitions == [{0, 1}, {1}]
    assert group.assigned == []


# ---- gaps


def test_an_offset_that_is_missing_ends_the_worker_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, group = Heard(), Group()
    thread = fetching(heard, group)

    thread._hand_over([Missing(7)])
    thread._turn(group)  # type: ignore[arg-type]
    monkeypatch.setattr(consume, "GAP_S", 0.0)
    thread._begin_epoch()
    thread._hand_over([Missing(7)])

    with pytest.raises(StateError, match="does not have the offset to read next"):
        thread._turn(group)  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", ["on_lost", "on_revoke"])
@pytest.mark.parametrize("late", [False, True])
def test_what_others_have_read_and_deleted_meanwhile_is_not_missing(
    monkeypatch: pytest.MonkeyPatch, ends: str, late: bool
) -> None:
    monkeypatch.setattr(consume, "GAP_S", 0.0)
    heard, group = Heard(), Group(records=0)
    thread = fetching(heard, group)

    for missing in (not late, late):
        if missing:
            thread._hand_over([Missing(7)])
        else:
            group.callbacks[ends](group, places(0))
    thread._turn(group)  # type: ignore[arg-type]

    assert heard.ended == [1]


def fetching(heard: Heard, group: Group) -> ConsumeThread:
    thread = joined(heard, group)
    group.callbacks["on_assign"](group, places(0))
    thread.start_fetching(1, tps(0))
    thread._turn(group)  # type: ignore[arg-type]
    return thread


# ---- fences


def test_a_member_that_was_fenced_by_no_other_worker_joins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, lives = Heard(), Lives(monkeypatch)
    thread = ConsumeThread({}, heard, slot="w1")
    thread.start(["signals"])
    first = lives.join(thread, 1)

    first.fence.set()
    until(lambda: bool(heard.rejoined))
    second = lives.join(thread, 2)
    thread.start_fetching(1, {TopicPartition("signals", 0): 0})
    thread.start_fetching(3, {TopicPartition("signals", 0): 0})
    until(lambda: bool(heard.epochs))

    assert heard.ended == [1]
    assert [number for number, _ in heard.assignments] == [1, 3]
    assert len(heard.epochs) == 1
    assert first.closed
    assert second.topics == ["signals"]
    assert thread.stop(5)
    assert second.closed
    assert not heard.failures


def test_a_member_whose_slot_was_taken_ends_naming_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, lives = Heard(), Lives(monkeypatch)
    monkeypatch.setattr(consume, "SUCCESSOR_S", 60.0)
    thread = ConsumeThread({}, heard, slot="w1")
    thread.start(["signals"])
    taken = FencedError("taken by w1 at elsewhere")

    lives.join(thread, 1).fence.set()
    until(lambda: heard.ended == [1])
    heard.taken = taken
    until(lambda: bool(heard.failures))

    assert heard.failures == [taken]
    assert not heard.rejoined
    assert len(lives.made) == 1


def test_a_member_does_not_join_again_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, lives = Heard(), Lives(monkeypatch)
    thread = ConsumeThread({}, heard, slot="w1")
    thread.start(["signals"])

    for life in range(1, 5):
        lives.join(thread, life).fence.set()
    until(lambda: bool(heard.failures))

    assert len(heard.rejoined) == 3
    assert [type(error) for error in heard.failures] == [FencedError]
    assert 'slot "w1" was taken by another worker' in str(heard.failures[0])
    assert heard.ended == [1, 3, 5, 7]


def test_a_fenced_member_that_is_stopped_does_not_join_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, lives = Heard(), Lives(monkeypatch)
    monkeypatch.setattr(consume, "SUCCESSOR_S", 60.0)
    thread = ConsumeThread({}, heard, slot="w1")
    thread.start(["signals"])

    lives.join(thread, 1).fence.set()
    until(lambda: heard.ended == [1])

    assert thread.stop(5)
    assert len(lives.made) == 1
    assert not heard.failures
