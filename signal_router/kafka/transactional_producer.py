"""One life of a transactional producer: the client, what it was heard to say, and its errors sorted by their flags.

Fatal errors end the producer, abortable ones the transaction, unflagged ones are taken for an unknown outcome,
retriable ones are retried under a deadline. A life remembers whatever makes its past uncertain; who owns it replaces
it for that.

A callback on every record costs 0.4 to 0.9 µs of CPU each, so only tracked records have one, and all records do
where a delivery failed before without a cause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.errors import ConfigurationError
from signal_router.kafka.bounded_calls import BoundedCalls, CallAbandonedError
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

DATA_ERRORS = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.POLICY_VIOLATION,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip
"""Errors that a record or its destination is to blame for; time-outs and lost connections are not."""

_GROUP_REFUSALS = frozenset({
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.FENCED_INSTANCE_ID,
})  # fmt: skip
"""Definite answers of the group's coordinator: nothing about the producer is in doubt after them."""

_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
_RETRY_PAUSE_S = 0.02
# The client's own time-out should win where it works: its errors say more than that nothing came back.
_GRACE_S = 0.5

DeliveryCallback = Callable[[KafkaError | None, Message], None]

_log = logging.getLogger(__name__)


class TransactionalProducer:
    """A producer from its creation to its end.

    `tracked` are the offsets of the open transaction's tracked records, complete when `commit` has returned.
    `unexplained` is True when a delivery failed and the client only counted it. Every method raises only the errors
    of `TransactionLog`.

    Raises: ConfigurationError: the client refuses the settings.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.tracked: dict[TopicPartition, int] = {}
        self.unexplained = False
        self._name = str(config["transactional.id"])
        self._suspicion: str | None = None
        self._delivery_error: KafkaError | None = None
        self._undelivered_topic: str | None = None
        self._watch = ConnectionWatch(_log)
        try:
            self._client = Producer(dict(config), logger=self._watch)
        except (KafkaException, TypeError, ValueError) as error:
            raise ConfigurationError(f'the client refuses the settings of producer "{self._name}": {error}') from error
        self._calls = BoundedCalls(f"transactions-{self._name}")

    # --- its life

    def init(self, within_s: float) -> None:
        """Takes the transactional id. What the connections went through until then is of no interest."""
        self._call("init", self._client.init_transactions, within_s)
        self._poll()
        self._suspicion = None if self._watch.heard else "the client's log is silent"
        self._watch.reset()

    def doubt(self) -> str | None:
        """Names what makes this producer's past uncertain, None when nothing does. Does not block."""
        self._poll()
        if self._suspicion is None and self._watch.trouble is not None:
            _log.info("the client lost track of a request: %s", self._watch.trouble)
            return "a connection was lost"
        return self._suspicion

    def drop(self) -> None:
        """Lets the client go without waiting for the broker; `Producer.close` waits for as long as the broker is
        away.
        """
        self._client.purge(blocking=False)
        self._calls.close()

    # --- its transactions

    def begin(self) -> None:
        """Begins a transaction."""
        self.tracked, self._delivery_error, self._undelivered_topic = {}, None, None
        try:
            self._client.begin_transaction()
        except KafkaException as error:
            raise self._mapped("begin", error) from error

    def produce(self, records: Sequence[OutputRecord], *, explain: bool) -> None:
        """Adds records in order; returns before they are sent. Waits while the client's queue is full."""
        produce = self._client.produce
        tracked = self._on_tracked
        untracked = self._on_untracked if explain else None
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
                    self._produce_when_room(record, callback)
        except KafkaException as error:
            raise self._produce_error(error) from error

    def send_offsets(
        self, offsets: Mapping[TopicPartition, NextOffset], group_metadata: bytes, within_s: float
    ) -> None:
        """Adds next offsets to the transaction."""
        positions = [
            ClientPartition(tp.topic, tp.partition, next_offset.offset, next_offset.metadata)
            for tp, next_offset in offsets.items()
        ]
        client = self._client
        self._call(
            "send_offsets",
            lambda timeout: client.send_offsets_to_transaction(positions, group_metadata, timeout),
            within_s,
        )

    def commit(self, within_s: float) -> None:
        """Commits; past `within_s` the commit goes on without anybody to hear of it."""
        client = self._client
        # Shorter time-outs "risk internal state desynchronisation" (librdkafka); −1 ends with the transaction.
        self._call("commit", lambda _timeout: client.commit_transaction(-1), within_s, grace_s=0.0)

    def abort(self, within_s: float) -> None:
        """Aborts."""
        self._call("abort", self._client.abort_transaction, within_s)

    # --- delivery reports

    def _on_tracked(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._on_untracked(error, message)
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and partition is not None and offset is not None:
            self.tracked[TopicPartition(topic, partition)] = offset

    def _on_untracked(self, error: KafkaError | None, message: Message) -> None:
        # Of a failed batch every record reports the batch's error, and what was queued behind it a purge.
        if error is not None and (self._delivery_error is None or error.code() in DATA_ERRORS):
            self._delivery_error, self._undelivered_topic = error, message.topic()

    def _produce_when_room(self, record: OutputRecord, callback: DeliveryCallback | None) -> None:
        """Waits for the client's queue to drain; the time-out of deliveries ends the wait at the latest."""
        while True:
            self._client.poll(0.01)
            try:
                self._client.produce(
                    record.topic, record.value, record.key, record.partition, callback, None, 0, [*record.headers]
                )
            except BufferError:
                continue
            return

    # --- calls and their errors

    def _poll(self) -> None:
        try:
            self._client.poll(0)
        except KafkaException as error:  # a fatal error that came meanwhile
            raise self._mapped("poll", error) from error

    def _call(
        self, call: str, request: Callable[[float], object], within_s: float, *, grace_s: float = _GRACE_S
    ) -> None:
        """Makes one blocking call, again and again while its error is retriable."""
        deadline = time.monotonic() + within_s
        while True:
            remaining = max(deadline - time.monotonic(), 0.001)
            try:
                self._calls(lambda left=remaining: request(left), remaining + grace_s)  # type: ignore[misc]
            except CallAbandonedError as error:
                raise self._unknown(call, "did not return in time") from error
            except KafkaException as raised:
                if not _retriable(raised):
                    raise self._mapped(call, raised) from raised
                self._suspicion = f"{call} was retried"
                if time.monotonic() >= deadline:
                    raise self._unknown(call, f"gave no answer in time: {raised.args[0].str()}") from raised
                time.sleep(_RETRY_PAUSE_S)
            else:
                return

    def _mapped(self, call: str, raised: KafkaException) -> LogError:
        """Turns a client's error into one of the three that callers act on: by its flags, not by its code."""
        error: KafkaError = raised.args[0]
        text = f'{call} of transactional id "{self._name}": {error.name()}: {error.str()}'
        if error.fatal():
            return (ProducerFencedError if error.code() in _FENCED else UnknownOutcomeError)(text)
        if not error.txn_requires_abort():
            return UnknownOutcomeError(text)
        if error.code() in _GROUP_REFUSALS:
            return AbortableError(text, membership=True)
        self._suspicion = "a delivery failed"
        cause = error if self._delivery_error is None else self._delivery_error
        # The client may only have counted the failure. The same records will fail again, and then say why.
        self.unexplained = error.code() == KafkaError._INCONSISTENT and self._delivery_error is None
        if cause is not error:
            text += f' ({cause.name()}, topic "{self._undelivered_topic}")'
        return AbortableError(text, delivery=cause.code() in DATA_ERRORS or self._destination_missing(cause))

    def _destination_missing(self, cause: KafkaError) -> bool:
        """Says whether records timed out because their topic is missing: the client waits for it, and says no more."""
        topic = self._undelivered_topic
        if cause.code() != KafkaError._MSG_TIMED_OUT or topic is None:
            return False
        try:
            found = self._client.list_topics(topic, 2.0).topics.get(topic)
        except KafkaException:
            return False
        return found is None or (found.error is not None and found.error.code() in DATA_ERRORS)

    def _produce_error(self, raised: KafkaException) -> LogError:
        """Finds the transaction's real error where produce says only that it is impossible now.

        `begin_transaction` inside a transaction changes nothing and reports the error the transaction is stuck on.
        """
        if raised.args[0].code() not in {KafkaError._STATE, KafkaError._FATAL}:
            return self._mapped("produce", raised)
        try:
            self._client.begin_transaction()
        except KafkaException as real:
            return self._mapped("produce", real)
        return self._unknown("produce", "found no open transaction")

    def _unknown(self, call: str, what: str) -> UnknownOutcomeError:
        return UnknownOutcomeError(f'{call} of transactional id "{self._name}" {what}')


def _retriable(raised: KafkaException) -> bool:
    error: KafkaError = raised.args[0]
    return bool(error.retriable() and not error.fatal() and not error.txn_requires_abort())
