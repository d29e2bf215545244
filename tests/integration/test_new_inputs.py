"""Signals topics and partitions that come into being while workers run: found, and read from their start."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions, NewTopic
from harness import PAIR, QUICK, LiveCluster, WorkerProcess, announced, assert_all_fired, live_cluster, until

pytestmark = pytest.mark.kafka

COUNT = 100
FIND = {**QUICK, "refresh_ms": 1_000}
FIND_NOTHING = {**QUICK, "refresh_ms": 600_000}
WITHIN_S = 3.0

SHORT = PAIR.replace("join:", f"within: {WITHIN_S:g}s\n  dedupe: {WITHIN_S + 1:g}s\n  join:")


@pytest.fixture
def cluster(broker: object, prefix: str, tmp_path: Path, candidates: str) -> Iterator[LiveCluster]:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as live:
        yield live


def grow(cluster: LiveCluster) -> list[tuple[str, int]]:
    """Adds two partitions to the signals topic; returns them."""
    topic = cluster.names.signals
    cluster.admin.create_partitions([NewPartitions(topic, 6)])[topic].result(10)
    return learned(cluster, topic, [4, 5])


def create(cluster: LiveCluster) -> list[tuple[str, int]]:
    """Makes a topic that fits the pattern of `options`; returns its partitions."""
    topic = f"{cluster.prefix}more.signals"
    config = {"message.timestamp.type": "LogAppendTime"}
    cluster.admin.create_topics([NewTopic(topic, 2, config=config)])[topic].result(10)
    cluster.inputs.append(topic)
    return learned(cluster, topic, [0, 1])


def learned(cluster: LiveCluster, topic: str, partitions: list[int]) -> list[tuple[str, int]]:
    """Waits until our own clients know the partitions."""

    def known() -> bool:
        clients = (cluster.admin, cluster.producer)
        return all(set(partitions) <= set(each.list_topics(topic, 10).topics[topic].partitions) for each in clients)

    until(known, f"{topic} has partitions {partitions}")
    return [(topic, number) for number in partitions]


def options(cluster: LiveCluster) -> dict[str, object]:
    return {"signals": [rf"^{cluster.prefix}(.*\.)?signals$"]}


def put(cluster: LiveCluster, places: list[tuple[str, int]], signals: list[dict[str, object]]) -> None:
    for number, each in enumerate(signals):
        topic, partition = places[number % len(places)]
        cluster.publish_record(topic, json.dumps(each).encode(), partition=partition)


def assert_read(worker: WorkerProcess, cluster: LiveCluster, places: list[tuple[str, int]]) -> None:
    """Signals stand there, and the worker took the place over and committed them."""
    for topic, partition in places:
        assert cluster.ends(topic)[partition] > 0
        assert cluster.committed(topic)[partition] == cluster.ends(topic)[partition]
    assert worker.log.count("took partitions over") == 2


def test_partitions_added_to_a_topic_are_read_from_their_start(cluster: LiveCluster) -> None:
    cluster.apply(PAIR)
    worker = cluster.worker(times=FIND).await_running()
    found_and_all_joined(cluster, worker, grow(paused(worker, cluster)))


def test_a_new_topic_that_fits_the_pattern_is_read_from_its_start(cluster: LiveCluster) -> None:
    cluster.apply(PAIR)
    worker = cluster.worker(times=FIND, **options(cluster)).await_running()
    found_and_all_joined(cluster, worker, create(paused(worker, cluster)))
    assert "signals topics changed" in worker.log


def paused(worker: WorkerProcess, cluster: LiveCluster) -> LiveCluster:
    """Lets the worker wait for partners, and stand still while inputs come into being: it cannot have seen them."""
    cluster.publish_many(announced("A", range(COUNT)))
    cluster.await_decided()
    worker.send(signal.SIGSTOP)
    return cluster


def found_and_all_joined(cluster: LiveCluster, worker: WorkerProcess, places: list[tuple[str, int]]) -> None:
    put(cluster, places, announced("B", range(COUNT // 2)))
    worker.send(signal.SIGCONT)
    worker.await_log("took partitions over", times=2)
    put(cluster, places, announced("B", range(COUNT // 2, COUNT)))
    cluster.await_decided()
    cluster.stop_workers()

    assert_read(worker, cluster, places)
    assert_all_fired(cluster, COUNT)


@pytest.mark.parametrize("come_into_being", [grow, create])
def test_what_is_not_found_yet_holds_the_deadlines_of_what_waits_for_it(cluster: LiveCluster, come_into_being) -> None:
    cluster.apply(SHORT)
    given = options(cluster) if come_into_being is create else {}
    unaware = cluster.worker("w1", times=FIND_NOTHING, **given).await_running()
    cluster.publish(*announced("A", [0]))
    cluster.await_decided()
    waiting_since = time.monotonic()

    place = come_into_being(cluster)[:1]
    put(cluster, place, announced("B", [0]))
    assert time.monotonic() - waiting_since < WITHIN_S, "too slow a machine to say anything"
    until(lambda: time.monotonic() > waiting_since + WITHIN_S + 2, "the deadline is over")
    assert not ended(cluster)
    assert unaware.log.count("took partitions over") == 1, "nobody has read the new one until now"
    aware = cluster.worker("w2", times=FIND_NOTHING, **given).await_running()
    until(lambda: ended(cluster) == ["fired", "fired"], "the pair fires, although its deadline is over")

    if come_into_being is grow:
        cluster.publish(*announced("A", [1]))
        until(lambda: ended(cluster) == ["expired", "fired", "fired"], "with everything read time goes on")
    cluster.await_decided()
    cluster.stop_workers()

    assert aware.alive is False
    proof = cluster.prove()
    proof.hold()
    assert proof.fired() == {'{"k": 0}': 1}


def ended(cluster: LiveCluster) -> list[str]:
    """How candidates have ended, by the lineage written until now."""
    lineage = [each for each in cluster.read(cluster.names.lineage) if (each.key or b"").startswith(b"signal/")]
    return sorted(str(each.document["outcome"]) for each in lineage)
