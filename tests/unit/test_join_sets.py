from __future__ import annotations

import pytest
from join_cases import ID, KEY, signal

from signal_router.core import join_sets
from signal_router.core.join_sets import HEAD_ENTRIES, HEAD_ENTRY_BYTES, OpenSet
from signal_router.core.tables import JoinSet, Pending
from signal_router.errors import StateError
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable


@pytest.fixture
def table() -> PartitionTable:
    return PartitionTable(MemoryStore(), 1)


def opened(table: PartitionTable) -> OpenSet:
    return OpenSet(table, ID, KEY)


def head(table: PartitionTable) -> JoinSet:
    found = table.join_set(ID, KEY)
    assert found is not None
    return found


def pending(sequence: int, aliases: int = 1, *, size: int = 0, deadline: int = 0) -> Pending:
    return Pending(sequence, aliases, deadline or 1_000 + sequence, signal(f"n{sequence}", payload=b"x" * size))


def add(table: PartitionTable, *signals: Pending) -> None:
    for one in signals:
        join_set = opened(table)
        join_set.add(one)
        join_set.save()


def sequences(table: PartitionTable, *, newest_first: bool = False) -> list[int]:
    return [one.sequence for one in opened(table).all_arrivals(newest_first=newest_first)]


def end(table: PartitionTable, *signals: Pending) -> None:
    for one in signals:
        join_set = opened(table)
        join_set.end(one, 9_000)
        join_set.save()


def test_first_signals_stand_in_the_head_and_later_ones_in_queues(table: PartitionTable) -> None:
    add(table, *(pending(number, 1 + number % 2) for number in range(HEAD_ENTRIES + 5)))

    assert len(head(table).pending) == HEAD_ENTRIES
    assert head(table).queued == head(table).noted == 5
    assert head(table).queues == {1: (0, 3), 2: (0, 2)}
    assert sequences(table) == list(range(HEAD_ENTRIES + 5))
    assert sequences(table, newest_first=True) == list(reversed(range(HEAD_ENTRIES + 5)))


def test_large_signal_and_those_behind_it_stand_in_a_queue(table: PartitionTable) -> None:
    add(table, pending(1), pending(2, size=HEAD_ENTRY_BYTES), pending(3), pending(4, 2))

    assert [one.sequence for one in head(table).pending] == [1, 4]
    assert sequences(table) == [1, 2, 3, 4]


def test_large_identity_is_not_remembered_in_the_head(table: PartitionTable) -> None:
    join_set = opened(table)
    join_set.remember(signal("x" * HEAD_ENTRY_BYTES), 9_000)
    join_set.save()

    assert head(table).remembered == ()
    assert head(table).noted == 1
    assert opened(table).find(signal("x" * HEAD_ENTRY_BYTES).identity) is not None


def test_hole_in_a_queue_is_passed_over(table: PartitionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", 0)
    signals = [pending(number) for number in range(6)]
    add(table, *signals)

    end(table, signals[2], signals[3])
    assert head(table).queues == {1: (0, 6)}
    assert sequences(table) == [0, 1, 4, 5]
    end(table, signals[0], signals[1])
    assert head(table).queues == {1: (4, 6)}
    end(table, signals[5])
    assert head(table).queues == {1: (4, 5)}
    add(table, pending(7))
    assert sequences(table) == [4, 7]
    end(table, signals[4], pending(7))
    assert head(table).queues == {}
    assert opened(table).masks() == set()


def test_queue_that_was_emptied_is_begun_again(table: PartitionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", 0)
    add(table, pending(1))
    end(table, pending(1))

    add(table, pending(2))

    assert sequences(table) == [2]
    assert [due.at for due in table.due(5_000)] == [1_002]


@pytest.mark.parametrize("entries", [0, 1, 8])
def test_identity_is_found_wherever_it_stands(
    table: PartitionTable, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", entries)
    signals = [pending(number) for number in range(4)]
    add(table, *signals)
    end(table, *signals[:2])

    for one in signals:
        found = opened(table).find(one.signal.identity)
        assert found is not None
        assert (found[0], found[1].offset) == (one.signal.digest, one.signal.offset)
    assert opened(table).find(signal("other").identity) is None


@pytest.mark.parametrize("entries", [0, 1, 8])
def test_set_in_which_nothing_is_left_leaves_no_entry(
    table: PartitionTable, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", entries)
    signals = [pending(number) for number in range(4)]
    add(table, *signals)
    end(table, signals[1])
    join_set = opened(table)

    for one in (signals[0], signals[2], signals[3]):
        join_set.drop(one)
    for _ in join_set.forget_all():
        pass
    join_set.save()

    assert all(value is None for _, value in [*table.staged(), *table.staged_locally()])


def test_set_stands_in_the_time_index_once_at_its_earliest_time(table: PartitionTable) -> None:
    add(table, pending(1, deadline=500), pending(2, deadline=400), pending(3, deadline=600))

    assert [due.at for due in table.due(1_000)] == [400]
    assert head(table).due == 400


def test_queued_signal_of_which_nothing_is_noted_is_a_fault_of_ours(
    table: PartitionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", 0)
    add(table, pending(1))
    table.put_noted(ID, KEY, pending(1).signal.identity, None)

    with pytest.raises(StateError, match='a queued signal of subscription "team/job"'):
        opened(table).end(pending(1), 9_000)


class CountingStore(MemoryStore):
    """Notes which queued signals are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def get(self, key: bytes) -> bytes | None:
        if key[2:3] == b"Q":
            self.read.append(int.from_bytes(key[-8:], "big"))
        return super().get(key)


def test_reading_a_long_queue_costs_only_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", 0)
    store = CountingStore()
    table = PartitionTable(store, 1)
    add(table, *(pending(number) for number in range(300)))
    table.apply(table.staged())

    next(iter(opened(table).arrivals(1)))
    next(opened(table).all_arrivals(newest_first=True))

    assert store.read == [0, 299]
