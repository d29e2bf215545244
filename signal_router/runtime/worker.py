"""A worker: runs both stages over the partitions the group gives it, and goes from one assignment to the next.

    waiting ──assigned──► taking over ──► running ──revoked, lost──► waiting
                               ▲             │
                               └──unknown────┘        an uncertain outcome is read from the log before going on

What comes in addition to partitions that run is taken over beside them; what a revoke leaves runs on under the next
assignment number. Where everything comes anew (the classic protocol) those that this process had before go first, as
their tables are at hand, and the others are restored beside them.

Everything here runs on the event loop; the consume thread calls what its `Listener` names.
At most one stage is filled at a time, under one lock; the commit runs in a thread of its own while the lock is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager
from enum import Enum
from functools import partial
from typing import NamedTuple, TypeVar

import structlog
from confluent_kafka import KafkaException

from signal_router import __version__
from signal_router.core.join import Joiner
from signal_router.errors import BrokerError, ConfigurationError, FencedError, SignalRouterError, StateError
from signal_router.kafka.consume import ConsumeThread, Fetched
from signal_router.kafka.publish import Publisher
from signal_router.model.log import (
    AbortableError,
    LogError,
    OutputRecord,
    ProducerFencedError,
    TopicPartition,
    TransactionLog,
)
from signal_router.observe.meter import Meter
from signal_router.observe.phases import PhaseClock
from signal_router.runtime.commit import Result, Verdict, commit, run
from signal_router.runtime.definitions import DefinitionsView, ReadDefinition
from signal_router.runtime.fetching import Fetching
from signal_router.runtime.former_owners import FormerOwners
from signal_router.runtime.inbox import Inbox
from signal_router.runtime.join import CandidatesPartition, JoinProcessor, Progress
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.marks import MarkKeeper
from signal_router.runtime.match import MatchProcessor
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.roster import (
    InputStart,
    Roster,
    TakeoverRecord,
    WorkerRecord,
    input_output,
    now_ms,
    partitions_by_topic,
    takeover_output,
    worker_output,
)
from signal_router.runtime.settings import CLASSIC, CONSUMER, WorkerSettings
from signal_router.runtime.stage import Stage
from signal_router.runtime.takeover import Cluster, Takeover, take_over, uncover
from signal_router.state.store import Store
from signal_router.state.tables import PartitionTable

LOOK_AGAIN_S = 3.0
TRY_AGAIN_S = 1.0
ANNOUNCED_WITHIN_S = 5.0
"""How long a take-over waits for its announcement to be durable before it leaves the former owner alone."""
BEHIND_S = 30.0
"""How long a candidates partition waits for definitions that a candidate was matched under."""
REFUSED_S = 30.0
"""How long the group may refuse what this worker commits before it hears of the loss of its partitions: twice the
longest interval between two heartbeats.
"""

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Phase(Enum):
    """Where a worker is; see the module."""

    WAITING = "waiting"
    TAKING_OVER = "taking over"
    RUNNING = "running"
    STOPPED = "stopped"


class _Attempt(NamedTuple):
    """A take-over on its way: of which partitions, what runs meanwhile, and what must not change until its end."""

    assignment: int
    tps: frozenset[TopicPartition]
    reloads: int
    ended: threading.Event
    interrupted: threading.Event
    kept: tuple[int, ...]
    stuck: FormerOwners


class Worker:
    """One slot's life. `fail` is called once with what ends it."""

    def __init__(  # noqa: PLR0915 - everything a worker holds
        self,
        settings: WorkerSettings,
        cluster: Cluster,
        store: Store,
        view: DefinitionsView,
        roster: Roster,
        outputs: Outputs,
        make_log: Callable[[str], TransactionLog],
        meter: Meter,
        fail: Callable[[SignalRouterError], None],
        observe: Callable[[str], object] = lambda _effect: None,
    ) -> None:
        """`make_log` gives the log of a slot, this one's or that of a dead worker. `observe` is told the name of each
        effect of a commit before it runs, in the thread of the commits.
        """
        self.settings = settings
        self.meter = meter
        self.view = view
        self.phase = Phase.WAITING
        self.steps = PhaseClock(time.thread_time)
        self.effects = PhaseClock()
        self._cluster = cluster
        self._store = store
        self._roster = roster
        self._outputs = outputs
        self._make_log = make_log
        self._fail = fail
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._takeover = asyncio.Lock()  # one at a time
        self._commits = ThreadPoolExecutor(1, "commit")
        self._takeovers = ThreadPoolExecutor(1, "takeover")
        self._log: TransactionLog | None = None
        self._log_broken = True
        self._consume: ConsumeThread | None = None
        self._incarnation = 1 + max(
            (worker.incarnation for slot, worker in list(roster.workers.items()) if slot == settings.slot), default=0
        )
        self._life = secrets.token_hex(8)
        self._transactions = 0
        self._assignment = 0
        self._voided = 0  # the newest assignment known to have ended; there is none before the first
        self._failed = False
        self._tps: frozenset[TopicPartition] = frozenset()
        self._running: frozenset[TopicPartition] = frozenset()  # those of them that were taken over
        self._had: frozenset[TopicPartition] = frozenset()  # those that were, when the last assignment ended
        self._reloads = 0
        self._group_metadata = b""
        self._interrupted = self._ended = threading.Event()  # the latest assignment's end, and that of the present one
        self._taking_over = threading.Event()  # set: what is being taken over would not be used
        self._stage: Stage | None = None
        self._sending: Stage | None = None
        self._opened_at = 0.0
        self._ticking: asyncio.TimerHandle | None = None
        self._echo: set[int] = set()  # own candidates partitions whose latest candidates are on their way back
        self._echo_until = 0.0
        self._parked: dict[int, deque[Fetched]] = {}
        self._failures = 0
        self._refused_at: float | None = None  # since when the group has taken nothing of the present assignment
        self._aborted = False
        self.trouble = ""
        """What keeps the worker from going on, for people; empty while it goes on."""
        self._purgeable: dict[TopicPartition, int] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._match = MatchProcessor(
            cluster.names,
            view,
            slot=settings.slot,
            candidates_partitions=cluster.candidates.partitions,
            limit_bytes=settings.signal_bytes,
        )
        self._join = JoinProcessor(
            cluster.names,
            view,
            outputs,
            slot=settings.slot,
            candidates_partitions=cluster.candidates.partitions,
            all_lineage=settings.all_lineage,
        )
        self._local = LocalCandidates(self._join, cluster.names.candidates, enabled=settings.local_candidates)
        self._fetching = Fetching(self._match, self._join, self._local, cluster.names.candidates)
        self.marks = MarkKeeper(self._match, self._join)

    # ---- called by the consume thread

    def attach(self, consume: ConsumeThread) -> None:
        """Names the consume thread whose listener this worker is."""
        self._consume = self._fetching.consume = consume

    def assigned(self, assignment: int, tps: frozenset[TopicPartition], group_metadata: bytes) -> None:
        """Partitions came, or are left of an assignment that ended; taking over what is new begins."""
        if self._interrupted.is_set():
            self._interrupted = threading.Event()
        self._loop.call_soon_threadsafe(self._begin_assignment, assignment, tps, group_metadata, self._interrupted)

    def revoked(self, assignment: int, tps: frozenset[TopicPartition]) -> None:
        """Finishes or voids the open stage before it returns."""
        self._interrupt()
        ended = asyncio.run_coroutine_threadsafe(self._end_assignment(assignment, tps), self._loop)
        try:
            ended.result(self.settings.times.revoke_ms / 1000)
        except FutureTimeoutError:
            _log.warning("revoke deadline passed: open work is void", assignment=assignment)
            self._void(assignment)

    def lost(self, assignment: int) -> None:
        """Voids the open stage."""
        _log.warning("assignment lost", assignment=assignment)
        self._interrupt()
        self._void(assignment)
        asyncio.run_coroutine_threadsafe(self._end_assignment(assignment, None), self._loop)

    def fetching(self, assignment: int, epoch: int) -> None:
        """Only batches of this epoch count from now on."""
        self._loop.call_soon_threadsafe(self._set_epoch, assignment, epoch)

    def fetched(self, batches: Sequence[Fetched]) -> None:
        """Hands batches to the agents."""
        self._loop.call_soon_threadsafe(self._deliver, batches)

    def slot_taken(self) -> SignalRouterError | None:
        """What to end with if the workers topic shows a newer worker with this slot."""
        known = self._roster.workers.get(self.settings.slot)
        mine = self._incarnation, self._life
        return _taken_slot(known) if known is not None and known.age > mine else None

    def rejoining(self, fence: str) -> None:
        """The group fenced this worker, and it joins again."""
        _log.warning("fenced by the group, joining it again", error=fence)

    def failed(self, error: SignalRouterError) -> None:
        """The consume thread cannot go on."""
        self._void(self._assignment)
        self._loop.call_soon_threadsafe(self._stop_with, error)

    def _interrupt(self) -> None:
        self._interrupted.set()  # first: a take-over that begins meanwhile looks at it last
        self._taking_over.set()

    def _void(self, assignment: int) -> None:
        # Read without the event loop's lock on purpose: a stage's own lock decides. What the loop opens for this
        # assignment before it hears of its end is void from the start.
        self._voided = max(self._voided, assignment)
        for stage in (self._stage, self._sending):
            if stage is not None:
                stage.void()
        self._log_broken = True

    # ---- called by the agents

    deliver: Callable[[Fetched], None]
    """Set by the app: takes a batch to its agent, in order."""

    look_again: Callable[[], Coroutine[object, object, None]] | None = None
    """Set by the app: called after a transaction failed, before the same records are taken again."""

    async def on_signals(self, inbox: Inbox) -> None:
        """Stage 1 for all that waits."""
        async with self._turn():
            for batch in self._take(inbox):
                if batch.epoch == self._fetching.epoch:
                    await self._match_batch(batch)

    async def _match_batch(self, batch: Fetched) -> None:
        if not batch.records:
            self._match.met_end(batch.tp, batch.next_offset)
            return
        while not self._match_step(batch):
            if not await self._commit() or batch.epoch != self._fetching.epoch:
                return
        await self._pace()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Holds the lock. What fails half-way leaves a part of an input in the stage, so it ends the worker here and
        now, before anything else can commit that part.
        """
        async with self._lock:
            try:
                yield
            except SignalRouterError as error:
                self._stop_with(error)
            except Exception as error:  # nothing may fail unseen
                _log.exception("worker failed")
                self._stop_with(StateError(f"the worker failed: {error!r}"))

    def _match_step(self, batch: Fetched) -> bool:
        stage, pace = self._open(), self.settings.pace
        self.steps("match")
        try:
            done = self._match.step(
                batch, stage, now=now_ms(), max_outputs=pace.max_outputs, max_records=pace.max_records
            )
            self.steps("join")
            self._local.join(stage, max_outputs=pace.max_outputs)
        finally:
            self.steps.stop()
        return done

    def _join_step(self, batch: Fetched) -> Progress:
        stage, pace = self._open(), self.settings.pace
        self.steps("join")
        try:
            return self._join.step(batch, stage, max_outputs=pace.max_outputs, max_records=pace.max_records)
        finally:
            self.steps.stop()

    async def on_candidates(self, inbox: Inbox) -> None:
        """Stage 2 for all that waits."""
        async with self._turn():
            for batch in self._take(inbox):
                if batch.epoch == self._fetching.epoch:
                    await self._join_or_park(batch)
            self._fetching.look()

    async def _join_or_park(self, batch: Fetched) -> None:
        if batch.records and self._echo:
            self._echo.discard(batch.tp.partition)
            if not self._echo:
                self._echo_until = 0.0
        parked = self._parked.get(batch.tp.partition)
        if parked is not None and parked[0].epoch == batch.epoch:
            parked.append(batch)
        elif batch.records:
            await self._join_batch(batch)
        else:
            self._join.met_end(batch.tp.partition, batch.next_offset)

    async def _join_batch(self, batch: Fetched) -> None:
        while True:
            progress = self._join_step(batch)
            if progress is Progress.FULL:
                if not await self._commit() or batch.epoch != self._fetching.epoch:
                    return
                continue
            if progress is Progress.BEHIND:
                self._parked[batch.tp.partition] = deque([batch])
                self._loop.call_later(BEHIND_S, self._check_parked, batch)
            break
        await self._pace()

    def _check_parked(self, batch: Fetched) -> None:
        parked = self._parked.get(batch.tp.partition)
        if parked and parked[0] is batch and batch.epoch == self._fetching.epoch:
            self._stop_with(
                StateError(
                    f"candidates partition {batch.tp.partition} waited {BEHIND_S:g} s for definitions newer than"
                    f" revision {self.view.revision}",
                    hint="was the definitions topic emptied or re-created?",
                )
            )

    async def _unpark(self) -> None:
        for partition in list(self._parked):
            for batch in self._parked.pop(partition, ()):
                if batch.epoch != self._fetching.epoch:
                    continue
                if partition in self._parked:
                    self._parked[partition].append(batch)
                else:
                    await self._join_batch(batch)

    def _take(self, inbox: Inbox) -> list[Fetched]:
        batches = inbox.take()
        for batch in batches:
            self._taken(batch)
        return batches

    def _taken(self, batch: Fetched) -> None:
        if self._consume is not None:
            self._consume.taken(batch)

    # ---- assignments

    def _begin_assignment(
        self, assignment: int, tps: frozenset[TopicPartition], group_metadata: bytes, interrupted: threading.Event
    ) -> None:
        if self._failed:
            return
        if assignment != self._assignment:
            # What was voided is not told by the log alone: a take-over may have made it ready again since.
            void = self._log_broken or self._assignment <= self._voided
            if void or self.phase is not Phase.RUNNING or not self._running <= tps:
                self._leave()
            self._assignment, self._refused_at = assignment, None
        self._tps, self._group_metadata, self._ended = tps, group_metadata, interrupted
        if self.phase is Phase.RUNNING and self._fetching.epoch < 0:
            self._fetching.begin(assignment)  # what is left of the assignment that ended
        self._spawn(self._take_over(assignment))

    async def _end_assignment(self, assignment: int, gone: frozenset[TopicPartition] | None) -> None:
        """Commits what is open, then lets go of some partitions; None: all of them, and nothing may be committed."""
        if assignment == self._assignment:
            self._fetching.end()
        async with self._lock:
            if assignment != self._assignment:
                return
            if gone is not None and self._stage is not None:
                await self._commit()
                if assignment != self._assignment:  # it took longer than the deadline
                    return
            if gone is None or self._log_broken or self.phase is not Phase.RUNNING or self._running <= gone:
                self._leave()
            else:
                self._let_go(gone)

    def _leave(self) -> None:
        """Lets go of the assignment: no stage of it goes on, and no later one takes anything from it.

        Needs no lock: where there is an open stage no commit is on its way.
        """
        self._fetching.leave()
        self._drop_stage()
        self._assignment, self._tps = 0, frozenset()
        self._forget_running()
        self._purgeable.clear()
        self.phase = Phase.WAITING

    def _forget_running(self) -> None:
        """Before anything goes on its place has to be read from the log."""
        self._reloads += 1
        self._had = self._running or self._had
        self._running = frozenset()
        self._parked.clear()
        self._echo.clear()
        self._echo_until = 0.0
        self._match.partitions.clear()
        self._join.partitions.clear()
        self._local.begin({})

    def _let_go(self, gone: frozenset[TopicPartition]) -> None:
        """Lets go of some partitions; the others go on as soon as the number is known under which they do."""
        self._fetching.leave()
        for tp in gone & self._running:
            self._purgeable.pop(tp, None)
            if tp.topic != self._cluster.names.candidates:
                del self._match.partitions[tp]
                continue
            del self._join.partitions[tp.partition]
            self._local.forget(tp.partition)
            self._parked.pop(tp.partition, None)
            self._echo.discard(tp.partition)
        self._tps -= gone
        self._running -= gone

    async def _take_over(self, assignment: int) -> None:
        """Takes over what the assignment has and does not run yet; gives up silently if it ended meanwhile."""
        async with self._takeover:
            while await self._take_over_some(assignment):
                pass

    async def _take_over_some(self, assignment: int) -> bool:
        """Takes over what should run next; False if there is nothing more, or it has to be tried later."""
        async with self._lock:
            attempt = await self._attempt(assignment)
        if attempt is None:
            return False
        try:
            found = await self._in_thread(self._takeovers, partial(self._find, attempt))
            async with self._lock:
                await self._await_definitions(assignment, found.revision)
                runs = self._stands(attempt) and await self._run(attempt.tps, found)
        except InterruptedError:
            return False
        except (BrokerError, LogError, KafkaException, TimeoutError) as error:
            if self._stands(attempt):
                self._try_again(attempt, error)
            return False
        if runs:
            self._spawn(self._uncover(attempt))
        return runs

    async def _attempt(self, assignment: int) -> _Attempt | None:
        """Sees what should run next, and makes the log ready; None where there is nothing, or that failed."""
        missing = self._tps - self._running
        if assignment != self._assignment or not missing:
            return None
        beside = self.phase is Phase.RUNNING
        some = missing if beside else self._first_of(missing)
        if not beside:
            self.phase = Phase.TAKING_OVER
            self._fetching.end()
            self._drop_stage()
            await self._look_again()
        try:
            await self._prepare_log()
        except (LogError, KafkaException) as error:
            if assignment == self._assignment:
                self._retry(error)
            return None
        if assignment != self._assignment:  # nothing would interrupt this take-over, and the next one waits for it
            return None
        stuck = FormerOwners(self._roster, self.settings.slot, some, self._announce_takeover, self._end_transaction_of)
        kept = tuple(self._join.partitions)
        self._taking_over = interrupted = threading.Event()
        if self._ended.is_set():
            interrupted.set()
        return _Attempt(assignment, some, self._reloads, self._ended, interrupted, kept, stuck)

    def _find(self, attempt: _Attempt) -> Takeover:
        return take_over(
            self._cluster,
            self._store,
            self._roster,
            attempt.tps,
            attempt.interrupted,
            attempt.stuck,
            attempt.kept,
        )

    def _stands(self, attempt: _Attempt) -> bool:
        """Whether nothing came between; whatever did sees to what comes now."""
        same = attempt.assignment == self._assignment and attempt.reloads == self._reloads
        return same and not attempt.interrupted.is_set()

    def _try_again(self, attempt: _Attempt, error: Exception) -> None:
        if not self._running:
            self._retry(error)
            return
        # What runs goes on.
        _log.warning("not taken over yet", error=str(error) or repr(error), partitions=partitions_by_topic(attempt.tps))
        self._loop.call_later(TRY_AGAIN_S, lambda: self._spawn(self._take_over(attempt.assignment)))

    def _first_of(self, missing: frozenset[TopicPartition]) -> frozenset[TopicPartition]:
        """What can run soon: all but candidates partitions whose tables have to be read from the changelog, if there
        are others.
        """
        candidates = {tp for tp in missing if tp.topic == self._cluster.names.candidates}
        at_hand = candidates & self._had
        return missing - (candidates - at_hand) if at_hand else missing

    async def _run(self, tps: frozenset[TopicPartition], found: Takeover) -> bool:
        """Lets partitions run that were taken over, beside those that run; False if that failed."""
        # An open stage may not name partitions that came after the metadata it was opened with.
        if self._stage is not None and not await self._commit():
            return False
        self._adopt(found)
        if not await self._announce(found.new_inputs) or self._consume is None:
            return False
        self._running |= tps
        _log.info(
            "took partitions over",
            partitions=partitions_by_topic(tps),
            restored=found.restored,
            seconds=round(found.seconds, 3),
        )
        self.meter.restored(found.restored, found.seconds)
        self.phase = Phase.RUNNING
        self._fetching.begin(self._assignment)
        return True

    async def _uncover(self, attempt: _Attempt) -> None:
        """Ends what dead workers hide from others; nothing here waits for it."""
        look = partial(uncover, self._cluster, tuple(self._join.partitions), attempt.ended, attempt.stuck)
        try:
            await self._in_thread(self._takeovers, look)
        except (BrokerError, KafkaException, TimeoutError) as error:
            _log.info("what dead workers hide is not known", error=str(error))

    def _announce_takeover(self, takeover: TakeoverRecord) -> None:
        # Not in a transaction of this worker: it has its own to do meanwhile, and this one counts whatever they become.
        with Publisher(self._cluster.connection) as publisher:
            publisher.publish(takeover_output(self._cluster.names.workers, takeover), lambda _: None)
            publisher.flush(ANNOUNCED_WITHIN_S)

    def _end_transaction_of(self, slot: str) -> None:
        log = self._make_log(slot)
        try:
            log.init()
        finally:
            log.close()

    async def _look_again(self) -> None:
        """Lets the app see whether a topic is to blame for an aborted transaction; not for long, others may be."""
        if self._aborted and self.look_again is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.look_again(), LOOK_AGAIN_S)
        self._aborted = False

    async def _prepare_log(self) -> None:
        if self._log is None:
            self._log = self._make_log(self.settings.slot)
        if self._log_broken:
            await self._in_thread(self._commits, self._log.init)
            self._log_broken = False

    async def _await_definitions(self, assignment: int, revision: int) -> None:
        """Waits with the lock released: definitions are taken meanwhile, and the assignment may end."""
        until = time.monotonic() + BEHIND_S
        while self.view.revision < revision and assignment == self._assignment:
            if time.monotonic() > until:
                raise StateError(
                    f"partitions were read under definitions revision {revision}, the topic ends at"
                    f" {self.view.revision}",
                    hint="was the definitions topic emptied or re-created?",
                )
            self._lock.release()
            try:
                await asyncio.sleep(0.02)
            finally:
                await self._lock.acquire()

    def _adopt(self, takeover: Takeover) -> None:
        self._match.partitions.update(takeover.signals)
        for number, start in takeover.joins.items():
            table = PartitionTable(self._store, number)
            joiner = Joiner(table, self.view, self.settings.limits)
            self._join.partitions[number] = CandidatesPartition(
                table, joiner, start.next_offset, start.sequence, self._cluster.candidates.id
            )
        self._local.close(takeover.ends)
        self.marks.begin()

    async def _announce(self, inputs: dict[TopicPartition, InputStart]) -> bool:
        """Says in the workers topic what is mine now, before the first transaction for it.

        The first offsets of new inputs become explicit with it: one that is missing later has expired.
        """
        stage = self._open()
        for tp, start in inputs.items():
            stage.emit(input_output(self._cluster.names.workers, tp, start, stage.headers))
            if tp.topic == self._cluster.names.candidates:
                self._join.advance(tp.partition, stage)
            else:
                self._match.advance(tp, stage)
        stage.emit(self._roster_output(stage, left=False))
        return await self._commit()

    # ---- stages and commits

    def _open(self) -> Stage:
        if self._stage is None:
            self._transactions += 1
            name = f"{self.settings.slot}/{self._incarnation}/{self._transactions}"
            self._stage = Stage(self._assignment, name)
            self._stage.group_metadata = self._group_metadata or None
            if self._assignment <= self._voided:
                self._stage.void()
            self._opened_at = time.monotonic()
            self._match.flush_ends(self._stage)
            self._join.flush_ends(self._stage)
        return self._stage

    async def _pace(self) -> None:
        """Commits if it is time, else sees to it that the time comes."""
        stage, pace = self._stage, self.settings.pace
        if stage is None:
            return
        age_ms = (time.monotonic() - self._opened_at) * 1000
        if stage.records >= pace.max_records or stage.size >= pace.max_outputs or age_ms >= pace.busy_ms:
            await self._commit()
            return
        if stage.records or stage.size:
            opened_until = self._opened_at + pace.idle_ms / 1000
            self._tick_at(max(opened_until, self._echo_until))

    def _tick_at(self, when: float) -> None:
        """Sets the timer, or brings it forward."""
        if self._ticking is not None:
            if self._ticking.when() <= when:
                return
            self._ticking.cancel()
        self._ticking = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        if self._stage is None:
            return
        busy = self._consume is not None and self._consume.pending_records > self.settings.pace.busy_records
        if busy and (time.monotonic() - self._opened_at) * 1000 < self.settings.pace.busy_ms:
            self._tick_at(time.monotonic() + self.settings.pace.idle_ms / 1000)
            return
        self._spawn(self._commit_open())

    async def _commit_open(self) -> None:
        async with self._lock:
            if self._stage is not None:
                await self._commit()

    async def _commit(self) -> bool:
        """Commits the open stage. True: it is durable and the same assignment goes on."""
        stage, log = self._stage, self._log
        if stage is None or log is None:
            return True
        if not self._send_candidates(stage):
            return False
        if stage.empty:
            self._stage = None
            return True
        # Taken out before the first await, so that it is not submitted twice; named as sent before that, so that
        # `_void`, which looks for it from another thread, finds it in one of the two places.
        self._sending = stage
        self._stage = None
        steps = commit(stage, log, self._cluster.names.changelog, self._cluster.local_position)
        began = time.perf_counter()
        running = self._loop.run_in_executor(self._commits, run, steps, self._effect)
        cancelled = await _ended(running)
        self._sending = None
        try:
            result = running.result()
            self.effects.stop()
        except SignalRouterError as error:
            self._stop_with(error)
            return False
        except Exception as error:  # a commit that fails in an unknown way leaves an unknown state
            self._stop_with(
                StateError(f"the commit failed: {error!r}", hint="start the worker again; it restores itself")
            )
            return False
        durable = self._settled(stage, result, time.perf_counter() - began)
        if cancelled:
            raise asyncio.CancelledError
        return durable

    def _send_candidates(self, stage: Stage) -> bool:
        """Leaves no candidate of a stage held; False if that failed, which ends the worker."""
        self.steps("join")
        try:
            self._local.send(stage, max_outputs=self.settings.pace.max_outputs)
        except SignalRouterError as error:
            self._stop_with(error)
        except Exception as error:  # what is held is half-way between the stages
            _log.exception("worker failed")
            self._stop_with(StateError(f"candidates could not be sent: {error!r}"))
        else:
            return True
        finally:
            self.steps.stop()
        return False

    def _effect(self, name: str) -> None:
        self.effects(name)
        self._observe(name)

    def _settled(self, stage: Stage, result: Result, seconds: float) -> bool:
        if result.verdict is Verdict.COMMITTED:
            self.meter.committed(stage, seconds)
            for tp, next_offset in stage.next_offsets.items():
                if tp.topic == self._cluster.names.candidates:
                    self._purgeable[tp] = next_offset.offset
            self._failures, self.trouble = 0, ""
            if stage.next_offsets:
                self._refused_at = None
            if self._log is not None:
                self._local.committed(stage, self._log.delivered())
            self._await_echo(stage)
            if stage.assignment != self._assignment:
                return False
            if stage.sent and self.phase is Phase.RUNNING:
                self._fetching.look()
            return True
        self.meter.failed(result.verdict.value)
        _log.warning(
            "transaction not committed",
            verdict=result.verdict.value,
            transaction=stage.transaction,
            error=None if result.error is None else result.error.message,
        )
        self._drop_tables(stage)
        if result.verdict is not Verdict.ABORTED:
            self._log_broken = True
        if stage.assignment == self._assignment and self._assignment:
            self._retry(result.error)
        return False

    def _await_echo(self, stage: Stage) -> None:
        """Lets the next transaction wait for the candidates of this one, unless there is more to do than that."""
        pace = self.settings.pace
        if stage.records > pace.busy_records:
            return
        self._echo = stage.sent & self._join.partitions.keys()
        self._echo_until = time.monotonic() + pace.echo_ms / 1000 if self._echo else 0.0

    def _retry(self, error: Exception | None) -> None:
        """Reads where the log stands and goes on from there, after a growing pause; stops if the slot was taken."""
        taken = self.slot_taken()
        if isinstance(error, ProducerFencedError) and taken is not None:
            self._stop_with(taken)
            return
        if isinstance(error, LogError):
            self._log_broken = self._log_broken or not isinstance(error, AbortableError)
        self._aborted = isinstance(error, AbortableError)
        if self._refused_for_good(error):
            self._stop_with(
                ConfigurationError(
                    f"the group takes no offsets for partitions that it says are this worker's: {error}",
                    hint=f'group protocol "{CONSUMER}" needs brokers from Kafka 4.3; --group-protocol {CLASSIC}',
                )
            )
            return
        self._failures += 1
        self.trouble = "the last transaction was void" if error is None else str(error) or repr(error)
        if self._failures > 1:
            _log.warning("waiting to go on", attempt=self._failures, error=self.trouble)
        self.phase = Phase.TAKING_OVER
        assignment = self._assignment
        self._fetching.stop(assignment)
        self._forget_running()
        self._taking_over.set()  # going on must not wait for a restore
        pause = min(0.1 * 2 ** (self._failures - 1), 5.0)
        self._loop.call_later(pause, lambda: self._spawn(self._take_over(assignment)))

    def _refused_for_good(self, error: Exception | None) -> bool:
        """Whether the group refuses this worker's epoch although nothing was taken away: brokers before KIP-1251 take
        the newest epoch only, and a member whose partitions stay hears of no other.
        """
        if self.settings.group_protocol != CONSUMER or not (isinstance(error, AbortableError) and error.membership):
            return False
        if self._refused_at is None:
            self._refused_at = time.monotonic()
        return time.monotonic() - self._refused_at > REFUSED_S

    def _drop_stage(self) -> None:
        if self._stage is not None:
            self._stage.void()
            self._drop_tables(self._stage)
            self._stage = None

    def _drop_tables(self, stage: Stage) -> None:
        for table in stage.tables.values():
            table.discard()

    # ---- timers and definitions

    async def take_definitions(self, definitions: Sequence[ReadDefinition]) -> None:
        """Takes definitions between batches."""
        async with self._turn():
            for definition in definitions:
                self.view.take(definition)
            await self._unpark()
            if self.phase is Phase.RUNNING:
                await self._tell_roster()

    async def mark(self) -> None:
        """Announces how far the signals partitions have been read; also commits ends that were met meanwhile."""
        async with self._turn():
            if self.phase is not Phase.RUNNING or self._fetching.epoch < 0:
                return
            stage = self._open()
            if not self._send_candidates(stage):
                return
            self.marks.emit(stage)
            for partition in list(self._join.partitions.values()):
                while not self._join.settle(partition, self._open(), max_outputs=self.settings.pace.max_outputs):
                    if not await self._commit():
                        return
            await self._commit()

    async def tell_roster(self) -> None:
        """Says in the workers topic that this worker is alive."""
        taken = self.slot_taken()
        if taken is not None:
            self._stop_with(taken)
            return
        async with self._turn():
            if self.phase is Phase.RUNNING:
                await self._tell_roster()

    async def _tell_roster(self, *, left: bool = False) -> None:
        stage = self._open()
        stage.emit(self._roster_output(stage, left=left))
        await self._commit()

    def _roster_output(self, stage: Stage, *, left: bool) -> OutputRecord:
        record = WorkerRecord(
            slot=self.settings.slot,
            incarnation=self._incarnation,
            version=__version__,
            address=socket.gethostname(),
            definitions_revision=self.view.revision,
            partitions=partitions_by_topic(self._tps),
            at=now_ms(),
            left=left,
            life=self._life,
        )
        return worker_output(self._cluster.names.workers, record, stage.headers)

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """The partitions of the present assignment."""
        return self._tps

    @property
    def complete(self) -> bool:
        """Whether all partitions of the present assignment are being worked on."""
        return self.phase is Phase.RUNNING and self._running == self._tps

    @property
    def member(self) -> bool:
        """Whether the group has given this worker an assignment, be it an empty one."""
        return self._assignment != 0

    @property
    def silent_s(self) -> float:
        """Seconds since the consume thread began its present turn; 0 before there is one."""
        return 0.0 if self._consume is None else self._consume.silent_s

    def purgeable(self) -> dict[TopicPartition, int]:
        """The candidates partitions of this worker, with the next offset of the last commit."""
        return dict(self._purgeable)

    # ---- the end

    async def stop(self) -> None:
        """Commits what is open, says goodbye, leaves the group; a static member stays in it, until its session ends."""
        held = partitions_by_topic(self._tps)
        goodbye = self._spawn(self._say_goodbye())
        _, late = await asyncio.wait({goodbye}, timeout=self.settings.times.revoke_ms / 1000)
        if late:
            _log.warning("the last transaction did not end in time; its outcome is read at the next start")
        if self._consume is not None:
            stopped = await self._loop.run_in_executor(None, self._consume.stop, self.settings.times.session_ms / 1000)
            if not stopped:
                _log.warning("the consume thread did not end in time")
        if held and self.settings.static:
            _log.info(
                "stopped as a static member: its partitions wait for this slot",
                at_most_s=self.settings.idle_after_stop_s,
                partitions=held,
            )
        self.phase = Phase.STOPPED
        for task in self._tasks:
            task.cancel()
        if self._log is not None:
            await self._in_thread(self._commits, self._log.close)
        self._interrupt()
        ended = self._loop.run_in_executor(None, partial(self._takeovers.shutdown, wait=True, cancel_futures=True))
        await asyncio.wait({ended}, timeout=self.settings.times.revoke_ms / 1000)  # a restore writes to the store
        self._commits.shutdown(wait=True)
        self._store.close()

    async def _say_goodbye(self) -> None:
        async with self._lock:
            if self.phase is Phase.RUNNING:
                await self._tell_roster(left=True)

    def _stop_with(self, error: SignalRouterError) -> None:
        """Ends the worker: nothing is committed from here on, since the open stage may hold half an input."""
        if self.phase is Phase.STOPPED:
            return
        self._failed = True
        self._leave()
        self._fail(error)

    def _set_epoch(self, assignment: int, epoch: int) -> None:
        if assignment == self._assignment:
            self._fetching.told(epoch)

    def _deliver(self, batches: Sequence[Fetched]) -> None:
        for batch in batches:
            if batch.epoch != self._fetching.epoch:
                self._taken(batch)
                continue
            self.deliver(batch)

    async def _in_thread(self, pool: ThreadPoolExecutor, call: Callable[[], _T]) -> _T:
        running = self._loop.run_in_executor(pool, call)
        running.add_done_callback(_heard)
        return await asyncio.shield(running)

    def _spawn(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        task: asyncio.Task[object] = self._loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[object, object, object]) -> None:
        try:
            await work
        except SignalRouterError as error:
            self._stop_with(error)
        except Exception as error:  # nothing may fail unseen
            _log.exception("worker failed")
            self._stop_with(StateError(f"the worker failed: {error!r}"))


async def _ended(running: asyncio.Future[Result]) -> bool:
    """Waits until a commit has ended, come what may: who lets the lock go before lets the next batch be decided over
    tables that the commit is about to settle. Returns whether the waiting task was cancelled meanwhile.
    """
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def _heard(ended: asyncio.Future[_T]) -> None:
    """Who waited for it may be gone: an interrupted take-over is no news then."""
    if not ended.cancelled():
        ended.exception()


def _taken_slot(newer: WorkerRecord) -> FencedError:
    return FencedError(
        f'slot "{newer.slot}" was taken by a newer worker at {newer.address}',
        hint="every worker needs a --slot of its own",
    )
