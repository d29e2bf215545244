"""Restore on a real broker: the local tables are the changelog, folded, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import PAIR, announced, folded, live_cluster

from signal_router.state.rocks import RocksStore

pytestmark = pytest.mark.kafka

PENDING = 25_000


def stored(state_dir: Path) -> tuple[dict[bytes, bytes], set[bytes]]:
    """What stands in the store: the entries that the changelog has, too, and the keys of the time index."""
    store = RocksStore(state_dir / "tables")
    try:
        entries = dict(store.scan(b"\0", b"\xff"))
    finally:
        store.close()
    index = {key for key in entries if key[2:3] == b"T"}
    return {key: value for key, value in entries.items() if key[2:3] not in {b"T", b"L"}}, index


def test_the_tables_are_the_folded_changelog_before_and_after_a_restore(
    broker: object, prefix: str, tmp_path: Path
) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.apply(PAIR)
        worker = cluster.worker().await_running()
        cluster.publish_many(announced("A", range(PENDING)))
        cluster.publish_many(announced("B", range(0, PENDING, 5)))
        cluster.await_decided(within_s=120)
        cluster.stop_workers()
        before, index = stored(worker.state_dir)
        assert before == folded(cluster)
        assert len(before) > PENDING

        shutil.rmtree(worker.state_dir)
        cluster.worker().await_running(within_s=60)
        cluster.stop_workers()

        after, restored_index = stored(worker.state_dir)
        assert after == folded(cluster)
        assert {key: value for key, value in after.items() if key[2:3] in b"SQI"} == {
            key: value for key, value in before.items() if key[2:3] in b"SQI"
        }
        assert index <= restored_index, "every deadline is known again"
