"""The worker's pages: what they answer in which state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from aiohttp import web as server
from aiohttp.test_utils import TestClient, TestServer

from signal_router.model.log import TopicPartition
from signal_router.observe.exposition import State
from signal_router.observe.meter import Meter
from signal_router.runtime.web import SILENT_S, Pages
from signal_router.runtime.worker import Phase

ASSIGNED = frozenset({TopicPartition("signals", 0)})


@dataclass
class Standing:
    """A worker that stands still in some state."""

    phase: Phase = Phase.RUNNING
    trouble: str = ""
    member: bool = True
    partitions: frozenset[TopicPartition] = ASSIGNED
    silent_s: float = 0.1

    @property
    def complete(self) -> bool:
        return self.phase is Phase.RUNNING


def answer(worker: Standing, path: str, meter: Meter | None = None) -> tuple[int, str, str]:
    """Status, content type and text that a page answers."""

    def state() -> State:
        return State("w1", "app", "1", worker.phase.value, ("running",), 41, 2, 0, tuple(worker.partitions))

    async def ask() -> tuple[int, str, str]:
        app = server.Application()
        app.router.add_routes(Pages(worker, meter or Meter(), state).routes())
        async with TestClient(TestServer(app)) as client, client.get(path) as response:
            return response.status, response.headers["Content-Type"], await response.text()

    return asyncio.run(ask())


def test_a_running_worker_is_alive_and_ready():
    assert answer(Standing(), "/livez")[0] == 200
    assert answer(Standing(), "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (Standing(Phase.WAITING, member=False, partitions=frozenset()), "waiting for partitions"),
        (Standing(Phase.TAKING_OVER), "restoring its partitions"),
        (Standing(Phase.TAKING_OVER, trouble="no broker answers"), "no broker answers"),
    ],
)
def test_a_worker_that_does_not_read_yet_is_alive_but_not_ready(worker: Standing, reason: str):
    status, _, text = answer(worker, "/readyz")

    assert status == 503
    assert reason in text
    assert answer(worker, "/livez")[0] == 200


def test_a_worker_without_partitions_stands_by_and_is_ready():
    assert answer(Standing(Phase.WAITING, partitions=frozenset()), "/readyz")[0] == 200


def test_a_consume_thread_that_does_not_turn_is_not_alive():
    stuck = Standing(silent_s=SILENT_S + 1)

    status, _, text = answer(stuck, "/livez")

    assert status == 503
    assert "consume thread" in text
    assert answer(stuck, "/readyz")[0] == 503


def test_a_worker_that_has_stopped_is_neither():
    assert answer(Standing(Phase.STOPPED), "/livez")[0] == 503
    assert answer(Standing(Phase.STOPPED), "/readyz")[0] == 503


def test_metrics_come_in_prometheus_own_format():
    meter = Meter()
    meter.counts["fired", "t/a", ""] = 3

    status, content_type, text = answer(Standing(), "/metrics", meter)

    assert status == 200
    assert content_type.startswith("text/plain; version=0.0.4")
    assert 'signal_router_triggers_total{subscription="t/a"} 3.0' in text


def test_the_status_says_who_and_how():
    status, content_type, text = answer(Standing(Phase.TAKING_OVER), "/")

    assert status == 200
    assert content_type.startswith("application/json")
    assert '"slot": "w1"' in text
    assert '"ready": false' in text
    assert '"reason": "restoring its partitions"' in text
    assert '"partitions": {"signals": [0]}' in text
