"""What a worker makes of its directory: full or read-only, it stops and says what to do; damaged or stale, it is made
anew from the changelog. What the topics hold in the end is the same.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from harness import PAIR, LiveCluster, WorkerProcess, announced, assert_all_fired, live_cluster

pytestmark = pytest.mark.kafka

COUNT = 200


@pytest.fixture
def cluster(broker: object, prefix: str, tmp_path: Path, candidates: str) -> Iterator[LiveCluster]:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as live:
        live.apply(PAIR)
        yield live


# ---- full


class Small(Protocol):
    """Where a worker finds little room."""

    folder: Path
    refusal: str

    @property
    def settings(self) -> dict[str, object]:
        """What a worker is started with."""

    def fill(self) -> None:
        """Takes the room away."""

    def free(self) -> None:
        """Gives it back."""


class SmallDisk:
    """A disk of its own. Needs root."""

    refusal = "No space left on device"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, object] = {}

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError as error:
                assert self.refusal in str(error)  # noqa: PT017 - the only way out of the loop

    def free(self) -> None:
        (self.folder / "ballast").unlink()


class SmallFiles:
    """The system's limit on the size of files, which fails writes as a full disk does, for every user."""

    refusal = "File too large"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limit: int | None = 1 << 20

    @property
    def settings(self) -> dict[str, object]:
        return {} if self._limit is None else {"file_bytes": self._limit}

    def fill(self) -> None:
        self._limit = 256 << 10

    def free(self) -> None:
        self._limit = None


