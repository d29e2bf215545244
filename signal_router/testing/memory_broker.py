"""A broker in memory with Kafka's transaction semantics: topics, producers' epochs, markers, transactional offsets,
groups.

Single-threaded and deterministic: time comes from the given clock, nothing happens between two calls, and where a
real client would wait (for markers of its own last transaction) the awaited happens at once. Topic ids are the same
in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from signal_router.errors import BrokerError
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import (
    AbortableError,
    InputRecord,
    NextOffset,
    TopicPartition,
)
from signal_router.testing.clock import ManualClock
from signal_router.testing.memory_coordinator import TransactionCoordinator
from signal_router.testing.memory_group import Group, GroupProtocol, MemoryMember
from signal_router.testing.memory_partition import Headers, Isolation, LogEntry, PartitionLog, Producer
from signal_router.testing.murmur2 import murmur2_partition

OFFSETS_PARTITION = TopicPartition("__consumer_offsets", 0)
"""Where every group's offsets live here: transactions that commit offsets write their marker to it, too."""

# Kafka's default `max.message.bytes` of a topic, and what a batch of one record costs beside key, value and headers.
DEFAULT_MAX_RECORD_BYTES = 1_048_588
_BATCH_OVERHEAD_BYTES = 70
# `message.timestamp.after.max.ms`: a record's time may be at most this far ahead of the broker's.
_TIMESTAMP_AHEAD_MS = 3_600_000


