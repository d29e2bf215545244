"""Real workers, with their consume threads and event loops, on a broker in memory, while partitions come and go.

The threads take turns as they like, so a seed gives the same disturbances, not the same run. Every call of the broker
is made under one lock; between two of them everything may happen.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as KafkaTopicPartition

from signal_router.errors import SignalRouterError
from signal_router.kafka import consume
from signal_router.kafka.consume import ConsumeThread, Fetched
from signal_router.kafka.offsets import TopicDescription
from signal_router.kafka.settings import Connection
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord, NextOffset, OutputRecord, TopicPartition, UnknownOutcomeError
from signal_router.observe.meter import Meter
from signal_router.runtime import worker as worker_module
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.inbox import Inbox
from signal_router.runtime.match import SignalsPartition
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.positions import decode_local, decode_position
from signal_router.runtime.roster import InputStart, Roster
from signal_router.runtime.settings import CLASSIC, CONSUMER, Pace, Times, WorkerSettings
from signal_router.runtime.takeover import Cluster, JoinStart, Takeover
from signal_router.runtime.worker import Phase, Worker
from signal_router.state.keys import LOCAL_POSITION, POSITION, partition_prefix
from signal_router.state.restore import local_entries
from signal_router.state.store import MemoryStore
from signal_router.testing.driver import APP, Plant
from signal_router.testing.memory_log import Effect, Isolation, MemoryLog, MemoryMember, Unstable

SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
RUNS = int(os.environ.get("SIGNAL_ROUTER_RUNS", "3"))
TURBULENT_S = 1.5
DRAINED_WITHIN_S = 20.0
SLOTS = ("w1", "w2", "w3")
DOCUMENT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/pair}
spec:
  join: {k: any}
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}"}}
"""


class Locked:
    """Anything, one call at a time."""

    def __init__(self, inner: Any, lock: Any) -> None:
        self.inner = inner
        self.lock = lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            with self.lock:
                result = found(*given, **named)
                return iter(list(result)) if isinstance(result, Iterator) else result

        return call


class Message:
    """A client's record, or the end of a partition."""

    def __init__(self, tp: TopicPartition, record: InputRecord | None, offset: int) -> None:
        self._tp, self._record, self._offset = tp, record, offset

    def error(self) -> KafkaError | None:
        return None if self._record is not None else KafkaError(KafkaError._PARTITION_EOF)

    def topic(self) -> str:
        return self._tp.topic

    def partition(self) -> int:
        return self._tp.partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        assert self._record is not None
        return 1, self._record.timestamp

    def key(self) -> bytes | None:
        return self._record.key if self._record is not None else None

    def value(self) -> bytes | None:
        return self._record.value if self._record is not None else None

    def headers(self) -> Any:
        return self._record.headers if self._record is not None else None


