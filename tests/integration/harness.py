"""A real cluster with real worker processes, and the proof that its topics hold what the reference expects."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from signal_router.kafka.admin_client import connect
from signal_router.kafka.offsets import committed_offsets, end_offsets, stable_ends, start_offsets
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import TopicNames, load_topics, resolve
from signal_router.model.definitions import Definition, definition, definition_key, deletion, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.app import STORE_FOLDER
from signal_router.runtime.positions import decode_local
from signal_router.state.keys import LOCAL_POSITION, partition_prefix
from signal_router.state.rocks import RocksStore
from signal_router.testing.reference import Evaluation
from signal_router.verify.check import evaluate_and_check
from signal_router.verify.consumer_offsets import TOPIC as OFFSETS
from signal_router.verify.consumer_offsets import committed_offset, partition_of_group
from signal_router.verify.logs import App, HeldLogs, NextOffsets, Span, StoredTable
from signal_router.verify.report import Report
from signal_router.verify.transactions import Struck

RUNNER = Path(__file__).with_name("harness_worker.py")

PAIR = """
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

QUICK = {"revoke_ms": 1_000, "transaction_ms": 3_000, "session_ms": 6_000, "heartbeat_ms": 500}
"""Time-outs as short as brokers allow, where a test waits for one."""

Headers = tuple[tuple[str, bytes | None], ...]


