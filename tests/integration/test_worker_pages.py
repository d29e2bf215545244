"""The pages of a real worker on a real broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import live_cluster, until

pytestmark = pytest.mark.kafka

PAIR = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/pair}
spec:
  join: {k: integer}
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
"""


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def free_port() -> int:
    with taken_port() as port:
        return port


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def metric(port: int, sample: str) -> float | None:
    """The value of one sample, written as Prometheus writes it."""
    found = [line.rpartition(" ")[2] for line in get(port, "/metrics")[1].splitlines() if line.startswith(f"{sample} ")]
    return float(found[0]) if found else None


def test_a_worker_shows_on_its_pages_what_it_did(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        cluster.apply(PAIR)
        port = free_port()
        cluster.worker(web_port=port)
        until(lambda: get(port, "/readyz")[0] == 200, "ready")

        for name, key in (("A", 1), ("A", 2), ("A", 1), ("B", 1), ("B", "x"), ("C", 1)):
            cluster.publish({"name": name, "source": "s", "id": f"{name}{key}", "params": {"k": key}})
        cluster.publish(b"not JSON")

        triggers = 'signal_router_triggers_total{subscription="team/pair"}'
        until(lambda: metric(port, triggers) == 1.0, "the trigger is counted")
        repeats = 'signal_router_outcomes_total{outcome="duplicate",reason="repeat",subscription="team/pair"}'
        without_key = 'signal_router_signals_without_join_key_total{subscription="team/pair"}'
        letters = 'signal_router_dead_letters_total{reason="not-json",subscription=""}'
        for sample in (repeats, without_key, letters, "signal_router_unmatched_signals_total"):
            until(lambda sample=sample: (metric(port, sample) or 0) >= 1, sample)  # type: ignore[misc]
        until(lambda: metric(port, 'signal_router_pending{subscription="team/pair"}') == 1.0, "what is pending")
        assert (metric(port, 'signal_router_oldest_pending_age_seconds{subscription="team/pair"}') or 0) > 0
        signals = f'signal_router_lag_records{{partition="0",topic="{cluster.names.signals}"}}'
        until(lambda: metric(port, signals) == 0.0, "the lag")
        assert metric(port, f'signal_router_partition_ready{{partition="0",topic="{cluster.names.signals}"}}') == 1.0

        assert get(port, "/livez") == (200, "ok\n")
        status = json.loads(get(port, "/")[1])
        assert status["slot"] == "w1"
        assert status["ready"] is True
        assert status["triggers"] == 1
        assert get(port, "/graph")[0] == 404, "Faust's own pages are served"
        cluster.stop_workers()


def test_a_taken_web_port_stops_the_worker_at_start(broker: object, prefix: str, tmp_path: Path) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster, taken_port() as port:
        worker = cluster.worker(web_port=port)

        assert worker.await_end() != 0

        assert f"web port {port}" in worker.stopped_with
        assert "--web-port" in worker.stopped_with


def test_the_command_line_names_a_taken_web_port(broker: object, prefix: str, tmp_path: Path) -> None:
    with taken_port() as port:
        command = [sys.executable, "-m", "signal_router", "run", "--slot", "w1", "--state-dir", str(tmp_path / "state")]
        command += ["--bootstrap", str(broker), "--prefix", prefix, "--web-port", str(port)]

        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 2
    assert f"web port {port}" in ended.stderr
    assert "hint: --web-port" in ended.stderr


def test_a_worker_whose_partitions_are_being_taken_over_is_not_ready(
    broker: object, prefix: str, tmp_path: Path
) -> None:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        port = free_port()
        worker = cluster.worker(web_port=port)
        seen: list[tuple[int, str]] = []

        def ready() -> bool:
            seen.append(get(port, "/readyz"))
            return seen[-1][0] == 200

        until(ready, "ready")
        assert all(status in {0, 503} for status, _ in seen[:-1])

        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.await_end() == 0
        assert get(port, "/livez")[0] == 0
