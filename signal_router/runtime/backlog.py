"""How much waits to be decided: records between what the group has committed and the ends of the logs.

Offsets alone would never be level: a transaction's marker takes one, and marks are written every second. So short gaps
are read; of a long one the offsets say enough.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.kafka.follow import read_to_end
from signal_router.kafka.lag import gaps
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import resolve
from signal_router.model.candidates import Mark, decode
from signal_router.model.log import InputRecord, TopicPartition

READ_UP_TO = 1_000
"""Offsets of a gap that is looked through."""


def backlog(connection: Connection, admin: AdminClient, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Counts what waits in each partition: signals, and candidates without the marks between them.

    Exact for short gaps; transaction markers count in long ones. Raises `BrokerError`, `ConfigurationError`.
    """
    candidates = resolve(connection.prefix, connection.app).candidates
    found = gaps(connection, admin, f"{connection.prefix}{connection.app}", tps)
    short = {tp: gap for tp, gap in found.items() if len(gap) <= READ_UP_TO}
    starts, ends = ({tp: getattr(gap, end) for tp, gap in short.items()} for end in ("start", "stop"))
    read = read_to_end(connection, starts, ends)
    waiting = {
        tp: sum(tp.topic != candidates or not _is_mark(record) for record in records if record.offset < ends[tp])
        for tp, records in read.items()
    }
    return {tp: waiting.get(tp, len(gap)) for tp, gap in found.items()}


def _is_mark(record: InputRecord) -> bool:
    try:
        return record.value is not None and isinstance(decode(record.value), Mark)
    except msgspec.DecodeError:
        return False
