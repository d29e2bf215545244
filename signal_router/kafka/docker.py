"""The same broker as a Docker container, for those who have an engine; the settings are the embedded broker's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError
from signal_router.kafka.embedded import BROKER_SETTINGS, free_port
from signal_router.kafka.jars import KAFKA_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
PULL_VARIABLE = "SIGNAL_ROUTER_PULL"

_ENGINE_ANSWERS_WITHIN_S = 2.0
_PULL_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class Engine:
    """Whether a Docker engine answers and can run the image, and the reason in words."""

    answers: bool
    usable: bool
    reason: str


def usable_engine() -> Engine:
    """Asks the Docker engine; pulls the image only with `SIGNAL_ROUTER_PULL=1`."""
    if shutil.which("docker") is None:
        return Engine(answers=False, usable=False, reason="no docker command")
    if not _docker_succeeds("version", timeout_s=_ENGINE_ANSWERS_WITHIN_S):
        return Engine(answers=False, usable=False, reason="no Docker engine answers")
    if _docker_succeeds("image", "inspect", IMAGE, timeout_s=_ENGINE_ANSWERS_WITHIN_S):
        return Engine(answers=True, usable=True, reason="the engine answers and has the image")
    if os.environ.get(PULL_VARIABLE) == "1" and _docker_succeeds("pull", IMAGE, timeout_s=_PULL_WITHIN_S):
        return Engine(answers=True, usable=True, reason="the image was pulled")
    return Engine(answers=True, usable=False, reason=f"the Docker engine does not have {IMAGE}")


def container_environment(bootstrap_port: int) -> Mapping[str, str]:
    """The image's environment: the embedded broker's settings, and listeners for clients on this host."""
    listeners = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "controller.quorum.voters": "1@localhost:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{bootstrap_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    return {environment_name(key): value for key, value in (listeners | dict(BROKER_SETTINGS)).items()}


def environment_name(setting: str) -> str:
    """The variable from which the image takes a broker setting."""
    return "KAFKA_" + setting.upper().replace(".", "_")


class DockerBroker:
    """One container, removed when stopped. Raises BrokerError where the engine refuses."""

    def __init__(self) -> None:
        self._name = f"signal-router-{uuid.uuid4().hex[:12]}"
        self._port = 0

    @property
    def bootstrap(self) -> str:
        """`host:port`; known once started."""
        return f"127.0.0.1:{self._port}"

    def start(self, *, timeout_s: float = 60.0) -> Self:
        """Starts the container and returns when the broker answers."""
        with ExitStack() as held:
            self._port = free_port(held)
        variables = [
            part for key, value in container_environment(self._port).items() for part in ("-e", f"{key}={value}")
        ]
        published = f"127.0.0.1:{self._port}:9092"
        answer = _docker("run", "--detach", "--rm", "--name", self._name, "-p", published, *variables, IMAGE,
                         timeout_s=timeout_s)  # fmt: skip
        if answer is None or answer.returncode != 0:
            said = "no answer" if answer is None else answer.stderr.strip()
            raise BrokerError(
                f'docker run "{IMAGE}" failed: {said}', hint="docker rm, or stop the engine to use the embedded broker"
            )
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if admin.list_topics(timeout=1.0).brokers:
                    return self
            except KafkaException:
                continue
        self.stop()
        raise BrokerError(f'container "{self._name}" did not answer on {self.bootstrap} within {timeout_s:.0f} s')

    def stop(self) -> None:
        """Stops and removes the container. Idempotent."""
        _docker("rm", "--force", self._name, timeout_s=30.0)


def _docker_succeeds(*arguments: str, timeout_s: float) -> bool:
    answer = _docker(*arguments, timeout_s=timeout_s)
    return answer is not None and answer.returncode == 0


def _docker(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
