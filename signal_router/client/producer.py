"""`SignalProducer`: publishes signals so that each is there once, or the program knows that it may not be.

Outside transactions the client is idempotent: its own retries write a record once. What a program does itself (a run
that is repeated, a signal sent again after a time-out) is made harmless by the signal's id, not by the client.

Where several signals are to be there all or none, a producer with a transactional id publishes each `when_done` block
in one Kafka transaction, through the same log that workers write by.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException, Producer

from signal_router.client.connecting import HEADROOM_BYTES, connection_of, writable
from signal_router.client.delivery import Delivery, DeliveryError, Failures, joined, not_delivered
from signal_router.client.publishing import Collected, Key, Publishing
from signal_router.client.signal_writer import SignalRecord, SignalWriter, known_traceparent
from signal_router.errors import ConfigurationError
from signal_router.kafka.transaction import MAX_RECORD_BYTES, KafkaTransactionLog
from signal_router.model.log import AbortableError, LogError, ProducerFencedError, UnknownOutcomeError
from signal_router.model.records import DEFAULT_SIGNAL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from signal_router.client.signal_writer import Form
    from signal_router.kafka.settings import Connection

DEFAULTS: Mapping[str, Any] = {
    "linger.ms": 5,
    "compression.type": "lz4",
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 500_000,
}
"""Settings that the overrides of a connection may change."""

BATCH_BYTES = 1_000_000

_SERVE_EVERY = 128
"""How many signals are handed over before reports are served; each call costs about a microsecond."""
_PURGED_WITHIN_S = 1.0
_TRANSACTIONS_TRIED = 3
_IDS_LOGGED = 100

_log = logging.getLogger(__name__)


class SignalProducer(Publishing[Delivery]):
    """Publishes signals. A context manager: leaving it waits until the broker has everything, or raises.

    Connects when it is made, and says then what is wrong: no broker, no topic, no right to write. May be used by
    several threads; not across a fork.

    `publish` hands one signal over and returns at once, unless the client's queue is full; the `result` of the delivery
    it gives back waits for the broker. It raises DeliveryError where there was no room for `queue_timeout_s`; nothing
    was sent of that signal.

    Args:
        connection: a `Connection` (TLS and SASL are in its overrides), a bootstrap string, or None for what
            `SIGNAL_ROUTER_BOOTSTRAP` and its neighbours say.
        prefix: what topic names begin with, beside a bootstrap string.
        topic: instead of the prefix's topic of signals.
        source: who announces; signals may name another.
        form: `json`, or `cloudevents` for CloudEvents 1.0 in binary mode.
        transactional_id: `when_done` blocks become one transaction each. One per process; the same one in its next
            life.
        delivery_timeout_s: how long the client tries to deliver a signal.
        queue_timeout_s: how long `publish` waits for room where the brokers are slower than the program.
        signal_bytes: the largest signal that the workers take, if they were told another limit than the default.

    Raises:
        BrokerError: no broker answers.
        ConfigurationError: the topic is missing or denied, or the client refuses a setting.
    """

    def __init__(
        self,
        connection: Connection | str | None = None,
        *,
        prefix: str | None = None,
        topic: str | None = None,
        source: str | None = None,
        form: Form = "json",
        transactional_id: str | None = None,
        delivery_timeout_s: float = 30.0,
        queue_timeout_s: float = 60.0,
        signal_bytes: int = DEFAULT_SIGNAL_BYTES,
    ) -> None:
        cluster = connection_of(connection, prefix)
        self.topic = topic or topic_of_signals(cluster)
        self.delivery_timeout_s = delivery_timeout_s
        self._queue_timeout_s = queue_timeout_s
        limit = writable(cluster, self.topic) - HEADROOM_BYTES
        traceparent = known_traceparent(os.environ.get("TRACEPARENT"))
        super().__init__(
            SignalWriter(source=source, form=form, traceparent=traceparent, limit_bytes=min(signal_bytes, limit))
        )
        self._open: dict[Delivery, None] = {}  # in their order
        self._failures = Failures()
        self._unserved = 0
        self._committing = threading.Lock()  # a transactional client has one transaction at a time
        self._transactions: KafkaTransactionLog | None = None
        self._client: Producer | None = None
        batch = {"batch.size": min(BATCH_BYTES, limit)}
        if transactional_id is None:
            settings = cluster.producer_config(_ours(delivery_timeout_s) | batch, defaults=DEFAULTS)
            self._queue_room = int(settings["queue.buffering.max.messages"]) // 2
            self._client = _client(settings)
            self._at_exit = weakref.finalize(self, _end, self._client, delivery_timeout_s, self._failures)
        else:
            settings = cluster.producer_config(batch)
            self._transactions = KafkaTransactionLog(settings, transactional_id, init_timeout_s=delivery_timeout_s)
            _renewed(self._transactions, ())

    def __enter__(self) -> SignalProducer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except DeliveryError as undelivered:
            if kind is None:
                raise
            _log.error("%s", undelivered)  # the error that is on its way came first, and is raised
        finally:
            self.close()

    @contextmanager
    def when_done(self) -> Iterator[Collected]:
        """Collects signals, and publishes them when the block has succeeded; when it fails, none of them.

        With a transactional id all of them become visible or none. Without one each is delivered by itself; if some
        are not, running the block again with the same ids completes them.

        Raises, behind the block:
            DeliveryError: not all of them were delivered; `ids` says which.
        """
        collected = self.collect()
        yield collected
        self.publish_collected(collected)

    def collect(self) -> Collected:
        """What `when_done` collects in; `publish_collected` publishes it."""
        return Collected(self.writer, self.topic)

    def publish_collected(self, collected: Collected) -> None:
        """Publishes what a block collected, and waits for it. Raises DeliveryError."""
        if not collected.records:
            return
        if self._transactions is not None:
            with self._committing:
                self._commit(self._transactions, collected)
            return
        deliveries, failed = [], []
        for place, (id_, record) in enumerate(zip(collected.ids, collected.records, strict=True)):
            try:
                value, key = cast("bytes", record.value), record.key
                deliveries.append(self.send(SignalRecord(id_, value, [*record.headers]), key))
            except DeliveryError as error:  # those behind it would wait as long, one by one
                ids = tuple(collected.ids[place:])
                failed.append(DeliveryError(error.message, reason=error.reason, ids=ids))
                break
        for delivery in deliveries:
            try:
                delivery.result()
            except DeliveryError as error:
                failed.append(error)
        if failed:
            raise joined(failed)

    def flush(self, timeout_s: float | None = None) -> None:
        """Waits until the broker has everything that was published.

        Raises:
            DeliveryError: it has not within `timeout_s` (by default the delivery time-out), or a signal failed whose
                `result` nobody asked for. Its `ids` are those that are still open, or those that failed.
        """
        client = self._client
        if client is not None:
            limit = self.delivery_timeout_s + 5 if timeout_s is None else timeout_s
            deadline = time.monotonic() + limit
            while client.flush(0.2) and time.monotonic() < deadline:  # short, so that Ctrl-C is heard
                pass
            if len(client) and (ids := tuple(delivery.id for delivery in tuple(self._open))):
                text = f"{len(ids)} signals were not acknowledged in {limit:g} s"
                raise DeliveryError(text, reason="timed-out", ids=ids)
        if (failed := self._failures.take()) is not None:
            raise failed

    def close(self) -> None:
        """Lets the client go without waiting: what the brokers have not acknowledged is given up, and logged with
        every other failure of which nobody was told. Idempotent.
        """
        client, self._client = self._client, None
        if client is not None:
            self._at_exit.detach()
            if len(client):
                client.purge()
            _end(client, _PURGED_WITHIN_S, self._failures)  # every delivery learns of it
        transactions, self._transactions = self._transactions, None
        if transactions is not None:
            transactions.close()

    def send(self, record: SignalRecord, key: Key, on_done: Callable[[Delivery], None] | None = None) -> Delivery:
        """Hands over what `writer` made; `on_done` is called once its fate is known, by whoever serves reports."""
        client = self._client
        if client is None:
            raise self._without_client()
        delivery = Delivery(record.id, self, on_done)
        self._open[delivery] = None  # before its report can come
        try:
            self._hand_over(client, record, key, delivery)
        except BaseException:
            self.ended(delivery)
            raise
        self._unserved += 1
        if self._unserved >= _SERVE_EVERY:
            self._unserved = 0
            client.poll(0)
        return delivery

    @property
    def has_room(self) -> bool:
        """Whether `publish` would not wait now."""
        return self._client is None or len(self._client) < self._queue_room

    # --- the reports of deliveries

    def poll(self, timeout_s: float) -> None:
        """Serves reports of deliveries for so long at most."""
        if (client := self._client) is not None:
            client.poll(timeout_s)

    def ended(self, delivery: Delivery) -> None:
        """Forgets a delivery that the client is done with."""
        self._open.pop(delivery, None)

    def failed(self, error: DeliveryError) -> None:
        """Keeps a failure until `flush`, or its delivery's `result`, has told it."""
        self._failures.add(error)

    def told(self, error: DeliveryError) -> None:
        """Forgets a failure that its delivery's `result` told."""
        self._failures.remove(error)

    # --- inside

    def _hand_over(self, client: Producer, record: SignalRecord, key: Key, delivery: Delivery) -> None:
        """Gives the client a signal, and waits where it has no room for it."""
        deadline: float | None = None
        while True:
            try:
                client.produce(self.topic, record.value, key, -1, delivery.report, None, 0, record.headers)  # type: ignore[arg-type]
            except BufferError:
                if deadline is None:
                    deadline = time.monotonic() + self._queue_timeout_s
                elif time.monotonic() >= deadline:
                    text = f'signal "{record.id}" was not sent: {len(client)} wait already'
                    text += f", for {self._queue_timeout_s:g} s"
                    raise DeliveryError(text, reason="queue-full", ids=(record.id,)) from None
                client.poll(0.05)
            except KafkaException as error:
                raise not_delivered(self.topic, error.args[0], record.id) from error
            else:
                return

    def _without_client(self) -> ConfigurationError:
        if self._transactions is None:
            return ConfigurationError("the producer is closed", hint="publish inside its with block")
        return ConfigurationError(
            "a producer with a transactional id publishes in blocks", hint="with producer.when_done() as done: …"
        )

    def _commit(self, transactions: KafkaTransactionLog, collected: Collected) -> None:
        """Writes one transaction. Where its outcome is unknown it is written again: its signals are repeats then."""
        ids = tuple(collected.ids)
        for attempt in range(1, _TRANSACTIONS_TRIED + 1):
            try:
                transactions.begin()
                transactions.produce(collected.records)
                transactions.commit()
            except LogError as error:
                hopeless = isinstance(error, ProducerFencedError) or getattr(error, "delivery", False)
                _recovered(transactions, error, ids)
                if hopeless or attempt == _TRANSACTIONS_TRIED:
                    raise _transaction_failed(error, ids) from error
                _log.warning("a transaction is written again: %s", error)
            else:
                return


