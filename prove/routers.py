"""Two routers with different prefixes on one cluster, whose workers die independently of each other."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack

from harness import QUICK, LiveCluster, Proof, WorkerProcess
from harness_workload import LATEST, SUBSCRIPTIONS

from prove.rounds import Round

FAULTS = ("a worker of the first killed", "a worker of the second killed", "workers of both killed at once")


def play(round_: Round) -> None:
    """The one's prefix begins with the other's, and their workers have the same slots."""
    first = f"{round_.scenario}{round_.number}-{uuid.uuid4().hex[:6]}-"
    ways = {"candidates": round_.turn(("local", "topic")), "protocol": round_.turn(("classic", "consumer", "classic"))}
    with ExitStack() as held:
        clusters = [
            held.enter_context(round_.cluster(round_.brokers.plain, prefix=prefix, **ways))
            for prefix in (first, f"{first}b-")
        ]
        alive: list[dict[str, WorkerProcess]] = []
        for cluster, text in zip(clusters, (SUBSCRIPTIONS, SUBSCRIPTIONS + "---" + LATEST), strict=True):
            cluster.apply(text)
            alive.append({slot: cluster.worker(slot, times=QUICK) for slot in ("w1", "w2")})
        works = [round_.workload(cluster, keys=60) for cluster in clusters]
        for which in round_.deck((0, 1, 2), round_.few(12, least=3)):
            for work in works:
                work.publish(round_.rng.randint(50, 300))
            time.sleep(round_.rng.uniform(0.1, 0.8))  # the time of the kill, not a wait for anything
            for each in (0, 1) if which == 2 else (which,):
                slot = round_.rng.choice(sorted(alive[each]))
                round_.kill(alive[each][slot].await_running(within_s=60))
                alive[each][slot] = clusters[each].worker(slot, times=QUICK)
            round_.fired(FAULTS[which])
        proofs = []
        for cluster, work in zip(clusters, works, strict=True):
            cluster.await_decided(within_s=180)
            proofs.append(round_.judge(cluster))
            assert len(proofs[-1].triggers) > len(work.published) // 10
        for cluster, proof, other in zip(clusters, proofs, reversed(clusters), strict=True):
            assert_keeps_to_itself(cluster, proof, other)


def assert_keeps_to_itself(cluster: LiveCluster, proof: Proof, other: LiveCluster) -> None:
    """No record speaks of the other's topics."""
    strange = other.names.signals.encode()
    for each in (*proof.triggers, *proof.lineage):
        assert b'"' + strange + b'"' not in (each.value or b""), f"{cluster.prefix} speaks of {other.prefix}: {each}"
    assert all(each.topic.startswith(cluster.prefix) for each in (*proof.triggers, *proof.lineage))