@pytest.fixture(params=["disk", "files"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Small]:
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "files":
        yield SmallFiles(folder)
        return
    with mounted(folder):
        yield SmallDisk(folder)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mounts a disk of 16 MB."""
    try:
        done = run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    except OSError as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        run("umount", "--lazy", str(folder)).check_returncode()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_full_disk_stops_the_worker_and_nothing_is_lost_once_there_is_room(
    cluster: LiveCluster, small: Small
) -> None:
    state = small.folder / "state"
    ran_full = cluster.worker(state_dir=state, **small.settings).await_running()
    cluster.publish_many(announced("A", range(COUNT)))
    cluster.await_decided()
    small.fill()

    cluster.publish_many(large(announced("A", range(COUNT, 2 * COUNT))))
    assert ran_full.await_end() == 1
    started_full = cluster.worker(state_dir=state, **small.settings)
    assert started_full.await_end() == 1
    small.free()
    with_room = cluster.worker(state_dir=state, **small.settings)
    cluster.publish_many(announced("B", range(2 * COUNT)))
    cluster.await_decided()
    cluster.stop_workers()

    assert f'the store at "{state / "tables"}" cannot be written: ' in ran_full.stopped_with
    for each in (ran_full, started_full):
        assert str(state) in each.stopped_with
        assert small.refusal in each.stopped_with
        assert "hint: free space on its disk" in each.stopped_with
        assert "Traceback" not in each.log
    assert with_room.restored[0] > 0, "the tables lack what was committed when the disk was full"
    assert_kept(started_full, with_room)
    assert_all_fired(cluster, 2 * COUNT)


def large(signals: list[dict[str, object]]) -> list[dict[str, object]]:
    """More than there is room for, and nothing that becomes small where it is compressed."""
    noise = random.Random(7)
    for each in signals:
        each["params"] = {**each["params"], "text": base64.b64encode(noise.randbytes(15_000)).decode()}  # type: ignore[dict-item]
    return signals


def assert_kept(*workers: WorkerProcess) -> None:
    for worker in workers:
        assert "rebuilt" not in worker.log


# ---- read-only


@pytest.mark.parametrize("where", ["", "tables"])
def test_a_read_only_directory_stops_the_worker_at_its_start(cluster: LiveCluster, tmp_path: Path, where: str) -> None:
    state = tmp_path / "state"
    (state / where).mkdir(parents=True)
    with sealable(state / where) as seal:
        cluster.worker(state_dir=state).await_running()
        cluster.publish_many(announced("A", range(COUNT)))
        cluster.await_decided()
        cluster.stop_workers()
        cluster.publish_many(announced("B", range(COUNT)))

        with seal():
            refused = cluster.worker(state_dir=state)
            assert refused.await_end() == 1
        allowed = cluster.worker(state_dir=state).await_running()
        cluster.await_decided()
        cluster.stop_workers()

    named = f'the store at "{state}/tables" does not open' if where else f'state directory "{state}" cannot be used'
    assert named in refused.stopped_with
    assert "Read-only file system" in refused.stopped_with or "Permission denied" in refused.stopped_with
    assert "hint: --state-dir DIR, a directory this user may write to" in refused.stopped_with
    assert "Traceback" not in refused.log
    assert_kept(refused, allowed)
    assert_all_fired(cluster, COUNT)


@contextmanager
def sealable(folder: Path) -> Iterator[Callable[[], object]]:
    """Gives a context in which nothing in a folder can be written; root may write whatever the permissions are."""
    if os.geteuid() == 0:
        with mounted(folder):
            yield lambda: changed(
                ["mount", "-o", "remount,ro", str(folder)], back=["mount", "-o", "remount,rw", str(folder)]
            )
    else:
        yield lambda: changed(["chmod", "-R", "a-w", str(folder)], back=["chmod", "-R", "u+w", str(folder)])


@contextmanager
def changed(there: list[str], *, back: list[str]) -> Iterator[None]:
    run(*there).check_returncode()
    try:
        yield
    finally:
        run(*back).check_returncode()


# ---- damaged


def flip(file: Path, begin: float = 0.0, end: float = 1.0) -> None:
    """Turns bytes over in a part of a file, from one fraction of its length to another."""
    content = bytearray(file.read_bytes())
    assert content, f"{file.name} is empty"
    for at in range(int(len(content) * begin), int(len(content) * end), 7):
        content[at] ^= 0xFF
    file.write_bytes(bytes(content))


def flipped_pointer(tables: Path) -> None:
    flip(tables / "CURRENT")


def flipped_manifest(tables: Path) -> None:
    (file,) = tables.glob("MANIFEST-*")
    flip(file, begin=1 / 3)


def flipped_tables(tables: Path) -> None:
    """Headers and footers survive nothing less."""
    files = [*tables.glob("*.sst")]
    assert files, [file.name for file in tables.iterdir()]
    for file in files:
        flip(file, begin=1 / 3)


def flipped_block(tables: Path) -> None:
    """Damages data that is looked at only when it is needed; the file still opens."""
    largest = max(tables.glob("*.sst"), key=lambda file: file.stat().st_size)
    flip(largest, begin=1 / 10, end=1 / 3)


def work_and_stop(cluster: LiveCluster) -> Path:
    """Leaves tables that hold pending signals; returns where."""
    cluster.worker().await_running()
    cluster.publish_many(announced("A", range(COUNT)))
    cluster.await_decided()
    cluster.stop_workers()
    cluster.worker().await_running().stop()  # opening it again makes tables of the log
    return cluster.workers[0].state_dir / "tables"


@pytest.mark.parametrize("damage", [flipped_pointer, flipped_manifest, flipped_tables])
def test_bytes_flipped_where_the_tables_are_opened_rebuild_them(
    cluster: LiveCluster, damage: Callable[[Path], None]
) -> None:
    damage(work_and_stop(cluster))
    cluster.publish_many(announced("B", range(COUNT)))

    rebuilt = cluster.worker()
    cluster.await_decided()
    cluster.stop_workers()

    assert rebuilt.log.count("local tables cannot be opened and are rebuilt from the changelog") == 1
    assert rebuilt.restored[0] >= COUNT
    assert_all_fired(cluster, COUNT)


def test_bytes_flipped_in_a_block_end_the_worker_that_reads_it_and_the_next_one_rebuilds(cluster: LiveCluster) -> None:
    flipped_block(work_and_stop(cluster))
    cluster.publish_many(announced("B", range(COUNT)))

    assert_ended_by_damage(cluster.worker())
    rebuilt = cluster.worker()
    cluster.await_decided()
    cluster.stop_workers()

    assert_rebuilt_after_damage(rebuilt)
    assert_all_fired(cluster, COUNT)


def assert_ended_by_damage(worker: WorkerProcess) -> None:
    assert worker.await_end() == 1
    assert "Corruption: block checksum mismatch" in worker.stopped_with
    assert "hint: start the worker again: its tables are rebuilt from the changelog" in worker.stopped_with


def assert_rebuilt_after_damage(worker: WorkerProcess) -> None:
    assert worker.log.count("local tables cannot be opened and are rebuilt from the changelog") == 1
    assert "was found damaged" in worker.log
    assert worker.restored[0] >= COUNT


def test_bytes_flipped_in_the_log_make_an_older_state_that_is_brought_up_to_date(cluster: LiveCluster) -> None:
    killed = cluster.worker().await_running()
    cluster.publish_many(announced("A", range(COUNT)))
    cluster.await_decided()
    cluster.publish({"name": "nobody's"})  # once it is committed the tables have what came before
    cluster.await_decided()
    killed.kill()
    (log,) = (killed.state_dir / "tables").glob("*.log")

    flip(log, begin=1 / 3)
    cluster.publish_many(announced("B", range(COUNT)))
    restored = cluster.worker()
    cluster.await_decided()
    cluster.stop_workers()

    assert restored.restored[0] >= COUNT / 2, "the log still had what was flipped"
    assert_kept(restored)  # what is cut is older, and needs no word
    assert_all_fired(cluster, COUNT)


# ---- another one's


@pytest.mark.parametrize("damaged", [False, True])
def test_yesterdays_copy_is_brought_up_to_date(cluster: LiveCluster, tmp_path: Path, damaged: bool) -> None:
    tables = work_and_stop(cluster)
    shutil.copytree(tables.parent, tmp_path / "yesterday")
    cluster.worker().await_running()
    cluster.publish_many(announced("A", range(COUNT, 2 * COUNT)) + announced("B", range(0, 2 * COUNT, 4)))
    cluster.await_decided()
    cluster.stop_workers()

    shutil.rmtree(tables.parent)
    shutil.move(tmp_path / "yesterday", tables.parent)
    cluster.publish_many(announced("B", range(2 * COUNT)))
    if damaged:
        flipped_block(tables)
        assert_ended_by_damage(cluster.worker())
    restored = cluster.worker()
    cluster.await_decided()
    cluster.stop_workers()

    if damaged:
        assert_rebuilt_after_damage(restored)
    else:
        assert restored.restored[0] >= COUNT, "it was no older than the changelog"
        assert_kept(restored)
    assert_all_fired(cluster, 2 * COUNT)


def test_the_state_directory_of_another_app_is_not_believed(
    cluster: LiveCluster, broker: object, prefix: str, tmp_path: Path
) -> None:
    with live_cluster(broker, f"{prefix}other-", tmp_path) as other:
        other.apply(PAIR)
        other.worker("foreign").await_running()
        other.publish_many(announced("B", range(COUNT)))
        other.await_decided()
        other.stop_workers()
        foreign = other.workers[0].state_dir

    cluster.publish_many(announced("A", range(COUNT)))
    worker = cluster.worker(state_dir=foreign)
    cluster.await_decided()
    cluster.publish_many(announced("B", range(COUNT, COUNT + 3)))
    cluster.await_decided()
    cluster.stop_workers()

    assert "it belongs to another app or cluster" in worker.log
    proof = cluster.prove()
    proof.hold()
    assert not proof.fired()
