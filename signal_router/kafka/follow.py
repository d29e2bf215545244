"""Following a small compacted topic from its start: definitions, workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from signal_router.errors import BrokerError, ConfigurationError, SignalRouterError, StateError
from signal_router.kafka.settings import Connection
from signal_router.model.log import InputRecord, TopicPartition

SILENT_S = 30.0
"""Longer than an abandoned transaction may hide the end of a topic."""
STOP_S = 5.0
"""How long a stop waits for the thread."""

_CONSUMER_DEFAULTS: Mapping[str, str | int | float | bool] = {"fetch.wait.max.ms": 100, "fetch.queue.backoff.ms": 5}


def reader_settings(connection: Connection, group: str) -> dict[str, str | int | float | bool]:
    """Settings of a consumer that assigns itself partitions, commits nothing and sees committed records only."""
    return connection.consumer_config(
        {
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        },
        defaults=_CONSUMER_DEFAULTS,
    )


def input_record(message: Any) -> InputRecord:  # noqa: ANN401 - the client's stubs make every part optional
    """Reads a client's record into ours."""
    return InputRecord(
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        message.headers(),
    )


class Follower:
    """Reads partitions of one topic in a thread, from the start and for ever."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        partitions: int,
        take: Callable[[Sequence[InputRecord]], None],
        failed: Callable[[SignalRouterError], None],
    ) -> None:
        """`take` gets records of one partition in order, `failed` what ends the thread; both called from the thread."""
        self._settings = reader_settings(connection, f"{connection.prefix}{connection.app}-follow")
        self._topic = topic
        self._partitions = partitions
        self._take = take
        self._failed = failed
        self._stopping = threading.Event()
        self._ends: set[int] = set()
        self._caught_up = threading.Event()
        self._error: SignalRouterError | None = None
        self._thread = threading.Thread(target=self._run, name=f"follow-{topic}", daemon=True)

    def start(self) -> None:
        """Starts reading."""
        self._thread.start()

    def wait(self, deadline_s: float) -> None:
        """Waits until the end has been met once. Raises `BrokerError` past the deadline, or what ended the thread."""
        if not self._caught_up.wait(deadline_s):
            raise BrokerError(f'topic "{self._topic}" could not be read to its end in {deadline_s:g} s')
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stops reading. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        consumer = Consumer(self._settings)
        try:
            consumer.assign([KafkaTopicPartition(self._topic, number, 0) for number in range(self._partitions)])
            while not self._stopping.is_set():
                self._turn(consumer)
        except KafkaException as error:
            self._fail(BrokerError(f'topic "{self._topic}" cannot be followed: {error.args[0].str()}'))
        except SignalRouterError as error:
            self._fail(error)
        except Exception as error:  # what is followed would stand still without a word
            self._fail(StateError(f'following topic "{self._topic}" failed: {error!r}'))
        finally:
            consumer.close()

    def _fail(self, error: SignalRouterError) -> None:
        self._error = error
        self._failed(error)
        self._caught_up.set()

    def _turn(self, consumer: Consumer) -> None:
        messages: list[Any] = consumer.consume(1000, 0.05)
        records: dict[int, list[InputRecord]] = {}
        ends: set[int] = set()
        for message in messages:
            error = message.error()
            if error is None:
                records.setdefault(message.partition(), []).append(input_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                ends.add(message.partition())
            else:
                _raise_lasting(error)
        for batch in records.values():
            self._take(batch)
        self._ends |= ends
        if len(self._ends) == self._partitions:
            self._caught_up.set()


def read_to_end(
    connection: Connection, tps: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, list[InputRecord]]:
    """Reads committed records from the given offsets up to `ends` (exclusive), all at once. For small topics and
    tools.

    Raises `BrokerError` when nothing has come for `SILENT_S`, `ConfigurationError` where reading is not permitted.
    """
    heard_at = time.monotonic()
    found: dict[TopicPartition, list[InputRecord]] = {tp: [] for tp in tps}
    left = {tp for tp, offset in tps.items() if offset < ends[tp]}
    consumer = Consumer(reader_settings(connection, f"{connection.prefix}{connection.app}-read"))
    try:
        consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, tps[tp]) for tp in left])
        while left:
            messages: list[Any] = consumer.consume(1000, 0.05)
            if time.monotonic() - heard_at > SILENT_S:
                raise _hidden(left)
            for message in messages:
                error = message.error()
                if error is None:
                    heard_at = time.monotonic()
                    tp = TopicPartition(message.topic(), message.partition())
                    found[tp].append(input_record(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    tp = TopicPartition(message.topic(), message.partition())
                    if message.offset() >= ends[tp]:
                        left.discard(tp)
                else:
                    _raise_lasting(error)
    finally:
        consumer.close()
    return found


def _raise_lasting(error: Any) -> None:  # noqa: ANN401  the client's type says less than it has
    """Raises for an error that does not pass by itself."""
    if error.code() in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}:
        raise ConfigurationError(f"no permission to read: {error.str()}", hint="grant READ on the topics of the app")
    if error.fatal():
        raise BrokerError(f"topics cannot be read: {error.str()}")


def _hidden(left: set[TopicPartition]) -> BrokerError:
    topics = ", ".join(sorted({f'"{tp.topic}"' for tp in left}))
    return BrokerError(
        f"nothing came from {topics} for {SILENT_S:g} s, although its end is not reached",
        hint="is the broker away, or a transaction open there? it ends with its time-out; then try again",
    )