class MemoryConsumer:
    """A client's consumer over the group in memory: callbacks run inside `poll` and `consume`."""

    def __init__(self, yard: Yard, protocol: str, settings: dict[str, float], **_logger: object) -> None:
        self._yard = yard
        self._protocol = protocol
        self._rng = random.Random(settings["seed"])
        self._at: dict[TopicPartition, int] = {}
        self._told: dict[TopicPartition, int] = {}
        self._calls: dict[str, Any] = {}
        self.member: MemoryMember | None = None

    def subscribe(self, topics: list[str], **calls: Any) -> None:
        self._calls = calls
        self.member = self._yard.broker.join(APP, topics, protocol=self._protocol)
        self._yard.members.append(self.member)

    def assign(self, places: list[KafkaTopicPartition]) -> None:
        self._at, self._told = {TopicPartition(each.topic, each.partition): each.offset for each in places}, {}

    def unassign(self) -> None:
        self.assign([])

    def incremental_assign(self, places: list[KafkaTopicPartition]) -> None:
        for each in places:
            tp = TopicPartition(each.topic, each.partition)
            assert tp not in self._at
            self._at[tp] = each.offset
            self._told.pop(tp, None)

    def incremental_unassign(self, places: list[KafkaTopicPartition]) -> None:
        for each in places:
            del self._at[TopicPartition(each.topic, each.partition)]

    def consumer_group_metadata(self) -> bytes:
        assert self.member is not None
        with self._yard.lock:
            return self.member.group_metadata()

    def poll(self, _timeout: float) -> Message | None:
        self._call_back()
        found = self.consume(1, 0.0)
        if not found:
            time.sleep(self._rng.uniform(0, 0.003))
        return next(iter(found), None)

    def consume(self, count: int, _timeout: float) -> list[Message]:
        if self._rng.random() < 0.2:
            self._call_back()
        found: list[Message] = []
        for tp in list(self._at):
            if len(found) >= count:
                break
            at = self._at[tp]
            most = min(self._rng.randint(1, 8), count - len(found))
            records, behind, at_end = self._yard.broker.read(tp, at, max_records=most)
            found += [Message(tp, record, record.offset) for record in records]
            self._at[tp] = behind
            if at_end and self._told.get(tp) != behind and len(found) < count:
                self._told[tp] = behind
                found.append(Message(tp, None, behind))
        return found

    def close(self) -> None:
        assert self.member is not None
        if self.member.partitions:
            self._calls["on_revoke"](self, _places(self.member.partitions))
        with self._yard.lock:
            self.member.leave()
        self._yard.members.remove(self.member)

    def _call_back(self) -> None:
        assert self.member is not None
        with self._yard.lock:
            rebalance = self.member.poll()
        if rebalance is None:
            return
        self._yard.happened[rebalance.kind] += 1
        name = {"assigned": "on_assign", "revoked": "on_revoke", "lost": "on_lost"}[rebalance.kind]
        self._calls[name](self, _places(rebalance.partitions))


