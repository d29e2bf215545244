"""The transactional log on a broker: one slot's producer, its errors sorted by their flags, replaced where its past
is unsure.

Three things a transactional producer of librdkafka does not do by itself are done here. Errors become the three
classes of `signal_router.model.log`: fatal ones end the producer, abortable ones the transaction, unflagged ones are
taken for an unknown outcome, retriable ones are retried under a deadline. A producer is replaced before the next
transaction when a connection dropped, a request timed out, a call had to be retried or a delivery failed since it
was made (KIP-890 part 2, see `connection_watch`). And what a failed delivery was about is found out where the client
only counts it.

A callback on every record costs 0.4 to 0.9 µs of CPU each, so only tracked records have one, and all records do in
the one transaction after a delivery failed without a cause.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.errors import ConfigurationError
from signal_router.kafka.connection_watch import ConnectionWatch
from signal_router.model.log import (
    AbortableError,
    LogError,
    NextOffset,
    OutputRecord,
    ProducerFencedError,
    TopicPartition,
    UnknownOutcomeError,
)

TRANSACTION_TIMEOUT_MS = 10_000
"""How long an abandoned transaction may stall readers (librdkafka's own default is a minute)."""

MAX_RECORD_BYTES = 64 << 20
"""The client's own limit for a record."""

DEFAULTS: Mapping[str, Any] = {
    "linger.ms": 5,
    "compression.type": "lz4",
    "batch.num.messages": 100_000,
    "batch.size": 1_000_000,
    # A transaction of 5,000 signals may fan out widely; a full queue would make produce wait for the broker.
    "queue.buffering.max.messages": 2_000_000,
    # The coordinator answers "not yet" while it writes the last transaction's markers; by default the client then waits
    # 100 ms, which alone gave a p99 of 447 ms where 75 ms are possible.
    "retry.backoff.ms": 2,
    "retry.backoff.max.ms": 20,
    # Each topic has its own limit and outputs are checked against it; the client's must be larger than all of them.
    "message.max.bytes": MAX_RECORD_BYTES,
}
"""Settings an operator may change."""

_DATA_ERRORS = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.POLICY_VIOLATION,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip
"""Delivery errors that a record or its destination is to blame for; time-outs and lost connections are not."""

_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
_GROUP_REFUSALS = frozenset({
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.FENCED_INSTANCE_ID,
})  # fmt: skip
"""Definite answers of the group's coordinator: nothing about the producer is in doubt after them."""

DeliveryCallback = Callable[[KafkaError | None, Message], None]

_ATTEMPTS_AT_INIT = 3
_RETRY_PAUSE_S = 0.02

_log = logging.getLogger(__name__)


def producer_config(
    settings: Mapping[str, Any], transactional_id: str, *, transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS
) -> dict[str, Any]:
    """Completes the operator's settings (which hold at least `bootstrap.servers`) by our defaults and by what must
    be.
    """
    return {
        **DEFAULTS,
        **settings,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": transaction_timeout_ms,
        # A record that is given up must be given up while its transaction can still be aborted.
        "message.timeout.ms": transaction_timeout_ms * 4 // 5,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
        # What the connection watch listens to: three lines per clean transaction.
        "debug": "broker",
        "log_level": 7,
        "log.connection.close": True,
    }


class KafkaTransactionLog:
    """A `TransactionLog` on a confluent-kafka producer, made by `init` and remade whenever it must be.

    `settings` are librdkafka's. `call_timeout_s` bounds the retries of one call, `init_timeout_s` those of taking
    the transactional id. `recycles` counts why producers were replaced before a begin. All calls come from one
    thread at a time.

    Raises: ConfigurationError: in `init`, when the client refuses the settings.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        transactional_id: str,
        *,
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
        call_timeout_s: float = 30.0,
        init_timeout_s: float = 30.0,
    ) -> None:
        self.transactional_id = transactional_id
        self.recycles: Counter[str] = Counter()
        self._config = producer_config(settings, transactional_id, transaction_timeout_ms=transaction_timeout_ms)
        self._call_timeout_s = call_timeout_s
        self._init_timeout_s = init_timeout_s
        self._producer: Producer | None = None
        self._watch = ConnectionWatch(_log)
        self._broken: LogError | None = self._unknown("init", "was not called yet")
        self._failed: AbortableError | None = None
        self._suspicion: str | None = None
        self._open = False
        self._explain_deliveries = False
        self._delivery_error: KafkaError | None = None
        self._undelivered_topic: str | None = None
        self._tracked: dict[TopicPartition, int] = {}
        self._delivered: Mapping[TopicPartition, int] = {}

    # --- the producer's life

    def init(self) -> None:
        """Takes the transactional id with a new producer: aborts the predecessor's open transaction and fences it.

        Blocks up to `init_timeout_s`; costs 20 to 60 ms on a healthy broker.
        """
        self._drop_producer(self._unknown("init", "did not succeed"))
        deadline = time.monotonic() + self._init_timeout_s
        for attempt in range(1, _ATTEMPTS_AT_INIT + 1):
            self._watch = ConnectionWatch(_log)
            self._producer = producer = self._create()
            try:
                self._retrying("init", producer.init_transactions, deadline)
                producer.poll(0)
            except (KafkaException, LogError) as error:
                mapped = error if isinstance(error, LogError) else self._mapped("init", error)
                self._drop_producer(mapped)
                # Two that take the id at the same moment fence each other; the later one wins in the end.
                if isinstance(mapped, ProducerFencedError) and attempt < _ATTEMPTS_AT_INIT:
                    continue
                raise mapped from error
            break
        self._watch.reset()
        self._suspicion = None if self._watch.heard else "the client's log is silent"
        self._open, self._broken, self._failed = False, None, None

    def close(self) -> None:
        """Gives the producer up; a transaction that is open and cannot be aborted at once ends by its time-out."""
        producer = self._producer
        if self._open and self._broken is None and producer is not None:
            try:
                producer.abort_transaction(0.5)
            except KafkaException as error:
                _log.info("transaction left to its time-out at close: %s", error)
        self._drop_producer(self._unknown("close", "has given the producer up"))

    # --- the transaction

    def begin(self) -> None:
        """Begins a transaction; first recycles the producer if its past is uncertain."""
        producer = self._usable()
        if self._open:
            self._break(self._unknown("begin", "came inside an open transaction"))
        if (reason := self._doubt(producer)) is not None:
            self.recycles[reason] += 1
            _log.info('producer "%s" is replaced: %s', self.transactional_id, reason)
            self.init()
            producer = self._usable()
        self._failed, self._delivery_error, self._undelivered_topic, self._tracked = None, None, None, {}
        self._call("begin", lambda _timeout: producer.begin_transaction())
        self._open = True

    def produce(self, records: Sequence[OutputRecord]) -> None:
        """Adds records in order; returns before they are sent. Waits while the client's queue is full."""
        producer = self._in_transaction()
        produce = producer.produce
        tracked = self._on_tracked
        untracked = self._on_untracked if self._explain_deliveries else None
        headers: tuple[tuple[str, bytes], ...] | None = None
        listed: list[tuple[str, str | bytes | None]] = []
        try:
            for record in records:
                if record.headers is not headers:
                    headers = record.headers
                    listed = [*headers]
                callback = tracked if record.tracked else untracked
                try:
                    produce(record.topic, record.value, record.key, record.partition, callback, None, 0, listed)
                except BufferError:
                    self._produce_when_room(producer, record, callback)
        except KafkaException as error:
            self._settle(self._produce_error(producer, error), error)
        except BaseException as error:
            # Part of the records is in, and a commit would publish that part.
            self._broken = self._unknown("produce", f"was interrupted by {error!r}")
            raise

    def send_offsets(self, offsets: Mapping[TopicPartition, NextOffset], group_metadata: bytes) -> None:
        """Adds next offsets under the group metadata; a refusal for generation or member is an `AbortableError`.

        Raises:
            ValueError: a next offset is negative; the client would drop it without a word.
        """
        for tp, next_offset in offsets.items():
            if next_offset.offset < 0:
                raise ValueError(f"next offset of {tp} is {next_offset.offset}")
        producer = self._in_transaction()
        positions = [
            ClientPartition(tp.topic, tp.partition, next_offset.offset, next_offset.metadata)
            for tp, next_offset in offsets.items()
        ]
        self._call(
            "send_offsets", lambda timeout: producer.send_offsets_to_transaction(positions, group_metadata, timeout)
        )

    def commit(self, *, deadline_s: float | None = None) -> None:
        """Commits; returns only when the outcome is known to be a commit.

        Without `deadline_s` it may block for as long as the broker is away, up to `call_timeout_s` and one transaction
        time-out. Past the deadline the commit is given up: the outcome is unknown and the producer done with.
        """
        producer = self._in_transaction()
        if deadline_s is None:
            # Shorter time-outs "risk internal state desynchronisation" (librdkafka); −1 ends with the transaction.
            self._call("commit", lambda _timeout: producer.commit_transaction(-1))
        else:
            self._call("commit", producer.commit_transaction, timeout_s=deadline_s)
        self._open, self._explain_deliveries = False, False
        self._delivered = self._tracked

    def abort(self) -> None:
        """Aborts the open transaction, if there is one."""
        if not self._open:
            return
        producer = self._usable()
        try:
            self._call("abort", producer.abort_transaction)
        except AbortableError as error:  # an abort that fails says nothing about the transaction
            self._break(self._unknown("abort", str(error)))
        self._open, self._failed = False, None

    def delivered(self) -> Mapping[TopicPartition, int]:
        """Returns the offsets of the last committed transaction's tracked records."""
        return self._delivered

    # --- inside: delivery reports

    def _on_tracked(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._on_untracked(error, message)
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and partition is not None and offset is not None:
            self._tracked[TopicPartition(topic, partition)] = offset

    def _on_untracked(self, error: KafkaError | None, message: Message) -> None:
        # Of a failed batch every record reports the batch's error, and what was queued behind it a purge.
        if error is not None and (self._delivery_error is None or error.code() in _DATA_ERRORS):
            self._delivery_error, self._undelivered_topic = error, message.topic()

    def _produce_when_room(self, producer: Producer, record: OutputRecord, callback: DeliveryCallback | None) -> None:
        """Waits for the client's queue to drain; the time-out of deliveries ends the wait at the latest."""
        while True:
            producer.poll(0.01)
            try:
                producer.produce(
                    record.topic, record.value, record.key, record.partition, callback, None, 0, [*record.headers]
                )
            except BufferError:
                continue
            return

    # --- inside: calls and their errors

    def _call(self, call: str, request: Callable[[float], object], *, timeout_s: float | None = None) -> None:
        """Makes one call with its retries and settles what its failure means for transaction and producer."""
        deadline = time.monotonic() + (self._call_timeout_s if timeout_s is None else timeout_s)
        try:
            self._retrying(call, request, deadline)
        except KafkaException as error:
            self._settle(self._mapped(call, error), error)
        except LogError as error:
            self._settle(error, error.__cause__)

    def _retrying(self, call: str, request: Callable[[float], object], deadline: float) -> None:
        while True:
            try:
                request(max(deadline - time.monotonic(), 0.001))
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.fatal() or error.txn_requires_abort() or not error.retriable():
                    raise
                self._suspicion = f"{call} was retried"
                if time.monotonic() >= deadline:
                    raise self._unknown(call, f"gave no answer in time: {error.str()}") from raised
                time.sleep(_RETRY_PAUSE_S)
            else:
                return

    def _mapped(self, call: str, raised: KafkaException) -> LogError:
        """Turns a client's error into one of the three that callers act on: by its flags, not by its code."""
        error: KafkaError = raised.args[0]
        text = f'{call} of transactional id "{self.transactional_id}": {error.name()}: {error.str()}'
        if error.fatal():
            return (ProducerFencedError if error.code() in _FENCED else UnknownOutcomeError)(text)
        if not error.txn_requires_abort():
            return UnknownOutcomeError(text)
        if error.code() in _GROUP_REFUSALS:
            return AbortableError(text)
        self._suspicion = "a delivery failed"
        cause = error if self._delivery_error is None else self._delivery_error
        if error.code() == KafkaError._INCONSISTENT and self._delivery_error is None:
            self._explain_deliveries = True  # the client only counted it: the same records will fail again, and say why
        if cause is not error:
            text += f' ({cause.name()}, topic "{self._undelivered_topic}")'
        return AbortableError(text, delivery=cause.code() in _DATA_ERRORS or self._destination_missing(cause))

    def _destination_missing(self, cause: KafkaError) -> bool:
        """Says whether records timed out because their topic is missing: the client waits for it, and says no more."""
        topic, producer = self._undelivered_topic, self._producer
        if cause.code() != KafkaError._MSG_TIMED_OUT or topic is None or producer is None:
            return False
        try:
            found = producer.list_topics(topic, 2.0).topics.get(topic)
        except KafkaException:
            return False
        return found is None or (found.error is not None and found.error.code() in _DATA_ERRORS)

    def _produce_error(self, producer: Producer, raised: KafkaException) -> LogError:
        """Finds the transaction's real error where produce says only that it is impossible now.

        `begin_transaction` inside a transaction changes nothing and reports the error the transaction is stuck on.
        """
        if raised.args[0].code() not in {KafkaError._STATE, KafkaError._FATAL}:
            return self._mapped("produce", raised)
        try:
            producer.begin_transaction()
        except KafkaException as real:
            return self._mapped("produce", real)
        return self._unknown("produce", "found no open transaction")

    def _settle(self, error: LogError, cause: BaseException | None) -> NoReturn:
        if isinstance(error, AbortableError):
            self._failed = error
        else:
            self._broken = error
        raise error from cause

    def _break(self, error: LogError) -> NoReturn:
        self._settle(error, None)

    def _unknown(self, call: str, what: str) -> UnknownOutcomeError:
        return UnknownOutcomeError(f'{call} of transactional id "{self.transactional_id}" {what}')

    # --- inside: the producer

    def _create(self) -> Producer:
        try:
            return Producer(self._config, logger=self._watch)
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigurationError(
                f'the client refuses the settings of producer "{self.transactional_id}": {error}'
            ) from error

    def _drop_producer(self, reason: LogError) -> None:
        """Lets the producer go without waiting for the broker: `Producer.close` waits for as long as the broker is
        away.
        """
        producer, self._producer = self._producer, None
        self._open, self._broken = False, reason
        if producer is not None:
            producer.purge()

    def _doubt(self, producer: Producer) -> str | None:
        """Names what makes the producer's past uncertain, None when nothing does."""
        try:
            producer.poll(0)
        except KafkaException as error:
            self._settle(self._mapped("begin", error), error)
        if self._suspicion is None and self._watch.trouble is not None:
            _log.info("the client lost track of a request: %s", self._watch.trouble)
            return "a connection was lost"
        return self._suspicion

    def _usable(self) -> Producer:
        if self._broken is not None or self._producer is None:
            raise self._broken or self._unknown("call", "came without a producer")
        return self._producer

    def _in_transaction(self) -> Producer:
        producer = self._usable()
        if not self._open:
            self._break(self._unknown("call", "came outside a transaction"))
        if self._failed is not None:
            raise self._failed
        return producer
