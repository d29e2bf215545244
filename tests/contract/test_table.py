from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from signal_router.core.tables import NOTED_DUE, QUEUED_DUE, SET_DUE, Due, JoinSet, Life, Pending, Progress, Remembered
from signal_router.model.candidates import SignalCopy
from signal_router.state.restore import local_entries
from signal_router.state.rocks import RocksStore
from signal_router.state.store import MemoryStore, Store
from signal_router.state.tables import PartitionTable

SUB, KEY = "team/job", '{"ds":"2026-03-10"}'
SIGNAL = SignalCopy('["s","x","1"]', "s", "x", "1", b'{"a":1}', b"null", "2026-03-10T00:00:00Z", 5, "t", 0, 7, b"d")
PENDING = Pending(3, 0b11, 105, SIGNAL)
NOTED = Remembered('["s","x","1"]', b"d", 2_000, "t", 0, 7)
HEAD = JoinSet((PENDING,), (NOTED,), {3: (0, 2)}, 2, 2, 105)


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield opened
    opened.close()


def commit(table: PartitionTable) -> None:
    table.apply([*table.staged(), *table.staged_locally()])


def fill(table: PartitionTable) -> None:
    table.put_join_set(SUB, KEY, HEAD)
    table.put_queued(SUB, KEY, 3, 0, PENDING)
    table.put_noted(SUB, KEY, NOTED.identity, NOTED)
    table.put_pending_count(SUB, 2)
    table.put_life(SUB, Life(1, 2, 3, ("a", "b"), 2_000))
    table.put_progress(Progress(4, (), {"t/0": 9}))
    for due in dues():
        table.put_due(due)


def dues() -> list[Due]:
    return [
        Due(105, SET_DUE, SUB, KEY),
        Due(105, QUEUED_DUE, SUB, KEY, 3, 0),
        Due(2_000, NOTED_DUE, SUB, KEY, identity=NOTED.identity),
    ]


def seen(table: PartitionTable) -> tuple[object, ...]:
    return (
        table.join_set(SUB, KEY),
        table.queued(SUB, KEY, 3, 0),
        table.noted(SUB, KEY, NOTED.identity),
        list(table.noted_of(SUB, KEY)),
        table.pending_count(SUB),
        table.life(SUB),
        table.progress(),
        list(table.keys_of(SUB)),
        list(table.due(3_000)),
    )


FULL = (HEAD, PENDING, NOTED, [NOTED], 2, Life(1, 2, 3, ("a", "b"), 2_000), Progress(4, (), {"t/0": 9}), [KEY], dues())
EMPTY = (None, None, None, [], 0, None, Progress(), [], [])


def test_staged_entries_are_read_back(store: Store) -> None:
    table = PartitionTable(store, 1)

    fill(table)

    assert table.touched
    assert seen(table) == FULL


def test_committed_entries_are_read_back_by_another_table(store: Store) -> None:
    table = PartitionTable(store, 1)
    fill(table)

    commit(table)

    assert not table.touched
    assert seen(PartitionTable(store, 1)) == FULL


def test_discarded_entries_are_gone(store: Store) -> None:
    table = PartitionTable(store, 1)
    fill(table)

    table.discard()

    assert not table.touched
    assert seen(table) == EMPTY
    assert table.staged() == table.staged_locally() == []


def test_discard_gives_the_committed_entries_back(store: Store) -> None:
    table = PartitionTable(store, 1)
    fill(table)
    commit(table)
    empty(table)

    table.discard()

    assert seen(table) == FULL


def empty(table: PartitionTable) -> None:
    table.put_join_set(SUB, KEY, None)
    table.put_queued(SUB, KEY, 3, 0, None)
    table.put_noted(SUB, KEY, NOTED.identity, None)
    table.put_pending_count(SUB, 0)
    table.put_life(SUB, None)
    table.put_progress(Progress())
    for due in dues():
        table.drop_due(due)


def test_deleted_entries_are_gone_before_and_after_the_commit(store: Store) -> None:
    table = PartitionTable(store, 1)
    fill(table)
    commit(table)

    empty(table)

    assert seen(table) == EMPTY
    commit(table)
    assert seen(PartitionTable(store, 1)) == EMPTY
    assert [key[2:3] for key, _ in store.scan(b"", b"\xff")] == [b"V"]


def test_rollback_returns_to_the_savepoint(store: Store) -> None:
    table = PartitionTable(store, 1)
    fill(table)
    savepoint = table.savepoint()
    empty(table)
    list(table.due(3_000))

    table.rollback(savepoint)

    assert seen(table) == FULL


def test_rollback_of_a_first_write_leaves_nothing_staged(store: Store) -> None:
    table = PartitionTable(store, 1)
    savepoint = table.savepoint()
    fill(table)

    table.rollback(savepoint)

    assert not table.touched
    assert seen(table) == EMPTY


def test_rollback_keeps_what_was_written_before_the_last_savepoint(store: Store) -> None:
    table = PartitionTable(store, 1)
    table.savepoint()
    table.put_pending_count(SUB, 1)
    savepoint = table.savepoint()
    table.put_pending_count(SUB, 2)
    table.put_pending_count(SUB, 3)

    table.rollback(savepoint)

    assert table.pending_count(SUB) == 1


