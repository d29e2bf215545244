"""Exactly once on a real broker, by real processes that are killed with kill -9 in the middle of their transactions."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import PAIR, QUICK, LiveCluster, Proof, WorkerProcess, live_cluster, until
from harness_workload import LATEST, SUBSCRIPTIONS, Workload

from signal_router.testing.reference import DefinitionRecord, SignalRecord, count_any_order

pytestmark = pytest.mark.kafka

SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
SIGNALS = int(os.environ.get("SIGNAL_ROUTER_PROOF_SIGNALS", "20000"))
KILLS = int(os.environ.get("SIGNAL_ROUTER_PROOF_KILLS", "10"))

STRIKES = ("commit", "offsets", None, "changelog", "tables", "commit", "produce", "begin", "offsets", None)
"""Before which effect of a commit each kill strikes, again and again; None: at any time at all."""


def test_two_sets_whose_signals_cross_give_two_triggers(
    broker: object, prefix: str, tmp_path: Path, candidates: str
) -> None:
    with live_cluster(broker, prefix, tmp_path, candidates=candidates) as cluster:
        cluster.apply(PAIR)
        cluster.worker().await_running()

        for name, key in (("A", 1), ("A", 2), ("B", 2), ("B", 1)):
            cluster.publish({"name": name, "source": "s", "id": f"{name}{key}", "params": {"k": key}})
        cluster.await_decided()
        cluster.stop_workers()

        proof = cluster.prove()
        assert proof.fired() == {'{"k": 1}': 1, '{"k": 2}': 1}
        proof.hold()


@pytest.mark.timeout(420)
def test_twenty_thousand_signals_and_ten_kills_give_what_the_reference_gives(
    broker: object, prefix: str, tmp_path: Path, ways: dict[str, str]
) -> None:
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    rng = random.Random(SEED)
    settings: dict[str, object] = {}
    with live_cluster(broker, prefix, tmp_path, **ways) as cluster:  # type: ignore[arg-type]
        if cluster.protocol == "consumer":  # each kill costs the session of the life that it ended
            cluster.shorten_sessions()
            settings["times"] = QUICK
        revision = cluster.apply(SUBSCRIPTIONS)
        cluster.apply(LATEST)
        work = Workload(rng, cluster.names.signals, cluster.producer, cluster.partitions, keys=max(SIGNALS // 12, 1))
        workers = {slot: cluster.worker(slot, **settings).await_running() for slot in ("w1", "w2")}

        killed = []
        for round_ in range(KILLS):
            slot = ("w1", "w2")[round_ % 2]
            killed.append(kill_at_work(rng, cluster, work, workers[slot], round_))
            if round_ % 4 < 2:
                shutil.rmtree(workers[slot].state_dir)
            workers[slot] = cluster.worker(slot, **settings)
        work.publish(SIGNALS - SIGNALS // KILLS * KILLS)
        cluster.await_decided(within_s=120)
        cluster.stop_workers()

        proof = cluster.prove()
        print(f"{len(proof.triggers)} triggers, {dict(proof.outcomes())}, {len(proof.evaluation.pending)} pending")
        proof.hold()
        assert_counts_in_any_order(cluster, proof, revision)
        assert_the_workload_was_worth_it(work, proof)
        assert_kills_met_open_transactions(cluster, killed)
        assert_both_ways_were_taken(cluster)


def kill_at_work(
    rng: random.Random, cluster: LiveCluster, work: Workload, worker: WorkerProcess, round_: int
) -> WorkerProcess:
    """Kills a worker while it works on fresh signals: at a named effect of its commit, or at any time at all."""
    worker.await_running()
    effect = STRIKES[round_ % len(STRIKES)]
    work.publish(SIGNALS // KILLS)
    if effect is None:
        time.sleep(rng.uniform(0, 0.3))  # the time of the kill, not a wait for anything
        worker.kill()
    else:
        worker.arm(effect)
        until(lambda: not worker.alive, f"the kill before {effect}")
        assert worker.struck == effect, worker.log[-3000:]
    return worker


def assert_counts_in_any_order(cluster: LiveCluster, proof: Proof, revision: int) -> None:
    names = cluster.names
    definitions = [
        DefinitionRecord(each.offset, each.value) for each in cluster.read(names.definitions) if each.offset <= revision
    ]
    signals: dict[tuple[str, int], list[SignalRecord]] = {}
    for each in cluster.read(names.signals):
        record = SignalRecord(each.offset, each.timestamp, each.key, each.value, each.headers)
        signals.setdefault((each.topic, each.partition), []).append(record)
    expected = count_any_order(definitions, signals, {names.signals: cluster.topic_id(names.signals)})
    by_subscription: Counter[str] = Counter()
    for (subscription, _), count in expected.items():
        by_subscription[subscription] += count

    fired: Counter[str] = Counter()
    for trigger in proof.triggers:
        fired[trigger.document["subscription"]["id"]] += 1  # type: ignore[index]

    assert {name: fired[name] for name in by_subscription} == by_subscription
    ids = Counter(str(trigger.document["trigger_id"]) for trigger in proof.triggers)
    assert max(ids.values()) == 1


def assert_the_workload_was_worth_it(work: Workload, proof: Proof) -> None:
    assert work.repeats > SIGNALS * 0.08
    assert work.share_of_crowded_keys >= 0.3
    outcomes = proof.outcomes()
    assert outcomes["fired"] > SIGNALS // 2
    assert outcomes["duplicate/repeat"] > SIGNALS // 20
    assert outcomes["superseded/newer"]
    typed = {json.dumps(trigger.document["join_key"]) for trigger in proof.triggers}
    both = [number for number in range(work.keys) if {f'{{"k": {number}}}', f'{{"k": "{number}"}}'} <= typed]
    assert len(both) > work.keys // 10  # 1 and "1" are different keys, and both have fired


def assert_both_ways_were_taken(cluster: LiveCluster) -> None:
    """Of two workers half of what one matches is for the other; of the rest most is joined where it was matched."""
    taken = sum((Counter(worker.candidates) for worker in cluster.workers), Counter())
    print(f"candidates of the last lives: {dict(taken)}")
    assert taken["topic"] > 0
    assert (taken["local"] > 0) == (cluster.candidates == "local")


def assert_kills_met_open_transactions(cluster: LiveCluster, killed: list[WorkerProcess]) -> None:
    aborted = cluster.aborted_transactions()
    lives = {transaction.rpartition("/")[0] for transaction in aborted}
    print(f"{len(killed)} kills, of which {len(lives)} left an open transaction: {sorted(aborted)}")
    assert {worker.struck for worker in killed} >= set(STRIKES)
    # A worker killed before its commit has sent everything: each of these must be found, and aborted.
    assert len(lives) >= max(3, sum(worker.struck == "commit" for worker in killed))
