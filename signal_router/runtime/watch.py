"""What a worker shows of itself beside its counts: lag and what is pending, looked at now and then, and its state."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import structlog
from confluent_kafka.admin import AdminClient

from signal_router import __version__
from signal_router.errors import BrokerError, StateError
from signal_router.kafka.lag import lag
from signal_router.model.log import TopicPartition
from signal_router.observe.exposition import State
from signal_router.runtime.pending_sweep import PendingFound, sweep
from signal_router.runtime.worker import Phase, Worker
from signal_router.state.store import Store

if TYPE_CHECKING:
    from signal_router.runtime.definitions import DefinitionsView
    from signal_router.runtime.settings import WorkerSettings

LAG_EVERY_S = 5.0
SWEEP_EVERY_S = 15.0
SLICE_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class Watch:
    """Looks at one worker. `run` goes on until it is cancelled; `close` before the store is closed."""

    def __init__(
        self,
        settings: WorkerSettings,
        worker: Worker,
        view: DefinitionsView,
        admin: AdminClient,
        store: Store,
        *,
        candidates: str,
        recycles: Callable[[], Mapping[str, int]],
    ) -> None:
        """`recycles` gives why producers were replaced, and how often."""
        self._settings = settings
        self._worker = worker
        self._view = view
        self._admin = admin
        self._store = store
        self._candidates = candidates
        self._recycles = recycles
        self._lag: dict[TopicPartition, int] = {}
        self._found = PendingFound()
        self._sweep: Iterator[PendingFound | None] | None = None
        self._swept: frozenset[TopicPartition] = frozenset()
        self._sweep_from = 0.0
        self._reading = threading.Lock()
        self._closed = False

    async def run(self) -> None:
        """Looks for ever; what a broker that is away does not answer is asked again."""
        lag_at = 0.0
        while True:
            if time.monotonic() >= lag_at:
                lag_at = time.monotonic() + LAG_EVERY_S
                await self.look_at_lag()
            await self.look_at_pending()
            await asyncio.sleep(SLICE_EVERY_S)

    async def look_at_lag(self) -> None:
        """Asks the broker how far the worker's partitions are behind."""
        tps = self._worker.partitions
        try:
            self._lag = await asyncio.to_thread(lag, self._settings.connection, self._admin, self._settings.group, tps)
        except BrokerError as error:
            _log.debug("lag is not known", error=error.message)

    async def look_at_pending(self) -> None:
        """Reads the next slice of the tables; publishes what was found once they are read through."""
        tps = self._worker.partitions
        if self._worker.phase is not Phase.RUNNING:
            self._sweep = None
            return
        if tps != self._swept:
            self._sweep, self._swept, self._sweep_from = None, tps, 0.0
        if self._sweep is None:
            if time.monotonic() < self._sweep_from:
                return
            self._sweep_from = time.monotonic() + SWEEP_EVERY_S
            self._sweep = sweep(self._store, sorted(tp.partition for tp in tps if tp.topic == self._candidates))
        try:
            found = await asyncio.to_thread(self._next_slice, self._sweep)
        except StateError as error:
            _log.warning("pending signals cannot be counted", error=error.message)
            self._sweep = None
            return
        if found is not None:
            self._found, self._sweep = found, None

    def _next_slice(self, running: Iterator[PendingFound | None]) -> PendingFound | None:
        with self._reading:
            return None if self._closed else next(running)

    def close(self) -> None:
        """Waits for the slice that is read, at most milliseconds, and lets no other begin."""
        with self._reading:
            self._closed = True

    def state(self) -> State:
        """The worker as it is now. Called on the event loop."""
        worker, settings, stats = self._worker, self._settings, self._view.index.stats()
        assigned = tuple(sorted(worker.partitions))
        return State(
            slot=settings.slot,
            app=settings.group,
            version=__version__,
            phase=worker.phase.value,
            phases=tuple(phase.value for phase in Phase),
            revision=self._view.revision,
            subscriptions=stats.subscriptions,
            negation_only=stats.negation_only,
            assigned=assigned,
            lag={tp: behind for tp, behind in self._lag.items() if tp in worker.partitions},
            recycles=dict(self._recycles()),
            work_seconds=dict(worker.steps.seconds) | dict(worker.effects.seconds),
            pending=self._found.counts,
            oldest=self._found.oldest,
        )
