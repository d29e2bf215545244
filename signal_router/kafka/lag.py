"""How far a group is behind: what is committed, and where the logs end."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError
from signal_router.kafka.offsets import REQUEST_S, end_offsets, start_offsets
from signal_router.model.log import TopicPartition


def gaps(admin: AdminClient, group: str, tps: Iterable[TopicPartition]) -> dict[TopicPartition, range]:
    """Gives the offsets between the committed one and the end of each log, transaction markers included.

    Where nothing is committed, the gap begins at the log's start. Does not wait for open transactions. Raises
    `BrokerError`.
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
    return {tp: range(max(committed.get(tp, -1), starts[tp]), ends[tp]) for tp in wanted}


def lag(admin: AdminClient, group: str, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Counts the offsets of each gap (see `gaps`): no more wait than that. Raises `BrokerError`."""
    return {tp: len(gap) for tp, gap in gaps(admin, group, tps).items()}
