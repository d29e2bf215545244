"""Ends the open transactions of dead workers whose partitions are taken over.

A transaction that a worker left open when it died hides what it touched from everybody, until its time-out and the
coordinator's next scan: up to 20 s. Whoever takes the partitions over need not wait: `init_transactions` under the dead
worker's transactional id aborts it at once. It is done only where something has been hidden for a while, which live
workers do not do; one that is alive after all replaces its producer, reads where the log stands, and goes on. It is
announced in the workers topic before, so that a worker that was fenced, and whoever looks, knows by whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from signal_router.errors import SignalRouterError
from signal_router.model.log import LogError, TopicPartition
from signal_router.runtime.roster import Roster, TakeoverRecord, WorkerRecord, now_ms, partitions_by_topic

LATELY_MS = 120_000
"""Workers that last said something before that have no transaction open any more."""

_log = structlog.get_logger(__name__)


class FormerOwners:
    """Called when something is hidden: fences, once, whoever last said that it holds any of these partitions."""

    def __init__(
        self,
        roster: Roster,
        slot: str,
        tps: Iterable[TopicPartition],
        announce: Callable[[TakeoverRecord], object],
        fence: Callable[[str], object],
    ) -> None:
        """`slot` is the one that takes over. `announce` returns once the announcement is durable; `fence` takes the
        transactional id of another slot, and lets it go.
        """
        self._roster = roster
        self._slot = slot
        self._tps = frozenset(tps)
        self._announce = announce
        self._fence = fence
        self._done = False

    def __call__(self) -> None:
        if self._done:
            return
        self._done = True
        since = now_ms() - LATELY_MS
        for slot, worker in sorted(self._roster.workers.items()):
            held = self._held(worker)
            if slot == self._slot or worker.left or worker.at < since or not held:
                continue
            partitions = partitions_by_topic(held)
            try:
                self._announce(TakeoverRecord(slot, self._slot, partitions, now_ms()))
                self._fence(slot)
            except (SignalRouterError, LogError) as error:
                _log.warning("former owner not fenced; its open transaction is waited for", slot=slot, error=str(error))
            else:
                _log.info("fenced a former owner", slot=slot, partitions=partitions)

    def _held(self, worker: WorkerRecord) -> set[TopicPartition]:
        return {
            tp
            for topic, numbers in worker.partitions.items()
            for number in numbers
            if (tp := TopicPartition(topic, number)) in self._tps
        }