def _places(tps: Iterable[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(tp.topic, tp.partition) for tp in tps]


class Yard:
    """The broker, and what the workers on it share."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lock = threading.RLock()
        self.plant = Plant(rng.randint(2, 4), rng.randint(2, 4))
        self.plant.broker.create_topic(self.plant.names.workers, compacted=True)
        self.broker: Any = Locked(self.plant.broker, self.lock)
        self.faults: Any = Locked(self.plant.faults, self.lock)
        self.members: list[MemoryMember] = []
        self.happened: Counter[str] = Counter()
        self.failures: list[SignalRouterError] = []
        self.stores: dict[str, Any] = {slot: Locked(MemoryStore(), self.lock) for slot in SLOTS}
        made = definition(
            read_documents([("pair.yaml", DOCUMENT)]).documents[0], birth=1, join_generation=1, applied_at=0
        )
        self.broker.append(self.plant.names.definitions, encode_definition(made), key=definition_key(made.id))

    def publish(self, count: int) -> None:
        for _ in range(count):
            name, key = self.rng.choice("AB"), self.rng.randrange(40)
            signal = {"name": name, "source": "s", "id": str(self.rng.randrange(2_000)), "params": {"k": key}}
            partition = self.rng.randrange(self.plant.signals_partitions)
            self.broker.append(self.plant.names.signals, json.dumps(signal).encode(), partition=partition)

    def expire(self) -> None:
        """Makes the group take one of its members for dead."""
        with self.lock:
            if self.members:
                self.happened["expired"] += 1
                self.rng.choice(self.members).expire()

    def fault(self) -> None:
        """Arms a fault of the next call of some producer, or lets a request through that was held."""
        with self.lock:
            faults, rng = self.plant.faults, self.rng
            chance = rng.random()
            if chance < 0.3:
                faults.release()
            elif chance < 0.6:
                faults.straggle(rng.choice(("send_offsets", "commit", "abort")))
            else:
                call = rng.choice(("init", "send_offsets", "commit", "abort"))
                held = () if call == "init" else (Effect.HELD,)
                faults.fail(call, UnknownOutcomeError, effect=rng.choice((Effect.NONE, Effect.DONE, *held)))

    def unread(self) -> list[TopicPartition]:
        with self.lock:
            return self.plant.unread()


class Life:
    """One life of a slot: a worker, its consume thread, and what the app does around them."""

    def __init__(self, yard: Yard, slot: str, folder: Path, protocol: str, *, local: bool) -> None:
        self.yard, self.slot = yard, slot
        plant, names = yard.plant, yard.plant.names
        self._rng = random.Random(yard.rng.random())
        self._roster_at = 0
        self.roster = Roster()
        self._read_roster()
        view = DefinitionsView(names.triggers)
        limits = {names.triggers: 1_000_000, names.lineage: 1_000_000}
        self.worker = Worker(
            WorkerSettings(
                Connection(app=APP),
                slot,
                folder,
                local_candidates=local,
                static_membership=False,
                group_protocol=protocol,
                times=Times(revoke_ms=60),
                pace=Pace(idle_ms=1, echo_ms=5, max_records=40),
                all_lineage=True,
            ),
            Cluster(
                Connection(app=APP),
                None,  # type: ignore[arg-type]
                names,
                APP,
                "cluster",
                TopicDescription(str(plant.broker.topic_id(names.candidates)), plant.candidates_partitions),
                TopicDescription(str(plant.broker.topic_id(names.changelog)), plant.candidates_partitions),
            ),
            yard.stores[slot],
            view,
            self.roster,
            Outputs(names, APP, Destinations(limits), all_lineage=True),
            lambda each: MemoryLog(yard.broker, f"{APP}-{each}", faults=yard.faults),
            Meter(),
            yard.failures.append,
            self._effect,
        )
        self.worker.marks.set_inputs({names.signals: plant.signals_partitions}, 1 << 62)
        self.worker.deliver = self._deliver
        self._inboxes = {names.signals: Inbox(), names.candidates: Inbox()}
        self._full = {topic: asyncio.Event() for topic in self._inboxes}
        self.frozen = threading.Event()
        self.consume = ConsumeThread(
            {"seed": self._rng.random()},
            self.worker,
            slot=slot,
            incremental=protocol == CONSUMER,
            max_pending_records=self._rng.choice((10, 40, 20_000)),
        )
        self.worker.attach(self.consume)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        names = self.yard.plant.names
        records, _, _ = self.yard.broker.read(TopicPartition(names.definitions, 0), 0)
        await self.worker.take_definitions([self.worker.view.read(each) for each in records])
        self._tasks = [
            asyncio.create_task(self._agent(names.signals, self.worker.on_signals)),
            asyncio.create_task(self._agent(names.candidates, self.worker.on_candidates)),
            asyncio.create_task(self._timers()),
        ]
        self.consume.start([names.signals, names.candidates])

    async def stop(self) -> None:
        self._tasks.pop().cancel()
        await self.worker.stop()
        for task in self._tasks:
            task.cancel()

    def _effect(self, name: str) -> None:
        if self.frozen.is_set() and name in {"offsets", "commit", "tables"}:
            self.frozen.clear()
            self.yard.happened["stood still"] += 1
            time.sleep(self._rng.uniform(0.05, 0.2))
        elif self._rng.random() < 0.1:
            time.sleep(self._rng.uniform(0, 0.004))

    def _deliver(self, batch: Fetched) -> None:
        self._inboxes[batch.tp.topic].put(batch)
        self._full[batch.tp.topic].set()

    async def _agent(self, topic: str, handle: Callable[[Inbox], Any]) -> None:
        while True:
            await self._full[topic].wait()
            self._full[topic].clear()
            await handle(self._inboxes[topic])

    async def _timers(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.005, 0.03))
            self._read_roster()
            if self.worker.phase is not Phase.RUNNING:
                continue
            positions = self.worker.marks.positions()
            sampled_at = self.yard.plant.clock()
            self.worker.marks.met_ends({tp: self.yard.broker.end_offset(tp) for tp in positions}, sampled_at)
            await self.worker.mark()
            if self._rng.random() < 0.2:
                await self.worker.tell_roster()

    def _read_roster(self) -> None:
        tp = TopicPartition(self.yard.plant.names.workers, 0)
        records, self._roster_at, _ = self.yard.broker.read(tp, self._roster_at)
        self.roster.take(records)


class Announcer:
    """Writes announcements to the broker in memory."""

    yard: Yard

    def __init__(self, _connection: Connection) -> None: ...

    def __enter__(self) -> Announcer:
        return self

    def __exit__(self, *_: object) -> None: ...

    def publish(self, record: OutputRecord, _sent: object) -> None:
        self.yard.happened["announced"] += 1
        self.yard.broker.append(record.topic, record.value, key=record.key)

    def flush(self, _within_s: float) -> None: ...


def taking_over(yard: Yard) -> Callable[..., Takeover]:
    """As `signal_router.runtime.takeover`, over the broker in memory."""
    broker, names = yard.broker, yard.plant.names

    def stable(tps: list[TopicPartition], interrupted: threading.Event, stuck: Callable[[], None]) -> Any:
        until = time.monotonic() + 0.03
        while True:
            if interrupted.is_set():
                raise InterruptedError
            found = broker.stable_committed(APP, tps)
            if not isinstance(found, Unstable):
                return found
            if time.monotonic() > until:
                stuck()
            time.sleep(0.002)

    def take_over(
        cluster: Cluster,
        store: Any,
        _roster: Roster,
        tps: Iterable[TopicPartition],
        interrupted: threading.Event,
        stuck: Callable[[], None],
        kept: Iterable[int] = (),
    ) -> Takeover:
        tps = sorted(tps)
        while True:
            committed = stable(tps, interrupted, stuck)
            mine = [tp.partition for tp in tps if tp.topic == names.candidates]
            found = Takeover(ends={n: broker.end_offset(TopicPartition(names.candidates, n)) for n in {*mine, *kept}})
            targets = {n: broker.end_offset(TopicPartition(names.changelog, n)) for n in mine}
            for number in mine:
                restore(cluster, store, number, targets[number], interrupted, stuck)
            faults = adopt(store, tps, committed, found)
            if not faults:
                return found
            if stable(tps, interrupted, stuck) == committed:
                raise AssertionError(faults)

    def restore(
        cluster: Cluster,
        store: Any,
        number: int,
        target: int,
        interrupted: threading.Event,
        stuck: Callable[[], None],
    ) -> None:
        prefix, tp = partition_prefix(number), TopicPartition(names.changelog, number)
        raw = store.get(prefix + LOCAL_POSITION)
        local = None if raw is None else decode_local(raw)
        at = 0 if local is None else local.changelog_offset
        until = time.monotonic() + 0.03
        while at < target:
            if interrupted.is_set():
                raise InterruptedError
            records, behind, _ = broker.read(tp, at, Isolation.READ_COMMITTED, 20)
            if behind == at:
                if time.monotonic() > until:
                    stuck()
                time.sleep(0.002)
                continue
            writes: list[tuple[bytes, bytes | None]] = []
            for record in records:
                key = record.key or b""
                writes.append((prefix + key, record.value))
                if record.value is not None and key[:1] in b"SQI":
                    writes += [(prefix + entry, value) for entry, value in local_entries(key, record.value)]
            store.write([*writes, (prefix + LOCAL_POSITION, cluster.local_position(behind))])
            at = behind

    def adopt(store: Any, tps: list[TopicPartition], committed: Any, found: Takeover) -> list[str]:
        faults = []
        for tp in tps:
            at = committed[tp] or NextOffset(0)
            topic_id = str(broker.topic_id(tp.topic))
            if committed[tp] is None:
                found.new_inputs[tp] = InputStart(topic_id, 0, 0)
            revision = int(at.metadata.rpartition(" ")[2] or -1)
            found.revision = max(found.revision, revision)
            if tp.topic == names.signals:
                found.signals[tp] = SignalsPartition(topic_id, at.offset, revision)
                continue
            raw = store.get(partition_prefix(tp.partition) + POSITION)
            position = None if raw is None else decode_position(raw)
            stands = None if position is None else position.next_offset
            if stands != (None if committed[tp] is None else at.offset):
                faults.append(f"{tp}: the table was decided up to {stands}, but {committed[tp]} is to be read next")
            found.joins[tp.partition] = JoinStart(at.offset, 0 if position is None else position.sequence)
        return faults

    return take_over


async def story(yard: Yard, folder: Path, protocol: str, *, local: bool) -> None:
    """Signals flow while workers join, leave, lose their membership, and stand still in their commits."""
    rng, lives = yard.rng, {}

    async def join(slot: str) -> None:
        lives[slot] = Life(yard, slot, folder, protocol, local=local)
        await lives[slot].start()

    async def flow() -> None:
        while True:
            yard.publish(rng.randint(1, 12))
            yard.plant.clock.advance(5)
            await asyncio.sleep(rng.uniform(0, 0.01))

    for slot in SLOTS[: rng.randint(1, 3)]:
        await join(slot)
    publishing = asyncio.create_task(flow())
    until = time.monotonic() + TURBULENT_S
    while time.monotonic() < until and not yard.failures:
        await asyncio.sleep(rng.uniform(0, 0.12))
        chance = rng.random()
        away = [slot for slot in SLOTS if slot not in lives]
        if chance < 0.3 and away:
            yard.happened["joined"] += 1
            await join(rng.choice(away))
        elif chance < 0.5 and len(lives) > 1:
            yard.happened["left"] += 1
            await lives.pop(rng.choice(sorted(lives))).stop()
        elif chance < 0.8:
            if rng.random() < 0.7:
                lives[rng.choice(sorted(lives))].frozen.set()
                await asyncio.sleep(rng.uniform(0, 0.03))
            if rng.random() < 0.7:
                yard.expire()
        elif chance < 0.92:
            yard.fault()
        elif protocol == CLASSIC:
            yard.broker.rebalance(APP)
    publishing.cancel()
    yard.faults.disarm()
    yard.faults.release()
    until = time.monotonic() + DRAINED_WITHIN_S
    while yard.unread() and not yard.failures:
        stand = {slot: (life.worker.phase, life.worker.complete, life.worker.trouble) for slot, life in lives.items()}
        assert time.monotonic() < until, (yard.unread(), stand)
        yard.plant.clock.advance(50)
        await asyncio.sleep(0.02)
    for life in lives.values():
        await life.stop()


@pytest.mark.parametrize("protocol", [CLASSIC, CONSUMER])
def test_what_workers_decide_is_what_the_reference_decides_however_partitions_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    happened: Counter[str] = Counter()
    for seed in range(SEED, SEED + RUNS):
        print(f"\nseed {seed} (SIGNAL_ROUTER_SEED={seed} SIGNAL_ROUTER_RUNS=1)")
        yard = Yard(random.Random(seed))
        monkeypatch.setattr(worker_module, "Publisher", type("Announcing", (Announcer,), {"yard": yard}))
        monkeypatch.setattr(worker_module, "take_over", taking_over(yard))
        monkeypatch.setattr(worker_module, "uncover", lambda *_: None)
        monkeypatch.setattr(consume, "Consumer", partial(MemoryConsumer, yard, protocol))

        asyncio.run(story(yard, tmp_path, protocol, local=seed % 3 > 0))

        assert not yard.failures, yard.failures
        evaluation, differences = yard.plant.evaluate()
        assert not differences, differences[:5]
        assert evaluation.triggers
        happened += yard.happened + yard.plant.faults.fired

    print(dict(happened))
    for what in ("assigned", "revoked", "lost", "joined", "left", "expired", "stood still"):
        assert happened[what], f"never: {what}"
