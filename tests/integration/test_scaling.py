"""Workers come and go under load: nothing is lost or doubled, and how long the triggers pause is printed.

`make soak` runs the long forms: 5,000 signals/s through a rolling restart, 40 joins and leaves.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from harness import QUICK, LiveCluster, Proof, WorkerProcess, live_cluster, until
from harness_workload import SUBSCRIPTIONS, Workload

pytestmark = pytest.mark.kafka

SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
RATE = int(os.environ.get("SIGNAL_ROUTER_SOAK_RATE", "500"))
CHANGES = int(os.environ.get("SIGNAL_ROUTER_SOAK_CHANGES", "5"))
SLICE_S = 0.05
SETTLED_S = 1.0
"""How long the workers are left alone between two changes."""


@contextmanager
def load(cluster: LiveCluster, rng: random.Random) -> Iterator[Workload]:
    """Publishes `RATE` signals a second from another thread until the end."""
    work = Workload(rng, cluster.names.signals, cluster.producer, cluster.partitions, keys=1_000)
    ended = threading.Event()
    failures: list[BaseException] = []

    def publish() -> None:
        began, published = time.monotonic(), 0
        try:
            while not ended.wait(SLICE_S):
                due = int((time.monotonic() - began) * RATE) - published
                work.publish(due)
                published += due
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield work
    finally:
        ended.set()
        thread.join(60)
    assert not failures, failures


def settle(cluster: LiveCluster) -> None:
    """Waits until triggers flow, and a moment longer."""
    before = sum(cluster.ends(cluster.names.triggers).values())
    until(lambda: sum(cluster.ends(cluster.names.triggers).values()) > before, "triggers flow", within_s=40)
    time.sleep(SETTLED_S)  # the time between two changes, not a wait for anything


def proven(cluster: LiveCluster, work: Workload) -> Proof:
    """What stands on the topics is what the reference gives."""
    cluster.await_decided(within_s=180)
    cluster.stop_workers()
    proof = cluster.prove()
    proof.hold()
    assert len(proof.triggers) > len(work.published) // 10
    times = sorted(trigger.timestamp for trigger in proof.triggers)
    pauses = sorted((after - before for before, after in pairwise(times)), reverse=True)
    print(f"{len(work.published)} signals, {len(proof.triggers)} triggers; longest pauses of them, ms: {pauses[:8]}")
    return proof


@pytest.mark.timeout(900)
def test_three_workers_restarted_one_after_the_other(
    broker: object, prefix: str, tmp_path: Path, ways: dict[str, str]
) -> None:
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    with live_cluster(broker, prefix, tmp_path, partitions=6, **ways) as cluster:  # type: ignore[arg-type]
        cluster.apply(SUBSCRIPTIONS)
        workers = {slot: cluster.worker(slot) for slot in ("w1", "w2", "w3")}
        for worker in workers.values():
            worker.await_running(within_s=60)

        with load(cluster, random.Random(SEED)) as work:
            settle(cluster)
            for slot, worker in sorted(workers.items()):
                worker.stop()
                workers[slot] = cluster.worker(slot).await_running(within_s=60)
                settle(cluster)

        lives = {trigger.transaction.rpartition("/")[0] for trigger in proven(cluster, work).triggers}
        assert lives == {f"w{number}/{life}" for number in (1, 2, 3) for life in (1, 2)}


@pytest.mark.timeout(900)
def test_workers_that_join_and_leave_all_the_time(
    broker: object, prefix: str, tmp_path: Path, ways: dict[str, str]
) -> None:
    """Half of those that leave are killed."""
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    rng = random.Random(SEED)
    with live_cluster(broker, prefix, tmp_path, partitions=6, **ways) as cluster:  # type: ignore[arg-type]
        cluster.apply(SUBSCRIPTIONS)

        def start(slot: str) -> WorkerProcess:
            return cluster.worker(slot, static_membership=False, times=QUICK)

        alive = {"w0": start("w0").await_running(within_s=60)}
        joined, killed = 0, 0
        with load(cluster, rng) as work:
            settle(cluster)
            for change in range(CHANGES):
                if len(alive) == 1 or (len(alive) < 4 and change % 2 == 0):
                    joined += 1
                    slot = rng.choice([f"w{number}" for number in range(5) if f"w{number}" not in alive])
                    alive[slot] = start(slot).await_running(within_s=60)
                else:
                    worker = alive.pop(rng.choice(sorted(alive)))
                    if rng.random() < 0.5:
                        killed += 1
                        worker.kill()
                    else:
                        worker.stop()
                settle(cluster)

        print(f"{joined} joined, {CHANGES - joined} left, {killed} of them killed")
        proven(cluster, work)
        assert joined >= CHANGES // 2
