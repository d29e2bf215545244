"""What a transaction costs on this machine and broker when nothing is decided: the floor under every latency.

A bare transactional producer writes one record to each of the sixteen partitions that a transaction of the pipeline
touches (candidates, triggers, lineage, changelog), names offsets, commits, and rests for 20 ms.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from confluent_kafka import Consumer, Producer, TopicPartition

from signal_router.kafka.transaction import DEFAULTS

TRANSACTIONS = 150
WARM_UP = 30
REST_S = 0.02


def floor(bootstrap: str, topics: Sequence[str], read: str, partitions: int) -> dict[str, float]:
    """Milliseconds from the first record to the end of the commit."""
    group = f"floor-{uuid.uuid4().hex[:8]}"
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    joined: list[object] = []
    consumer.subscribe([read], on_assign=lambda _consumer, places: joined.append(places))
    while not joined:
        consumer.poll(0.1)
    producer = Producer({**DEFAULTS, "bootstrap.servers": bootstrap, "transactional.id": group})
    producer.init_transactions(30)
    times = []
    for number in range(TRANSACTIONS):
        consumer.poll(0)
        began = time.perf_counter()
        producer.begin_transaction()
        for topic in topics:
            for partition in range(partitions):
                producer.produce(topic, b"floor" * 60, b"floor", partition)
        places = [TopicPartition(read, partition, number) for partition in range(partitions)]
        producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata())
        producer.commit_transaction(-1)
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(REST_S)
    consumer.close()
    times = sorted(times[WARM_UP:])
    return {
        "partitions": len(topics) * partitions,
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[int(len(times) * 0.99)],
    }
