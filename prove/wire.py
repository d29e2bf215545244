"""The way to the broker fails: at each request that matters, in each way in which it can."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from harness import QUICK
from harness_workload import LATEST, SUBSCRIPTIONS, Workload

from prove.rounds import Round
from signal_router.testing.wire_proxy import (
    ADD_PARTITIONS,
    END_TXN,
    FETCH,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Fault,
    WireProxy,
)

REQUESTS = {
    INIT_PRODUCER_ID: "InitProducerId",
    ADD_PARTITIONS: "AddPartitions",
    PRODUCE: "Produce",
    TXN_OFFSET_COMMIT: "TxnOffsetCommit",
    END_TXN: "EndTxn",
    FETCH: "Fetch",
}
KINDS = (Fault.LOSE_ANSWER, Fault.LATE, Fault.CUT, Fault.SWALLOW)
CODES = {
    INIT_PRODUCER_ID: (14, 16, 51),
    ADD_PARTITIONS: (14, 47, 51),
    PRODUCE: (6, 7, 19, 47),
    TXN_OFFSET_COMMIT: (14, 15, 22, 25, 47),
    END_TXN: (14, 16, 47, 51),
    FETCH: (70, 71),
}
"""Errors that brokers give there: 14 coordinator loading, 15 none, 16 another one, 51 concurrent transactions, 6 not
the leader, 7 timed out, 19 too few replicas, 22 illegal generation, 25 unknown member, 47 old producer epoch, 70 and 71
an unknown fetch session. After 47 a producer is lost, after 22 and 25 the transaction; the others pass.
"""
LATE_S = (0.5, 1.5, 4.0)
"""The last is beyond the transaction time-out."""
SILENT_S = (1.0, 2.5, 6.0)


class Blow(NamedTuple):
    """What happens to which request; `code`: the error that is answered."""

    request: int
    fault: Fault
    code: int = 0

    @property
    def name(self) -> str:
        """How it is counted."""
        return f"{REQUESTS[self.request]}: {self.fault.value}" + (f" ({self.code})" if self.code else "")


BLOWS = (
    *(Blow(request, fault) for request in REQUESTS for fault in KINDS),
    *(Blow(request, Fault.ERROR, code) for request, codes in CODES.items() for code in codes),
)
FAULTS = tuple(blow.name for blow in BLOWS)


def play(round_: Round, blows: Sequence[Blow] = BLOWS) -> None:
    """One fault after the other, each at a request of its own, under load."""
    _, proxy = round_.brokers.proxied
    candidates = round_.turn(("local", "topic"))
    with round_.cluster(round_.brokers.plain, candidates=candidates) as cluster:
        cluster.apply(SUBSCRIPTIONS)
        cluster.apply(LATEST)
        work = round_.workload(cluster)
        proxy.disarm()
        for slot in ("w1", "w2"):
            cluster.worker(slot, bootstrap=proxy.address, times=QUICK)
        for worker in cluster.workers:
            worker.await_running()
        for blow in round_.deck(blows, len(blows)):
            strike(round_, proxy, blow, work)
        proxy.disarm()
        for worker in cluster.workers:
            assert worker.alive, f"worker {worker.slot} ended:\n{worker.log[-3000:]}"
        round_.judge(cluster)


def strike(round_: Round, proxy: WireProxy, blow: Blow, work: Workload) -> None:
    """Publishes until it has happened; a black hole has when it is over."""
    before = proxy.fired[blow.request, blow.fault]
    seconds = round_.rng.choice(LATE_S if blow.fault is Fault.LATE else SILENT_S)
    proxy.arm(blow.request, blow.fault, code=blow.code, seconds=seconds)
    if blow.request == INIT_PRODUCER_ID:
        proxy.cut()  # what was lost on the way makes producers take their id anew

    def struck() -> bool:
        work.publish(40)
        time.sleep(0.1)  # a load, not a wait for anything
        return proxy.fired[blow.request, blow.fault] > before

    round_.await_fired(struck, blow.name, within_s=60)