def until(condition: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
    """Waits for a condition; fails with its name past the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.05)


def announced(name: str, keys: Iterable[object]) -> list[dict[str, object]]:
    """One signal of that name for each key."""
    return [{"name": name, "source": "s", "id": f"{name}{key}", "params": {"k": key}} for key in keys]


@dataclass(frozen=True, slots=True)
class Read:
    """A record as a plain consumer gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def transaction(self) -> str:
        return (dict(self.headers).get("sr_txn") or b"").decode()

    @property
    def document(self) -> dict[str, object]:
        return json.loads(self.value or b"{}")  # type: ignore[no-any-return]


@dataclass(slots=True)
class Proof:
    """What stands on the topics, what a check says of it, and what the reference makes of the same signals."""

    report: Report
    judged: Evaluation | None
    triggers: list[Read]
    lineage: list[Read]
    dead_letters: list[Read]

    @property
    def evaluation(self) -> Evaluation:
        """What the reference makes of the signals; fails where it could make nothing of them."""
        assert self.judged is not None, self.discrepancies
        return self.judged

    @property
    def discrepancies(self) -> list[str]:
        """Every violation, and whatever could not be judged though something of its kind happened."""
        return self.report.differences()

    def hold(self) -> None:
        """Fails with the first violations, and with what could not be judged, if there is any."""
        shown = "\n".join(self.discrepancies[:5])
        assert not self.discrepancies, f"{len(self.discrepancies)} differences, among them:\n{shown}"

    def fired(self, subscription: str = "") -> Counter[str]:
        """Triggers by the canonical JSON of their join key."""
        return Counter(
            json.dumps(trigger.document["join_key"], sort_keys=True)
            for trigger in self.triggers
            if not subscription or trigger.document["subscription"]["id"] == subscription  # type: ignore[index]
        )

    def outcomes(self) -> Counter[str]:
        return Counter(
            f"{each.outcome}/{each.reason}" if each.outcome != "fired" else "fired" for each in self.evaluation.ended
        )


class WorkerProcess:
    """One life of a slot."""

    def __init__(self, cluster: LiveCluster, slot: str, state_dir: Path, number: int, **settings: object) -> None:
        self.slot = slot
        self.state_dir = state_dir
        self.log_file = cluster.folder / f"{slot}-{number}.log"
        self._arm = cluster.folder / f"{slot}-{number}.arm"
        given = {
            "bootstrap": cluster.bootstrap,
            "prefix": cluster.prefix,
            "slot": slot,
            "state_dir": str(state_dir),
            "arm": str(self._arm),
            **settings,
        }
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(RUNNER), json.dumps(given)], stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def struck(self) -> str | None:
        """The effect before which the armed signal came."""
        found = [json.loads(line)["struck"] for line in self.log.splitlines() if line.startswith('{"struck"')]
        return found[-1] if found else None

    def await_log(self, text: str, *, times: int = 1, within_s: float = 30.0) -> WorkerProcess:
        """Waits until a text stands in the log."""
        deadline = time.monotonic() + within_s
        while self.log.count(text) < times:
            assert self.alive, f"worker {self.slot} ended before it said {text!r}:\n{self.log[-3000:]}"
            assert time.monotonic() < deadline, f"worker {self.slot} has not said {text!r}:\n{self.log[-3000:]}"
            time.sleep(0.05)
        return self

    def await_running(self, *, within_s: float = 30.0) -> WorkerProcess:
        """Waits until it has taken partitions over."""
        return self.await_log("took partitions over", within_s=within_s)

    def arm(self, effect: str, with_signal: int = signal.SIGKILL, *, inputs: bool = False) -> None:
        """Makes the process send itself a signal before the next effect, or step, of that name; with `inputs`, only in
        a transaction in which something was read, not in one of marks or of what the worker says of itself.
        """
        orders = self._arm.with_suffix(".orders")
        orders.write_text(json.dumps({"effect": effect, "signal": int(with_signal), "inputs": inputs}))
        orders.rename(self._arm)

    def disarm(self) -> None:
        """Takes back what has not struck yet."""
        self._arm.unlink(missing_ok=True)

    def send(self, which: int) -> None:
        self.process.send_signal(which)

    def kill(self) -> None:
        """Kill -9, and its end."""
        self.process.kill()
        self.process.wait(10)

    def await_end(self, *, within_s: float = 30.0) -> int:
        """Waits for its end; returns the exit code, negative for a signal."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"worker {self.slot} has not ended:\n{self.log[-3000:]}") from None

    def stop(self, *, within_s: float = 40.0) -> None:
        """Stops it in good order."""
        self.process.send_signal(signal.SIGTERM)
        code = self.await_end(within_s=within_s)
        assert code == 0, f"worker {self.slot} ended with {code}:\n{self.log[-3000:]}"

    @property
    def candidates(self) -> Mapping[str, int]:
        """How many candidates took which way, for a life that ended by itself."""
        told = [json.loads(line)["candidates"] for line in self.log.splitlines() if line.startswith('{"candidates"')]
        return told[-1] if told else {}

    @property
    def restored(self) -> list[int]:
        """How many records of the changelog each of its take-overs read."""
        told = (line for line in self.log.splitlines() if "took partitions over" in line)
        return [int(number) for line in told for number in re.findall(r"restored=(\d+)", line)]

    @property
    def stopped_with(self) -> str:
        """The error it ended with."""
        ended = [line for line in self.log.splitlines() if line.startswith('{"ended"')]
        assert ended, f"worker {self.slot} has not said why it ended:\n{self.log[-3000:]}"
        return str(json.loads(ended[-1])["ended"])


@dataclass
class LiveCluster:
    """The topics of one app under one prefix on a broker, with its workers. Use `live_cluster`.

    `candidates`: the way its workers' own ones take, "local" or "topic". `inputs`: the topics that its workers read
    signals from. `protocol`: that of their group. `shared`: slots that a test gives to two live workers at once.
    """

    bootstrap: str
    prefix: str
    folder: Path
    partitions: int = 4
    candidates: str = "local"
    protocol: str = "classic"
    workers: list[WorkerProcess] = field(default_factory=list)
    applied: dict[str, Definition] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.connection = Connection(self.bootstrap, self.prefix)
        self.names: TopicNames = resolve(self.prefix, self.connection.app)
        self.inputs: list[str] = [self.names.signals]
        self.group = f"{self.prefix}{self.connection.app}"
        self.producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, "log_level": 0})
        self.admin: AdminClient = connect(self.connection)
        files = wanted_topics(load_topics(), prefix=self.prefix, app=self.connection.app, partitions=self.partitions)
        apply_topics(self.admin, files)

    def renew_admin(self) -> None:
        """Takes a new client: one from before the broker's restart hangs, or asks with old leaders, for ever."""
        self.admin = connect(self.connection)

    def shorten_sessions(self) -> None:
        """Gives this app's KIP-848 group the session time-out of `QUICK`, before its first member joins."""
        entry = ConfigEntry(
            "consumer.session.timeout.ms",
            str(QUICK["session_ms"]),
            incremental_operation=AlterConfigOpType.SET,
        )
        group = ConfigResource(ConfigResource.Type.GROUP, self.group, incremental_configs=[entry])
        self.admin.incremental_alter_configs([group])[group].result(10)

    # ---- workers

    def worker(self, slot: str = "w1", *, state_dir: Path | None = None, **settings: object) -> WorkerProcess:
        """Starts a worker; a slot keeps its state directory over its lives."""
        state_dir = state_dir or self.folder / f"state-{slot}"
        settings = {"local_candidates": self.candidates == "local", "group_protocol": self.protocol, **settings}
        started = WorkerProcess(self, slot, state_dir, len(self.workers), **settings)
        self.workers.append(started)
        return started

    def close(self) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.send(signal.SIGCONT)
                worker.kill()

    # ---- definitions and signals

    def apply(self, text: str, *, birth: int = 1, join_generation: int = 1) -> int:
        """Puts documents in force; returns the revision."""
        read = read_documents([("test.yaml", text)])
        revision = -1
        for document in read.documents:
            each = definition(document, birth=birth, join_generation=join_generation, applied_at=0)
            revision = self._define(each)
        return revision

    def delete(self, identity: str) -> int:
        return self._define(deletion(self.applied[identity], applied_at=0))

    def _define(self, each: Definition) -> int:
        self.applied[each.id] = each
        return self.publish_record(self.names.definitions, encode_definition(each), key=definition_key(each.id)).offset

    def publish_record(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, partition: int = -1
    ) -> ClientPartition:
        """Writes one record and returns where it stands."""
        found: list[Message] = []
        self.producer.produce(
            topic, value, key, partition=partition, on_delivery=lambda _, record: found.append(record)
        )
        assert self.producer.flush(30) == 0
        assert found[0].error() is None, found[0].error()
        return ClientPartition(topic, found[0].partition() or 0, found[0].offset() or 0)

    def publish(self, *signals: Mapping[str, object] | bytes, partition: int = -1) -> None:
        """Writes signals, each durable before the next, and recorded a millisecond earlier at least."""
        for each in signals:
            value = each if isinstance(each, bytes) else json.dumps(each).encode()
            self.publish_record(self.names.signals, value, partition=partition)
            time.sleep(0.002)  # the broker's clock must move on: what is ordered by time is told apart by it

    def publish_many(self, signals: Iterable[Mapping[str, object] | bytes]) -> None:
        """Writes signals to all partitions in turn, all at once."""
        for number, each in enumerate(signals):
            value = each if isinstance(each, bytes) else json.dumps(each).encode()
            self.producer.produce(self.names.signals, value, partition=number % self.partitions)
            self.producer.poll(0)
        assert self.producer.flush(60) == 0

    def await_revision(self, revision: int, *, within_s: float = 20.0) -> None:
        """Waits until every worker that is alive says that it has the definitions."""
        slots = {worker.slot for worker in self.workers if worker.alive}

        def told() -> bool:
            last = {read.key: read.document for read in self.read(self.names.workers)}
            known = [last.get(slot.encode(), {}).get("definitions_revision", -1) for slot in slots]
            return all(isinstance(each, int) and each >= revision for each in known)

        until(told, f"definitions revision {revision}", within_s=within_s)

    # ---- what stands on the cluster

    def read(self, topic: str, *, committed: bool = True) -> list[Read]:
        """Reads a topic whole, in order of each partition."""
        return read_topics(self.bootstrap, self.admin, [topic], committed=committed)

    def ends(self, topic: str) -> dict[int, int]:
        count = self._partition_count(topic)
        found = end_offsets(self.admin, [TopicPartition(topic, number) for number in range(count)])
        return {tp.partition: offset for tp, offset in found.items()}

    def _partition_count(self, topic: str) -> int:
        """A broker that has just come back may close the connection of a first request."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return len(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def committed(self, topic: str) -> dict[int, int]:
        """Committed next offsets of the group; those that are not there are left out."""
        wanted = [TopicPartition(topic, number) for number in self.ends(topic)]
        found = committed_offsets(self.connection, self.group, wanted)
        return {tp.partition: at.offset for tp, at in found.items() if at is not None}

    def await_decided(self, *, within_s: float = 60.0) -> None:
        """Waits until every candidate of every signal published so far is decided, by committed offsets alone."""
        for topic in (*self.inputs, self.names.candidates):
            self._await_read(topic, within_s)

    def _await_read(self, topic: str, within_s: float) -> None:
        ends = self.ends(topic)

        def reached() -> bool:
            committed = self.committed(topic)
            return all(committed.get(number, 0) >= end for number, end in ends.items())

        deadline = time.monotonic() + within_s
        while not reached():
            logs = "\n".join(f"--- {worker.slot}: {worker.log[-1500:]}" for worker in self.workers[-2:])
            assert time.monotonic() < deadline, f"{topic}: {self.committed(topic)} of {ends}\n{logs}"
            time.sleep(0.1)

    def stop_workers(self) -> None:
        """Stops all that are alive, all at once: none takes over what another gives up."""
        alive = [worker for worker in self.workers if worker.alive]
        for worker in alive:
            worker.send(signal.SIGTERM)
        for worker in alive:
            code = worker.await_end()
            if code == -signal.SIGTERM and not worker.log:
                continue  # it had only just begun, and did not listen yet
            assert code == 0, f"worker {worker.slot} ended with {code}:\n{worker.log[-3000:]}"

    def prove(self, *, more_topics: Sequence[str] = (), struck: Struck | None = None) -> Proof:
        """Checks what the topics hold, against the reference above all; workers must have stopped.

        With `struck` the report also says whether the faults did what they were to.
        """
        names = self.names
        logs = self.logs(more_topics=more_topics, uncommitted=struck is not None)
        report, evaluation = evaluate_and_check(logs, struck=struck)
        triggers = [read for topic in (names.triggers, *more_topics) for read in self._held(logs, topic)]
        return Proof(
            report,
            evaluation,
            triggers,
            self._held(logs, names.lineage),
            self._held(logs, names.dead_letters),
        )

    def logs(self, *, more_topics: Sequence[str] = (), uncommitted: bool = False) -> HeldLogs:
        """The logs as they are now, for a check."""
        names = self.names
        outputs = (names.candidates, names.changelog, names.triggers, *more_topics, names.lineage, names.dead_letters)
        topics = [names.definitions, *self.inputs, *outputs]
        tps = [TopicPartition(topic, number) for topic in topics for number in range(self._partition_count(topic))]
        stable, ends, starts = (
            stable_ends(self.admin, tps),
            end_offsets(self.admin, tps),
            start_offsets(self.admin, tps),
        )
        app = App(self.connection.app, self.group, names, self.inputs, all_lineage=True, shared=self.shared)
        logs = HeldLogs(app, dict.fromkeys(tps, ()), topic_ids={topic: self.topic_id(topic) for topic in topics})
        logs.spans = {tp: Span(starts[tp], ends[tp], ends[tp], stable[tp], ends[tp]) for tp in tps}
        logs.records |= self._by_partition(topics, committed=True)
        if uncommitted:
            logs.uncommitted = self._by_partition([names.lineage, names.candidates], committed=False)
        inputs = [tp for tp in tps if tp.topic in (*self.inputs, names.candidates)]
        found = committed_offsets(self.connection, self.group, inputs)
        logs.next_offsets = {tp: NextOffsets(at, at) for tp, at in found.items()}
        logs.commits = self._history()
        logs.tables = lambda: self._stored_tables(logs)
        return logs

    def _by_partition(self, topics: Sequence[str], *, committed: bool) -> dict[TopicPartition, list[InputRecord]]:
        found: dict[TopicPartition, list[InputRecord]] = {}
        for each in read_topics(self.bootstrap, self.admin, topics, committed=committed):
            record = InputRecord(each.offset, each.timestamp, each.key, each.value, each.headers)
            found.setdefault(TopicPartition(each.topic, each.partition), []).append(record)
        return found

    @staticmethod
    def _held(logs: HeldLogs, topic: str) -> list[Read]:
        return [
            Read(topic, tp.partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers or ()))
            for tp in sorted(logs.records)
            if tp.topic == topic
            for each in logs.read(tp)
        ]

    def _history(self) -> list[tuple[TopicPartition, int]]:
        """Every next offset that the group ever committed and the broker still has."""
        partition = partition_of_group(self.group, self._partition_count(OFFSETS))
        records = read_topics(self.bootstrap, self.admin, [OFFSETS], committed=True, only=partition)
        return [each for read in records if (each := committed_offset(read.key, read.value, self.group))]

    def _stored_tables(self, logs: HeldLogs) -> list[StoredTable]:
        """The tables of workers that have stopped, as far as they go to the end of the changelog."""
        found = []
        for folder in {worker.state_dir: worker.slot for worker in self.workers if not worker.alive}.items():
            found += _stored(*folder, logs)
        return found

    def topic_id(self, topic: str) -> str:
        answer = self.admin.describe_topics(TopicCollection([topic]))
        return str(answer[topic].result(10).topic_id).translate(str.maketrans("+/", "-_"))

    def aborted_transactions(self) -> set[str]:
        """The transactions of which records stand on the outputs that no read_committed consumer sees."""
        names, found = self.names, set()
        for topic in (names.changelog, names.candidates):  # every transaction writes to one of them
            visible = {(each.partition, each.offset) for each in self.read(topic)}
            for each in self.read(topic, committed=False):
                if (each.partition, each.offset) not in visible and each.transaction:
                    found.add(each.transaction)
        return found


@contextmanager
def live_cluster(
    bootstrap: object,
    prefix: str,
    folder: Path,
    *,
    partitions: int = 4,
    candidates: str = "local",
    protocol: str = "classic",
) -> Iterator[LiveCluster]:
    """Makes the topics; kills what is left of the workers at the end."""
    cluster = LiveCluster(str(bootstrap), prefix, folder, partitions, candidates, protocol)
    try:
        yield cluster
    finally:
        cluster.close()


def assert_all_fired(cluster: LiveCluster, count: int) -> None:
    """The topics hold what the reference makes of them, and that is one trigger for each key below `count`."""
    proof = cluster.prove()
    proof.hold()
    assert proof.fired() == {json.dumps({"k": key}): 1 for key in range(count)}


def folded(cluster: LiveCluster) -> dict[bytes, bytes]:
    """The changelog, folded, with the partition's prefix before every key."""
    entries: dict[bytes, bytes] = {}
    for record in cluster.read(cluster.names.changelog):
        key = partition_prefix(record.partition) + (record.key or b"")
        if record.value is None:
            entries.pop(key, None)
        else:
            entries[key] = record.value
    return entries


