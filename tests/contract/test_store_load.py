"""Loading: many entries at once, over and under what is written one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from signal_router.state.rocks import BATCH_ENTRIES, RocksStore
from signal_router.state.store import MemoryStore, Store

ALL = (b"", b"\xff" * 8)
MANY = 3 * BATCH_ENTRIES


def name(number: int) -> bytes:
    return b"k%06d" % number


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [0, 3, MANY])
def test_everything_loaded_is_there_whatever_its_order(store: Store, count: int) -> None:
    entries = {name(number * 7919 % count): b"%d" % number for number in range(count)}

    store.load(entries)

    assert list(store.scan(*ALL)) == sorted(entries.items())


def test_the_later_load_or_write_wins(store: Store) -> None:
    store.write([(name(1), b"written"), (name(2), b"written")])
    store.load({name(number): b"loaded" for number in range(1, MANY)})
    store.write([(name(3), b"written")])
    store.load({name(number): None if number % 2 else b"loaded again" for number in range(4, MANY)})

    found = dict(store.scan(*ALL))
    assert [found.get(name(number)) for number in range(1, 7)] == [
        b"loaded",
        b"loaded",
        b"written",
        b"loaded again",
        None,
        b"loaded again",
    ]


def test_a_deleted_range_can_be_loaded_again(store: Store) -> None:
    store.load({name(number): b"old" for number in range(MANY)})

    store.delete_range(name(0), name(MANY - 1))
    store.load({name(number): b"new" for number in range(0, MANY, 2)})

    found = dict(store.scan(*ALL))
    assert found.pop(name(MANY - 1)) == b"old"
    assert found == {name(number): b"new" for number in range(0, MANY, 2)}


def test_what_was_loaded_outlives_the_process(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.write([(name(0), b"written")])
    store.load({name(number): b"loaded" for number in range(1, MANY)})
    store.close()

    again = RocksStore(tmp_path / "store")
    assert len(list(again.scan(*ALL))) == MANY
    assert [file.name for file in tmp_path.iterdir()] == ["store"]
    again.close()
