"""A plant: the topics of one app on a broker in memory, with a clock and the faults of its clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from signal_router.kafka.topics import TopicNames, resolve
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.positions import decode_local
from signal_router.state.keys import LOCAL_POSITION, partition_prefix
from signal_router.state.store import MemoryStore
from signal_router.testing.clock import ManualClock
from signal_router.testing.memory_log import OFFSETS_PARTITION, Faults, Isolation, MemoryBroker
from signal_router.testing.reference import Evaluation, Evidence, Limits, evaluate
from signal_router.verify.check import evaluate_and_check
from signal_router.verify.logs import App, HeldLogs, NextOffsets, Span, StoredTable

APP = "app"


@dataclass(slots=True)
class Plant:
    """One app's topics on a broker in memory, its clock, and the faults of its clients.

    `happened` counts what struck.
    """

    signals_partitions: int = 2
    candidates_partitions: int = 2
    timestamps: Literal["CreateTime", "LogAppendTime"] = "LogAppendTime"
    per_key: int = 100_000
    """The most signals that may be pending for one key."""
    clock: ManualClock = field(default_factory=ManualClock)
    faults: Faults = field(default_factory=Faults)
    happened: Counter[str] = field(default_factory=Counter)
    slots: dict[str, int] = field(default_factory=dict)
    """Every slot with its newest incarnation, as `<app>-workers` would show it."""
    stores: dict[str, MemoryStore] = field(default_factory=dict)
    """What each slot has on disk."""
    broker: MemoryBroker = field(init=False)
    names: TopicNames = field(init=False)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.clock)
        self.names = names = resolve("", APP)
        self.broker.create_topic(names.signals, self.signals_partitions, timestamps=self.timestamps)
        self.broker.create_topic(names.candidates, self.candidates_partitions)
        self.broker.create_topic(names.changelog, self.candidates_partitions, compacted=True)
        for name in (names.definitions, names.triggers, names.lineage, names.dead_letters):
            self.broker.create_topic(name)

    @property
    def inputs(self) -> list[TopicPartition]:
        """Every partition of both stages."""
        return [
            *(TopicPartition(self.names.signals, number) for number in range(self.signals_partitions)),
            *(TopicPartition(self.names.candidates, number) for number in range(self.candidates_partitions)),
        ]

    def unread(self) -> list[TopicPartition]:
        """The partitions with records that no committed offset covers."""
        committed = self.broker.committed(APP, self.inputs)
        found = []
        for tp in self.inputs:
            at = committed[tp]
            records, _, at_end = self.broker.read(
                tp, self.broker.start_offset(tp) if at is None else at.offset, max_records=1
            )
            if records or not at_end:
                found.append(tp)
        return found

    def evaluate(self) -> tuple[Evaluation, list[str]]:
        """What the reference makes of the logs, and every difference between that and the topics."""
        report, evaluation = evaluate_and_check(self.logs(), limits=Limits(per_key=self.per_key))
        return evaluation or evaluate(Evidence(APP, (), {}, {}, {}, {})), report.differences()

    def logs(self) -> HeldLogs:
        """The logs as they are now, for a check."""
        names, broker = self.names, self.broker
        logs = HeldLogs(App(APP, APP, names, (names.signals,), all_lineage=True), {})
        logs.topic_ids = {topic: str(broker.topic_id(topic)) for topic in broker.topics()}
        for topic in broker.topics():
            uncommitted = broker.read_all(topic, Isolation.READ_UNCOMMITTED)
            for tp, records in broker.read_all(topic).items():
                end = broker.end_offset(tp)
                stable = broker.end_offset(tp, Isolation.READ_COMMITTED)
                logs.records[tp], logs.uncommitted[tp] = records, uncommitted[tp]
                logs.spans[tp] = Span(broker.start_offset(tp), end, end, stable, end)
        logs.next_offsets = {tp: NextOffsets(at, at) for tp, at in broker.committed(APP, self.inputs).items()}
        logs.commits = [
            _committed_offset(record) for record in broker.read_all(OFFSETS_PARTITION.topic)[OFFSETS_PARTITION]
        ]
        logs.tables = lambda: list(self._stored_tables())
        return logs

    def _stored_tables(self) -> Iterator[StoredTable]:
        """The tables on disk that go as far as the changelog does."""
        for slot, store in self.stores.items():
            for number in range(self.candidates_partitions):
                prefix = partition_prefix(number)
                raw = store.get(prefix + LOCAL_POSITION)
                local = None if raw is None else decode_local(raw)
                changelog = self.broker.read_all(self.names.changelog)[TopicPartition(self.names.changelog, number)]
                if local is not None and changelog and local.changelog_offset > changelog[-1].offset:
                    entries = store.scan(prefix, partition_prefix(number + 1))
                    yield StoredTable(slot, number, {key[len(prefix) :]: value for key, value in entries})


def _committed_offset(record: InputRecord) -> tuple[TopicPartition, int]:
    _, topic, partition = (record.key or b"").decode().rsplit("/", 2)
    return TopicPartition(topic, int(partition)), int(record.value or b"-1")
