"""`signal-router verify` against a real cluster: while workers run, after they have stopped, and after tampering."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as ClientPartition
from harness import PAIR, LiveCluster, announced, live_cluster

from signal_router.cli.main import main
from signal_router.verify.report import Invariant

pytestmark = pytest.mark.kafka

EACH = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/each}
spec:
  members: [{alias: c, signal: C}]
"""

HELD = {each.value for each in Invariant} - {Invariant.STRUCK.value}
PAIRS = 40


def verify(cluster: LiveCluster, *options: str, prefix: str | None = None) -> Result:
    where = ["--bootstrap", cluster.bootstrap, "--prefix", cluster.prefix if prefix is None else prefix]
    return CliRunner().invoke(main, ["verify", *where, *options])


def verdicts(result: Result) -> dict[str, set[str]]:
    """The invariants by verdict, from the JSON."""
    found: dict[str, set[str]] = {}
    for each in json.loads(result.stdout)["findings"]:
        found.setdefault(each["verdict"], set()).add(each["invariant"])
    return found


def details(result: Result, invariant: Invariant) -> str:
    findings: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return "\n".join(next(each["details"] for each in findings if each["invariant"] == invariant.value))


def begin(cluster: LiveCluster) -> None:
    """A worker, definitions, and signals of every kind."""
    cluster.apply(EACH)
    cluster.await_revision(cluster.apply(PAIR))
    cluster.publish_many([*announced("A", range(PAIRS)), *announced("B", range(PAIRS)), b"no json"])
    cluster.publish_many([*announced("A", range(3)), *announced("A", ["alone"]), {"name": "C", "params": {}}])


def test_a_run_holds_while_workers_run_and_after_they_have_stopped(
    broker: object, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        for slot in ("w1", "w2"):
            cluster.worker(slot).await_running()
        begin(cluster)
        running = verify(cluster, "-o", "json")
        assert verdicts(running) == {"holds": HELD}, running.stdout

        cluster.publish_many([*announced("A", range(100, 100 + PAIRS)), *announced("B", range(100, 100 + PAIRS))])
        monkeypatch.setattr("signal_router.cli.verify.RECORD_BYTES", 500_000)  # as if there were many more
        moving = verify(cluster, "-o", "json", "--memory", "300")
        assert verdicts(moving) == {"holds": HELD}, moving.stdout
        assert json.loads(moving.stdout)["shards"] > 3

        cluster.await_decided()
        cluster.stop_workers()
        at_rest = verify(cluster, "--spool-dir", str(tmp_path))
        assert not list(tmp_path.glob("signal-router-verify-*"))  # nothing is left of it
        assert at_rest.exit_code == 0, at_rest.output
        assert "everything holds" in at_rest.output
        cluster.prove().hold()


def test_signals_that_come_while_it_reads_break_nothing(
    broker: object, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal_router.cli.verify.RECORD_BYTES", 100_000)
    with live_cluster(broker, prefix, tmp_path) as cluster:
        for slot in ("w1", "w2"):
            cluster.worker(slot).await_running()
        begin(cluster)
        done, batches = threading.Event(), 0

        def go_on() -> None:
            nonlocal batches
            producer = Producer({"bootstrap.servers": cluster.bootstrap})
            while not done.is_set():
                keys = range(1_000 + 10 * batches, 1_010 + 10 * batches)
                for number, each in enumerate(
                    [*announced("A", keys), *announced("B", keys), *announced("A", keys[:1])]
                ):
                    producer.produce(cluster.names.signals, json.dumps(each), partition=number % cluster.partitions)
                producer.flush(10)
                batches += 1
                done.wait(0.02)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            found = verify(cluster, "-o", "json")
        finally:
            done.set()
            thread.join()

        assert batches > 20
        assert verdicts(found) == {"holds": HELD}, found.stdout


def tampered(cluster: LiveCluster, topic: str, key: bytes | None, value: bytes, headers: list[Any]) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce(topic, value, key, headers=headers)
    assert producer.flush(30) == 0


def test_a_trigger_that_stands_there_twice_breaks_and_ends_with_1(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.worker().await_running()
        begin(cluster)
        cluster.await_decided()
        cluster.stop_workers()
        last = cluster.read(cluster.names.triggers)[-1]
        tampered(cluster, last.topic, last.key, last.value or b"", list(last.headers))

        found = verify(cluster, "-o", "json")

        assert found.exit_code == 1
        assert verdicts(found) == {"broken": {"unique"}, "holds": HELD - {"unique"}}
        assert str(last.document["trigger_id"]) in details(found, Invariant.UNIQUE)
        for_people = verify(cluster)
        assert for_people.exit_code == 1
        assert "stands there 2 times" in for_people.output


def test_what_cannot_be_judged_is_said_and_ends_with_2(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.worker().await_running()
        begin(cluster)
        cluster.await_decided()

        elsewhere = verify(cluster, "-o", "json", prefix=f"{prefix}no-")
        assert elsewhere.exit_code == 2
        assert verdicts(elsewhere) == {"cannot judge": HELD}
        assert "prefix and app" in details(elsewhere, Invariant.COMPLETE)

        end = cluster.ends(cluster.names.triggers)
        partition = max(end, key=lambda number: end[number])
        gone = ClientPartition(cluster.names.triggers, partition, end[partition] // 2)
        for future in cluster.admin.delete_records([gone]).values():
            future.result(30)
        hole = verify(cluster, "-o", "json")
        assert hole.exit_code == 2, hole.stdout
        assert verdicts(hole)["cannot judge"] == {"complete", "unique", "lineage"}
        assert "are gone" in details(hole, Invariant.UNIQUE)


def test_without_the_order_of_joining_the_rest_is_judged(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.worker(all_lineage=False).await_running()
        begin(cluster)
        cluster.await_decided()

        found = verify(cluster, "-o", "json")

        assert found.exit_code == 2, found.stdout
        assert verdicts(found)["cannot judge"] == {"complete", "sound", "one outcome", "order", "tables"}
        assert "--lineage all" in details(found, Invariant.COMPLETE)


def test_signals_that_nobody_reads_are_not_caught_up(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.worker().await_running()
        begin(cluster)
        cluster.await_decided()
        cluster.stop_workers()
        cluster.publish_many(announced("A", range(500, 505)))

        found = verify(cluster, "-o", "json", "--within", "2s")

        assert found.exit_code == 1
        assert verdicts(found)["broken"] == {"caught up"}
