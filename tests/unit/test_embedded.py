"""What the embedded broker stands on: pinned jars, a Java, the order of choice, and the same settings everywhere."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from signal_router.errors import BrokerError
from signal_router.kafka.choice import choose_broker
from signal_router.kafka.docker import IMAGE, container_environment, environment_name
from signal_router.kafka.embedded import BROKER_SETTINGS, EmbeddedBroker
from signal_router.kafka.jars import KAFKA_VERSION, Jar, kafka_jars, pinned_jars
from signal_router.kafka.java import find_java, java_version
from signal_router.kafka.listeners import sasl_plain, tls

ROOT = Path(__file__).resolve().parents[2]
GOOD = b"the right content"
JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(GOOD).hexdigest())


class Source:
    """Brings prepared contents, one per call; counts the calls."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = list(contents)
        self.calls = 0

    def __call__(self, _jar: Jar, scratch: Path) -> Path:
        self.calls += 1
        scratch.mkdir()
        path = scratch / "file"
        path.write_bytes(self.contents.pop(0))
        return path


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch):
    for name in ("SIGNAL_ROUTER_BOOTSTRAP", "SIGNAL_ROUTER_KAFKA_JARS", "SIGNAL_ROUTER_PULL"):
        monkeypatch.delenv(name, raising=False)


def _program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_every_pinned_jar_has_a_checksum_and_stands_once():
    jars = pinned_jars()

    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in {jar.filename for jar in jars}
    assert len({jar.filename for jar in jars}) == len(jars)
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_a_jar_is_fetched_once_and_then_taken_from_the_cache(tmp_path):
    source = Source(GOOD)

    for _ in range(2):
        (path,) = kafka_jars(jars=[JAR], folder=tmp_path, fetch=source)

    assert path.read_bytes() == GOOD
    assert source.calls == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == [".lock", "thing-1.0.jar"]


def test_a_jar_damaged_on_the_way_is_fetched_once_more(tmp_path):
    source = Source(b"damaged", GOOD)

    (path,) = kafka_jars(jars=[JAR], folder=tmp_path, fetch=source)

    assert path.read_bytes() == GOOD
    assert source.calls == 2


def test_a_jar_damaged_in_the_cache_is_replaced(tmp_path):
    (tmp_path / JAR.filename).write_bytes(b"damaged")

    (path,) = kafka_jars(jars=[JAR], folder=tmp_path, fetch=Source(GOOD))

    assert path.read_bytes() == GOOD


def test_a_jar_damaged_twice_is_an_error_and_never_reaches_the_cache(tmp_path):
    with pytest.raises(BrokerError, match=r"org\.example:thing:1\.0.*SHA-256"):
        kafka_jars(jars=[JAR], folder=tmp_path, fetch=Source(b"damaged", b"damaged"))

    assert [each.name for each in tmp_path.iterdir()] == [".lock"]


def test_a_failed_fetch_names_the_jar_and_the_way_without_network(tmp_path):
    def fail(_jar: Jar, _scratch: Path) -> Path:
        raise OSError("network is unreachable")

    with pytest.raises(BrokerError, match="network is unreachable") as caught:
        kafka_jars(jars=[JAR], folder=tmp_path, fetch=fail)

    assert "SIGNAL_ROUTER_KAFKA_JARS" in caught.value.hint


def test_two_that_fetch_at_once_fetch_once(tmp_path):
    source = Source(GOOD, GOOD)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(kafka_jars(jars=[JAR], folder=tmp_path, fetch=source)))
        for _ in range(2)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(found) == 2
    assert source.calls == 1


def test_given_jars_are_used_without_fetching(tmp_path, monkeypatch):
    (tmp_path / JAR.filename).write_bytes(GOOD)
    monkeypatch.setenv("SIGNAL_ROUTER_KAFKA_JARS", str(tmp_path))

    assert kafka_jars(jars=[JAR], fetch=Source()) == (tmp_path / JAR.filename,)


