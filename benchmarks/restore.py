"""Restore of a worker's tables from the changelog: entries per second, on a real broker.

    python -m benchmarks.restore [--entries 1000000] [--runs 3] [--json FILE]

The changelog is written as a worker writes it, one set with one pending signal per entry, four partitions; each run
takes them over with an empty store: stable offsets, replay, time index, position check. The broker shares the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka import TopicPartition as ClientPartition
from rich.console import Console
from rich.table import Table

from signal_router.core.tables import JoinSet, Pending
from signal_router.kafka.admin_client import connect
from signal_router.kafka.choice import choose_broker
from signal_router.kafka.offsets import describe
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import load_topics, resolve
from signal_router.model.candidates import SignalCopy
from signal_router.model.log import TopicPartition
from signal_router.runtime.positions import TablePosition, encode_position
from signal_router.runtime.roster import Roster
from signal_router.runtime.takeover import Cluster, take_over
from signal_router.state.keys import FORMAT, POSITION
from signal_router.state.rocks import RocksStore
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable

PARTITIONS = 4
GOAL_PER_S = 200_000
STEP = 10_000


def entries_of(partition: int, numbers: range) -> list[tuple[bytes, bytes | None]]:
    """Sets with one pending signal each, as the changelog holds them."""
    table = PartitionTable(MemoryStore(), partition)
    for number in numbers:
        signal = SignalCopy(
            f'["orders.ready","team/orders","{number}"]',
            "orders.ready",
            "team/orders",
            str(number),
            b'{"ds":"2026-03-10","region":"eu-west-1","k":%d,"rows":1500}' % number,
            None,
            None,
            1_773_100_800_000 + number,
            "signals",
            partition,
            number,
            b"12345678",
        )
        pending = Pending(number, 1, signal.recorded_at + 604_800_000, signal)
        table.put_join_set("bench/pair", f'{{"k":{number}}}', JoinSet((pending,), due=pending.deadline))
    return table.staged()


def write_changelog(cluster: Cluster, count: int) -> None:
    """Fills the changelog, ends every partition with its position, and commits what the positions say."""
    producer = Producer(
        {
            "bootstrap.servers": cluster.connection.bootstrap,
            "compression.type": "lz4",
            "linger.ms": 20,
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    share = count // PARTITIONS
    position = TablePosition(FORMAT, 0, share, cluster.candidates.id, PARTITIONS)
    for partition in range(PARTITIONS):
        for start in range(0, share, STEP):
            for key, value in entries_of(partition, range(start, min(start + STEP, share))):
                producer.produce(cluster.names.changelog, value, key, partition)
            producer.poll(0)
        producer.produce(cluster.names.changelog, encode_position(position), POSITION, partition)
    producer.flush()
    places = [ClientPartition(cluster.names.candidates, partition, 0) for partition in range(PARTITIONS)]
    request = ConsumerGroupTopicPartitions(cluster.group, places)
    until = time.monotonic() + 30
    while True:  # a broker that has just started is still loading its groups
        answer = cluster.admin.alter_consumer_group_offsets([request])[cluster.group].result(30)
        failed = [place for place in answer.topic_partitions if place.error is not None]
        if not failed:
            return
        if time.monotonic() > until:
            raise SystemExit(f"offsets were not committed: {failed}")
        time.sleep(0.1)


def make_cluster(bootstrap: str) -> Cluster:
    """Makes the topics under a prefix of their own."""
    connection = Connection(bootstrap, f"restore-{uuid.uuid4().hex[:8]}-")
    admin = connect(connection)
    names = resolve(connection.prefix, connection.app)
    wanted = wanted_topics(load_topics(), prefix=connection.prefix, app=connection.app, partitions=PARTITIONS)
    apply_topics(admin, wanted)
    topics = describe(admin, [names.candidates, names.changelog])
    group = f"{connection.prefix}{connection.app}"
    return Cluster(connection, admin, names, group, "bench", topics[names.candidates], topics[names.changelog])


def restore_once(cluster: Cluster, folder: Path) -> tuple[int, float]:
    """Takes all partitions over with an empty store; returns records and seconds."""
    store = RocksStore(folder / "tables")
    try:
        tps = [TopicPartition(cluster.names.candidates, partition) for partition in range(PARTITIONS)]
        began = time.perf_counter()
        found = take_over(cluster, store, Roster(), tps, threading.Event(), lambda: None)
        return found.restored, time.perf_counter() - began
    finally:
        store.close()
        shutil.rmtree(folder)


def measure(bootstrap: str, entries: int, runs: int) -> list[float]:
    """Entries per second of each run."""
    cluster = make_cluster(bootstrap)
    write_changelog(cluster, entries)
    rates = []
    for _ in range(runs):
        restored, seconds = restore_once(cluster, Path(tempfile.mkdtemp(prefix="restore-")))
        if restored != entries // PARTITIONS * PARTITIONS + PARTITIONS:
            raise SystemExit(f"{restored} records restored, {entries} entries written")
        rates.append(restored / seconds)
    cluster.admin.delete_topics([cluster.names.changelog])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with choose_broker() as broker:
        rates = measure(broker.bootstrap, given.entries, given.runs)
    figures = {
        "entries": given.entries,
        "runs": given.runs,
        "entries_per_s": {"min": min(rates), "median": statistics.median(rates), "max": max(rates)},
        "goal_per_s": GOAL_PER_S,
    }
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2))
    table = Table("entries", "min/s", "median/s", "max/s", "goal/s", title="restore")
    shown = (min(rates), statistics.median(rates), max(rates), GOAL_PER_S)
    table.add_row(f"{given.entries:,}", *(f"{rate:,.0f}" for rate in shown))
    Console().print(table)


if __name__ == "__main__":
    main()
