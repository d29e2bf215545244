"""What a real consumer hands out as group metadata, and when it means nothing.

Which metadata the broker then accepts is said, row by row, in the contract suite.
"""

from __future__ import annotations

import time
import uuid

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from signal_router.model.group_metadata import GroupMetadata

pytestmark = pytest.mark.kafka

CLASSIC = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 300}
MODERN = {"group.protocol": "consumer"}


@pytest.fixture
def topic(broker, prefix):
    name = f"{prefix}signals"
    admin = AdminClient({"bootstrap.servers": str(broker)})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result()
    return name


@pytest.fixture
def consumer(broker, prefix):
    made = []

    def make(**settings):
        base = {
            "bootstrap.servers": str(broker),
            "group.id": f"{prefix}app",
            "enable.auto.commit": False,
            "log_level": 0,
        }
        made.append(Consumer({**base, **settings}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def metadata_of(consumer: Consumer) -> GroupMetadata:
    return GroupMetadata.decode(consumer.consumer_group_metadata())


def join(consumer: Consumer, topic: str) -> GroupMetadata:
    consumer.subscribe([topic])
    deadline = time.monotonic() + 30
    while not consumer.assignment():
        assert time.monotonic() < deadline, "no assignment in time"
        consumer.poll(0.1)
    return metadata_of(consumer)


@pytest.mark.parametrize("protocol", [CLASSIC, MODERN], ids=["classic", "consumer"])
def test_a_joined_consumer_names_its_group_member_and_generation(consumer, topic, prefix, protocol):
    joined = consumer(**protocol)

    metadata = join(joined, topic)

    assert metadata.group == f"{prefix}app"
    assert metadata.member == joined.memberid()
    assert metadata.instance is None
    assert metadata.fences
    assert metadata.encode() == joined.consumer_group_metadata()


def test_a_static_member_names_its_instance(consumer, topic):
    instance = f"slot-{uuid.uuid4().hex[:6]}"
    joined = consumer(**CLASSIC, **{"group.instance.id": instance})

    metadata = join(joined, topic)

    assert metadata.instance == instance
    assert metadata.fences
    assert metadata.encode() == joined.consumer_group_metadata()


@pytest.mark.parametrize("protocol", [CLASSIC, MODERN], ids=["classic", "consumer"])
def test_a_consumer_that_has_not_joined_hands_out_what_nobody_fences(consumer, protocol):
    metadata = metadata_of(consumer(**protocol))

    assert metadata.generation == -1
    assert not metadata.fences


def test_a_consumer_that_left_hands_out_what_nobody_fences(consumer, topic):
    joined = consumer(**CLASSIC)
    assert join(joined, topic).fences

    joined.unsubscribe()
    deadline = time.monotonic() + 30
    while metadata_of(joined).fences:
        assert time.monotonic() < deadline, "the consumer still claims to be a member"
        joined.poll(0.1)

    assert not metadata_of(joined).fences
