"""A worker dies in the middle of a transaction, and another one takes its partitions over without waiting for it; or it
stops in good order, and they wait for it where it said so.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import PAIR, QUICK, LiveCluster, announced, assert_all_fired, live_cluster, until

from signal_router.cli.main import main
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.offsets import stable_ends
from signal_router.model.log import TopicPartition

pytestmark = pytest.mark.kafka

COUNT = 400
SESSION_S = QUICK["session_ms"] / 1000
NEVER_S = 300


@pytest.fixture(scope="module")
def patient_broker() -> Iterator[EmbeddedBroker]:
    """A broker that looks for transactions that timed out only when the tests are long over."""
    settings = {
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": str(NEVER_S * 1000),
        "group.consumer.session.timeout.ms": str(QUICK["session_ms"]),
    }
    with EmbeddedBroker(settings=settings) as broker:
        yield broker


@pytest.mark.parametrize(
    ("protocol", "candidates", "effect"),
    [
        ("classic", "local", "changelog"),
        ("classic", "local", "offsets"),
        ("classic", "topic", "commit"),
        ("classic", "local", "commit"),
        ("consumer", "local", "offsets"),
    ],
)
def test_the_open_transaction_of_a_dead_worker_is_ended(
    patient_broker: EmbeddedBroker, prefix: str, tmp_path: Path, protocol: str, candidates: str, effect: str
) -> None:
    """At `changelog` only candidates and triggers hide something, at `offsets` the tables too, then the offsets."""
    ways = {"protocol": protocol, "candidates": candidates}
    with live_cluster(patient_broker.bootstrap, prefix, tmp_path, **ways) as cluster:  # type: ignore[arg-type]
        cluster.apply(PAIR)
        dies = cluster.worker("w1", static_membership=False, times=QUICK).await_running()
        stays = cluster.worker("w2", static_membership=False, times=QUICK).await_running()
        if protocol == "classic":  # what it keeps in the other protocol is not taken over again
            dies.await_log("took partitions over", times=2)
        cluster.publish_many(announced("A", range(COUNT)))
        cluster.await_decided()

        dies.arm(effect, inputs=True)
        cluster.publish_many(announced("B", range(COUNT)))
        assert dies.await_end() == -9
        killed_at = time.monotonic()
        cluster.await_decided(within_s=SESSION_S + 20)
        took = time.monotonic() - killed_at
        # Where nothing was hidden that the take-over had to read, it looks for a second before it fences.
        until(lambda: nothing_hidden(cluster), "nothing is hidden", within_s=15)
        cluster.stop_workers()

        proof = cluster.prove()
        proof.hold()
        print(f"killed before {effect}: all decided {took:.1f} s later, of which {SESSION_S:g} s the session")
        assert dies.struck == effect
        assert sum(proof.fired().values()) == COUNT
        if effect != "changelog":  # where a transaction with nothing but offsets may have been met
            assert "slot=w1" in stays.log
            assert {trigger.rpartition("/")[0] for trigger in cluster.aborted_transactions()} >= {"w1/1"}
            assert_announced(cluster)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_live_worker_that_was_taken_for_dead_says_by_whom_it_was_fenced_and_goes_on(
    patient_broker: EmbeddedBroker, prefix: str, tmp_path: Path, protocol: str
) -> None:
    with live_cluster(patient_broker.bootstrap, prefix, tmp_path, protocol=protocol) as cluster:
        cluster.apply(PAIR)
        frozen = cluster.worker("w1", static_membership=False, times=QUICK).await_running()
        cluster.publish_many(announced("A", range(COUNT)))
        cluster.await_decided()
        frozen.arm("commit", signal.SIGSTOP, inputs=True)
        cluster.publish_many(announced("B", range(COUNT)))
        until(lambda: frozen.struck is not None, "the worker stands still in the middle of its commit")
        stays = cluster.worker("w2", static_membership=False, times=QUICK).await_running(within_s=60)
        cluster.await_decided()

        frozen.send(signal.SIGCONT)
        frozen.await_log("took partitions over", times=2, within_s=60)
        cluster.publish_many(announced("A", range(COUNT, 2 * COUNT)) + announced("B", range(COUNT, 2 * COUNT)))
        cluster.await_decided()
        cluster.stop_workers()

        assert "fenced a former owner" in stays.log
        assert_announced(cluster)
        assert any("fenced by another worker" in line and "by=w2" in line for line in frozen.log.splitlines())
        assert_all_fired(cluster, 2 * COUNT)


def assert_announced(cluster: LiveCluster) -> None:
    """That w2 fenced w1 stands in the workers topic, with partitions that w1 held, and `workers list` shows it."""
    found = [each for each in cluster.read(cluster.names.workers) if each.key == b"takeover/w1"]
    held = [each.document["partitions"] for each in cluster.read(cluster.names.workers) if each.key == b"w1"]
    assert found
    assert {each.document["by"] for each in found} == {"w2"}
    for each in found:
        assert each.document["partitions"]
        for topic, numbers in each.document["partitions"].items():  # type: ignore[attr-defined]
            assert any(set(numbers) <= set(said.get(topic, ())) for said in held)  # type: ignore[attr-defined]
    shown = {row["slot"]: row for row in json.loads(workers_list(cluster, "-o", "json"))}
    assert shown["w1"]["fenced"]["by"] == "w2"
    assert shown["w1"]["fenced"]["partitions"] == found[-1].document["partitions"]
    assert shown["w2"]["fenced"] is None
    assert "fenced by w2" in workers_list(cluster)


def workers_list(cluster: LiveCluster, *options: str) -> str:
    command = ["workers", "list", "--bootstrap", cluster.bootstrap, "--prefix", cluster.prefix, *options]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def nothing_hidden(cluster: LiveCluster) -> bool:
    names = cluster.names
    tps = {
        TopicPartition(topic, number): end
        for topic in (names.candidates, names.changelog, names.lineage, names.triggers)
        for number, end in cluster.ends(topic).items()
    }
    return stable_ends(cluster.admin, tps) == tps


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_what_a_worker_that_stops_in_good_order_held_is_idle_for_as_long_as_it_says(
    broker: object, prefix: str, tmp_path: Path, static: bool
) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.apply(PAIR)
        stops = cluster.worker("w1", static_membership=static, times=QUICK).await_running()
        cluster.worker("w2", static_membership=static, times=QUICK).await_running()
        stops.await_log("took partitions over", times=2)

        began = time.monotonic()
        stops.stop()
        cluster.publish_many(announced("A", range(COUNT)) + announced("B", range(COUNT)))
        cluster.await_decided(within_s=SESSION_S + 20)
        took = time.monotonic() - began
        cluster.stop_workers()

        print(f"stopped as a {'static' if static else 'dynamic'} member: all decided {took:.1f} s later")
        said = [line for line in stops.log.splitlines() if "stopped as a static member" in line]
        assert len(said) == static
        assert all(f"at_most_s={SESSION_S}" in line and cluster.names.signals in line for line in said)
        assert (took > SESSION_S - 1) == static
        assert_all_fired(cluster, COUNT)
