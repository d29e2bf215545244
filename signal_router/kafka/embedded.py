"""An embedded real Apache Kafka for demo, tests and first steps: one JVM, broker and controller in one, on loopback.

The life of the JVM hangs on this process: `stop` ends it, so does leaving the context, the interpreter's exit, and
(through `lifeline`) any other death of this process. `kill`, `pause` and `resume` are the faults the tests inject.
"""

from __future__ import annotations

import atexit
import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError
from signal_router.kafka import lifeline
from signal_router.kafka.jars import kafka_jars
from signal_router.kafka.java import find_java

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from signal_router.kafka.listeners import Listener

BROKER_SETTINGS: Mapping[str, str] = {
    # One node cannot hold three copies; with the defaults (3 and 2) no transaction would ever start.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 partitions each by default: seconds at the first transaction and the first group.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "num.partitions": "4",
    # Topics are made by `topics apply` only, so that a misspelt name is an error.
    "auto.create.topics.enable": "false",
    # No waiting for more members when a group starts; sessions short enough that a dead worker is noticed soon.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "12000",
    # How soon a member hears that partitions became free: 5 s by default.
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    # A killed broker may only come back when its old session has ended: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "2",
    # 128 MB of heap by default, which is a quarter of what this broker has.
    "log.cleaner.dedupe.buffer.size": "33554432",
}
"""What the embedded broker sets beyond Kafka's defaults; compose.yaml sets the same."""

JVM_OPTIONS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")

_PLAIN = "PLAINTEXT"
_CONTROLLER = "CONTROLLER"
_LOG_TAIL_LINES = 12
_STACK_FRAME = re.compile(r"\s+(at |\.\.\. \d+ more)")
_ATTEMPTS_AT_PORTS = 3


