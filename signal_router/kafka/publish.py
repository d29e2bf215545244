"""Publishing records outside transactions: idempotent, acknowledged by all replicas, each with its position."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from signal_router.errors import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from signal_router.kafka.settings import Connection
    from signal_router.model.log import OutputRecord

DELIVERED_WITHIN_S = 30.0

_DENIED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}


class Sent(NamedTuple):
    """Where a record stands now."""

    partition: int
    offset: int


class Publisher:
    """An idempotent producer that reports where each record stands. A context manager; one thread.

    Leaving it waits for everything sent, unless an error is on its way.
    """

    def __init__(self, connection: Connection) -> None:
        """Raises `ConfigurationError` where the client refuses the operator's settings."""
        ours = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "allow.auto.create.topics": False,
            "message.timeout.ms": int(DELIVERED_WITHIN_S * 1000),
            "log_level": 0,
        }
        try:
            self._producer = Producer(
                connection.producer_config(ours, defaults={"linger.ms": 5, "compression.type": "lz4"})
            )
        except KafkaException as error:
            raise ConfigurationError(f"kafka client settings are refused: {error.args[0].str()}") from error
        self.waiting = 0
        self._failure: tuple[str, KafkaError] | None = None

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()

    def publish(self, record: OutputRecord, sent: Callable[[Sent], None]) -> None:
        """Hands a record over; `sent` is called from here, or from `flush`, once the broker has it.

        Raises `BrokerError` for an earlier record that could not be delivered.
        """

        def report(error: KafkaError | None, message: Message) -> None:
            self.waiting -= 1
            partition, offset = message.partition(), message.offset()
            if error is not None:
                self._failure = self._failure or (record.topic, error)
            elif partition is not None and offset is not None:
                sent(Sent(partition, offset))

        self._raise_failure()
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    report,
                    None,
                    0,
                    [*record.headers],
                )
            except BufferError:
                self._producer.poll(0.05)
                self._raise_failure()
                continue
            except KafkaException as error:
                raise _undelivered(record.topic, error.args[0]) from error
            break
        self.waiting += 1
        self._producer.poll(0)

    def publish_now(self, record: OutputRecord) -> Sent:
        """Publishes one record and waits until the broker has it. Raises `BrokerError`."""
        found: list[Sent] = []
        self.publish(record, found.append)
        self.flush()
        return found[0]

    def poll(self, timeout_s: float) -> None:
        """Waits for reports. Raises `BrokerError`."""
        self._producer.poll(timeout_s)
        self._raise_failure()

    def flush(self, within_s: float = DELIVERED_WITHIN_S + 5) -> None:
        """Waits until the broker has everything. Raises `BrokerError`."""
        deadline = time.monotonic() + within_s
        while self.waiting and time.monotonic() < deadline:
            self._producer.flush(0.2)  # short, so that Ctrl-C is heard
        self._raise_failure()
        if self.waiting:
            raise BrokerError(f"{self.waiting} records were not acknowledged in {within_s:g} s")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            topic, error = self._failure
            raise _undelivered(topic, error)


def _undelivered(topic: str, error: KafkaError) -> BrokerError | ConfigurationError:
    if error.code() in _DENIED:
        return ConfigurationError(f'topic "{topic}" may not be written: {error.str()}', hint="grant WRITE on it")
    return BrokerError(f'a record could not be delivered to topic "{topic}": {error.str()}')
