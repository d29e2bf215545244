"""How far a group is behind: what is committed, and where the logs end."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError
from signal_router.kafka.offsets import REQUEST_S, end_offsets, start_offsets
from signal_router.model.log import TopicPartition


def lag(admin: AdminClient, group: str, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Counts the offsets between the committed one and the end of the log, transaction markers included.

    Where nothing is committed, everything there is counts. Does not wait for open transactions. Raises `BrokerError`.
    """
    wanted = sorted(set(tps))
    if not wanted:
        return {}
    request = ConsumerGroupTopicPartitions(group, [KafkaTopicPartition(tp.topic, tp.partition) for tp in wanted])
    try:
        futures = admin.list_consumer_group_offsets([request], require_stable=False, request_timeout=REQUEST_S)
        answer = futures[group].result(REQUEST_S + 1).topic_partitions or []
    except KafkaException as error:
        raise BrokerError(f'committed offsets of group "{group}" cannot be read: {error.args[0].str()}') from error
    committed = {TopicPartition(tp.topic, tp.partition): tp.offset for tp in answer if tp.error is None}
    starts, ends = start_offsets(admin, wanted), end_offsets(admin, wanted)
    return {tp: max(ends[tp] - max(committed.get(tp, -1), starts[tp]), 0) for tp in wanted}
