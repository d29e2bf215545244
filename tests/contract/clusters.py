"""One surface over both clusters, so that the contract is said once, to memory and to a real broker alike."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model.log import InputRecord, NextOffset, TopicPartition, TransactionLog
from signal_router.testing.memory_log import CLIENT_MAX_RECORD_BYTES, Isolation, MemoryBroker, MemoryLog, Unstable

if TYPE_CHECKING:
    from signal_router.testing.memory_log import ManualClock, MemoryMember

WAIT_S = 30.0
MARKERS_S = 0.5
UNSTABLE = KafkaError.UNSTABLE_OFFSET_COMMIT


class Member(Protocol):
    """A consumer in the group, driven by the test's own thread."""

    @property
    def partitions(self) -> Sequence[TopicPartition]: ...

    def group_metadata(self) -> bytes: ...

    def poll(self) -> object: ...

    def leave(self) -> None: ...


class Cluster(Protocol):
    """What the contract needs of a broker beside the log itself."""

    group: str
    protocol: str

    def topic(self, partitions: int = 1, *, max_record_bytes: int | None = None) -> str: ...

    def log(self, slot: str = "slot", *, transaction_timeout_ms: int = 10_000) -> TransactionLog: ...

    def read(
        self, topic: str, partition: int = 0, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> list[InputRecord]: ...

    def end(self, topic: str, partition: int = 0, isolation: Isolation = Isolation.READ_UNCOMMITTED) -> int: ...

    def committed(
        self, *partitions: TopicPartition, stable: bool = True
    ) -> Mapping[TopicPartition, NextOffset | None]: ...

    def stable(self, *partitions: TopicPartition) -> bool: ...

    def join(self, topic: str) -> Member: ...

    def let_time_out(self, log: TransactionLog, topic: str, timeout_ms: int) -> None: ...

    def close(self) -> None: ...


def until(condition: Callable[[], bool], *members: Member, within_s: float = WAIT_S) -> None:
    """Polls the members until the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        for member in members:
            member.poll()


def wait_for_end(cluster: Cluster, topic: str, offset: int) -> None:
    """A real client sends in the background; what is to be aborted should be in the log first."""
    until(lambda: cluster.end(topic) >= offset)


class MemoryCluster:
    def __init__(self, protocol: str = "classic") -> None:
        self.broker = MemoryBroker()
        self.group = "app"
        self.protocol = protocol
        self._topics = 0

    def topic(self, partitions: int = 1, *, max_record_bytes: int | None = None) -> str:
        self._topics += 1
        name = f"topic-{self._topics}"
        limit = {} if max_record_bytes is None else {"max_record_bytes": max_record_bytes}
        self.broker.create_topic(name, partitions, **limit)
        return name

    def log(self, slot: str = "slot", *, transaction_timeout_ms: int = 10_000) -> MemoryLog:
        return MemoryLog(self.broker, slot, transaction_timeout_ms=transaction_timeout_ms)

    def read(self, topic, partition=0, isolation=Isolation.READ_COMMITTED):
        records, next_offset, at_end = self.broker.read(TopicPartition(topic, partition), 0, isolation, 10_000)
        assert at_end
        assert next_offset == self.end(topic, partition, isolation)
        return records

    def end(self, topic, partition=0, isolation=Isolation.READ_UNCOMMITTED):
        return self.broker.end_offset(TopicPartition(topic, partition), isolation)

    def committed(self, *partitions, stable=True):
        if not stable:
            return self.broker.committed(self.group, partitions)
        offsets = self.broker.stable_committed(self.group, partitions)
        assert not isinstance(offsets, Unstable), offsets
        return offsets

    def stable(self, *partitions):
        return not isinstance(self.broker.stable_committed(self.group, partitions), Unstable)

    def join(self, topic: str) -> MemoryMember:
        return self.broker.join(self.group, [topic], protocol=self.protocol)

    def let_time_out(self, log, topic, timeout_ms):
        clock: ManualClock = self.broker.clock
        clock.advance(timeout_ms)

    def close(self) -> None:
        pass


class KafkaMember:
    def __init__(self, settings: dict[str, object], topic: str) -> None:
        self.consumer = Consumer(settings)
        self.consumer.subscribe([topic])
        self.left = False

    @property
    def partitions(self):
        return tuple(TopicPartition(tp.topic, tp.partition) for tp in self.consumer.assignment())

    def group_metadata(self) -> bytes:
        return self.consumer.consumer_group_metadata()

    def poll(self) -> object:
        return self.consumer.poll(0.05)

    def leave(self) -> None:
        if not self.left:
            self.left = True
            self.consumer.close()


class KafkaCluster:
    def __init__(self, bootstrap: str, prefix: str, protocol: str = "classic") -> None:
        self.group = f"{prefix}app"
        self._settings = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._prefix = prefix
        self.protocol = protocol
        self._admin = AdminClient(self._settings)
        self._logs: list[KafkaTransactionLog] = []
        self._members: list[KafkaMember] = []

    def topic(self, partitions: int = 1, *, max_record_bytes: int | None = None) -> str:
        name = f"{self._prefix}{uuid.uuid4().hex[:8]}"
        config = {} if max_record_bytes is None else {"max.message.bytes": str(max_record_bytes)}
        self._admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result()
        return name

    def log(self, slot: str = "slot", *, transaction_timeout_ms: int = 10_000) -> KafkaTransactionLog:
        settings = {
            "bootstrap.servers": self._settings["bootstrap.servers"],
            "message.max.bytes": CLIENT_MAX_RECORD_BYTES,  # as in memory, where a larger record is refused too
        }
        log = KafkaTransactionLog(settings, self._prefix + slot, transaction_timeout_ms=transaction_timeout_ms)
        self._logs.append(log)
        return log

    def read(self, topic, partition=0, isolation=Isolation.READ_COMMITTED):
        self._let_markers_arrive(topic, partition)
        consumer = Consumer(
            {
                **self._settings, "group.id": f"{self.group}-reader", "isolation.level": isolation.value,
                "enable.partition.eof": True, "enable.auto.commit": False, "fetch.wait.max.ms": 10,
                "auto.offset.reset": "error",
            }
        )  # fmt: skip
        consumer.assign([ClientPartition(topic, partition, 0)])
        records = []
        deadline = time.monotonic() + WAIT_S
        while True:
            assert time.monotonic() < deadline, "no end of the partition in time"
            message = consumer.poll(0.2)
            if message is None:
                continue
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                consumer.close()
                return records
            record = InputRecord(
                message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers()
            )
            records.append(record)

    def end(self, topic, partition=0, isolation=Isolation.READ_UNCOMMITTED):
        if isolation is Isolation.READ_COMMITTED:
            self._let_markers_arrive(topic, partition)
        return self._end(topic, partition, isolation)

    def _let_markers_arrive(self, topic, partition):
        """A commit returns when it is decided, its markers come a moment later. Gives up on an open transaction."""
        deadline = time.monotonic() + MARKERS_S
        while time.monotonic() < deadline:
            if self._end(topic, partition, Isolation.READ_COMMITTED) == self._end(topic, partition):
                return

    def _end(self, topic, partition, isolation=Isolation.READ_UNCOMMITTED):
        tp = ClientPartition(topic, partition)
        level = IsolationLevel[isolation.name]
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return self._admin.list_offsets({tp: OffsetSpec.latest()}, isolation_level=level)[tp].result().offset
            except KafkaException:  # after its broker's death an admin client may never find a leader again
                if time.monotonic() > deadline:
                    raise
                self._admin = AdminClient(self._settings)

    def committed(self, *partitions, stable=True):
        found = self._offsets(partitions, WAIT_S if stable else 0)
        assert not any(tp.error for tp in found), found
        return {
            TopicPartition(tp.topic, tp.partition): NextOffset(tp.offset, tp.metadata or "") if tp.offset >= 0 else None
            for tp in found
        }

    def stable(self, *partitions):
        return UNSTABLE not in {tp.error.code() for tp in self._offsets(partitions, MARKERS_S) if tp.error is not None}

    def _offsets(self, partitions, within_s):
        """Asks until the answer is stable, or for `within_s`."""
        wanted = [ClientPartition(tp.topic, tp.partition) for tp in partitions]
        request = ConsumerGroupTopicPartitions(self.group, wanted)
        deadline = time.monotonic() + within_s
        while True:
            answers = self._admin.list_consumer_group_offsets([request], require_stable=within_s > 0)
            found = answers[self.group].result().topic_partitions
            unstable = any(tp.error is not None and tp.error.code() == UNSTABLE for tp in found)
            if not unstable or time.monotonic() > deadline:
                return found

    def join(self, topic: str) -> KafkaMember:
        classic = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 300, "partition.assignment.strategy": "range"}
        modern = {"group.protocol": "consumer", "group.remote.assignor": "range"}
        settings = {
            **self._settings, "group.id": self.group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
            **(classic if self.protocol == "classic" else modern),
        }  # fmt: skip
        member = KafkaMember(settings, topic)
        self._members.append(member)
        return member

    def let_time_out(self, log, topic, timeout_ms):
        # The broker looks every 10 s by itself; a second reader sees the abort as the end of the waiting.
        deadline = time.monotonic() + timeout_ms / 1000 + 15
        while self._end(topic, 0, Isolation.READ_COMMITTED) < self._end(topic, 0):
            assert time.monotonic() < deadline, "the coordinator did not abort the transaction"
            time.sleep(0.1)

    def close(self) -> None:
        for member in self._members:
            member.leave()
        for log in self._logs:
            log.close()
