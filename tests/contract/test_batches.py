"""A topic's `max.message.bytes` holds for a batch of records, not for a record: batches must respect the least."""

from __future__ import annotations

import os

import pytest
from clusters import KafkaCluster

from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model.log import AbortableError, OutputRecord

pytestmark = pytest.mark.kafka

RECORDS, RECORD_BYTES, LIMIT = 60, 1_000, 20_000


@pytest.fixture
def cluster(broker, prefix):
    opened = KafkaCluster(str(broker), prefix)
    yield opened
    opened.close()


def records(topic: str) -> list[OutputRecord]:
    return [OutputRecord(topic, b"key", os.urandom(RECORD_BYTES), 0) for _ in range(RECORDS)]


def write(log: KafkaTransactionLog, topic: str) -> None:
    log.begin()
    log.produce(records(topic))
    log.commit()


def test_batches_are_replaced_by_smaller_ones_when_a_destination_takes_less(cluster, broker, prefix):
    narrow, wide = cluster.topic(max_record_bytes=LIMIT), cluster.topic()
    limits = {wide: 1_000_000}
    log = KafkaTransactionLog(
        {"bootstrap.servers": str(broker)}, f"{prefix}slot", batch_bytes=lambda: min(limits.values())
    )
    log.init()
    write(log, wide)
    with pytest.raises(AbortableError) as failure:
        write(log, narrow)
    log.abort()

    limits[narrow] = LIMIT - 2_000
    write(log, narrow)
    write(log, wide)

    assert failure.value.delivery
    assert len(cluster.read(narrow)) == RECORDS
    assert len(cluster.read(wide)) == 2 * RECORDS
    assert log.recycles == {"a destination takes smaller batches": 1}
    log.close()
