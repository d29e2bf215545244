"""False records, to show that the count finds them: a trigger copied, a trigger gone."""

from __future__ import annotations

from enum import Enum

from signal_router.demo.cluster import DemoCluster, flush
from signal_router.errors import StateError
from signal_router.kafka.purge import purge_before
from signal_router.model.log import TopicPartition


class Fault(Enum):
    """What is done to the triggers topic before the count."""

    DUPLICATE = "duplicate"
    LOSS = "loss"


def inject(fault: Fault, cluster: DemoCluster) -> str:
    """Does it, on the real topic; returns what was done, as a sentence."""
    where, record = next(iter(cluster.read(cluster.names.triggers)), (None, None))
    if where is None or record is None:
        raise StateError("there is no trigger to copy or to delete")
    if fault is Fault.DUPLICATE:
        producer = cluster.producer()
        producer.produce(where.topic, record.value, record.key, where.partition, headers=list(record.headers or ()))
        flush(producer)
        return f"a producer wrote the trigger at {where.topic}/{where.partition}/{record.offset} a second time"
    purge_before(cluster.admin, {TopicPartition(where.topic, where.partition): record.offset + 1})
    return f"somebody deleted the trigger at {where.topic}/{where.partition}/{record.offset}"
