from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signal_router.errors import DiskError, StateError
from signal_router.state.rocks import BATCH_ENTRIES, RocksStore, destroy
from signal_router.state.store import MemoryStore, Store

ALL = (b"", b"\xff" * 8)


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield opened
    opened.close()


# ---- the contract


def test_value_is_read_as_written(store: Store) -> None:
    store.write([(b"a", b"1"), (b"\x00\xff", b"")])

    assert store.get(b"a") == b"1"
    assert store.get(b"\x00\xff") == b""
    assert store.get(b"b") is None


def test_none_deletes_and_deleting_nothing_is_allowed(store: Store) -> None:
    store.write([(b"a", b"1")])

    store.write([(b"a", None), (b"b", None)])

    assert store.get(b"a") is None
    assert list(store.scan(*ALL)) == []


def test_later_write_of_a_batch_wins(store: Store) -> None:
    store.write([(b"a", b"1"), (b"a", None), (b"a", b"2"), (b"b", b"1"), (b"b", None)])

    assert list(store.scan(*ALL)) == [(b"a", b"2")]


def test_scan_gives_a_range_in_order_of_the_keys(store: Store) -> None:
    store.write([(key, key) for key in (b"c", b"a", b"b\x00", b"b", b"\xf0")])

    assert [key for key, _ in store.scan(b"a", b"c")] == [b"a", b"b", b"b\x00"]
    assert [key for key, _ in store.scan(b"b", b"b")] == []
    assert [key for key, _ in store.scan(b"c", b"b")] == []


def test_scan_goes_on_while_its_keys_are_deleted(store: Store) -> None:
    store.write([(b"%03d" % number, b"x") for number in range(100)])

    seen = []
    for key, _ in store.scan(*ALL):
        seen.append(key)
        store.write([(key, None)])

    assert len(seen) == 100
    assert list(store.scan(*ALL)) == []


def test_delete_range_leaves_what_lies_outside(store: Store) -> None:
    store.write([(key, b"x") for key in (b"a", b"b", b"bb", b"c")])

    store.delete_range(b"b", b"c")

    assert [key for key, _ in store.scan(*ALL)] == [b"a", b"c"]


def test_write_larger_than_a_batch_arrives_whole(store: Store) -> None:
    entries = [(b"%06d" % number, b"x") for number in range(2 * BATCH_ENTRIES + 1)]

    store.write(iter(entries))

    assert list(store.scan(*ALL)) == entries


def test_close_may_be_repeated(store: Store) -> None:
    store.close()
    store.close()


_keys = st.binary(min_size=1, max_size=3)
_writes = st.lists(st.tuples(_keys, st.one_of(st.none(), st.binary(max_size=3))), max_size=8)


@given(batches=st.lists(_writes, max_size=6), start=_keys, end=_keys)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_disk_and_memory_agree(
    fresh: Callable[[], RocksStore], batches: list[list[tuple[bytes, bytes | None]]], start: bytes, end: bytes
) -> None:
    memory, disk = MemoryStore(), fresh()
    for batch in batches:
        memory.write(batch)
        disk.write(batch)

    assert list(disk.scan(*ALL)) == list(memory.scan(*ALL))
    assert list(disk.scan(start, end)) == list(memory.scan(start, end))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], RocksStore]]:
    store = RocksStore(tmp_path / "shared")

    def empty() -> RocksStore:
        store.write([(key, None) for key, _ in list(store.scan(*ALL))])
        return store

    yield empty
    store.close()


# ---- only on disk


def test_written_values_are_there_after_reopening(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.write([(b"a", b"1")])
    store.close()

    reopened = RocksStore(tmp_path / "store")

    assert reopened.get(b"a") == b"1"
    reopened.close()


def test_directory_is_open_once_only(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "store")

    with pytest.raises(StateError, match="does not open"):
        RocksStore(tmp_path / "store")

    first.close()


def test_closed_store_says_so(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.close()

    with pytest.raises(StateError, match="is closed"):
        store.get(b"a")
    with pytest.raises(StateError, match="is closed"):
        list(store.scan(*ALL))


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*"])
def test_damaged_store_is_refused(tmp_path: Path, name: str) -> None:
    store = RocksStore(tmp_path / "store")
    store.write([(b"a", b"1")])
    store.close()
    for file in (tmp_path / "store").glob(name):
        file.write_bytes(b"garbage")

    with pytest.raises(StateError, match="does not open"):
        RocksStore(tmp_path / "store")


def test_damaged_table_file_is_reported_when_it_is_read(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store", write_buffer_bytes=64 << 10)
    store.write([(b"%06d" % number, b"x" * 100) for number in range(20_000)])
    store.close()
    for file in (tmp_path / "store").glob("*.sst"):
        half = file.stat().st_size // 2
        with file.open("r+b") as damaged:
            damaged.write(b"\xff" * half)

    with pytest.raises(StateError):
        list(RocksStore(tmp_path / "store").scan(*ALL))


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Files of this process that would grow beyond a size fail as on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(names: range) -> dict[bytes, bytes | None]:
    """Values that take their room, compressed or not."""
    source = Random(7)
    return {b"%06d" % name: source.randbytes(100) for name in names}


def test_a_write_without_room_is_the_disk_s_fault_and_what_was_written_before_stays(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    before = noise(range(5_000))
    store.write(before.items())

    with no_file_above(1 << 20):
        with pytest.raises(DiskError, match=r'the store at ".*/store" cannot be written: IO error') as full:
            store.write(noise(range(5_000, 10_000)).items())
        store.close()
    with no_file_above(64 << 10), pytest.raises(DiskError, match="does not open: IO error"):
        RocksStore(tmp_path / "store")

    assert "free space on its disk" in (full.value.hint or "")
    again = RocksStore(tmp_path / "store")
    assert dict(again.scan(*ALL)) == before
    again.close()


def test_a_load_without_room_is_the_disk_s_fault_and_leaves_no_file(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")

    with no_file_above(1 << 20), pytest.raises(DiskError, match="cannot be written"):
        store.load(noise(range(50_000)))

    assert [file.name for file in tmp_path.iterdir()] == ["store"]
    store.write([(b"a", b"1")])
    store.close()


def test_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")

    with pytest.raises(StateError, match=r'holds "letter.txt", which is not part of a store'):
        RocksStore(tmp_path)

    destroy(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")

    with pytest.raises(StateError, match="does not open"):
        RocksStore(tmp_path / "store")


def test_destroyed_store_begins_anew(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "store")
    store.write([(b"a", b"1")])
    store.close()

    destroy(tmp_path / "store")

    assert list((tmp_path / "store").iterdir()) == []
    reopened = RocksStore(tmp_path / "store")
    assert reopened.get(b"a") is None
    reopened.close()
    destroy(tmp_path / "nowhere")
