"""A look at the record itself and at how far the workers are: the reasons why nothing may be known of a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signal_router.errors import RecordError
from signal_router.kafka.offsets import describe, stable_offsets
from signal_router.kafka.tail import read_at
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.model.records import decode_signal

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from signal_router.kafka.settings import Connection
    from signal_router.model.signals import Position

_ANY_SIZE = 2**31
_STABLE_WITHIN_S = 5.0


def look_at(connection: Connection, admin: AdminClient, at: Position) -> tuple[dict[str, object] | None, str | None]:
    """Reads the signal at a position, and says what is worth knowing where lineage says nothing of it."""
    topic = describe(admin, [at.topic]).get(at.topic)
    if topic is None or at.partition >= topic.partitions:
        return None, f'there is no partition {at.partition} of topic "{at.topic}"'
    tp = TopicPartition(at.topic, at.partition)
    record = read_at(connection, admin, tp, at.offset)
    if record is None:
        return None, f"no record stands at {at.topic}/{at.partition}/{at.offset}: it is gone, or not there yet"
    signal, refusal = _signal(record)
    committed = stable_offsets(connection, f"{connection.prefix}{connection.app}", [tp], deadline_s=_STABLE_WITHIN_S)[
        tp
    ]
    if committed is None:
        return signal, f'no worker of app "{connection.app}" has read {at.topic}/{at.partition} yet'
    if committed.offset <= at.offset:
        return signal, f"the workers have not come to it yet: they read {at.topic}/{at.partition} at {committed.offset}"
    return signal, refusal or "it matched no subscription, or is on its way: signal-router subscriptions test tells why"


def _signal(record: InputRecord) -> tuple[dict[str, object] | None, str | None]:
    try:
        signal = decode_signal(record.value, record.headers, limit_bytes=_ANY_SIZE)
    except RecordError as error:
        return None, f"the record is no signal: {error.message}"
    if signal is None:
        return None, "the record has a null value: passed over"
    params = dict(signal.params)
    return {"name": signal.name, "source": signal.source, "id": signal.id, "time": signal.time, "params": params}, None
