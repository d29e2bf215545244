"""The permissions of the operations guide suffice: a broker that denies everything else, and what the guide grants."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.listeners import sasl_plain
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import load_topics

pytestmark = pytest.mark.kafka

GUIDE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ROW = re.compile(
    r"^\| (worker|applier|checker|producer|consumer) \| (topic|group|transactional id) `(.+?)`"
    r"( and what begins with it)? \| ([A-Z_, ]+) \|$",
    re.MULTILINE,
)
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional id": ResourceType.TRANSACTIONAL_ID}
APP = "signal-router"
EACH = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/each}
spec:
  members:
    - {alias: a, signal: A}
"""


def test_the_permissions_of_the_guide_suffice(tmp_path: Path) -> None:
    users = {user: f"{user}-secret" for user in ("worker", "applier", "checker", "producer", "consumer")}
    with EmbeddedBroker(listeners=(sasl_plain(users),), authorizer=True) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        apply_topics(admin, wanted_topics(load_topics(), prefix="", app=APP))
        for answer in admin.create_acls(granted()).values():
            answer.result()
        at = {user: credentials(broker.address("SASL"), user, secret) for user, secret in users.items()}
        definitions = tmp_path / "each.yaml"
        definitions.write_text(EACH)

        worker = program(at["worker"], "run", "--slot", "a", "--state-dir", str(tmp_path / "state"))
        try:
            applied = program(at["applier"], "apply", "-f", str(definitions))
            assert applied.wait(60) == 0, applied.communicate()
            producer = Producer(at["producer"])
            producer.produce("signals", json.dumps({"name": "A", "source": "s", "id": "1"}))
            assert producer.flush(10) == 0
            trigger = first_trigger(at["consumer"])
            checked, _ = program(at["checker"], "verify", "-o", "json").communicate(timeout=120)
            worker.send_signal(signal.SIGTERM)
            _, said = worker.communicate(timeout=30)
        finally:
            worker.kill()

    assert trigger["subscription"]["id"] == "team/each"
    verdicts = {each["invariant"]: each["verdict"] for each in json.loads(checked)["findings"]}
    assert {verdicts[each] for each in ("unique", "lineage", "conserved", "offsets", "caught up")} == {"holds"}
    assert worker.returncode == 0
    assert "error" not in said.lower()


OTHER = """
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/other}
spec:
  members:
    - {alias: a, signal: A}
  trigger: {topic: others}
"""


def test_a_destination_that_denies_from_now_on_stops_no_other(tmp_path: Path) -> None:
    users = {user: f"{user}-secret" for user in ("worker", "applier", "producer")}
    with EmbeddedBroker(listeners=(sasl_plain(users),), authorizer=True) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        apply_topics(admin, wanted_topics(load_topics(), prefix="", app=APP))
        admin.create_topics([NewTopic("others", 1)])["others"].result()
        others = [
            allowed(user, ResourceType.TOPIC, "others", operation)
            for user in ("worker", "applier")
            for operation in ("WRITE", "DESCRIBE_CONFIGS")
        ]
        for answer in admin.create_acls([*granted(), *others]).values():
            answer.result()
        at = {user: credentials(broker.address("SASL"), user, secret) for user, secret in users.items()}
        definitions = tmp_path / "both.yaml"
        definitions.write_text(EACH + OTHER)

        worker = program(at["worker"], "run", "--slot", "a", "--state-dir", str(tmp_path / "state"))
        try:
            applied = program(at["applier"], "apply", "-f", str(definitions))
            assert applied.wait(60) == 0, applied.communicate()
            producer = Producer(at["producer"])
            announce(producer, 1)
            before = read(broker, "others", 1)

            taken = AclBindingFilter(
                ResourceType.TOPIC,
                "others",
                ResourcePatternType.LITERAL,
                "User:worker",
                "*",
                AclOperation.WRITE,
                AclPermissionType.ALLOW,
            )
            assert len(admin.delete_acls([taken])[taken].result()) == 1
            announce(producer, 2)
            fired = read(broker, "triggers", 2)
            (letter,) = read(broker, "dead-letters", 1)
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=30)
        finally:
            worker.kill()
        after = read(broker, "others", 1)

    assert [trigger["signals"][0]["id"] for trigger in fired] == ["1", "2"]
    assert (letter["kind"], letter["reason"], letter["destination"]) == ("trigger", "destination", "others")
    assert before == after
    assert worker.returncode == 0


def announce(producer: Producer, number: int) -> None:
    producer.produce("signals", json.dumps({"name": "A", "source": "s", "id": str(number)}))
    assert producer.flush(10) == 0


def read(broker: EmbeddedBroker, topic: str, count: int) -> list[Any]:
    """What stands on a topic once there are so many records, in order of time."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"read-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    found = []
    until = time.monotonic() + 90
    try:
        while len(found) < count:
            assert time.monotonic() < until, f"{topic}: {len(found)} of {count} records"
            record = consumer.poll(0.2)
            if record is not None and record.error() is None:
                found.append((record.timestamp()[1], json.loads(record.value())))
    finally:
        consumer.close()
    return [document for _, document in sorted(found, key=lambda each: each[0])]


def allowed(user: str, kind: ResourceType, name: str, operation: str) -> AclBinding:
    return AclBinding(
        kind,
        name,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )


def granted() -> list[AclBinding]:
    rows = ROW.findall(GUIDE)
    assert len(rows) >= 15
    return [
        AclBinding(
            KINDS[kind],
            name.replace("APP", APP),
            ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for user, kind, name, prefixed, operations in rows
        for operation in operations.split(", ")
    ]


def credentials(address: str, user: str, password: str) -> dict[str, str]:
    return {
        "bootstrap.servers": address,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }


def program(settings: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Starts a command of the program as a user."""
    security = {key: value for key, value in settings.items() if key != "bootstrap.servers"}
    assert Connection(settings["bootstrap.servers"], overrides=security)
    environment = os.environ | {
        f"SIGNAL_ROUTER_KAFKA_{key.upper().replace('.', '_')}": value for key, value in security.items()
    }
    web = ("--web-port", "off") if arguments[0] == "run" else ()
    return subprocess.Popen(
        [sys.executable, "-m", "signal_router", *arguments, *web, "--bootstrap", settings["bootstrap.servers"]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_trigger(settings: dict[str, str]) -> dict[str, dict[str, str]]:
    consumer = Consumer(settings | {"group.id": "workflows", "auto.offset.reset": "earliest"})
    consumer.subscribe(["triggers"])
    until = time.monotonic() + 60
    try:
        while time.monotonic() < until:
            record = consumer.poll(0.2)
            if record is not None and record.error() is None:
                return json.loads(record.value())
    finally:
        consumer.close()
    raise AssertionError("no trigger came")