class RefusedRecordError(BrokerError):
    """The broker refused a record; `code` is Kafka's name of the error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Unstable(NamedTuple):
    """The answer for offsets that an open transaction may still change: ask again. Names the transactions to wait
    for.
    """

    transactional_ids: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Topic:
    topic_id: UUID
    logs: list[PartitionLog]
    compacted: bool
    timestamps: Literal["CreateTime", "LogAppendTime"]
    max_record_bytes: int
    writable: bool = True


class MemoryBroker:
    """Topics, groups and transactions of one cluster.

    Tests and checkers use the administrative, producing and reading methods; a `MemoryLog` uses the requests at the
    end. Markers of a partition in `delayed_markers` are held back when a transaction ends, until `write_markers`:
    offsets can become visible before a changelog's last stable offset moves (KAFKA-10167), and the other way round.
    """

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        self.clock = clock or ManualClock()
        self._topics: dict[str, _Topic] = {}
        self._created = 0
        self._groups: dict[str, Group] = {}
        self._coordinator = TransactionCoordinator(self.clock, self._write_marker)
        self._round_robin = 0
        self.create_topic(OFFSETS_PARTITION.topic)

    # --- topics

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        compacted: bool = False,
        timestamps: Literal["CreateTime", "LogAppendTime"] = "CreateTime",
        max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES,
    ) -> UUID:
        """Creates a topic and returns its id, which is new each time a name is created again."""
        if name in self._topics:
            raise BrokerError(f'topic "{name}" exists already')
        self._created += 1
        topic_id = uuid5(NAMESPACE_OID, f"{name}#{self._created}")
        logs = [PartitionLog() for _ in range(partitions)]
        self._topics[name] = _Topic(topic_id, logs, compacted, timestamps, max_record_bytes)
        self._rebalance_readers(name)
        return topic_id

    def delete_topic(self, name: str) -> None:
        """Deletes a topic with everything in it and every group's offsets for it."""
        del self._topics[name]
        for group in self._groups.values():
            group.forget_topic(name)
        self._coordinator.forget_topic(name)
        self._rebalance_readers(name)

    def create_partitions(self, name: str, total: int) -> None:
        """Raises a topic's number of partitions to `total`."""
        logs = self._topic(name).logs
        if total < len(logs):
            raise BrokerError(f'topic "{name}" has {len(logs)} partitions, {total} would be fewer')
        logs.extend(PartitionLog() for _ in range(total - len(logs)))
        self._rebalance_readers(name)

    def deny_writes(self, name: str) -> None:
        """Takes the right to write away: transactions that touch the topic fail, and even their abort does (as in
        Kafka).
        """
        self._topic(name).writable = False

    def topics(self) -> Mapping[str, int]:
        """Returns every topic but the internal one with its number of partitions."""
        internal = OFFSETS_PARTITION.topic
        return {name: len(topic.logs) for name, topic in self._topics.items() if name != internal}

    def topic_id(self, name: str) -> UUID:
        """Returns the id of the topic's present life."""
        return self._topic(name).topic_id

    def delete_records(self, tp: TopicPartition, before_offset: int) -> None:
        """Moves the log's start (DeleteRecords); −1 means the end."""
        self._log(tp).delete_before(before_offset)

    def truncate(self, tp: TopicPartition, end: int) -> None:
        """Loses everything at and beyond `end`, as an unclean leader election does."""
        self._log(tp).truncate(end)

    def compact(self, name: str, *, tail: int = 0, drop_tombstones: bool | int = False) -> None:
        """Cleans every partition: the last value per key stays, offsets stay, the newest `tail` offsets are not
        touched. `drop_tombstones` may be a time: that of `delete.retention.ms`.
        """
        for log in self._topic(name).logs:
            log.compact(tail=tail, drop_tombstones=drop_tombstones, now=self.clock())

    # --- producing without a transaction

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> tuple[TopicPartition, int]:
        """Appends one record as a plain producer does and returns where it stands.

        Raises:
            RefusedRecordError: the record is too big, its time too far ahead, or its key missing on a compacted topic.
        """
        tp = self.partition_for(topic, key, partition)
        return tp, self._append(tp, key=key, value=value, headers=headers, timestamp=timestamp)

    def partition_for(self, topic: str, key: bytes | None, partition: int = -1) -> TopicPartition:
        """Chooses as librdkafka's `murmur2_random` does; records without a key go round (where Kafka's choice is
        random).
        """
        count = len(self._topic(topic).logs)
        if partition >= 0:
            return TopicPartition(topic, partition)
        if key is not None:
            return TopicPartition(topic, murmur2_partition(key, count))
        self._round_robin += 1
        return TopicPartition(topic, self._round_robin % count)

    # --- reading

    def read(
        self,
        tp: TopicPartition,
        from_offset: int,
        isolation: Isolation = Isolation.READ_COMMITTED,
        max_records: int = 500,
    ) -> tuple[Sequence[InputRecord], int, bool]:
        """Returns records, the next offset to read from, and whether that is the end (a partition EOF).

        Raises:
            OffsetOutOfRangeError: the offset lies below the log's start or beyond its end.
        """
        self.expire_transactions()
        return self._log(tp).read(from_offset, isolation, max_records)

    def read_all(
        self, topic: str, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> Mapping[TopicPartition, Sequence[InputRecord]]:
        """Returns every record of every partition that a reader from the start would get."""
        self.expire_transactions()
        logs = enumerate(self._topic(topic).logs)
        return {
            TopicPartition(topic, number): log.read(log.start_offset, isolation, 1 << 62)[0] for number, log in logs
        }

    def entries(self, tp: TopicPartition) -> Sequence[LogEntry]:
        """Returns everything stored in a partition, markers and aborted records too, with the transaction of each."""
        return self._log(tp).entries()

    def start_offset(self, tp: TopicPartition) -> int:
        """Returns the first offset that can be read."""
        return self._log(tp).start_offset

    def end_offset(self, tp: TopicPartition, isolation: Isolation = Isolation.READ_UNCOMMITTED) -> int:
        """Returns the high watermark, or for read_committed the last stable offset."""
        self.expire_transactions()
        return self._log(tp).end_offset(isolation)

    # --- groups

    def join(
        self, group: str, topics: Iterable[str], *, protocol: GroupProtocol = "classic", instance: str | None = None
    ) -> MemoryMember:
        """Joins a consumer to a group with range assignment; it gets its partitions in `poll`."""
        return MemoryMember(self._group(group, protocol), topics, instance)

    def rebalance(self, group: str) -> None:
        """Makes a group assign anew without any change, as a coordinator's fail-over can."""
        self._group(group).rebalance()

    def committed(self, group: str, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, NextOffset | None]:
        """Returns committed next offsets, without regard to transactions that are about to change them."""
        self.expire_transactions()
        committed = self._group(group).committed
        return {tp: committed.get(tp) for tp in partitions}

    def stable_committed(
        self, group: str, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, NextOffset | None] | Unstable:
        """Returns committed next offsets, or `Unstable` while a transaction has offsets of these partitions pending."""
        self.expire_transactions()
        wanted = list(partitions)
        pending = self._group(group).pending
        blockers = {producer_id for producer_id, offsets in pending.items() if any(tp in offsets for tp in wanted)}
        if blockers:
            return Unstable(self._coordinator.names(blockers))
        return self.committed(group, wanted)

    # --- transactions, as an operator sees them

    @property
    def delayed_markers(self) -> set[TopicPartition]:
        """Partitions whose markers are held back; add to it."""
        return self._coordinator.delayed

    def open_transactions(self) -> Mapping[str, Sequence[TopicPartition]]:
        """Returns the partitions that are open or wait for their marker, by transactional id."""
        return self._coordinator.open_transactions()

    def write_markers(self, tp: TopicPartition | None = None) -> int:
        """Writes the held-back markers (of one partition), returns how many, and holds none back there any more."""
        return self._coordinator.write_markers(tp)

    @property
    def expired(self) -> int:
        """How many transactions were ended by their time-out."""
        return self._coordinator.expired

    def expire_transactions(self) -> None:
        """Aborts and fences every transaction that has been open for its time-out (done in every call, too)."""
        self._coordinator.expire()

    def commit_outside(self, offsets: Mapping[TopicPartition, NextOffset], metadata: GroupMetadata) -> None:
        """Commits next offsets at once, as a consumer does that knows of no transaction (OffsetCommit).

        Raises:
            AbortableError: the group refused the metadata.
        """
        group = self._group(metadata.group)
        group.validate(offsets, metadata)
        for tp, next_offset in offsets.items():
            group.commit(tp, next_offset, self._append_offset(metadata.group, tp, next_offset))

    # --- requests of a transactional producer

    def init_producer(self, transactional_id: str, timeout_ms: int) -> Producer:
        """Takes the transactional id: ends what the predecessor left open and fences it (InitProducerId)."""
        return self._coordinator.init(transactional_id, timeout_ms)

    def add_partition(self, producer: Producer, tp: TopicPartition) -> None:
        """Adds a partition to the producer's transaction, which begins with the first one (AddPartitionsToTxn).

        Raises:
            ProducerFencedError: a newer epoch exists.
            AbortableError: the partition does not exist, or may not be written.
        """
        self._coordinator.check(producer)
        topic = self._topics.get(tp.topic)
        if topic is None or not 0 <= tp.partition < len(topic.logs):
            raise AbortableError(f'UNKNOWN_TOPIC_OR_PART: topic "{tp.topic}" partition {tp.partition}', delivery=True)
        if not topic.writable:
            raise AbortableError(f'TOPIC_AUTHORIZATION_FAILED: topic "{tp.topic}"', delivery=True)
        self._coordinator.add(producer, tp)

    def produce(
        self, producer: Producer, tp: TopicPartition, key: bytes | None, value: bytes | None, headers: Headers
    ) -> int:
        """Appends a record to the producer's open transaction and returns its offset.

        Raises:
            ProducerFencedError: a newer epoch exists.
            AbortableError: the partition is not part of the transaction (KIP-890), or the record was refused.
        """
        if not self._coordinator.check(producer, holds=tp):
            raise AbortableError(f"INVALID_TXN_STATE: {tp} is not part of the open transaction")
        try:
            return self._append(tp, key=key, value=value, headers=headers, owner=producer)
        except RefusedRecordError as refused:
            raise AbortableError(refused.message, delivery=True) from refused

    def commit_offsets(
        self, producer: Producer, offsets: Mapping[TopicPartition, NextOffset], metadata: GroupMetadata
    ) -> None:
        """Adds next offsets to the producer's open transaction; they wait for its marker (TxnOffsetCommit).

        Raises:
            ProducerFencedError: a newer epoch exists.
            AbortableError: the group refused the metadata, or the transaction does not hold the offsets partition.
        """
        if not self._coordinator.check(producer, holds=OFFSETS_PARTITION):
            raise AbortableError(f"INVALID_TXN_STATE: {OFFSETS_PARTITION} is not part of the open transaction")
        group = self._group(metadata.group)
        group.validate(offsets, metadata)
        pending = group.pending.setdefault(producer.producer_id, {})
        for tp, next_offset in offsets.items():
            pending[tp] = self._append_offset(metadata.group, tp, next_offset, producer), next_offset

    def end_transaction(self, producer: Producer, *, commit: bool) -> None:
        """Ends the producer's transaction and writes its markers (EndTxn). Ending a second time the same way is fine.

        Raises:
            ProducerFencedError: a newer epoch exists.
            UnknownOutcomeError: nothing is open, and what was ended last ended the other way.
        """
        self._coordinator.end(producer, commit=commit)

    # --- inside

    def _write_marker(self, tp: TopicPartition, producer_id: int, commit: bool) -> None:  # noqa: FBT001
        self._log(tp).end_run(producer_id, commit=commit, timestamp=self.clock())
        if tp == OFFSETS_PARTITION:
            for group in self._groups.values():
                group.resolve(producer_id, commit=commit)

    def _append_offset(
        self, group: str, tp: TopicPartition, next_offset: NextOffset, producer: Producer | None = None
    ) -> int:
        key = f"{group}/{tp.topic}/{tp.partition}".encode()
        return self._append(OFFSETS_PARTITION, key=key, value=b"%d" % next_offset.offset, headers=(), owner=producer)

    def _append(
        self,
        tp: TopicPartition,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp: int | None = None,
        owner: Producer | None = None,
    ) -> int:
        topic, log, now = self._topic(tp.topic), self._log(tp), self.clock()
        size = record_bytes(key, value, headers) + _BATCH_OVERHEAD_BYTES
        if size > topic.max_record_bytes:
            limit = topic.max_record_bytes
            raise RefusedRecordError(
                "MSG_SIZE_TOO_LARGE", f'topic "{tp.topic}" takes {limit} bytes, the record has {size}'
            )
        if topic.compacted and key is None:
            raise RefusedRecordError("INVALID_RECORD", f'topic "{tp.topic}" is compacted and the record has no key')
        if topic.timestamps == "LogAppendTime" or timestamp is None:
            timestamp = now
        elif timestamp > now + _TIMESTAMP_AHEAD_MS:
            raise RefusedRecordError(
                "INVALID_TIMESTAMP", f'topic "{tp.topic}": {timestamp} is more than 1 h ahead of {now}'
            )
        return log.append(timestamp=timestamp, key=key, value=value, headers=headers, producer=owner)

    def _topic(self, name: str) -> _Topic:
        try:
            return self._topics[name]
        except KeyError:
            raise BrokerError(f'topic "{name}" does not exist') from None

    def _log(self, tp: TopicPartition) -> PartitionLog:
        logs = self._topic(tp.topic).logs
        if not 0 <= tp.partition < len(logs):
            raise BrokerError(f'topic "{tp.topic}" has {len(logs)} partitions, no partition {tp.partition}')
        return logs[tp.partition]

    def _group(self, name: str, protocol: GroupProtocol | None = None) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name, protocol or "classic", self.topics)
        elif protocol not in {None, group.protocol}:
            group.protocol = self._switched(group, protocol)
        return group

    def _switched(self, group: Group, protocol: GroupProtocol | None) -> GroupProtocol:
        if protocol is None or group.occupied:
            raise BrokerError(f'group "{group.name}" uses protocol "{group.protocol}", not "{protocol}"')
        return protocol

    def _rebalance_readers(self, topic: str) -> None:
        for group in self._groups.values():
            if group.reads(topic):
                group.rebalance()


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Returns what a record's own parts weigh."""
    return (
        len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(content or b"") for name, content in headers)
    )