def test_partitions_do_not_see_each_other(store: Store) -> None:
    first, second = PartitionTable(store, 1), PartitionTable(store, 2)
    fill(first)
    commit(first)

    assert seen(second) == EMPTY


def test_keys_of_a_subscription_merge_stored_and_staged_in_order(store: Store) -> None:
    table = PartitionTable(store, 1)
    for key in ("b", "d", "f", "ä"):
        table.put_join_set(SUB, key, HEAD)
    table.put_join_set("team/job2", "a", HEAD)
    commit(table)
    table.put_join_set(SUB, "a", HEAD)
    table.put_join_set(SUB, "d", HEAD)
    table.put_join_set(SUB, "f", None)
    table.put_join_set(SUB, "z", HEAD)

    assert list(table.keys_of(SUB)) == ["a", "b", "d", "z", "ä"]
    assert list(table.keys_of(SUB, "b")) == ["d", "z", "ä"]
    assert list(table.keys_of(SUB, "bb")) == ["d", "z", "ä"]


def test_keys_deleted_during_the_iteration_are_passed_over(store: Store) -> None:
    table = PartitionTable(store, 1)
    for key in "abcd":
        table.put_join_set(SUB, key, HEAD)
    commit(table)

    taken = []
    for key in table.keys_of(SUB):
        taken.append(key)
        table.put_join_set(SUB, key, None)
        table.put_join_set(SUB, "c", None)

    assert taken == ["a", "b", "d"]


def test_noted_identities_may_be_deleted_during_the_iteration(store: Store) -> None:
    table = PartitionTable(store, 1)
    for number in range(6):
        table.put_noted(SUB, KEY, f"i{number}", NOTED)
        if number == 2:
            commit(table)
    table.put_noted(SUB, KEY + "x", "other", NOTED)

    for number, _ in enumerate(table.noted_of(SUB, KEY)):
        table.put_noted(SUB, KEY, f"i{number}", None)

    assert list(table.noted_of(SUB, KEY)) == []
    assert len(list(table.noted_of(SUB, KEY + "x"))) == 1


def test_time_index_merges_stored_and_staged_in_order_of_time(store: Store) -> None:
    table = PartitionTable(store, 1)
    for at in (30, 10, 20, 40):
        table.put_due(Due(at, SET_DUE, SUB, KEY))
    commit(table)
    table.put_due(Due(15, SET_DUE, SUB, KEY))
    table.put_due(Due(300, SET_DUE, SUB, KEY))
    table.drop_due(Due(20, SET_DUE, SUB, KEY))

    assert [due.at for due in table.due(40)] == [10, 15, 30]


def test_a_set_moves_in_the_time_index_with_its_head(store: Store) -> None:
    table = PartitionTable(store, 1)
    table.replace_join_set(SUB, KEY, 0, JoinSet((PENDING,), due=105))
    assert list(table.due(1_000)) == [Due(105, SET_DUE, SUB, KEY)]
    commit(table)
    assert list(table.due(1_000)) == []

    table.replace_join_set(SUB, KEY, 105, JoinSet((), (NOTED,), due=50))
    assert list(table.due(1_000)) == [Due(50, SET_DUE, SUB, KEY)]
    assert table.join_set(SUB, KEY) == JoinSet((), (NOTED,), due=50)

    table.replace_join_set(SUB, KEY, 50, JoinSet((), (NOTED,)))
    commit(table)
    assert list(PartitionTable(store, 1).due(1_000)) == []


def test_entry_put_below_what_was_passed_is_found(store: Store) -> None:
    table = PartitionTable(store, 1)
    assert list(table.due(100)) == []

    table.put_due(Due(50, SET_DUE, SUB, KEY))
    commit(table)

    assert [due.at for due in table.due(120)] == [50]
    table.put_due(Due(60, SET_DUE, SUB, KEY))
    assert [due.at for due in table.due(120)] == [60]


def test_entry_put_during_the_iteration_is_found_later(store: Store) -> None:
    table = PartitionTable(store, 1)
    table.put_due(Due(50, SET_DUE, SUB, KEY))
    for due in table.due(100):
        table.drop_due(due)
        table.put_due(Due(60, SET_DUE, SUB, KEY))
    commit(table)

    assert [due.at for due in table.due(100)] == [60]


def test_entries_left_by_an_iteration_given_up_are_found_again(store: Store) -> None:
    table = PartitionTable(store, 1)
    for at in (10, 20, 30):
        table.put_due(Due(at, SET_DUE, SUB, KEY))
    commit(table)

    table.drop_due(next(table.due(100)))
    commit(table)

    assert [due.at for due in table.due(100)] == [20, 30]


def test_changelog_records_give_the_time_index_back(store: Store) -> None:
    table = PartitionTable(store, 1)
    fill(table)

    rebuilt = [entry for key, value in table.staged() if value is not None for entry in local_entries(key, value)]

    assert sorted(rebuilt) == sorted(table.staged_locally())
