"""Edits and deletes on a real broker, while signals are pending and more are coming."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import PAIR, LiveCluster, Proof, announced, live_cluster

pytestmark = pytest.mark.kafka

KEYS = 300

RESHAPED = PAIR.replace("join: {k: any}", "join: {k: integer}").replace("alias: a,", "alias: first,")
LATEST = PAIR.replace("spec:", "spec:\n  policy: latest")


@contextmanager
def under_load(cluster: LiveCluster) -> Iterator[None]:
    """Two workers with pending signals; more of them come until the block ends, and all their partners after it."""
    cluster.apply(PAIR)
    for slot in ("w1", "w2"):
        cluster.worker(slot).await_running()
    cluster.publish_many(announced("A", range(KEYS)))
    cluster.await_decided()
    stop = threading.Event()
    numbers = itertools.count(KEYS)

    def publish() -> None:
        while not stop.is_set():
            key = next(numbers)
            cluster.publish_many([*announced("A", [key]), *announced("B", [key - 2 * KEYS])])

    load = threading.Thread(target=publish)
    load.start()
    try:
        yield
    finally:
        stop.set()
        load.join()
    cluster.publish_many(announced("B", range(next(numbers))))
    cluster.publish_many(announced("A", range(0, KEYS, 3)))
    cluster.await_decided(within_s=90)
    cluster.stop_workers()


def test_another_shape_ends_what_is_pending_under_load(
    broker: object, prefix: str, tmp_path: Path, candidates: str
) -> None:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as cluster:
        with under_load(cluster):
            revision = cluster.apply(RESHAPED, join_generation=2)
            cluster.await_revision(revision)

        proof = cluster.prove()
        proof.hold()
        assert proof.outcomes()["superseded/edit"] >= KEYS
        assert proof.outcomes()["fired"]
        assert aliases_of(proof) <= {"first", "b"}, "no set of the old shape had its partner"


def test_a_delete_ends_what_is_pending_under_load_and_a_new_life_begins_empty(
    broker: object, prefix: str, tmp_path: Path, candidates: str
) -> None:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as cluster:
        with under_load(cluster):
            cluster.await_revision(cluster.delete("team/pair"))
            cluster.await_revision(cluster.apply(PAIR, birth=2))

        proof = cluster.prove()
        proof.hold()
        assert proof.outcomes()["discarded/deleted"] >= KEYS
        assert proof.outcomes()["fired"]


def test_fifo_becomes_latest_under_load(broker: object, prefix: str, tmp_path: Path, candidates: str) -> None:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as cluster:
        cluster.apply(PAIR)
        cluster.worker().await_running()
        crowd = [{**each, "id": f"{each['id']}-{n}"} for n in range(5) for each in announced("A", range(KEYS))]
        cluster.publish_many(crowd)
        cluster.await_decided()

        cluster.await_revision(cluster.apply(LATEST))
        cluster.publish_many(announced("B", range(KEYS)))
        cluster.await_decided()
        cluster.stop_workers()

        proof = cluster.prove()
        proof.hold()
        assert len(proof.triggers) == KEYS
        assert proof.outcomes()["superseded/newer"] == 4 * KEYS, "of each set the newest is left"


def aliases_of(proof: Proof) -> set[str]:
    return {signal["alias"] for trigger in proof.triggers for signal in trigger.document["signals"]}  # type: ignore[attr-defined]