def read_topics(
    bootstrap: str, admin: AdminClient, topics: Iterable[str], *, committed: bool, only: int | None = None
) -> list[Read]:
    """Reads topics from their start to the end they have now; `only` one partition of each."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"read-{os.getpid()}",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    found: list[Read] = []
    try:
        places = [
            ClientPartition(topic, number, 0)
            for topic in topics
            for number in admin.list_topics(topic, timeout=10).topics[topic].partitions
            if only in (None, number)
        ]
        consumer.assign(places)
        left = {(place.topic, place.partition) for place in places}
        deadline = time.monotonic() + 60
        while left:
            assert time.monotonic() < deadline, f"cannot read {left} to the end"
            for record in consumer.consume(5000, 0.5):
                error = record.error()
                if error is None:
                    found.append(_read(record))
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard((record.topic() or "", record.partition() or 0))
                else:
                    raise AssertionError(error)
    finally:
        consumer.close()
    return sorted(found, key=lambda each: (each.topic, each.partition, each.offset))


def _read(record: Message) -> Read:
    headers = tuple((name, value if isinstance(value, bytes) else None) for name, value in record.headers() or ())
    key, value = record.key(), record.value()
    return Read(
        record.topic() or "",
        record.partition() or 0,
        record.offset() or 0,
        record.timestamp()[1],
        key if isinstance(key, bytes) else None,
        value if isinstance(value, bytes) else None,
        headers,
    )


def _stored(state_dir: Path, slot: str, logs: HeldLogs) -> Iterator[StoredTable]:
    """The tables in a worker's directory behind which nothing came in the changelog."""
    if not (state_dir / STORE_FOLDER / "CURRENT").exists():
        return
    store = RocksStore(state_dir / STORE_FOLDER)
    try:
        for number in logs.partitions(logs.app.names.changelog):
            prefix = partition_prefix(number)
            raw = store.get(prefix + LOCAL_POSITION)
            local = None if raw is None else decode_local(raw)
            records = logs.records[TopicPartition(logs.app.names.changelog, number)]
            if local is not None and records and local.changelog_offset > records[-1].offset:
                entries = store.scan(prefix, partition_prefix(number + 1))
                yield StoredTable(slot, number, {key[len(prefix) :]: value for key, value in entries})
    finally:
        store.close()
