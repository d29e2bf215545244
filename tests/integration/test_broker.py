"""The embedded broker is a real Kafka: it keeps its data over a kill, and its life hangs on its owner's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from signal_router.errors import BrokerError, ConfigurationError
from signal_router.kafka.admin_client import before_4_3, connect
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.listeners import sasl_plain, sasl_scram, tls
from signal_router.kafka.settings import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kafka


def _until(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python; a failed test leaves none behind (its broker goes with it)."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _make_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for answer in admin.create_topics([NewTopic(name, 1)]).values():
        answer.result()


def _publish(settings: dict[str, str], topic: str) -> KafkaError | None:
    outcome: list[KafkaError | None] = []
    producer = Producer(settings | {"log_level": 0})
    producer.produce(topic, b"value", on_delivery=lambda error, _record: outcome.append(error))
    producer.flush(15)
    return outcome[0]


def _read_one(settings: dict[str, str], topic: str) -> bytes | None:
    consumer = Consumer(settings | {"group.id": "reader", "auto.offset.reset": "earliest", "log_level": 0})
    consumer.subscribe([topic])
    try:
        records = consumer.consume(1, timeout=20)
        return records[0].value() if records else None
    finally:
        consumer.close()


def test_shared_broker_runs_a_transaction(broker, prefix):
    topic = f"{prefix}t"
    _make_topic(broker.bootstrap, topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": prefix})
    producer.init_transactions(20)

    producer.begin_transaction()
    producer.produce(topic, b"committed")
    producer.commit_transaction(20)

    assert _read_one({"bootstrap.servers": broker.bootstrap}, topic) == b"committed"


def test_broker_keeps_port_and_data_over_a_kill_and_bears_a_pause(own_broker):
    bootstrap = own_broker.bootstrap
    _make_topic(bootstrap, "kept")
    assert _publish({"bootstrap.servers": bootstrap}, "kept") is None

    own_broker.kill()
    assert not own_broker.alive
    own_broker.start()

    assert own_broker.bootstrap == bootstrap
    assert _read_one({"bootstrap.servers": bootstrap}, "kept") == b"value"

    own_broker.pause()
    with pytest.raises(BrokerError, match=bootstrap):
        connect(Connection(bootstrap), timeout_s=1.0)
    own_broker.resume()

    assert not before_4_3(connect(Connection(bootstrap), timeout_s=20.0))


def test_topics_are_not_made_by_misspelling_them(broker, prefix):
    error = _publish({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": "5000"}, f"{prefix}misspelt")

    assert error is not None
    assert error.code() in {KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._MSG_TIMED_OUT}


def test_tls_sasl_and_acls(certificates):
    listeners = (tls(certificates.server), sasl_plain({"anna": "secret", "ben": "hidden"}), sasl_scram())
    with EmbeddedBroker(listeners=listeners, authorizer=True) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        _make_topic(broker.bootstrap, "guarded")
        _allow(admin, "anna", AclOperation.WRITE, AclOperation.DESCRIBE)
        _allow(admin, "carla", AclOperation.WRITE, AclOperation.DESCRIBE)
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        upsertion = UserScramCredentialUpsertion("carla", credential, b"scrambled")
        for answer in admin.alter_user_scram_credentials([upsertion]).values():
            answer.result()
        over_tls = {"security.protocol": "SSL", "ssl.ca.location": str(certificates.authority)}
        anna = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "anna"}
        carla = anna | {"sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "carla", "sasl.password": "scrambled"}
        ben = anna | {"sasl.username": "ben", "sasl.password": "hidden"}
        plain, scram, encrypted = (broker.address(name) for name in ("SASL", "SCRAM", "TLS"))

        assert connect(Connection(encrypted, overrides=over_tls)).list_topics(timeout=5).brokers
        assert _publish(anna | {"bootstrap.servers": plain, "sasl.password": "secret"}, "guarded") is None
        assert _publish(carla | {"bootstrap.servers": scram}, "guarded") is None
        denied = _publish(ben | {"bootstrap.servers": plain}, "guarded")
        assert denied is not None
        assert denied.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED

        with pytest.raises(BrokerError, match=r"(?i)authenticat") as caught:
            connect(Connection(plain, overrides=anna | {"sasl.password": "wrong"}))
        assert "security.protocol" in caught.value.hint
        with pytest.raises(BrokerError, match=r"(?i)certificate|ssl"):
            connect(Connection(encrypted, overrides={"security.protocol": "SSL"}))


def _allow(admin: AdminClient, user: str, *operations: AclOperation) -> None:
    acls = [
        AclBinding(
            ResourceType.TOPIC, "guarded", ResourcePatternType.LITERAL,
            f"User:{user}", "*", operation, AclPermissionType.ALLOW,
        )
        for operation in operations
    ]  # fmt: skip
    for answer in admin.create_acls(acls).values():
        answer.result()


def test_a_setting_the_broker_refuses_ends_the_start_with_its_last_lines(tmp_path):
    with pytest.raises(BrokerError, match=r"num\.io\.threads"):
        EmbeddedBroker(tmp_path, settings={"num.io.threads": "none"}).start()


def test_a_failed_start_leaves_no_folder_and_no_process():
    broker = EmbeddedBroker(settings={"num.io.threads": "none"})

    with pytest.raises(BrokerError):
        broker.start()

    assert not broker.alive
    assert broker.log_tail() == ""


OWNER = """
import json, sys, time
from signal_router.kafka.embedded import EmbeddedBroker
broker = EmbeddedBroker().start()
print(json.dumps({"pid": broker.pid, "bootstrap": broker.bootstrap, "folder": str(broker.log_file.parent)}), flush=True)
time.sleep(600)
"""


def test_jvm_and_its_folder_go_when_the_owner_is_killed():
    with _process("-c", OWNER) as owner:
        started = json.loads(owner.stdout.readline())
        assert _running(started["pid"])

        owner.kill()

    _until(lambda: not _running(started["pid"]))
    _until(lambda: not Path(started["folder"]).exists())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_broker_command_prints_its_address_and_stops_cleanly(number, tmp_path):
    with _process("-m", "signal_router", "broker", "--port", "0", "--data-dir", str(tmp_path / "data")) as process:
        bootstrap = process.stdout.readline().split()[-1]
        connect(Connection(bootstrap))

        process.send_signal(number)

        assert process.wait(20) == 0
    with pytest.raises(BrokerError):
        connect(Connection(bootstrap), timeout_s=0.5)


def test_broker_command_names_a_port_that_is_taken(broker):
    host, port = broker.bootstrap.split(",")[0].split(":")
    if host != "127.0.0.1":
        pytest.skip("the given broker is not on 127.0.0.1")

    command = [sys.executable, "-m", "signal_router", "broker", "--port", port]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert answer.returncode == 2
    assert f'error: port "{port}" is taken' in answer.stderr
    assert "hint: " in answer.stderr


def test_data_survive_a_clean_stop_on_another_port(tmp_path):
    with EmbeddedBroker(tmp_path / "data") as first:
        _make_topic(first.bootstrap, "kept")

    with EmbeddedBroker(tmp_path / "data") as second:
        assert "kept" in AdminClient({"bootstrap.servers": second.bootstrap}).list_topics(timeout=10).topics


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigurationError, match=r"no\.such\.setting"):
        connect(Connection("127.0.0.1:1", overrides={"no.such.setting": "1"}))


def test_an_unreachable_broker_is_a_clear_error_in_time():
    started = time.monotonic()

    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1\b.*refused") as caught:
        connect(Connection("127.0.0.1:1"))

    assert time.monotonic() - started < 7
    assert "signal-router broker" in caught.value.hint
