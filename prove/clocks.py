"""Producers' clocks are an hour off, and jump; on a topic that takes their word for it, and on one that does not."""

from __future__ import annotations

import json
import time

from harness import QUICK, LiveCluster, until

from prove.compaction import configure
from prove.rounds import Round

HOUR_MS = 3_600_000
SHORT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: proof/clocks}
spec:
  join: {k: any}
  within: 30m
  dedupe: 40m
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}"}}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: proof/newest}
spec:
  join: {k: any}
  policy: latest
  within: 10m
  dedupe: 1h
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}"}}
"""
CREATE, APPEND = "CreateTime", "LogAppendTime"
CLOCKS = ("an hour behind", "an hour ahead", "jumping", "right")
FAULTS = tuple(f"{topic}: {clock}" for topic in (CREATE, APPEND) for clock in CLOCKS[:3])


def play(round_: Round) -> None:
    """The same signals on both kinds of topics."""
    for kind in (CREATE, APPEND):
        with round_.cluster(round_.brokers.plain, candidates=round_.turn(("local", "topic"))) as cluster:
            configure(
                cluster,
                cluster.names.signals,
                {"message.timestamp.type": kind, "message.timestamp.after.max.ms": str(2 * HOUR_MS)},
            )
            cluster.apply(SHORT)
            for worker in [cluster.worker(slot, times=QUICK) for slot in ("w1", "w2")]:
                worker.await_running()
            published = 0
            for piece in range(round_.few(12, least=3)):
                published += publish(round_, cluster, round_.few(400, least=150), kind)
                if piece % 3 == 1:
                    dies = round_.rng.choice([worker for worker in cluster.workers if worker.alive])
                    round_.kill(dies)
                    cluster.worker(dies.slot, times=QUICK)
            if kind == CREATE:
                until(lambda: has_expired(cluster), "what waits for too long ends at the mark that says so")
            else:
                time.sleep(2.5)  # marks come every second
            proof = round_.judge(cluster)
            outcomes = proof.outcomes()
            assert outcomes["fired"] > published // 20
            # Where the broker's clock decides nothing can have waited for as long as that.
            assert (outcomes["expired/within"] > 0) == (kind == CREATE), outcomes
            times = {each.timestamp for each in cluster.read(cluster.names.signals)}
            apart = max(times) - min(times)
            assert (apart > HOUR_MS) == (kind == CREATE), f"signals lie {apart} ms apart"


def has_expired(cluster: LiveCluster) -> bool:
    """Whether a signal has ended as expired."""
    return any(each.document.get("outcome") == "expired" for each in cluster.read(cluster.names.lineage))


def publish(round_: Round, cluster: LiveCluster, count: int, kind: str) -> int:
    """Signals of four producers, each with a clock of its own."""
    rng, now = round_.rng, int(time.time() * 1000)
    for number in range(count):
        clock = rng.choice(CLOCKS)
        off = {
            "an hour behind": -HOUR_MS,
            "an hour ahead": HOUR_MS,
            "jumping": rng.randint(-HOUR_MS, HOUR_MS),
            "right": 0,
        }[clock]
        name = rng.choice("AB")
        signal = {
            "name": name,
            "source": clock,
            "id": f"{now}-{number if rng.random() < 0.9 else number // 2}",
            "params": {"k": rng.randrange(count)},
        }
        cluster.producer.produce(
            cluster.names.signals, json.dumps(signal), partition=rng.randrange(cluster.partitions), timestamp=now + off
        )
        if clock != "right":
            round_.fired(f"{kind}: {clock}")
    assert cluster.producer.flush(30) == 0
    return count
