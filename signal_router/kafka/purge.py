"""Deleting candidates that were read: the topic has no retention of its own."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError
from signal_router.model.log import TopicPartition


def purge_before(admin: AdminClient, offsets: Mapping[TopicPartition, int]) -> None:
    """Deletes records below committed next offsets. Idempotent; raises `BrokerError`, after which nothing is lost."""
    places = [KafkaTopicPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items() if offset > 0]
    if not places:
        return
    try:
        for future in admin.delete_records(places, request_timeout=10).values():
            future.result(11)
    except KafkaException as error:
        raise BrokerError(f"read candidates cannot be deleted: {error.args[0].str()}") from error