@pytest.mark.parametrize(("content", "fault"), [(None, "is missing"), (b"other", "differs from its pinned SHA-256")])
def test_given_jars_that_are_not_the_pinned_ones_are_refused(tmp_path, monkeypatch, content, fault):
    if content is not None:
        (tmp_path / JAR.filename).write_bytes(content)
    monkeypatch.setenv("SIGNAL_ROUTER_KAFKA_JARS", str(tmp_path))

    with pytest.raises(BrokerError, match=fault):
        kafka_jars(jars=[JAR], fetch=Source(GOOD))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("no such thing", None),
    ],
)
def test_java_versions_are_read(tmp_path, said, version):
    assert java_version(_program(tmp_path, "java", f"echo '{said}' >&2")) == version


def test_java_home_comes_first_and_one_too_old_is_passed_over(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new" / "bin"
    (old / "bin").mkdir(parents=True)
    new.mkdir(parents=True)
    _program(old / "bin", "java", "echo 'openjdk version \"11.0.2\"' >&2")
    java = _program(new, "java", "echo 'openjdk version \"21\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(old))
    monkeypatch.setenv("PATH", f"{new}{os.pathsep}{os.environ['PATH']}")

    assert find_java() == java


def test_a_given_broker_is_chosen_and_said(monkeypatch):
    monkeypatch.setenv("SIGNAL_ROUTER_BOOTSTRAP", "kafka.example:9092")
    said = []

    choice = choose_broker(say=said.append)

    assert (choice.kind, choice.bootstrap) == ("given", "kafka.example:9092")
    assert said == ['broker: "kafka.example:9092" (SIGNAL_ROUTER_BOOTSTRAP)']


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        ("exit 1", "embedded", "no Docker engine answers"),
        ('[ "$1" = version ]', "embedded", "does not have"),
        ('[ "$1" = version ] || [ "$1" = image ]', "docker", "has the image"),
    ],
)
def test_docker_is_chosen_only_where_an_engine_has_the_image(tmp_path, monkeypatch, script, kind, reason):
    _program(tmp_path, "docker", script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    choice = choose_broker()

    assert choice.kind == kind
    assert reason in choice.reason


def test_an_image_is_pulled_only_when_allowed(tmp_path, monkeypatch):
    _program(tmp_path, "docker", '[ "$1" = version ] || [ "$1" = pull ]')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert choose_broker().kind == "embedded"
    monkeypatch.setenv("SIGNAL_ROUTER_PULL", "1")
    assert choose_broker().kind == "docker"


def test_compose_and_docker_have_the_embedded_broker_s_settings():
    kafka = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())["services"]["kafka"]
    wanted = {environment_name(key): value for key, value in BROKER_SETTINGS.items()}
    of_the_node = {
        "KAFKA_NODE_ID", "KAFKA_PROCESS_ROLES", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_CONTROLLER_LISTENER_NAMES",
        "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "KAFKA_INTER_BROKER_LISTENER_NAME", "KAFKA_LOG_DIRS", "KAFKA_HEAP_OPTS",
    }  # fmt: skip

    composed = {key: value for key, value in kafka["environment"].items() if key not in of_the_node}
    contained = {key: value for key, value in container_environment(1).items() if key not in of_the_node}

    assert composed == wanted
    assert contained == wanted
    assert kafka["image"] == IMAGE
    assert all(port.startswith("127.0.0.1:") for port in kafka["ports"])


def test_a_broker_that_was_not_started_says_so():
    broker = EmbeddedBroker()

    with pytest.raises(BrokerError, match="not started"):
        _ = broker.bootstrap
    with pytest.raises(BrokerError, match="does not run"):
        broker.pause()
    broker.stop()


def test_listeners_write_their_settings_under_their_own_name(tmp_path):
    plain = sasl_plain({"anna": "secret"}).properties()
    mutual = tls(tmp_path / "server.pem", truststore_pem=tmp_path / "ca.pem").properties()

    assert 'user_anna="secret"' in plain["listener.name.sasl.plain.sasl.jaas.config"]
    assert mutual["listener.name.tls.ssl.client.auth"] == "required"
