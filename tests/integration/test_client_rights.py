"""The rights that the page of the clients names suffice, on a broker that denies everything else; without them the
programs say what to grant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from signal_router.client import (
    ConfigurationError,
    Connection,
    DeliveryError,
    SignalProducer,
    SignalRouterError,
    Transaction,
    Trigger,
    TriggerConsumer,
)
from signal_router.kafka.admin_client import connect
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.listeners import sasl_plain
from signal_router.kafka.publish import Publisher
from signal_router.kafka.topics import topic_text
from signal_router.model.log import OutputRecord

pytestmark = pytest.mark.kafka

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
RIGHTS = re.findall(r"^\| ((?:producer|consumer)[^|]*) \| ([^|]+) \| ([A-Z]+)[^|]*\|$", PAGE, re.MULTILINE)
USERS = ("producer", "consumer", "nobody")


@pytest.fixture(scope="module")
def broker_with_rights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    listener = sasl_plain({user: f"{user}-secret" for user in USERS})
    home = tmp_path_factory.mktemp("kafka")
    with EmbeddedBroker(home, listeners=(listener,), authorizer=True) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        names = ("signals", "triggers", "parked", "outputs")
        for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            future.result(20)
        granted = [
            acl("producer", ResourceType.TOPIC, "signals", AclOperation.WRITE),
            acl("producer", ResourceType.TRANSACTIONAL_ID, "loader-0", AclOperation.WRITE),
            acl("consumer", ResourceType.TOPIC, "triggers", AclOperation.READ),
            acl("consumer", ResourceType.GROUP, "workflows", AclOperation.READ),
            acl("consumer", ResourceType.TOPIC, "parked", AclOperation.WRITE),
            acl("consumer", ResourceType.TOPIC, "outputs", AclOperation.WRITE),
            acl("consumer", ResourceType.TRANSACTIONAL_ID, "workflows-0", AclOperation.WRITE),
        ]
        for answer in admin.create_acls(granted).values():
            answer.result(20)
        with Publisher(Connection(broker.bootstrap)) as publisher:
            publisher.publish_now(OutputRecord("triggers", b"k", topic_text("examples/trigger.json").encode()))
            publisher.publish_now(OutputRecord("triggers", b"k", b"rubbish"))
        yield broker


def acl(user: str, kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def connection(broker: EmbeddedBroker, user: str) -> Connection:
    return Connection(broker.address("SASL"), overrides={
        "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
        "sasl.username": user, "sasl.password": f"{user}-secret",
    })  # fmt: skip


def test_the_page_grants_what_is_granted_here() -> None:
    assert [(who, operation) for who, _, operation in RIGHTS] == [
        ("producer", "WRITE"),
        ("producer with a transactional id", "WRITE"),
        ("consumer", "READ"),
        ("consumer", "WRITE"),
        ("consumer, exactly once", "WRITE"),
    ]


def test_a_producer_publishes_with_the_rights_of_the_page(broker_with_rights: EmbeddedBroker) -> None:
    at = connection(broker_with_rights, "producer")

    with SignalProducer(at, source="s") as signals:
        place = signals.publish("A").result()
    with SignalProducer(at, source="s", transactional_id="loader-0") as signals, signals.when_done() as done:
        done.publish("A")

    assert place.offset >= 0


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_consumer_handles_and_parks_with_the_rights_of_the_page(
    broker_with_rights: EmbeddedBroker, exactly_once: bool
) -> None:
    group = "workflows"
    at = connection(broker_with_rights, "consumer")
    consumer = TriggerConsumer(at, group=group, park_to="parked")
    handled: list[str] = []

    def write(trigger: Trigger, transaction: Transaction) -> None:
        transaction.produce("outputs", json.dumps({"n": 1}))
        handle(trigger)

    def handle(trigger: Trigger) -> None:
        handled.append(trigger.trigger_id)
        consumer.stop()

    with Publisher(Connection(broker_with_rights.bootstrap)) as publisher:
        publisher.publish_now(OutputRecord("triggers", b"k", b"rubbish"))
        publisher.publish_now(OutputRecord("triggers", b"k", topic_text("examples/trigger.json").encode()))
    if exactly_once:
        consumer.run_exactly_once(write, transactional_id="workflows-0")
    else:
        consumer.run(handle)

    assert handled


def test_without_rights_programs_say_what_to_grant(broker_with_rights: EmbeddedBroker) -> None:
    nobody = connection(broker_with_rights, "nobody")

    with pytest.raises(ConfigurationError) as caught:
        SignalProducer(nobody, source="s")
    assert caught.value.hint == 'grant WRITE on topic "signals"'
    with pytest.raises(ConfigurationError) as caught:
        TriggerConsumer(nobody, group="workflows", park_to="parked").run(print)
    assert caught.value.hint == 'grant READ on topic "triggers"'
    with pytest.raises(ConfigurationError) as caught:
        SignalProducer(connection(broker_with_rights, "consumer"), source="s")
    assert caught.value.hint == 'grant WRITE on topic "signals"'
    with pytest.raises(DeliveryError) as refused:
        SignalProducer(connection(broker_with_rights, "producer"), source="s", transactional_id="another")
    assert refused.value.reason == "denied"
    with pytest.raises(SignalRouterError, match="workflows-other"):
        TriggerConsumer(connection(broker_with_rights, "consumer"), group="workflows-other", park_to=print).run(print)


def publish_for_ever(signals: SignalProducer) -> None:
    while True:
        signals.publish("A").result()


def test_rights_that_are_taken_away_under_a_running_program_are_named(broker_with_rights: EmbeddedBroker) -> None:
    admin = connect(Connection(broker_with_rights.bootstrap))
    deny = AclBinding(
        ResourceType.TOPIC, "signals", ResourcePatternType.LITERAL, "User:producer", "*", AclOperation.WRITE,
        AclPermissionType.DENY,
    )  # fmt: skip
    signals = SignalProducer(connection(broker_with_rights, "producer"), source="s")
    signals.publish("A").result()
    for answer in admin.create_acls([deny]).values():
        answer.result(20)

    with pytest.raises(DeliveryError) as caught:
        publish_for_ever(signals)

    assert caught.value.reason == "denied"
