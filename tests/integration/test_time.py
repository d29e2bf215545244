"""Time on a real broker: what is due ends on idle topics and across restarts, and never because of a downtime."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import LiveCluster, announced, live_cluster, until

pytestmark = pytest.mark.kafka

WITHIN_S = 3.0

SHORT = f"""
apiVersion: signal-router/v1
kind: Subscription
metadata: {{id: team/short}}
spec:
  join: {{k: any}}
  within: {WITHIN_S:g}s
  dedupe: {WITHIN_S + 1:g}s
  members:
    - {{alias: a, signal: A}}
    - {{alias: b, signal: B}}
  trigger: {{params: {{k: "{{join.k}}"}}}}
"""


@pytest.fixture
def cluster(broker: object, prefix: str, tmp_path: Path, candidates: str) -> Iterator[LiveCluster]:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as live:
        live.apply(SHORT)
        yield live


def outcomes(cluster: LiveCluster, outcome: str) -> int:
    """How many candidates have ended so, by the lineage written until now."""
    lineage = [each for each in cluster.read(cluster.names.lineage) if (each.key or b"").startswith(b"signal/")]
    return sum(each.document["outcome"] == outcome for each in lineage)


def test_a_lonely_signal_expires_on_an_idle_topic_and_is_forgotten_after_the_horizon(cluster: LiveCluster) -> None:
    cluster.worker().await_running()
    [lonely] = announced("A", [1])

    cluster.publish(lonely)
    until(lambda: outcomes(cluster, "expired") == 1, "it expires")
    cluster.publish(lonely)
    until(lambda: outcomes(cluster, "duplicate") == 1, "a repeat inside the horizon is a duplicate")

    def joins_again() -> bool:
        cluster.publish(lonely)
        return outcomes(cluster, "expired") == 2

    until(joins_again, "a repeat behind the horizon joins and expires", within_s=40)
    cluster.await_decided()
    cluster.stop_workers()

    cluster.prove().hold()


def test_a_deadline_passes_while_no_worker_runs(cluster: LiveCluster) -> None:
    cluster.worker().await_running()
    cluster.publish(*announced("A", range(5)))
    cluster.await_decided()
    cluster.stop_workers()
    assert outcomes(cluster, "expired") == 0

    past = time.monotonic() + WITHIN_S
    until(lambda: time.monotonic() > past, "the deadline is over")
    cluster.worker().await_running()
    until(lambda: outcomes(cluster, "expired") == 5, "what was due ends")
    cluster.stop_workers()

    cluster.prove().hold()


def test_a_downtime_expires_nothing_whose_partner_is_in_the_log(cluster: LiveCluster) -> None:
    cluster.worker().await_running()
    in_time, late = announced("A", [1, 2])
    cluster.publish(in_time, late)
    published_at = time.monotonic()
    cluster.await_decided()
    cluster.workers[0].kill()
    partner, late_partner = announced("B", [1, 2])
    cluster.publish(partner)
    assert time.monotonic() - published_at < WITHIN_S, "too slow a machine to say anything"

    until(lambda: time.monotonic() > published_at + 2 * WITHIN_S, "the deadlines are long over")
    cluster.publish(late_partner)
    cluster.worker().await_running()
    cluster.await_decided()
    until(lambda: outcomes(cluster, "expired") == 2, "the late pair ends, too")
    cluster.stop_workers()

    proof = cluster.prove()
    proof.hold()
    assert proof.fired() == {'{"k": 1}': 1}
