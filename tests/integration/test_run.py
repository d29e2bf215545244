"""`run` as an operator meets it: what stops it at start, how it stops, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from signal_router.kafka.admin_client import connect
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import load_topics

pytestmark = pytest.mark.kafka

Run = Callable[..., "subprocess.Popen[str]"]


def make_topics(bootstrap: str, prefix: str) -> AdminClient:
    admin = connect(Connection(bootstrap, prefix), timeout_s=20)
    apply_topics(admin, wanted_topics(load_topics(), prefix=prefix, app="signal-router"))
    return admin


def command(bootstrap: str, prefix: str, state_dir: Path, *options: str) -> list[str]:
    where = ["--bootstrap", bootstrap, "--prefix", prefix, "--web-port", "off"]
    return [sys.executable, "-m", "signal_router", "run", "--state-dir", str(state_dir), *where, *options]


@pytest.fixture
def run(broker, prefix, tmp_path) -> Iterator[Run]:
    """Starts `signal-router run` with a log that is read at the end."""
    processes = []

    def start(*options: str, state_dir: Path = tmp_path / "w1", bootstrap: str = broker.bootstrap) -> object:
        process = subprocess.Popen(
            command(bootstrap, prefix, state_dir, "--slot", "w1", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def logged(process: subprocess.Popen[str], event: str) -> dict[str, object]:
    """Reads the log up to a line."""
    for line in process.stderr:
        if line.startswith("{") and (found := json.loads(line))["event"] == event:
            return found
    raise AssertionError(f"the log ended before {event!r}")


def test_sigterm_is_a_clean_stop(broker, prefix, run):
    make_topics(broker.bootstrap, prefix)
    process = run()
    taken = logged(process, "took partitions over")

    process.send_signal(signal.SIGTERM)

    code, said = ended(process)
    assert taken["partitions"][f"{prefix}signals"] == [0, 1, 2, 3]
    assert (code, "error" in said) == (0, False)


def test_ctrl_c_is_a_clean_stop_too(broker, prefix, run):
    make_topics(broker.bootstrap, prefix)
    process = run()
    logged(process, "took partitions over")

    process.send_signal(signal.SIGINT)

    assert ended(process)[0] == 0


def test_a_missing_topic_stops_it_with_its_name(prefix, run):
    code, said = ended(run())

    assert code == 2
    assert re.search(rf'error: topic "{prefix}[a-z-]+" does not exist\nhint: signal-router topics apply', said)


def test_a_wrongly_configured_topic_stops_it_with_setting_and_value(broker, prefix, run):
    admin = make_topics(broker.bootstrap, prefix)
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    changelog = ConfigResource(
        ResourceType.TOPIC, f"{prefix}signal-router-join-sets-changelog", incremental_configs=[entry]
    )
    admin.incremental_alter_configs([changelog])[changelog].result()

    code, said = ended(run())

    assert code == 2
    assert f'error: topic "{changelog.name}" has cleanup.policy "delete"' in said
    assert "hint: signal-router topics diff" in said


def test_candidates_and_changelog_of_different_counts_stop_it(broker, prefix, run):
    admin = make_topics(broker.bootstrap, prefix)
    (grown,) = admin.create_partitions([NewPartitions(f"{prefix}signal-router-candidates", 6)]).values()
    grown.result()

    code, said = ended(run())

    assert code == 2
    assert f'"{prefix}signal-router-candidates" has 6 partitions' in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--signals", "nowhere"], 'signals topic "nowhere" does not exist'),
        (["--signals", "^nowhere"], "no topic matches the signals patterns ^nowhere"),
        (["--signals", "{prefix}lineage"], '"{prefix}lineage" is a topic of this app and cannot be read as signals'),
        (["-X", "nonsense=1"], 'kafka client settings are refused: No such configuration property: "nonsense"'),
        (
            ["-X", "session.timeout.ms=3000000", "-X", "max.poll.interval.ms=3000001"],
            'session.timeout.ms "3000000" is refused by the brokers',
        ),
        (
            ["--group-protocol", "consumer", "--membership", "static"],
            'membership "static" does not go with group protocol "consumer"',
        ),
        (
            ["--group-protocol", "consumer", "-X", "session.timeout.ms=20000"],
            'session.timeout.ms "20000" is the broker\'s to decide under group protocol "consumer"',
        ),
    ],
)
def test_signals_and_settings_that_cannot_be_stop_it(broker, prefix, run, options, said):
    make_topics(broker.bootstrap, prefix)

    code, found = ended(run(*[option.format(prefix=prefix) for option in options]))

    assert code == 2
    assert f"error: {said.format(prefix=prefix)}" in found
    assert "Traceback" not in found


def test_a_session_time_out_that_brokers_refuse_is_answered_by_those_they_take(broker, prefix, run):
    make_topics(broker.bootstrap, prefix)

    _, said = ended(run("-X", "session.timeout.ms=3000000", "-X", "max.poll.interval.ms=3000001"))

    assert "hint: -X session.timeout.ms=… between 1000 and 1800000, as the brokers have it" in said


def test_brokers_without_the_group_protocol_are_named(prefix, run):
    with EmbeddedBroker(settings={"group.coordinator.rebalance.protocols": "classic"}) as old:
        make_topics(old.bootstrap, prefix)

        code, said = ended(run("--group-protocol", "consumer", bootstrap=old.bootstrap))

    assert code == 2
    assert 'error: the brokers do not know group protocol "consumer"' in said
    assert "hint: --group-protocol classic" in said


def test_an_unreachable_broker_is_named_within_seconds(run):
    began = time.monotonic()

    code, said = ended(run(bootstrap="127.0.0.1:1"))

    assert code == 2
    assert 'error: no broker answers at "127.0.0.1:1"' in said
    assert "hint: check --bootstrap, or start a broker: signal-router broker" in said
    assert time.monotonic() - began < 45  # most of it is a busy machine starting Python


def test_a_second_worker_on_the_same_directory_is_refused_and_the_first_goes_on(broker, prefix, run):
    make_topics(broker.bootstrap, prefix)
    first = run()
    logged(first, "took partitions over")

    code, said = ended(run())

    assert code == 2
    assert f'is in use by slot "w1" (process {first.pid})' in said
    assert first.poll() is None


def test_of_two_workers_with_one_slot_the_earlier_stops_naming_it(broker, prefix, run, tmp_path):
    make_topics(broker.bootstrap, prefix)
    first = run()
    logged(first, "took partitions over")
    second = run(state_dir=tmp_path / "other")

    code, said = ended(first)

    assert code == 2
    assert 'error: slot "w1" was taken by' in said
    assert "hint: every worker needs a --slot of its own" in said
    assert second.poll() is None


# ---- on a terminal


class Terminal:
    """A worker whose stderr is a terminal; what it shows is kept."""

    def __init__(self, arguments: list[str]) -> None:
        ours, theirs = pty.openpty()
        self._screen = ours
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.shown = ""

    def wait_for(self, pattern: str, *, within_s: float = 60.0) -> None:
        """Reads until what is shown from here on matches."""
        begin, deadline = len(self.shown), time.monotonic() + within_s
        while not re.search(pattern, self.shown[begin:]):
            assert time.monotonic() < deadline, f"{pattern!r} was not shown, but:\n{self.shown[begin:][-2000:]}"
            if select.select([self._screen], [], [], 0.5)[0]:
                self.shown += os.read(self._screen, 65536).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


def test_a_broker_that_goes_away_is_waited_for_on_the_screen(own_broker: EmbeddedBroker, prefix, tmp_path):
    make_topics(own_broker.bootstrap, prefix)
    terminal = Terminal(command(own_broker.bootstrap, prefix, tmp_path / "w1", "--slot", "w1"))
    try:
        terminal.wait_for(r"running · 0 signals/s · 0 triggers/s · 0 signals waiting")
        own_broker.stop()
        terminal.wait_for(r"no broker answers for \d+ s, waiting for it")
        own_broker.start()
        terminal.wait_for(r"running · 0 signals/s · 0 triggers/s · 0 signals waiting")

        producer = Producer({"bootstrap.servers": own_broker.bootstrap})
        producer.produce(f"{prefix}signals", b'{"name": "A"}')
        assert producer.flush(10) == 0
        terminal.wait_for(r"running · [1-9]\d* signals/s", within_s=30)
        terminal.process.send_signal(signal.SIGTERM)

        assert terminal.process.wait(30) == 0
        assert "Connection refused" not in terminal.shown
    finally:
        terminal.close()
