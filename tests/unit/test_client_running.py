"""What the loop of a consumer takes the answers of the client for."""

from __future__ import annotations

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.client.running import _in_group
from signal_router.errors import BrokerError
from signal_router.model.log import TopicPartition


class Refused(ClientPartition):
    """A partition as the client gives it back where the group's coordinator refused it alone."""

    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)  # type: ignore[assignment]


def test_a_partition_whose_offset_cannot_be_read_is_not_taken_for_one_without():
    with pytest.raises(BrokerError, match="committed offset of triggers/1 cannot be read"):
        _in_group([ClientPartition("triggers", 0, 5), Refused("triggers", 1, OFFSET_INVALID)])


def test_a_partition_of_which_the_group_has_nothing_is_left_out():
    found = _in_group([ClientPartition("triggers", 0, 5), ClientPartition("triggers", 1, OFFSET_INVALID)])

    assert found == {TopicPartition("triggers", 0): (5, True)}
