"""Restore: replays changelog partitions into the local store, up to an end taken before.

The end is the read_uncommitted one and the reading is read_committed: it ends at a partition end (EOF) at or behind the
target. An end before it means that somebody's open transaction hides the rest; then the wait goes on, and is said
aloud.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as KafkaTopicPartition

from signal_router.errors import BrokerError
from signal_router.kafka.follow import reader_settings
from signal_router.kafka.offsets import STUCK_S
from signal_router.kafka.settings import Connection

BATCH_RECORDS = 5_000
HELD_RECORDS = 50_000
"""How many records are collected before they are applied: a store takes many at once for less."""
HIDDEN_S = 30.0
"""How long an open transaction may hide the end: longer than any transaction time-out plus the coordinator's scan."""

Apply = Callable[[int, list[tuple[bytes, bytes | None]], int], None]
"""Takes a partition, its next changelog records (key, value) and the changelog offset behind them."""


def restore(
    connection: Connection,
    changelog: str,
    starts: Mapping[int, int],
    targets: Mapping[int, int],
    apply: Apply,
    *,
    interrupted: threading.Event,
    stuck: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Replays partitions from their start offsets to their targets; returns how many records were applied.

    `apply` is called from this thread, in order of each partition, with many records at once. `progress` is told
    (offsets done, offsets in all); `stuck` is called while nothing has come for `STUCK_S`. Raises `InterruptedError`
    when `interrupted` is set, `BrokerError` when the end stays hidden.
    """
    left = {partition for partition, start in starts.items() if start < targets[partition]}
    if not left:
        return 0
    settings = reader_settings(connection, f"{connection.prefix}{connection.app}-restore")
    settings |= {"auto.offset.reset": "earliest", "queued.min.messages": 100_000, "fetch.wait.max.ms": 20}
    consumer = Consumer(settings)
    total = sum(targets[partition] - starts[partition] for partition in left)
    reached = dict(starts)
    held: dict[int, list[tuple[bytes, bytes | None]]] = {}
    restored = held_records = 0
    moved_at = time.monotonic()
    try:
        consumer.assign([KafkaTopicPartition(changelog, partition, starts[partition]) for partition in left])
        while left:
            if interrupted.is_set():
                raise InterruptedError
            messages = consumer.consume(BATCH_RECORDS, 0.02)
            ends = _take(messages, held, reached, changelog)
            for partition, offset in ends.items():
                reached[partition] = max(reached[partition], offset)
                held.setdefault(partition, [])
            held_records += len(messages) - len(ends)
            if messages:
                moved_at = time.monotonic()
            if ends or held_records >= HELD_RECORDS:
                restored += _apply_held(held, reached, apply)
                held_records = 0
            left -= {partition for partition, offset in ends.items() if offset >= targets[partition]}
            progress(sum(min(reached[p], targets[p]) - starts[p] for p in reached if p in targets), total)
            if time.monotonic() - moved_at > STUCK_S:
                stuck()
            if time.monotonic() - moved_at > HIDDEN_S:
                raise BrokerError(
                    f'an open transaction hides the end of changelog "{changelog}", partitions {sorted(left)}',
                    hint="it ends with its transaction time-out; is another worker of this app stuck?",
                )
    finally:
        consumer.close()
    return restored


def _take(
    messages: list[Any], held: dict[int, list[tuple[bytes, bytes | None]]], reached: dict[int, int], changelog: str
) -> dict[int, int]:
    """Sorts what was fetched by partition, and gives the partition ends that were met. One call less per record is 5 %
    of a restore, so offsets are read once in a row: what was fetched comes partition by partition.
    """
    ends: dict[int, int] = {}
    present, last = -1, None
    records: list[tuple[bytes, bytes | None]] = []
    for message in messages:
        error, partition = message.error(), message.partition()
        if error is None:
            if partition != present:
                _reach(reached, present, last)
                present, records = partition, held.setdefault(partition, [])
            last = message
            records.append((message.key(), message.value()))
        elif error.code() == KafkaError._PARTITION_EOF:
            ends[partition] = message.offset()
        elif error.fatal():
            raise BrokerError(f'changelog "{changelog}" cannot be read: {error.str()}')
    _reach(reached, present, last)
    return ends


def _reach(reached: dict[int, int], partition: int, last: Any) -> None:  # noqa: ANN401 - a client's message
    if last is not None:
        reached[partition] = last.offset() + 1


def _apply_held(held: dict[int, list[tuple[bytes, bytes | None]]], reached: Mapping[int, int], apply: Apply) -> int:
    count = sum(len(records) for records in held.values())
    for partition, records in held.items():
        apply(partition, records, reached[partition])
    held.clear()
    return count
