"""What the loop of a consumer takes the answers of the client for."""

from __future__ import annotations

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.client.modes import AtLeastOnce, UndoneError
from signal_router.client.retries import Retries
from signal_router.client.running import Run, Wanted, _in_group
from signal_router.errors import BrokerError
from signal_router.kafka.settings import Connection
from signal_router.model.log import TopicPartition

TP = TopicPartition("triggers", 0)


class Refused(ClientPartition):
    """A partition as the client gives it back where the group's coordinator refused it alone."""

    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)  # type: ignore[assignment]


def test_a_partition_whose_offset_cannot_be_read_is_not_taken_for_one_without():
    with pytest.raises(BrokerError, match="committed offset of triggers/1 cannot be read"):
        _in_group([ClientPartition("triggers", 0, 5), Refused("triggers", 1, OFFSET_INVALID)])


def test_a_partition_of_which_the_group_has_nothing_is_left_out():
    found = _in_group([ClientPartition("triggers", 0, 5), ClientPartition("triggers", 1, OFFSET_INVALID)])

    assert found == {TopicPartition("triggers", 0): (5, True)}


class Refusing:
    """A client that goes back to no offset."""

    def __init__(self, *assigned: ClientPartition) -> None:
        self._assigned = list(assigned)

    def seek(self, _: ClientPartition) -> None:
        raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))

    def assignment(self) -> list[ClientPartition]:
        return self._assigned


def run_on(client: Refusing) -> Run:
    mode = AtLeastOnce(print, Connection("127.0.0.1:1"), "parked")
    run = Run(
        {"group.id": "g", "bootstrap.servers": "127.0.0.1:1", "log_level": 0},
        Wanted(("triggers",), frozenset(), "earliest", "g"),
        mode,
        Retries(),
    )
    run._consumer = client
    run._lanes.begin(TP, 5, known=True)
    for offset in (5, 6, 7):
        run._lanes.pass_over(TP, offset)
    return run


def test_a_partition_that_cannot_be_read_again_ends_the_consumer_instead_of_being_skipped():
    run = run_on(Refusing(ClientPartition("triggers", 0)))

    with pytest.raises(BrokerError, match="triggers/0 cannot be read again"):
        run._rewind(UndoneError("refused"))

    run._lanes.pass_over(TP, 8)
    assert run._lanes.next_offsets() == {}


def test_a_partition_that_went_is_not_committed_behind_what_was_undone():
    run = run_on(Refusing())

    run._rewind(UndoneError("refused"))

    run._lanes.pass_over(TP, 8)  # the client had it in hand already
    assert run._lanes.next_offsets() == {}
