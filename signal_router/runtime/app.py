"""The program `signal-router run`: a Faust app with two agents around a worker, and the clients it needs."""

from __future__ import annotations

import asyncio
import functools
import gc
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import faust
import mode
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from faust.transport import drivers

from signal_router.errors import BrokerError, ConfigurationError, DiskError, SignalRouterError, StateError
from signal_router.kafka.admin_client import before_4_3, connect, session_hint
from signal_router.kafka.consume import ConsumeThread, Fetched
from signal_router.kafka.destinations import verify_destinations
from signal_router.kafka.follow import Follower
from signal_router.kafka.offsets import TopicDescription, describe, end_offsets, topic_names
from signal_router.kafka.purge import purge_before
from signal_router.kafka.settings import Setting
from signal_router.kafka.topic_changes import check_topics, wanted_topics
from signal_router.kafka.topics import TopicNames, load_topics, resolve
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model.log import InputRecord, TransactionLog
from signal_router.observe.meter import Meter
from signal_router.runtime import web
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.inbox import Inbox
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.roster import Roster, now_ms
from signal_router.runtime.settings import CONSUMER, WorkerSettings
from signal_router.runtime.takeover import Cluster, refuse_re_created
from signal_router.runtime.transport import JOIN, MATCH, BatchConsumer
from signal_router.runtime.watch import Watch
from signal_router.runtime.worker import Phase, Worker
from signal_router.state.rocks import RocksStore, destroy

