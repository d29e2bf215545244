"""Workers that stand still for longer than they may, and go on in the middle of others' work; two under one slot;
workers that come and go faster than the group settles. Some die of it.
"""

from __future__ import annotations

import signal
import time

from harness import QUICK, LiveCluster, WorkerProcess, until
from harness_workload import LATEST, SUBSCRIPTIONS, Workload

from prove.rounds import Round

SESSION_S = QUICK["session_ms"] / 1000
POINTS = ("begin", "changelog", "offsets", "commit", "tables", "restore", "revoke")
FAULTS = (
    *(f"stood still at {point}" for point in POINTS),
    "went on in others' work",
    "killed where it stood still",
    "two under one slot",
    "joined in a storm",
    "left in a storm",
    "killed in a storm",
)


def play(round_: Round) -> None:
    """All of it, with dynamic members of either protocol."""
    protocol = round_.turn(("classic", "consumer"))
    with round_.cluster(
        round_.brokers.plain, candidates=round_.turn(("local", "local", "topic")), protocol=protocol
    ) as cluster:
        cluster.apply(SUBSCRIPTIONS)
        cluster.apply(LATEST)
        Zombies(round_, cluster).run()
        round_.judge(cluster)


class Zombies:
    """The workers of a round, and what is done to them."""

    def __init__(self, round_: Round, cluster: LiveCluster) -> None:
        self._round = round_
        self._cluster = cluster
        self._classic = cluster.protocol == "classic"
        self._work: Workload = round_.workload(cluster)
        self._alive = {slot: self._start(slot) for slot in ("w1", "w2")}

    def run(self) -> None:
        round_ = self._round
        for point in round_.deck(POINTS, round_.few(len(POINTS))):
            self._stand_still_at(point)
        self._two_under_one_slot()
        self._storm(round_.few(8, least=4))

    def _start(self, slot: str, **more: object) -> WorkerProcess:
        settings = {"static_membership": False} if self._classic else {}
        return self._cluster.worker(slot, times=QUICK, **settings, **more)

    # ---- standing still

    def _stand_still_at(self, point: str) -> None:
        self._settle()
        slot = self._round.rng.choice(sorted(self._alive))
        frozen = self._alive[slot]
        if point == "restore":
            self._round.kill(frozen)
            frozen = self._alive[slot] = self._start(slot)
        frozen.arm(point, signal.SIGSTOP)
        guest = None
        if point == "revoke":  # on KIP-848 some give nothing back when one comes
            guest = self._alive["guest"] = self._start("guest")
        times = frozen.log.count('{"struck"')
        deadline = time.monotonic() + 30

        def stands() -> bool:
            self._work.publish(5)
            return frozen.log.count('{"struck"') > times or (point == "revoke" and time.monotonic() > deadline - 15)

        until(stands, f"a worker stands still at {point}", within_s=30)
        if frozen.log.count('{"struck"') > times:
            self._round.fired(f"stood still at {point}")
            self._others_work(frozen)
        frozen.disarm()
        if guest is not None:
            self._leave("guest")

    def _others_work(self, frozen: WorkerProcess) -> None:
        """Until the frozen worker's partitions are taken over, if ever; then it goes on, or dies."""
        others = [worker for worker in self._alive.values() if worker is not frozen]
        before = sum(each.log.count("took partitions over") for each in others)

        def taken() -> bool:
            self._work.publish(5)
            return sum(each.log.count("took partitions over") for each in others) > before

        until(taken, "others take over", within_s=SESSION_S + 40)
        self._work.publish(200)
        if self._round.rng.random() < 0.3:
            frozen.send(signal.SIGKILL)
            frozen.await_end()
            self._round.kills["where it stood still"] += 1
            self._round.fired("killed where it stood still")
            self._alive[frozen.slot] = self._start(frozen.slot)
            return
        frozen.send(signal.SIGCONT)
        self._round.fired("went on in others' work")
        self._work.publish(200)

    # ---- slots and storms

    def _two_under_one_slot(self) -> None:
        self._settle()
        slot = self._round.rng.choice(sorted(self._alive))
        self._round.shared.add(slot)
        first = self._alive[slot]
        second = self._start(slot, state_dir=self._cluster.folder / f"elsewhere-{len(self._cluster.workers)}")

        def one_stops() -> bool:
            self._work.publish(5)
            return not (first.alive and second.alive)

        until(one_stops, "one of the two stops", within_s=90)
        stopped, stays = (second, first) if first.alive else (first, second)
        assert stopped.await_end() == 1
        assert f'slot "{slot}"' in stopped.stopped_with, stopped.stopped_with
        self._alive[slot] = stays
        self._round.fired("two under one slot")

    def _storm(self, changes: int) -> None:
        rng = self._round.rng
        for number in range(changes):
            self._work.publish(rng.randint(20, 150))
            if len(self._alive) < 3 or (len(self._alive) < 5 and number % 2 == 0):
                slot = rng.choice([f"w{each}" for each in range(1, 7) if f"w{each}" not in self._alive])
                self._alive[slot] = self._start(slot)
                self._round.fired("joined in a storm")
            elif number % 4 == 1:
                worker = self._alive.pop(rng.choice(sorted(self._alive)))
                self._round.kill(worker)
                self._round.fired("killed in a storm")
            else:
                self._leave(rng.choice(sorted(self._alive)))
                self._round.fired("left in a storm")
            time.sleep(rng.uniform(0.2, 2.0))  # the time of the next change, not a wait for anything

    def _leave(self, slot: str) -> None:
        worker = self._alive.pop(slot)
        worker.send(signal.SIGTERM)
        # One that has only just begun does not listen yet.
        assert worker.await_end(within_s=40) in {0, -signal.SIGTERM}, worker.log[-3000:]

    def _settle(self) -> None:
        """Everybody works, and triggers flow."""
        for worker in self._alive.values():
            worker.await_running(within_s=60)
        before = sum(self._cluster.ends(self._cluster.names.triggers).values())

        def flow() -> bool:
            self._work.publish(10)
            return sum(self._cluster.ends(self._cluster.names.triggers).values()) > before

        until(flow, "triggers flow", within_s=60)
