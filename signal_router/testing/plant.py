"""A plant: the topics of one app on a broker in memory, with a clock and the faults of its clients."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from signal_router.kafka.topics import TopicNames, resolve
from signal_router.model.log import TopicPartition
from signal_router.testing.clock import ManualClock
from signal_router.testing.memory_log import Faults, MemoryBroker
from signal_router.testing.reference import (
    DefinitionRecord,
    Evaluation,
    Evidence,
    Limits,
    SignalRecord,
    compare,
    evaluate,
    evidence_from_lineage,
)
from signal_router.testing.reference_evidence import Output

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

    def evidence(self) -> Evidence:
        """What the logs give the reference evaluation to go by."""
        names = self.names
        views, inputs = evidence_from_lineage(self.outputs(names.lineage))
        return Evidence(
            app=APP,
            definitions=[
                DefinitionRecord(each.offset, each.value)
                for each in self.broker.read_all(names.definitions)[TopicPartition(names.definitions, 0)]
            ],
            signals={
                (tp.topic, tp.partition): [
                    SignalRecord(each.offset, each.timestamp, each.key, each.value, each.headers or ())
                    for each in records
                ]
                for tp, records in self.broker.read_all(names.signals).items()
            },
            topic_ids={names.signals: str(self.broker.topic_id(names.signals))},
            views=views,
            inputs=inputs,
            default_topic=names.triggers,
            limits=Limits(per_key=self.per_key),
        )

    def evaluate(self, evidence: Evidence | None = None) -> tuple[Evaluation, list[str]]:
        """What the reference makes of the logs, and every difference between that and the topics."""
        names = self.names
        evaluation = evaluate(evidence or self.evidence())
        differences = [
            *evaluation.violations,
            *compare(
                evaluation,
                triggers={names.triggers: self.outputs(names.triggers)},
                lineage=self.outputs(names.lineage),
                dead_letters=self.outputs(names.dead_letters),
            ),
            *(f"in transit: {each}" for each in evaluation.in_transit),
        ]
        return evaluation, differences

    def outputs(self, topic: str) -> list[Output]:
        """What a reader of committed records gets of a topic, partition by partition."""
        return [
            (each.key, each.value, tuple(each.headers or ()))
            for records in self.broker.read_all(topic).values()
            for each in records
        ]