class EmbeddedBroker:
    """A single-node Kafka with its data in `data_dir` (None: a temporary folder that vanishes with the broker).

    `port` 0 takes a free one and keeps it over restarts. `settings` are broker settings over `BROKER_SETTINGS`.
    `listeners` stand beside the plain one; with `authorizer` their users may do nothing until an ACL allows it, while
    the plain listener's user is the super user. Not thread-safe.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        listeners: Sequence[Listener] = (),
        authorizer: bool = False,
        jvm_options: Sequence[str] = JVM_OPTIONS,
    ) -> None:
        self._temporary = data_dir is None
        self._data_dir = data_dir
        self._fixed_port = port
        self._settings = dict(settings or {})
        self._listeners = tuple(listeners)
        self._authorizer = authorizer
        self._jvm_options = tuple(jvm_options)
        self._ports: dict[str, int] = {}
        self._jvm: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of the plain listener; known once started."""
        return self.address(_PLAIN)

    def address(self, listener: str) -> str:
        """`host:port` of the named listener; known once started."""
        if listener not in self._ports:
            raise BrokerError(f'the embedded broker has no listener "{listener}", or was not started')
        return f"127.0.0.1:{self._ports[listener]}"

    @property
    def pid(self) -> int:
        """The JVM's process id; -1 while none runs."""
        return self._jvm.pid if self._jvm is not None and self.alive else -1

    @property
    def alive(self) -> bool:
        """Whether the JVM runs (a paused one does)."""
        return self._jvm is not None and self._jvm.poll() is None

    @property
    def log_file(self) -> Path:
        """The JVM's output, warnings and errors."""
        return self._home / "broker.log"

    def start(self, *, timeout_s: float = 60.0) -> Self:
        """Starts the broker and returns when it answers; formats an empty data folder first. Idempotent while it runs.

        Raises:
            BrokerError: no Java, no jars, the port is taken, or the JVM died; its last lines are in the text.
        """
        if self.alive:
            return self
        java, jars = find_java(), kafka_jars()
        if self._data_dir is None:
            self._data_dir = Path(tempfile.mkdtemp(prefix="signal-router-kafka-"))
        self._home.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        for attempt in range(1, _ATTEMPTS_AT_PORTS + 1):
            chosen_now = not self._ports
            self._choose_ports()
            try:
                self._launch(java, jars, deadline)
            except BrokerError:
                self.kill()
                # Between choosing a free port and binding it, another process may have taken it.
                if not (chosen_now and attempt < _ATTEMPTS_AT_PORTS and "Address already in use" in self.log_tail()):
                    raise
                self._ports.clear()
            except BaseException:  # Ctrl-C while waiting leaves no JVM behind
                self.stop()
                raise
            else:
                return self
        raise AssertionError  # the last attempt returns or raises

    def stop(self, *, timeout_s: float = 15.0) -> None:
        """Stops the broker cleanly, by force after `timeout_s`; removes a temporary data folder. Idempotent."""
        jvm = self._jvm
        if jvm is not None and jvm.poll() is None:
            jvm.send_signal(signal.SIGCONT)
            jvm.terminate()
            try:
                jvm.wait(timeout_s)
            except subprocess.TimeoutExpired:
                jvm.kill()
                jvm.wait()
        self._forget()
        if self._temporary and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)
            self._data_dir = None

    def kill(self) -> None:
        """Kills the JVM (SIGKILL) and waits for its end; `start` brings it back on the same data and ports."""
        if self._jvm is not None:
            self._jvm.kill()
            self._jvm.wait()
        self._forget()

    def pause(self) -> None:
        """Stops the JVM in its tracks (SIGSTOP): connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused JVM go on."""
        self._signal(signal.SIGCONT)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the JVM's end; returns its exit code, or None after `timeout_s`."""
        if self._jvm is None:
            return None
        try:
            return self._jvm.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def log_tail(self) -> str:
        """The last lines of the JVM's output, without stack frames."""
        if self._data_dir is None or not self.log_file.exists():
            return ""
        lines = self.log_file.read_text(errors="replace").splitlines()
        telling = [line for line in lines if not _STACK_FRAME.match(line)]
        return "\n".join(telling[-_LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _home(self) -> Path:
        if self._data_dir is None:
            raise BrokerError("the embedded broker was not started")
        return self._data_dir

    def _signal(self, number: int) -> None:
        if self._jvm is None or self._jvm.poll() is not None:
            raise BrokerError("the embedded broker does not run")
        self._jvm.send_signal(number)

    def _choose_ports(self) -> None:
        if self._ports:
            return
        wanted = {_PLAIN: self._fixed_port, _CONTROLLER: 0} | {each.name: each.port for each in self._listeners}
        with ExitStack() as held:  # all are held until the last is chosen, so no two are the same
            for name, port in wanted.items():
                self._ports[name] = free_port(held, port)

    def _launch(self, java: Path, jars: Sequence[Path], deadline: float) -> None:
        properties = self._home / "server.properties"
        properties.write_text("".join(f"{key}={_escaped(value)}\n" for key, value in self._properties().items()))
        log4j2 = self._home / "log4j2.xml"
        log4j2.write_text(resources.files("signal_router.kafka").joinpath("log4j2.xml").read_text())
        command = [
            str(java), *self._jvm_options, f"-Dlog4j2.configurationFile={log4j2}", "-Djava.awt.headless=true",
            "-cp", os.pathsep.join(map(str, jars)),
        ]  # fmt: skip
        with self.log_file.open("wb") as log:
            if not (self._home / "data" / "meta.properties").exists():
                self._format(command, properties, deadline)
            self._jvm = subprocess.Popen(
                [*command, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=self._home,
            )  # fmt: skip
        self._guard = self._start_guard(self._jvm.pid)
        atexit.register(self.stop)
        self._wait_until_ready(deadline)

    def _format(self, command: list[str], properties: Path, deadline: float) -> None:
        cluster_id = "S" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # never starts with "-"
        answer = subprocess.run(
            [*command, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)],
            capture_output=True, text=True, check=False, timeout=max(1.0, deadline - time.monotonic()),
        )  # fmt: skip
        if answer.returncode != 0:
            raise BrokerError(f'formatting "{self._home}" for Kafka failed:\n{answer.stdout}{answer.stderr}'.rstrip())

    def _cluster_id(self) -> str:
        lines = (self._home / "data" / "meta.properties").read_text().splitlines()
        return next(line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id="))

    def _properties(self) -> dict[str, str]:
        names = {_PLAIN: _PLAIN, _CONTROLLER: _PLAIN} | {each.name: each.protocol for each in self._listeners}
        addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()}
        properties = dict(BROKER_SETTINGS) | {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{self.address(_CONTROLLER)}",
            "controller.listener.names": _CONTROLLER,
            "inter.broker.listener.name": _PLAIN,
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(addresses[name] for name in addresses if name != _CONTROLLER),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in names.items()),
            "log.dirs": str(self._home / "data"),
        }
        if self._authorizer:
            properties |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        for listener in self._listeners:
            properties |= listener.properties()
        return properties | self._settings

    def _start_guard(self, jvm: int) -> subprocess.Popen[bytes]:
        folder = str(self._home) if self._temporary else "-"
        return subprocess.Popen(
            [sys.executable, "-I", "-S", lifeline.__file__, str(jvm), str(os.getpid()), folder],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _wait_until_ready(self, deadline: float) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        cluster_id = self._cluster_id()
        while time.monotonic() < deadline:
            if not self.alive:
                raise BrokerError(f"the embedded broker ended at start; its last lines:\n{self.log_tail()}")
            try:
                metadata = admin.list_topics(timeout=1.0)
                if metadata.brokers and metadata.cluster_id == cluster_id:  # another broker may answer on this port
                    return
            except KafkaException:
                continue
        raise BrokerError(f'the embedded broker did not answer in time; its log is "{self.log_file}"')

    def _forget(self) -> None:
        """Lets go of the guard and of the ended JVM."""
        atexit.unregister(self.stop)
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            try:
                guard.stdin.write(b"done")
                guard.stdin.close()
            except BrokenPipeError:  # it was ended from outside
                pass
            guard.wait()
        self._jvm = None


def free_port(held: ExitStack, wanted: int = 0) -> int:
    """Returns a free loopback port, or the wanted one if it is free; it stays taken until `held` closes.

    Raises:
        BrokerError: the wanted port is taken.
    """
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: connections closing down do not count
    try:
        probe.bind(("127.0.0.1", wanted))
    except OSError as error:
        raise BrokerError(
            f'port "{wanted}" is taken on 127.0.0.1: {error.strerror}',
            hint="another port: --port N (0 takes a free one)",
        ) from error
    port: int = probe.getsockname()[1]
    return port


def _escaped(value: str) -> str:
    """A value as a Java properties file spells it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
