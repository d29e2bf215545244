"""The transactional log in memory: `MemoryLog` is to `MemoryBroker` what `KafkaTransactionLog` is to a real broker.

Both run under one contract suite. Unlike a real client this one is told of a failure in the call that caused it or,
for a record the broker refused, at the end of the transaction (`send_offsets` or `commit`), where a real client may
be told at any call between; code that works on both acts on the class of the error only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import (
    AbortableError,
    LogError,
    NextOffset,
    OutputRecord,
    ProducerFencedError,
    TopicPartition,
    UnknownOutcomeError,
)
from signal_router.testing.clock import ManualClock
from signal_router.testing.memory_broker import (
    DEFAULT_MAX_RECORD_BYTES,
    OFFSETS_PARTITION,
    MemoryBroker,
    RefusedRecordError,
    Unstable,
    record_bytes,
)
from signal_router.testing.memory_faults import Call, Effect, Faults
from signal_router.testing.memory_group import GroupProtocol, MemoryMember, Rebalance
from signal_router.testing.memory_partition import Isolation, LogEntry, OffsetOutOfRangeError, Producer, Run

__all__ = [
    "DEFAULT_MAX_RECORD_BYTES",
    "OFFSETS_PARTITION",
    "Effect",
    "Faults",
    "GroupProtocol",
    "Isolation",
    "LogEntry",
    "ManualClock",
    "MemoryBroker",
    "MemoryLog",
    "MemoryMember",
    "OffsetOutOfRangeError",
    "Producer",
    "Rebalance",
    "RefusedRecordError",
    "Run",
    "Unstable",
]

# librdkafka's default `message.max.bytes`: a bigger record is refused by the client itself.
CLIENT_MAX_RECORD_BYTES = 1_000_000


class MemoryLog:
    """A `TransactionLog` on a `MemoryBroker`.

    `tripwire=False` leaves the rule of KIP-890 part 2 out (the producer is kept after an uncertain end): a mutant
    that a proof must catch. `recycles` counts why producers were replaced before a begin.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        transactional_id: str,
        *,
        faults: Faults | None = None,
        transaction_timeout_ms: int = 10_000,
        max_record_bytes: int = CLIENT_MAX_RECORD_BYTES,
        tripwire: bool = True,
    ) -> None:
        self.transactional_id = transactional_id
        self.recycles: Counter[str] = Counter()
        self._broker = broker
        self._faults = faults or Faults()
        self._timeout_ms = transaction_timeout_ms
        self._max_record_bytes = max_record_bytes
        self._tripwire = tripwire
        self._producer: Producer | None = None
        self._broken: LogError | None = UnknownOutcomeError(f'transactional id "{transactional_id}" is not initialised')
        self._suspicion: str | None = None
        self._open = False
        self._failed: AbortableError | None = None
        self._added: set[TopicPartition] = set()
        self._tracked: dict[TopicPartition, int] = {}
        self._delivered: dict[TopicPartition, int] = {}

    def init(self) -> None:
        """Takes the transactional id: aborts the predecessor's open transaction and fences it."""
        self._reset()
        self._attempt("init", self._init)
        self._broken = self._suspicion = None

    def begin(self) -> None:
        """Begins a transaction, after a new `init` if the last one ended on an uncertain path."""
        self._check()
        if self._open:
            self._break(UnknownOutcomeError("a transaction is open already"))
        if self._suspicion is not None and self._tripwire:
            self.recycles[self._suspicion] += 1
            self.init()
        self._reset()
        self._open = True
        self._attempt("begin", lambda: None)

    def produce(self, records: Sequence[OutputRecord]) -> None:
        """Adds records to the open transaction."""
        self._check_open()
        self._attempt("produce", lambda: self._produce(records))

    def send_offsets(self, offsets: Mapping[TopicPartition, NextOffset], group_metadata: bytes) -> None:
        """Adds next offsets under the group metadata."""
        for tp, next_offset in offsets.items():
            if next_offset.offset < 0:
                raise ValueError(f"next offset of {tp} is {next_offset.offset}; clients drop it without a word")
        self._check_open()
        metadata, copy = GroupMetadata.decode(group_metadata), dict(offsets)
        self._fail_late()
        self._add(OFFSETS_PARTITION)
        producer = self._current
        self._attempt("send_offsets", lambda: self._broker.commit_offsets(producer, copy, metadata))

    def commit(self) -> None:
        """Commits; returns only when the outcome is known to be a commit."""
        self._check_open()
        self._fail_late()
        self._end(commit=True)
        self._delivered = dict(self._tracked)

    def abort(self) -> None:
        """Aborts the open transaction, if there is one."""
        if not self._open:
            return
        self._check()
        if self._failed is not None and "TOPIC_AUTHORIZATION_FAILED" in str(self._failed):
            self._break(UnknownOutcomeError(f"abort failed: {self._failed}"))
        if self._failed is not None and self._failed.delivery:
            self._suspicion = "a delivery failed"
        self._end(commit=False)

    def delivered(self) -> Mapping[TopicPartition, int]:
        """Returns the offsets of the last committed transaction's tracked records."""
        return self._delivered

    def close(self) -> None:
        """Gives the producer up; what is open waits for its time-out or a successor."""
        self._break_quietly(UnknownOutcomeError(f'transactional id "{self.transactional_id}" was closed'))

    # --- requests

    @property
    def _current(self) -> Producer:
        if self._producer is None:
            raise UnknownOutcomeError(f'transactional id "{self.transactional_id}" is not initialised')
        return self._producer

    def _init(self) -> None:
        self._producer = self._broker.init_producer(self.transactional_id, self._timeout_ms)

    def _produce(self, records: Sequence[OutputRecord]) -> None:
        for record in records:
            size = record_bytes(record.key, record.value, record.headers)
            if size > self._max_record_bytes:
                limit = self._max_record_bytes
                raise UnknownOutcomeError(
                    f'MSG_SIZE_TOO_LARGE: a record for topic "{record.topic}" has {size} bytes, limit {limit}'
                )
            if self._failed is None:
                self._produce_one(record)

    def _produce_one(self, record: OutputRecord) -> None:
        try:
            tp = TopicPartition(record.topic, record.partition)
            if record.partition < 0 and record.topic in self._broker.topics():
                tp = self._broker.partition_for(record.topic, record.key)
            self._add(tp)
            offset = self._broker.produce(self._current, tp, record.key, record.value, record.headers)
        except AbortableError as error:
            self._failed = error
            return
        if record.tracked:
            self._tracked[tp] = offset

    def _add(self, tp: TopicPartition) -> None:
        """Adds a partition once per transaction: a real client remembers what it added and does not ask again."""
        if tp not in self._added:
            self._broker.add_partition(self._current, tp)
            self._added.add(tp)

    def _end(self, *, commit: bool) -> None:
        if self._added:
            producer = self._current
            self._attempt(
                "commit" if commit else "abort", lambda: self._broker.end_transaction(producer, commit=commit)
            )
        else:  # nothing reached the coordinator, so the client asks it for nothing
            self._attempt("commit" if commit else "abort", lambda: None)
        self._open, self._failed = False, None

    # --- outcomes

    def _attempt(self, call: Call, request: Callable[[], None]) -> None:
        """Sends a request, or does to it what the armed fault says, and settles what its failure means for this
        producer.
        """
        fault = self._faults.take(call, self.transactional_id)
        error, effect = fault if fault is not None else (None, Effect.DONE)
        if effect is Effect.HELD:
            self._faults.hold(request)
        if effect is Effect.DONE or error is None:
            try:
                request()
            except AbortableError as refused:
                self._failed = refused
                raise
            except LogError as broken:
                self._break(broken)
        if fault is not None:
            self._suspicion = f"{call} on an uncertain path"
        if error is not None:
            raised = error(f"{call} failed (injected, effect: {effect})")
            if isinstance(raised, AbortableError):
                self._failed = raised
                raise raised
            self._break(raised)

    def _reset(self) -> None:
        self._open, self._failed = False, None
        self._added, self._tracked = set(), {}

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _check_open(self) -> None:
        self._check()
        if not self._open:
            self._break(UnknownOutcomeError("no transaction is open"))
        if self._failed is not None and not self._failed.delivery:
            raise self._failed

    def _fail_late(self) -> None:
        """Raises what a delivery report would have said by now."""
        if self._failed is not None:
            raise self._failed

    def _break(self, error: LogError) -> None:
        self._break_quietly(error)
        raise error

    def _break_quietly(self, error: LogError) -> None:
        if not isinstance(self._broken, ProducerFencedError):
            self._broken = error
