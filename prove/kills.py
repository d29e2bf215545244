"""Workers die by kill -9, at every point there is and at any time at all, on empty and on kept disks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import NamedTuple

from harness import QUICK, LiveCluster, WorkerProcess, until
from harness_workload import LATEST, SUBSCRIPTIONS, Workload

from prove.rounds import NotJudgedError, Round
from signal_router.testing.wire_proxy import TXN_OFFSET_COMMIT, Fault

ANY = "any time"
IN_COMMITS = ("begin", "produce", "changelog", "offsets", "commit", "tables", "abort")
IN_TAKE_OVERS = ("init", "take over", "restore", "restored", "announce")
POINTS = (*IN_COMMITS, *IN_TAKE_OVERS, "revoke", "fence", ANY)
"""`fence` is met only where others take over what a dead worker left: not with static members."""
ILLEGAL_GENERATION = 22
FENCE_TRIES = 4
FAULTS = ("empty disk", "kept disk", "two at once", "classic static", "classic dynamic", "consumer")


class Way(NamedTuple):
    name: str
    protocol: str
    candidates: str
    static: bool


WAYS = (
    Way("classic static", "classic", "local", static=True),
    Way("consumer", "consumer", "local", static=False),
    Way("classic dynamic", "classic", "topic", static=False),
    Way("classic static", "classic", "topic", static=True),
    Way("classic dynamic", "classic", "local", static=False),
    Way("consumer", "consumer", "topic", static=False),
)


def play(round_: Round, points: Sequence[str] = POINTS) -> None:
    """Kills one worker after the other, at each point as often as at any other."""
    way = round_.turn(WAYS)
    _, proxy = round_.brokers.proxied
    with round_.cluster(round_.brokers.plain, candidates=way.candidates, protocol=way.protocol) as cluster:
        cluster.apply(SUBSCRIPTIONS)
        cluster.apply(LATEST)
        proxy.disarm()
        Slaughter(round_, cluster, way).run(points)
        proof = round_.judge(cluster)
        assert proof.outcomes()["fired"], "nothing has fired"
    round_.fired(way.name)


class Slaughter:
    """The workers of a round, and what is done to them."""

    def __init__(self, round_: Round, cluster: LiveCluster, way: Way) -> None:
        self._round = round_
        self._cluster = cluster
        self._way = way
        self._work: Workload = round_.workload(cluster)
        count = 2 if way.static else 3
        self._alive = {f"w{number}": self._start(f"w{number}") for number in range(1, count + 1)}

    def run(self, points: Sequence[str]) -> None:
        for worker in self._alive.values():
            worker.await_running(within_s=60)
        met = [point for point in points if point != "fence" or not self._way.static]
        if self._way.static and ANY in met:  # which is quick: nobody waits for a session to end
            met += [ANY, "commit", "tables"]
        for point in self._round.deck(met, len(met)):
            slot = self._round.rng.choice(sorted(self._alive))
            self._kill_at(slot, point)
            self._revive(point)
        self._publish()

    def _kill_at(self, slot: str, point: str) -> None:
        if point == ANY:
            self._kill_any_time(slot)
        elif point in IN_TAKE_OVERS:
            self._kill_in_take_over(slot, point)
        elif point == "revoke":
            self._kill_in_revoke()
        elif point == "fence":
            self._kill_while_fencing(slot)
        elif point == "abort":
            self._kill_at_abort()
        else:
            self._kill_in_commit(slot, point)

    def _kill_in_commit(self, slot: str, point: str) -> None:
        worker = self._alive[slot].await_running(within_s=60)
        worker.arm(point)
        self._publish_until_dead([worker])
        self._round.await_struck([worker], point)
        self._restart(slot)

    def _kill_any_time(self, slot: str) -> None:
        self._publish()
        time.sleep(self._round.rng.uniform(0, 0.4))  # the time of the kill, not a wait for anything
        slots = [slot]
        if self._round.rng.random() < 0.4:
            slots.append(self._round.rng.choice([each for each in sorted(self._alive) if each != slot]))
            self._round.fired("two at once")
        for each in slots:
            self._round.kill(self._alive[each])
        for each in slots:
            self._restart(each)

    def _kill_in_take_over(self, slot: str, point: str) -> None:
        """Twice: the life that comes after a kill dies as well."""
        self._publish()
        self._round.kill(self._alive[slot])
        self._restart(slot, empty=point == "restored" or None)
        self._alive[slot].arm(point)
        self._round.await_struck([self._alive[slot]], point)
        self._restart(slot)

    def _kill_in_revoke(self) -> None:
        """Another worker comes, and one that has to give something back for it dies."""
        workers = list(self._alive.values())
        for worker in workers:
            worker.await_running(within_s=60).arm("revoke")
        comes = self._cluster.worker("guest", **self._settings(static=False))
        self._publish()
        struck = self._round.await_struck(workers, "revoke")
        comes.await_running(within_s=60)
        self._restart(struck.slot)
        self._publish()
        comes.stop()

    def _kill_while_fencing(self, slot: str) -> None:
        """One dies with an open transaction, and then the one that is about to end it.

        The broker looks for transactions that timed out every ten seconds, and may be the first to end it.
        """
        for _ in range(FENCE_TRIES):
            for worker in self._alive.values():
                worker.await_running(within_s=60)
            dies = self._alive[slot]
            others = [worker for worker in self._alive.values() if worker is not dies]
            dies.arm("commit", inputs=True)  # or it would hide nothing that the others need
            self._publish_until_dead([dies])
            self._round.await_struck([dies], "commit")
            for worker in others:
                worker.arm("fence")
            try:
                struck = self._round.await_struck(others, "fence", within_s=20)
            except NotJudgedError:
                self._restart(slot)
                continue
            for each in (slot, struck.slot):
                self._restart(each)
            return
        raise NotJudgedError(f"in {FENCE_TRIES} tries the broker ended what a dead worker had left open before others")

    def _kill_at_abort(self) -> None:
        """The group's coordinator refuses offsets; whoever is about to abort for it dies."""
        _, proxy = self._round.brokers.proxied
        workers = list(self._alive.values())
        for worker in workers:
            worker.await_running(within_s=60).arm("abort")
        proxy.arm(TXN_OFFSET_COMMIT, Fault.ERROR, code=ILLEGAL_GENERATION)
        self._publish_until_dead(workers)
        self._restart(self._round.await_struck(workers, "abort").slot)

    # ---- lives

    def _revive(self, point: str) -> None:
        """Of several that were armed more than one may have met its end, before the others' orders were taken back."""
        for slot, worker in list(self._alive.items()):
            if not worker.alive:
                assert worker.struck == point, f"worker {slot} had ended by itself:\n{worker.log[-3000:]}"
                self._round.kills[point] += 1
                self._restart(slot)

    def _settings(self, *, static: bool) -> dict[str, object]:
        _, proxy = self._round.brokers.proxied
        settings: dict[str, object] = {"bootstrap": proxy.address, "times": QUICK}
        if self._way.protocol == "classic":
            settings["static_membership"] = static
        return settings

    def _start(self, slot: str) -> WorkerProcess:
        return self._cluster.worker(slot, **self._settings(static=self._way.static))

    def _restart(self, slot: str, *, empty: bool | None = None) -> None:
        empty = self._round.rng.random() < 0.4 if empty is None else empty
        if empty:
            shutil.rmtree(self._alive[slot].state_dir, ignore_errors=True)
        self._round.fired("empty disk" if empty else "kept disk")
        self._alive[slot] = self._start(slot)

    # ---- work

    def _publish(self) -> None:
        self._work.publish(self._round.rng.randint(100, 400))

    def _publish_until_dead(self, workers: list[WorkerProcess]) -> None:
        """Not every transaction is every worker's: there is work until one has met its end."""

        def one_is_dead() -> bool:
            self._work.publish(30)
            return not all(worker.alive for worker in workers)

        until(one_is_dead, "one of the armed workers dies", within_s=60)
