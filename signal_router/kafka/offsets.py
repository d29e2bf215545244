"""What the broker says of offsets and topics: stable committed offsets, log ends, topic ids.

Own clients throughout: the group's consumer belongs to its thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from signal_router.errors import BrokerError
from signal_router.kafka.settings import Connection
from signal_router.model.log import NextOffset, TopicPartition

REQUEST_S = 10.0
_ATTEMPT_S = 1.0
STUCK_S = 1.0
"""What an open transaction hides for longer than that is somebody's who does not go on."""
_log = logging.getLogger(__name__)
_FOR_URLS = str.maketrans("+/", "-_")
_UNSTABLE = {KafkaError.UNSTABLE_OFFSET_COMMIT}
_PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as it exists: its id (changes when it is re-created) and how many partitions it has."""

    id: str
    partitions: int


def stable_offsets(
    connection: Connection,
    group: str,
    tps: Iterable[TopicPartition],
    *,
    deadline_s: float,
    interrupted: threading.Event | None = None,
    stuck: Callable[[], None] = lambda: None,
) -> dict[TopicPartition, NextOffset | None]:
    """Reads committed next offsets, waiting for transactions that have some open; None where nothing is committed.

    By a consumer that never subscribes, which waits by itself under read_committed. The admin client's request would
    do, but once the coordinator's broker restarts it hangs, and the process dies when the broker is back (librdkafka
    2.16.1; #5511 there).

    `stuck` is called once when they have not come within `STUCK_S`. Raises `BrokerError` past the deadline,
    `InterruptedError` when `interrupted` is set.
    """
    return _committed(
        connection, group, tps, "read_committed", deadline_s=deadline_s, interrupted=interrupted, stuck=stuck
    )


def committed_offsets(
    connection: Connection, group: str, tps: Iterable[TopicPartition]
) -> dict[TopicPartition, NextOffset | None]:
    """Reads committed next offsets as they are now, whatever is open. Raises `BrokerError`."""
    return _committed(connection, group, tps, "read_uncommitted", deadline_s=REQUEST_S)


def _committed(
    connection: Connection,
    group: str,
    tps: Iterable[TopicPartition],
    isolation: str,
    *,
    deadline_s: float,
    interrupted: threading.Event | None = None,
    stuck: Callable[[], None] = lambda: None,
) -> dict[TopicPartition, NextOffset | None]:
    wanted = [KafkaTopicPartition(tp.topic, tp.partition) for tp in tps]
    if not wanted:
        return {}
    consumer = Consumer(
        connection.consumer_config(
            {"group.id": group, "isolation.level": isolation, "enable.auto.commit": False, "log_level": 0}
        )
    )
    until = time.monotonic() + deadline_s
    stuck_at = time.monotonic() + STUCK_S
    try:
        while True:
            try:
                answer = consumer.committed(wanted, _ATTEMPT_S)
                failed = [tp.error for tp in answer if tp.error is not None]
                if not failed:
                    return {TopicPartition(tp.topic, tp.partition): _next_offset(tp) for tp in answer}
                error = failed[0]
            except KafkaException as exception:
                error = exception.args[0]
            if interrupted is not None and interrupted.is_set():
                raise InterruptedError
            if time.monotonic() >= stuck_at:
                stuck()
                stuck_at = until
            if error.code() not in _UNSTABLE | _PASSING or time.monotonic() > until:
                raise BrokerError(
                    f'committed offsets of group "{group}" cannot be read: {error.str()}',
                    hint="is the broker away, or an open transaction holding them? it ends with its time-out",
                )
            time.sleep(0.02)
    finally:
        consumer.close()


def _next_offset(tp: KafkaTopicPartition) -> NextOffset | None:
    return None if tp.offset < 0 else NextOffset(tp.offset, tp.metadata or "")


def end_offsets(admin: AdminClient, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The read_uncommitted end of each partition: behind everything written, open transactions included."""
    return _list_offsets(admin, tps, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def start_offsets(admin: AdminClient, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The log start of each partition."""
    return _list_offsets(admin, tps, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def stable_ends(admin: AdminClient, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The read_committed end of each partition: what lies behind it is hidden by an open transaction."""
    return _list_offsets(admin, tps, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]


def _list_offsets(
    admin: AdminClient,
    tps: Iterable[TopicPartition],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[TopicPartition, int]:
    wanted = {KafkaTopicPartition(tp.topic, tp.partition): spec for tp in tps}
    if not wanted:
        return {}
    until = time.monotonic() + REQUEST_S
    while True:
        try:
            futures = admin.list_offsets(wanted, isolation_level=isolation, request_timeout=REQUEST_S)
            return {
                TopicPartition(tp.topic, tp.partition): future.result(REQUEST_S + 1).offset
                for tp, future in futures.items()
            }
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() not in _PASSING or time.monotonic() > until:
                raise BrokerError(f"log ends cannot be read: {error.str()}") from exception
            time.sleep(0.1)
            _refresh_metadata(admin)


def _refresh_metadata(admin: AdminClient) -> None:
    """Makes the client learn leaders and their epochs again; after a restart it asks with the old ones for ever."""
    try:
        admin.list_topics(timeout=REQUEST_S)
    except KafkaException as exception:
        _log.debug("metadata not refreshed: %s", exception.args[0].str())


def describe(admin: AdminClient, topics: Iterable[str]) -> dict[str, TopicDescription]:
    """Describes the topics that exist; the others are left out."""
    names = sorted(set(topics))
    if not names:
        return {}
    found: dict[str, TopicDescription] = {}
    for name, future in admin.describe_topics(TopicCollection(names), request_timeout=REQUEST_S).items():
        try:
            topic = future.result(REQUEST_S + 1)
        except KafkaException as exception:
            if exception.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise BrokerError(f'topic "{name}" cannot be described: {exception.args[0].str()}') from exception
        found[name] = TopicDescription(_uuid_text(topic.topic_id), len(topic.partitions))
    return found


def _uuid_text(topic_id: object) -> str:
    """A topic's UUID as Kafka and its tools write it: base64 for URLs; the client writes it in the other alphabet."""
    return str(topic_id).translate(_FOR_URLS)


def topic_names(admin: AdminClient) -> list[str]:
    """The names of all topics on the cluster that we may see."""
    return sorted(admin.list_topics(timeout=REQUEST_S).topics)
