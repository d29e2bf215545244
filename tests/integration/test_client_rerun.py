"""From one program to the other through a worker: a producer that is killed and run again starts each workflow once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from harness import PAIR, live_cluster, until

from signal_router.client import SignalProducer, Trigger, TriggerConsumer, once_per_task
from signal_router.model.records import decode_signal

pytestmark = pytest.mark.kafka

KEYS = 50


def program(bootstrap: str, prefix: str, name: str, run: str) -> str:
    """A step of a workflow: it announces one thing per key, under ids that follow from run and task."""
    return textwrap.dedent(f"""
        from signal_router.client import SignalProducer, once_per_task

        with SignalProducer({bootstrap!r}, prefix={prefix!r}, source="wf/{name}") as signals:
            for key in range({KEYS}):
                signals.publish({name!r}, id=once_per_task({run!r}, "announce", key), params={{"k": key}}).result()
                print(key, flush=True)
    """)


def killed_after(text: str, count: int) -> int:
    """Runs a program, and kills it once it has said so many lines; returns how many it said."""
    said = 0
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            said += 1
            if said == count:
                process.kill()
    assert process.returncode == -9
    return said


def test_a_producer_that_is_killed_and_run_again_repeats_itself_and_every_trigger_is_there_once(
    broker: object, prefix: str, tmp_path: Path
) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.apply(PAIR)
        cluster.worker().await_running()
        said = sum(killed_after(program(cluster.bootstrap, prefix, name, "run-7"), 20) for name in ("A", "B"))
        for name in ("A", "B"):
            subprocess.run(
                [sys.executable, "-c", program(cluster.bootstrap, prefix, name, "run-7")], check=True, timeout=120
            )
        cluster.await_decided()

        handled: Counter[int] = Counter()
        consumer = TriggerConsumer(
            cluster.connection, group=f"{prefix}workflows", park_to=print, subscriptions=["team/pair"]
        )

        def handle(trigger: Trigger) -> None:
            handled[int(trigger.join_key["k"])] += 1  # type: ignore[arg-type]
            if handled.total() == KEYS:
                with SignalProducer(cluster.connection, source="wf/pair") as signals:
                    signals.publish("pair.done", caused_by=trigger, id=once_per_task("run-8", "done"))
                consumer.stop()

        consumer.run(handle)
        cluster.stop_workers()

        assert handled == dict.fromkeys(range(KEYS), 1)
        proof = cluster.prove()
        proof.hold()
        assert len(proof.triggers) == KEYS
        assert proof.outcomes()["duplicate/repeat"] >= said  # what was acknowledged before the kill was said again
        assert proof.outcomes()["duplicate/conflict"] == 0
        last = next(each for each in cluster.read(cluster.names.signals) if b"pair.done" in (each.value or b""))
        cause = dict(last.headers)["sr_caused_by"]
        assert cause is not None
        assert cause.decode() in {trigger.document["trigger_id"] for trigger in proof.triggers}
        assert decode_signal(last.value, last.headers, limit_bytes=10_000) is not None


def test_the_same_run_under_another_id_is_another_set(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.apply(PAIR)
        cluster.worker().await_running()
        with SignalProducer(cluster.connection, source="wf/x") as signals:
            for run in ("run-7", "run-8"):
                for name in ("A", "B"):
                    signals.publish(name, id=once_per_task(run, name), params={"k": 1})
        cluster.await_decided()

        until(lambda: len(cluster.read(cluster.names.triggers)) == 2, "two triggers")
        cluster.stop_workers()
        proof = cluster.prove()
        proof.hold()
        assert proof.fired() == {'{"k": 1}': 2}