def topic_of_signals(connection: Connection) -> str:
    """The topic of signals under the connection's prefix."""
    from signal_router.kafka.topics import resolve  # noqa: PLC0415  reads YAML; whoever names a topic needs none

    return resolve(connection.prefix, connection.app).signals


def _ours(delivery_timeout_s: float) -> dict[str, Any]:
    return {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
        "message.timeout.ms": int(delivery_timeout_s * 1000),
        "message.max.bytes": MAX_RECORD_BYTES,
        "log_level": 0,
    }


def _client(settings: dict[str, Any]) -> Producer:
    try:
        return Producer(settings)
    except KafkaException as error:
        raise ConfigurationError(f"kafka client settings are refused: {error.args[0].str()}") from error


def _end(client: Producer, within_s: float, failures: Failures) -> None:
    """Sends what a program left behind that neither left the context nor flushed, and logs what nobody was told of."""
    if len(client) and (left := client.flush(within_s)):
        _log.error("%d signals were not acknowledged before their producer ended", left)
    if (untold := failures.joined()) is not None:
        _log.error("%s (ids: %s)", untold.message, ", ".join(untold.ids[:_IDS_LOGGED]))


def _recovered(transactions: KafkaTransactionLog, error: LogError, ids: tuple[str, ...]) -> None:
    """Makes the log fit for another transaction."""
    if isinstance(error, AbortableError):
        try:
            transactions.abort()
        except LogError:
            pass
        else:
            return
    if not isinstance(error, ProducerFencedError):
        _renewed(transactions, ids)


def _renewed(transactions: KafkaTransactionLog, ids: tuple[str, ...]) -> None:
    try:
        transactions.init()
    except LogError as error:
        raise _transaction_failed(error, ids) from error


def _transaction_failed(error: LogError, ids: tuple[str, ...]) -> DeliveryError:
    if isinstance(error, ProducerFencedError):
        what = "another process took the transactional id, or this one stood still for longer than a transaction may"
        return DeliveryError(f"{what}: {error}", reason="fenced", ids=ids)
    if "AUTHORIZATION_FAILED" in str(error):  # the log's errors say what to do, and why only in words
        reason = "denied"
    else:
        reason = "timed-out" if isinstance(error, UnknownOutcomeError) else "refused"
    return DeliveryError(f"the transaction failed: {error}", reason=reason, ids=ids)
