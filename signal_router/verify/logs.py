"""What a check reads: the logs of one app, and how they may be had.

A check takes them as they were at a *cut*. Where workers go on meanwhile the parts of a cut are taken one after the
other, in the order in which a signal moves, so that nothing can slip through between them:

    1  the committed next offsets, and how far every output was stable then (`Span.sure`)
    2  the candidates topic
    3  the changelog: its position records say up to which decision input each table goes
    4  the committed next offsets once more
    5  lineage, triggers and dead letters, up to an end that is taken now and waited for
    6  the signals below the committed next offsets of 4

What was decided by 3 stands on the outputs by 5; what stands behind `sure` may be of a later decision and is not held
against anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from signal_router.kafka.topics import TopicNames
from signal_router.model.log import InputRecord, NextOffset, TopicPartition


@dataclass(frozen=True, slots=True)
class Span:
    """How far a partition goes.

    `start`: the first offset that can be read. `begun`: its read_uncommitted end when the check began. `sure`: what
    lies below it was committed before the cut. `stable` and `end`: its read_committed and its read_uncommitted end once
    the committed next offsets had been read for the last time.
    """

    start: int
    begun: int
    sure: int
    stable: int
    end: int


class NextOffsets(NamedTuple):
    """The committed next offsets of one partition before and after the changelog was read; None where there is none."""

    before: NextOffset | None
    after: NextOffset | None


@dataclass(frozen=True, slots=True)
class StoredTable:
    """What the store of a stopped worker holds of a partition: its entries without the partition's prefix."""

    slot: str
    partition: int
    entries: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class App:
    """Whose logs they are, and with which settings its workers run.

    `all_lineage`: every worker has written every decision input, so that one that is missing is lost. Where that is not
    known it is a hole that nobody can look into. `shared`: slots that two live workers had at once; until the older one
    hears of the newer they fence each other by turns, so the order of their lives says nothing.
    """

    name: str
    group: str
    names: TopicNames
    inputs: Sequence[str]
    value_limit_bytes: int = 256 * 1024
    all_lineage: bool = False
    shared: Collection[str] = ()


class Logs(Protocol):
    """The logs of an app at a cut. Reading may be repeated and gives the same each time."""

    @property
    def app(self) -> App:
        """Whose they are."""

    def partitions(self, topic: str) -> Sequence[int]:
        """The partitions of a topic; none if it does not exist."""

    def topic_id(self, topic: str) -> str:
        """The UUID of a topic, as Kafka writes it."""

    def span(self, tp: TopicPartition) -> Span:
        """How far a partition goes."""

    def read(self, tp: TopicPartition) -> Iterable[InputRecord]:
        """The committed records in order."""

    def read_uncommitted(self, tp: TopicPartition) -> Iterable[InputRecord]:
        """The records in order, those of aborted transactions too."""

    def committed(self, tp: TopicPartition) -> NextOffsets:
        """The group's next offset."""

    def history(self) -> Iterable[tuple[TopicPartition, int]] | None:
        """Every next offset that the group committed, in order of each partition; None where that cannot be read."""

    def stored_tables(self) -> Sequence[StoredTable]:
        """The tables of stopped workers, where they are at hand."""


NEVER = NextOffsets(None, None)


@dataclass(slots=True)
class HeldLogs:
    """Logs held in memory. What is not given is empty; spans default to all that is given, with nothing open."""

    app: App
    records: dict[TopicPartition, Sequence[InputRecord]]
    uncommitted: dict[TopicPartition, Sequence[InputRecord]] = field(default_factory=dict)
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    spans: dict[TopicPartition, Span] = field(default_factory=dict)
    next_offsets: dict[TopicPartition, NextOffsets] = field(default_factory=dict)
    commits: Sequence[tuple[TopicPartition, int]] | None = None
    tables: Callable[[], Sequence[StoredTable]] = tuple

    def partitions(self, topic: str) -> Sequence[int]:
        """The partitions of a topic."""
        return sorted(tp.partition for tp in self.records if tp.topic == topic)

    def topic_id(self, topic: str) -> str:
        """The UUID of a topic."""
        return self.topic_ids.get(topic, "")

    def span(self, tp: TopicPartition) -> Span:
        """How far a partition goes."""
        given = self.spans.get(tp)
        if given is not None:
            return given
        records = self.records.get(tp) or ()
        end = records[-1].offset + 1 if records else 0
        return Span(0, end, end, end, end)

    def read(self, tp: TopicPartition) -> Iterable[InputRecord]:
        """The committed records in order."""
        return self.records.get(tp, ())

    def read_uncommitted(self, tp: TopicPartition) -> Iterable[InputRecord]:
        """The records in order, those of aborted transactions too; the committed ones where no others are given."""
        return self.uncommitted.get(tp) or self.records.get(tp, ())

    def committed(self, tp: TopicPartition) -> NextOffsets:
        """The group's next offset."""
        return self.next_offsets.get(tp, NEVER)

    def history(self) -> Iterable[tuple[TopicPartition, int]] | None:
        """Every next offset that the group committed."""
        return self.commits

    def stored_tables(self) -> Sequence[StoredTable]:
        """The tables of stopped workers."""
        return self.tables()
