"""The transactional log on a broker: one slot's transactions, on a producer that is replaced where its past is
unsure.

An EndTxn or TxnOffsetCommit that is still on its way when its call has long returned can take effect in a later
transaction of the same producer epoch (KIP-890 part 2, see `connection_watch`). A new producer's init fences every
such straggler, so a producer is replaced before the next transaction when a connection dropped, a request timed out,
a call had to be retried or a delivery failed since its init.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from signal_router.kafka.transactional_producer import TransactionalProducer
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
    "linger.ms": 1,
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

_ATTEMPTS_AT_INIT = 3
_CLOSE_S = 0.5

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

    `settings` are librdkafka's. `call_timeout_s` bounds commit and abort with their retries, `init_timeout_s` the
    taking of the transactional id, the transaction time-out the sending of offsets. `batch_bytes` is asked for the
    largest batch that every destination takes (a topic's `max.message.bytes` holds for batches, not for records);
    when it falls, the producer is replaced. `recycles` counts why producers were replaced before a begin. All calls
    come from one thread at a time.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        transactional_id: str,
        *,
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
        call_timeout_s: float = 30.0,
        init_timeout_s: float = 30.0,
        batch_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.transactional_id = transactional_id
        self.recycles: Counter[str] = Counter()
        self._config = producer_config(settings, transactional_id, transaction_timeout_ms=transaction_timeout_ms)
        self._sent_bytes = 0
        self._transaction_timeout_s = transaction_timeout_ms / 1000
        self._batch_bytes = batch_bytes
        self._call_timeout_s = call_timeout_s
        self._init_timeout_s = init_timeout_s
        self._producer: TransactionalProducer | None = None
        self._broken: LogError | None = self._unknown("has no producer yet: init comes first")
        self._failed: AbortableError | None = None
        self._open = False
        self._explain = False
        self._delivered: Mapping[TopicPartition, int] = {}

    def init(self) -> None:
        """Takes the transactional id with a new producer: aborts the predecessor's open transaction and fences it.

        Blocks up to `init_timeout_s`; costs 20 to 60 ms on a healthy broker.

        Raises:
            ConfigurationError: the client refuses the settings.
        """
        self._drop_producer(self._unknown("has no producer: init did not succeed"))
        for attempt in range(1, _ATTEMPTS_AT_INIT + 1):
            producer = TransactionalProducer(self._sized())
            try:
                producer.init(self._init_timeout_s)
            except LogError as error:
                producer.drop()
                # Two that take the id at the same moment fence each other; the later one wins in the end.
                if not isinstance(error, ProducerFencedError) or attempt == _ATTEMPTS_AT_INIT:
                    self._break(error)
            else:
                self._producer, self._broken, self._failed = producer, None, None
                return

    def begin(self) -> None:
        """Begins a transaction; first recycles the producer if its past is uncertain."""
        producer = self._usable()
        if self._open:
            self._break(self._unknown("has a transaction open already"))
        try:
            reason = self._doubt(producer)
        except LogError as error:
            self._break(error)
        if reason is not None:
            self.recycles[reason] += 1
            _log.info('producer "%s" is replaced: %s', self.transactional_id, reason)
            self.init()
            producer = self._usable()
        self._failed = None
        try:
            producer.begin()
        except LogError as error:
            self._settle(error)
        self._open = True

    def produce(self, records: Sequence[OutputRecord]) -> None:
        """Adds records in order; returns before they are sent. Waits while the client's queue is full."""
        producer = self._in_transaction()
        try:
            producer.produce(records, explain=self._explain)
        except LogError as error:
            self._settle(error)
        except BaseException as error:
            # Part of the records is in, and a commit would publish that part.
            self._broken = self._unknown(f"produced only a part of its records: {error!r}")
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
        try:
            producer.send_offsets(offsets, group_metadata, self._transaction_timeout_s)
        except LogError as error:
            self._settle(error)

    def commit(self, *, deadline_s: float | None = None) -> None:
        """Commits; returns only when the outcome is known to be a commit.

        Past `deadline_s` (by default `call_timeout_s`) the commit is given up: its outcome is unknown, and the
        producer is left behind.
        """
        producer = self._in_transaction()
        try:
            producer.commit(self._call_timeout_s if deadline_s is None else deadline_s)
        except LogError as error:
            self._settle(error)
        self._open, self._explain = False, False
        self._delivered = producer.tracked

    def abort(self) -> None:
        """Aborts the open transaction, if there is one."""
        if not self._open:
            return
        producer = self._usable()
        try:
            producer.abort(self._call_timeout_s)
        except AbortableError as error:  # an abort that fails says nothing about the transaction
            self._break(self._unknown(f"could not abort: {error}"))
        except LogError as error:
            self._break(error)
        self._open, self._failed = False, None

    def delivered(self) -> Mapping[TopicPartition, int]:
        """Returns the offsets of the last committed transaction's tracked records."""
        return self._delivered

    def close(self) -> None:
        """Gives the producer up; a transaction that is open and cannot be aborted at once ends by its time-out."""
        if self._open and self._broken is None and self._producer is not None:
            try:
                self._producer.abort(_CLOSE_S)
            except LogError as error:
                _log.info("a transaction is left to its time-out: %s", error)
        self._drop_producer(self._unknown("was closed"))

    # --- inside

    def _sized(self) -> Mapping[str, Any]:
        """The settings, with batches that every destination takes now."""
        largest = int(self._config["batch.size"])
        wanted = largest if self._batch_bytes is None else min(largest, max(self._batch_bytes(), 1))
        self._sent_bytes = wanted
        return {**self._config, "batch.size": wanted}

    def _doubt(self, producer: TransactionalProducer) -> str | None:
        """Names why the producer must not be used for another transaction."""
        if self._batch_bytes is not None and self._batch_bytes() < self._sent_bytes:
            return "a destination takes smaller batches"
        return producer.doubt()

    def _drop_producer(self, reason: LogError) -> None:
        producer, self._producer = self._producer, None
        self._open, self._broken = False, reason
        if producer is not None:
            producer.drop()

    def _usable(self) -> TransactionalProducer:
        if self._broken is not None or self._producer is None:
            raise self._broken or self._unknown("has no producer")
        return self._producer

    def _in_transaction(self) -> TransactionalProducer:
        producer = self._usable()
        if not self._open:
            self._break(self._unknown("has no transaction open"))
        if self._failed is not None:
            raise self._failed
        return producer

    def _settle(self, error: LogError) -> NoReturn:
        """Keeps what a failure means for the calls to come, and raises it."""
        if not isinstance(error, AbortableError):
            self._break(error)
        self._failed = error
        if self._producer is not None and self._producer.unexplained:
            self._explain = True
        raise error

    def _break(self, error: LogError) -> NoReturn:
        self._broken = error
        raise error

    def _unknown(self, what: str) -> UnknownOutcomeError:
        return UnknownOutcomeError(f'transactional id "{self.transactional_id}" {what}')
