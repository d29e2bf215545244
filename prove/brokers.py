"""The broker is stopped, killed, or stands still, again and again, in the middle of commits; workers die beside it."""

from __future__ import annotations

import signal
import time

from harness import QUICK, LiveCluster, WorkerProcess, until
from harness_workload import SUBSCRIPTIONS, Workload

from prove.rounds import Round, await_leaders, await_markers
from signal_router.kafka.embedded import EmbeddedBroker

SHORT_S, LONG_S = 1.5, 8.0
"""Within every time-out, and beyond those of transaction and session."""
KINDS = ("stopped", "killed", "stood still for a moment", "stood still beyond time-outs")
FAULTS = (*KINDS, "in the middle of a commit", "a worker killed meanwhile")


def play(round_: Round) -> None:
    """Each kind, half of them in the middle of a commit, some with a worker killed while the broker is away."""
    candidates = round_.turn(("local", "topic"))
    protocol = round_.turn(("classic", "classic", "consumer"))
    with (
        round_.brokers.broken() as broker,
        round_.cluster(broker.bootstrap, candidates=candidates, protocol=protocol) as cluster,
    ):
        cluster.apply(SUBSCRIPTIONS)
        work = round_.workload(cluster)
        alive = {slot: cluster.worker(slot, times=QUICK) for slot in ("w1", "w2")}
        for number, kind in enumerate(round_.deck(KINDS, round_.few(len(KINDS) + 2, least=2))):
            for worker in alive.values():
                worker.await_running(within_s=90)
            work.publish(200)
            slot = round_.rng.choice(sorted(alive))
            frozen = _stand_in_a_commit(round_, work, alive[slot]) if number % 2 == 0 else None
            _break(round_, broker, kind, alive, slot, frozen, cluster)
            await_leaders(cluster)
            await_markers(cluster)
            _await_triggers(cluster, work)
        round_.judge(cluster)


def _stand_in_a_commit(round_: Round, work: Workload, worker: WorkerProcess) -> WorkerProcess:
    worker.arm("commit", signal.SIGSTOP)
    times = worker.log.count('{"struck"')

    def stands() -> bool:
        work.publish(20)
        return worker.log.count('{"struck"') > times

    round_.await_fired(stands, "in the middle of a commit")
    return worker


def _break(
    round_: Round,
    broker: EmbeddedBroker,
    kind: str,
    alive: dict[str, WorkerProcess],
    slot: str,
    frozen: WorkerProcess | None,
    cluster: LiveCluster,
) -> None:
    before = broker.pid
    still = kind.startswith("stood still")
    if still:
        broker.pause()
    elif kind == "stopped":
        broker.stop()
    else:
        broker.kill()
    if frozen is not None:
        frozen.send(signal.SIGCONT)
    if round_.rng.random() < 0.5:
        round_.kill(alive[slot], "while the broker is away")
        round_.fired("a worker killed meanwhile")
    time.sleep(LONG_S if kind.endswith("time-outs") else SHORT_S)  # how long the broker is away
    if still:
        broker.resume()
    else:
        broker.start()
        assert broker.pid != before
    round_.fired(kind)
    for each, worker in alive.items():
        if not worker.alive:
            assert worker.process.returncode == -signal.SIGKILL, f"worker {each} ended:\n{worker.log[-3000:]}"
            alive[each] = cluster.worker(each, times=QUICK)


def _await_triggers(cluster: LiveCluster, work: Workload) -> None:
    """Work goes on."""
    before = sum(cluster.ends(cluster.names.triggers).values())

    def flow() -> bool:
        work.publish(50)
        return sum(cluster.ends(cluster.names.triggers).values()) > before

    until(flow, "triggers flow again", within_s=90)
