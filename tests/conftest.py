"""A real broker for the tests: one per run, shared by its workers, and one's own for tests that break it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from confluent_kafka import Consumer, KafkaException, TopicPartition
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from signal_router.kafka.choice import BrokerChoice, choose_broker
from signal_router.kafka.embedded import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator


# The background jobs of a shell ignore Ctrl-C, and so would every process that a test starts from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True, slots=True)
class SharedBroker:
    """Where the run's broker is and how it was chosen ("given", "docker", "embedded")."""

    bootstrap: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return self.bootstrap


class _Sharing:
    """Lets the first worker that needs a broker start it for all; it stops it when the last one has let go."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._state = folder / "broker.json"
        self._lock = folder / "broker.lock"
        self._users = folder / "broker-users"
        self._me = self._users / worker
        self._choice: BrokerChoice | None = None

    def acquire(self) -> SharedBroker:
        with self._locked():
            self._users.mkdir(exist_ok=True)
            self._me.write_text(str(os.getpid()))
            if not self._state.exists():
                self._choice = choose_broker()
                self._choice.start()
                _await_groups(self._choice.bootstrap)
                found = {"bootstrap": self._choice.bootstrap, "kind": self._choice.kind, "reason": self._choice.reason}
                self._state.write_text(json.dumps(found))
            return SharedBroker(**json.loads(self._state.read_text()))

    def release(self) -> None:
        self._me.unlink(missing_ok=True)
        while self._choice is not None:
            with self._locked():
                if not any(_running(int(user.read_text() or 0)) for user in self._users.iterdir()):
                    self._state.unlink()
                    self._choice.stop()
                    return
            time.sleep(0.2)  # other workers still run tests on this worker's broker

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


_SHARING = pytest.StashKey[_Sharing]()


@pytest.fixture(params=["local", "topic"])
def candidates(request: pytest.FixtureRequest) -> str:
    """The way that candidates of a worker's own partitions take: what is proven is proven for both."""
    return str(request.param)


@pytest.fixture(params=[("classic", "local"), ("classic", "topic"), ("consumer", "local")], ids="-".join)
def ways(request: pytest.FixtureRequest) -> dict[str, str]:
    """Group protocol and way of the candidates together, where workers come and go."""
    protocol, candidates = request.param
    return {"protocol": protocol, "candidates": candidates}


def _await_groups(bootstrap: str) -> None:
    """A fresh broker makes the topic of committed offsets when first asked, and tests should not wait for that."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "first"})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            consumer.committed([TopicPartition("nowhere", 0)], timeout=10)
        except KafkaException:
            time.sleep(0.1)  # the topic is being made
        else:
            break
    consumer.close()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SharedBroker:
    """The run's broker, never stopped or paused by a test. Use `prefix` to keep topics apart."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    base = tmp_path_factory.getbasetemp()
    sharing = _Sharing(base if worker == "main" else base.parent, worker)
    request.config.stash[_SHARING] = sharing
    return sharing.acquire()


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Not in the fixture: waiting for the other workers would count against the last test's time limit.
    if sharing := session.config.stash.get(_SHARING, None):
        sharing.release()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """An embedded broker of the test's own, to be killed and paused at will."""
    with EmbeddedBroker(tmp_path / "kafka") as own:
        yield own


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files for a TLS listener on 127.0.0.1: the server's key and certificate, and who signed it."""

    server: Path
    authority: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority made for this run; nothing else trusts it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    made = Certificates(folder / "server.pem", folder / "authority.pem")
    key = load_pem_private_key(server.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # the only form that Java reads
    made.server.write_bytes(pkcs8 + b"".join(pem.bytes() for pem in server.cert_chain_pems))
    authority.cert_pem.write_to_path(str(made.authority))
    return made


@pytest.fixture
def prefix() -> str:
    """A topic prefix no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}-"