START_WITHIN_S = 30.0
MARK_EVERY_S = 1.0
ROSTER_EVERY_S = 10.0
RETRY_S = 1.0
STORE_FOLDER = "tables"

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Application:
    """Everything one worker process runs. Make it inside a running event loop."""

    def __init__(self, settings: WorkerSettings, *, observe: Callable[[str], object] = lambda _effect: None) -> None:
        """`observe` is told the name of each effect of a commit before it runs, in the thread of the commits."""
        self.settings = settings
        self._observe = observe
        self.meter = Meter()
        self.names: TopicNames = resolve(settings.connection.prefix, settings.connection.app)
        self.view = DefinitionsView(self.names.triggers)
        self.roster = Roster()
        self.worker: Worker
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[SignalRouterError | None] = self._loop.create_future()
        self._timers: list[asyncio.Task[None]] = []
        self._followers: list[Follower] = []
        self._waiting: list[InputRecord] = []
        self._definitions_lock = asyncio.Lock()
        self._coming: frozenset[str] = frozenset()
        self._looks = self._looked = 0
        self._inputs: tuple[str, ...] = ()
        self._recycles: Mapping[str, int] = {}

    async def run(self) -> SignalRouterError | None:
        """Runs until `stop` or a failure; returns the failure. Raises what keeps it from starting."""
        try:
            await self._start()
        except SignalRouterError:
            await self._abandon()
            raise
        try:
            return await self._ended
        finally:
            await self._stop()

    def stop(self) -> None:
        """Asks for a clean stop."""
        self._end(None)

    def _end(self, error: SignalRouterError | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    def _end_from_thread(self, error: SignalRouterError) -> None:
        self._loop.call_soon_threadsafe(self._end, error)

    # ---- start and stop

    async def _start(self) -> None:
        settings = self.settings
        self._admin: AdminClient = await self._blocking(connect, settings.connection)
        wanted = wanted_topics(load_topics(), prefix=settings.connection.prefix, app=settings.connection.app)
        if settings.signals and self.names.signals not in settings.signals:
            wanted = tuple(topic for topic in wanted if topic.name != self.names.signals)  # others are read instead
        for advice in await self._blocking(check_topics, self._admin, wanted):
            _log.warning("topic differs from its file", advice=advice)
        if settings.group_protocol == CONSUMER and await self._blocking(before_4_3, self._admin):
            _log.warning("brokers look older than Kafka 4.3", advice="--group-protocol classic")
        looked_at = now_ms()
        self._inputs = await self._blocking(self._input_topics)
        await self._follow()
        cluster = await self._blocking(self._cluster)
        store = await self._blocking(_open_store, settings.state_dir / STORE_FOLDER)
        self._outputs = Outputs(self.names, settings.connection.app, Destinations(), all_lineage=settings.all_lineage)
        self.worker = Worker(
            settings,
            cluster,
            store,
            self.view,
            self.roster,
            self._outputs,
            self._make_log,
            self.meter,
            self._end,
            self._observe,
        )
        await self._refresh_destinations()
        await self._drain_definitions()
        self._faust = self._make_faust()
        self._watch = Watch(
            settings,
            self.worker,
            self.view,
            self._admin,
            store,
            candidates=self.names.candidates,
            recycles=lambda: self._recycles,
        )
        if settings.web_port is not None:
            web.Pages(self.worker, self.meter, self._watch.state).add_to(self._faust)
        await web.start(self._faust, settings)
        consumer: BatchConsumer = self._faust.consumer
        self.worker.deliver = functools.partial(self._deliver, consumer)
        self.worker.look_again = self._look_again
        self._consume = ConsumeThread(
            self._consumer_settings(),
            self.worker,
            slot=settings.slot,
            incremental=settings.group_protocol == CONSUMER,
            session_hint=functools.partial(session_hint, self._admin),
        )
        self.worker.attach(self._consume)
        await self._refresh_inputs(looked_at)
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        self._consume.start([*self._inputs, self.names.candidates])
        self._every(MARK_EVERY_S, self._mark)
        self._every(ROSTER_EVERY_S, self.worker.tell_roster)
        self._every(settings.times.refresh_ms / 1000, self._refresh)
        if settings.web_port is not None:
            self._spawn(self._watch.run())

    async def _stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._watch.close()
        await self.worker.stop()
        for follower in self._followers:
            await self._blocking(follower.stop)
        await self._faust.stop()

    async def _abandon(self) -> None:
        """Ends what a start that failed has begun."""
        for follower in self._followers:
            await self._blocking(follower.stop)
        if hasattr(self, "_faust"):
            await self._faust.stop()

    async def _follow(self) -> None:
        connection = self.settings.connection
        roster = Follower(
            connection,
            self.names.workers,
            await self._partitions(self.names.workers),
            self._take_roster,
            self._end_from_thread,
        )
        definitions = Follower(connection, self.names.definitions, 1, self._take_definitions, self._end_from_thread)
        self._followers = [roster, definitions]
        for follower in self._followers:
            follower.start()
        for follower in self._followers:
            await self._blocking(follower.wait, START_WITHIN_S)

    async def _partitions(self, topic: str) -> int:
        return (await self._blocking(describe, self._admin, [topic]))[topic].partitions

    def _cluster(self) -> Cluster:
        names = self.names
        topics = describe(self._admin, [names.candidates, names.changelog])
        return Cluster(
            connection=self.settings.connection,
            admin=self._admin,
            names=names,
            group=self.settings.group,
            cluster_id=self._admin.list_topics(timeout=10).cluster_id or "",
            candidates=topics[names.candidates],
            changelog=topics[names.changelog],
        )

    def _make_log(self, slot: str) -> TransactionLog:
        settings = self.settings
        log = KafkaTransactionLog(
            settings.connection.producer_config({}),
            settings.transactional_id_of(slot),
            transaction_timeout_ms=settings.times.transaction_ms,
            batch_bytes=lambda: self._outputs.destinations.batch_bytes,
        )
        if slot == settings.slot:
            self._recycles = log.recycles
        return log

    def _consumer_settings(self) -> dict[str, Setting]:
        times = self.settings.times
        ours: dict[str, Setting] = {
            "group.id": self.settings.group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
        defaults: dict[str, Setting] = {}
        if self.settings.group_protocol == CONSUMER:
            ours |= {"group.protocol": CONSUMER, "group.remote.assignor": "range"}
        else:
            ours["partition.assignment.strategy"] = "range"
            defaults |= {"session.timeout.ms": times.session_ms, "heartbeat.interval.ms": times.heartbeat_ms}
        if self.settings.static:
            ours["group.instance.id"] = self.settings.slot
        defaults |= {
            "topic.metadata.refresh.interval.ms": times.refresh_ms,  # how it finds new partitions
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 5,
            "queued.min.messages": 100_000,
            "queued.max.messages.kbytes": 131_072,
            "client.id": f"signal-router-{self.settings.slot}",
        }
        return self.settings.connection.consumer_config(ours, defaults=defaults)

    def _make_faust(self) -> faust.App:
        drivers.TRANSPORTS.aliases["signal-router"] = "signal_router.runtime.transport:Transport"
        settings = self.settings
        app = faust.App(
            self.settings.group,
            broker="signal-router://",
            store="memory://",
            web_enabled=settings.web_port is not None,
            web_port=settings.web_port or 6066,
            web_bind=settings.web_host,
            topic_disable_leader=True,
            agent_supervisor=mode.CrashingSupervisor,
            datadir=str(settings.state_dir / "faust"),
        )
        self._agent(app, MATCH, self.worker.on_signals)
        self._agent(app, JOIN, self.worker.on_candidates)
        return app

    @staticmethod
    def _agent(app: faust.App, topic: str, handle: Callable[[Inbox], Awaitable[None]]) -> None:
        channel = app.topic(topic, key_type=bytes, value_type=bytes, value_serializer="raw", acks=False)

        async def agent(stream: faust.StreamT[Inbox]) -> None:
            async for inbox in stream:
                try:
                    await handle(inbox)
                finally:
                    app.consumer.done(topic)

        app.agent(channel, name=topic)(agent)

    def _deliver(self, consumer: BatchConsumer, batch: Fetched) -> None:
        consumer.push(JOIN if batch.tp.topic == self.names.candidates else MATCH, batch)

    # ---- what is followed

    def _take_roster(self, records: Sequence[InputRecord]) -> None:
        slot = self.settings.slot
        known = self.roster.takeovers.get(slot)
        self.roster.take(records)
        latest = self.roster.takeovers.get(slot)
        if latest is not None and latest != known and hasattr(self, "worker"):  # else it was a former life's
            _log.warning("fenced by another worker", by=latest.by, partitions=latest.partitions)

    def _take_definitions(self, records: Sequence[InputRecord]) -> None:
        self._loop.call_soon_threadsafe(self._queue_definitions, list(records))

    def _queue_definitions(self, records: list[InputRecord]) -> None:
        self._waiting.extend(records)
        if hasattr(self, "worker"):
            self._spawn(self._drain_definitions())

    async def _drain_definitions(self) -> None:
        """Puts definitions in force, after their destinations have been looked at."""
        async with self._definitions_lock:
            records, self._waiting = self._waiting, []
            if not records:
                return
            read = [self.view.read(record) for record in records]
            self._coming = frozenset(each.subscription.topic for each in read if each.subscription is not None)
            while not self._coming <= self._outputs.destinations.known:
                try:
                    await self._refresh_destinations()
                except (BrokerError, KafkaException, TimeoutError) as error:
                    _log.warning("will be tried again", error=str(error) or repr(error))
                    await asyncio.sleep(RETRY_S)
            await self.worker.take_definitions(read)
            self._coming = frozenset()

    async def _refresh_destinations(self) -> None:
        """Looks at the destinations in force and coming into force; an answer that a later look overtook is dropped."""
        self._looks += 1
        look = self._looks
        topics = {self.names.triggers, self.names.lineage, *self._coming, *self.view.destinations()}
        forbidden = (self.names.own() - {self.names.triggers, self.names.lineage}) | set(self._inputs)
        found = Destinations(*await self._blocking(verify_destinations, self._admin, topics, frozenset(forbidden)))
        if look > self._looked:
            self._looked = look
            self._outputs.destinations = found

    async def _look_again(self) -> None:
        """A transaction failed: perhaps a destination is gone."""
        try:
            await self._refresh_destinations()
        except (BrokerError, KafkaException, TimeoutError) as error:
            _log.warning("will be tried again", error=str(error))

    # ---- timers

    async def _mark(self) -> None:
        if self._faust.crashed or self._faust.consumer.crashed:
            raise StateError(f"the stream processor failed: {self._faust.crash_reason!r}")
        if self.worker.phase is not Phase.RUNNING:
            return
        positions = self.worker.marks.positions()
        sampled_at = now_ms()
        ends = await self._blocking(end_offsets, self._admin, list(positions))
        self.worker.marks.met_ends(ends, sampled_at)
        if not self.settings.patterns:  # to look for new topics asks for all there are: not every second
            self.worker.marks.look(_counts(await self._blocking(describe, self._admin, self._inputs)), sampled_at)
        await self.worker.mark()

    async def _refresh(self) -> None:
        """Looks again at inputs and destinations, and purges candidates that are committed everywhere they can be
        read.
        """
        looked_at = now_ms()
        inputs = await self._blocking(self._input_topics)
        if inputs != self._inputs:
            _log.info("signals topics changed", topics=list(inputs))
            self._inputs = inputs
            self._consume.subscribe([*inputs, self.names.candidates])
        await self._refresh_inputs(looked_at)
        await self._refresh_destinations()
        await self._blocking(purge_before, self._admin, self.worker.purgeable())

    async def _refresh_inputs(self, looked_at: int) -> None:
        found = await self._blocking(describe, self._admin, self._inputs)
        # A running consumer notices only if the new log is shorter than the old one was.
        refuse_re_created(self.roster, {topic: description.id for topic, description in found.items()})
        self.worker.marks.set_inputs(_counts(found), looked_at)

    def _input_topics(self) -> tuple[str, ...]:
        wanted = self.settings.signals or (self.names.signals,)
        plain = [name for name in wanted if not name.startswith("^")]
        patterns = [re.compile(name) for name in wanted if name.startswith("^")]
        existing = topic_names(self._admin)
        missing = sorted(set(plain) - set(existing))
        if missing:
            raise ConfigurationError(
                f'signals topic "{missing[0]}" does not exist', hint="create it, or change --signals"
            )
        ours = self.names.own()
        refused = sorted(set(plain) & ours)
        if refused:
            raise ConfigurationError(f'"{refused[0]}" is a topic of this app and cannot be read as signals')
        matching = {
            name
            for name in existing
            if name not in ours and not name.startswith("__") and any(pattern.match(name) for pattern in patterns)
        }
        found = tuple(sorted(matching.union(plain)))
        if not found:
            raise ConfigurationError(
                f"no topic matches the signals patterns {', '.join(wanted)}", hint="change --signals, or create a topic"
            )
        return found

    def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def timer() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await work()
                except (StateError, ConfigurationError) as error:
                    self._end(error)
                    return
                except (SignalRouterError, KafkaException, TimeoutError) as error:
                    _log.warning("will be tried again", error=str(error))

        self._spawn(timer())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._timers.append(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task in self._timers:
            self._timers.remove(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, SignalRouterError):
            self._end(error)
        elif error is not None:
            self._end(StateError(f"a background task failed: {error!r}"))

    async def _blocking(self, call: Callable[..., _T], *args: object) -> _T:
        return await self._loop.run_in_executor(None, functools.partial(call, *args))


def _counts(topics: Mapping[str, TopicDescription]) -> dict[str, int]:
    return {topic: description.partitions for topic, description in topics.items()}


def _open_store(path: Path) -> RocksStore:
    """Opens the store; a damaged one is deleted, for the changelog has everything. Not so where the disk refuses."""
    try:
        return RocksStore(path)
    except DiskError:
        raise
    except StateError as error:
        _log.warning("local tables cannot be opened and are rebuilt from the changelog", error=error.message)
        destroy(path)
        return RocksStore(path)
