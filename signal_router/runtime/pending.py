"""How many signals are pending, read from the counts that the changelog carries."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.errors import StateError
from signal_router.kafka.offsets import end_offsets, start_offsets
from signal_router.kafka.restore import restore
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import resolve
from signal_router.model.log import TopicPartition
from signal_router.runtime.standing import require

_decode_count = msgspec.msgpack.Decoder(int).decode


def pending_counts(
    connection: Connection, admin: AdminClient, progress: Callable[[int, int], None]
) -> Mapping[str, int]:
    """Counts the pending signals of each subscription that has some; `progress` is told (done, total).

    Raises `ConfigurationError` where the changelog does not exist, `BrokerError`, `StateError`.
    """
    changelog = resolve(connection.prefix, connection.app).changelog
    tps = [TopicPartition(changelog, number) for number in range(require(admin, changelog))]
    starts = {tp.partition: offset for tp, offset in start_offsets(admin, tps).items()}
    ends = {tp.partition: offset for tp, offset in end_offsets(admin, tps).items()}
    counts: dict[tuple[int, str], int] = {}

    def take(partition: int, records: list[tuple[bytes, bytes | None]], _behind: int) -> None:
        for key, value in records:
            if key[:1] == b"N":
                counts[partition, key[1:].decode()] = 0 if value is None else _count(key, value)

    restore(connection, changelog, starts, ends, take, interrupted=threading.Event(), progress=progress)
    found: Counter[str] = Counter()
    for (_, subscription), count in counts.items():
        if subscription and count:
            found[subscription] += count
    return found


def _count(key: bytes, value: bytes) -> int:
    try:
        return _decode_count(value)
    except msgspec.DecodeError as error:
        raise StateError(f"changelog record {key!r} cannot be read: {error}") from error
