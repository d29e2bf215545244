"""The application around a worker: definitions and destinations while the broker comes and goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from signal_router.errors import BrokerError
from signal_router.kafka.settings import Connection
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord
from signal_router.runtime import app as app_module
from signal_router.runtime.app import Application
from signal_router.runtime.definitions import ReadDefinition
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.roster import TakeoverRecord, takeover_output
from signal_router.runtime.settings import WorkerSettings

DOCUMENT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/one}
spec:
  join: {k: any}
  within: 30s
  members: [{alias: a, signal: A}]
  trigger: {topic: theirs}
"""
DEADLINE_S = 10.0


class Taker:
    """Takes definitions as a worker does."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def take_definitions(self, definitions: Sequence[ReadDefinition]) -> None:
        for each in definitions:
            self._app.view.take(each)


def record() -> InputRecord:
    made = definition(read_documents([("one.yaml", DOCUMENT)]).documents[0], birth=1, join_generation=1, applied_at=0)
    return InputRecord(0, 0, definition_key(made.id), encode_definition(made))


def made(tmp_path: Path) -> Application:
    app = Application(WorkerSettings(Connection(), "w1", tmp_path))
    app._outputs = Outputs(app.names, "app", Destinations(), all_lineage=False)
    app._admin = None  # type: ignore[assignment]
    app.worker = Taker(app)  # type: ignore[assignment]
    return app


def found(_admin: object, topics: set[str], _forbidden: object) -> tuple[dict[str, int], dict[str, str]]:
    return dict.fromkeys(topics, 1_000_000), {}


def test_definitions_wait_while_their_destinations_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [BrokerError("away"), TimeoutError(), found]

    def verify(*asked: Any) -> tuple[dict[str, int], dict[str, str]]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return found(*asked)

    async def story() -> None:
        app = made(tmp_path)
        app._take_definitions([record()])
        async with asyncio.timeout(DEADLINE_S):
            while app.view.revision < 0:
                await asyncio.sleep(0.001)

        assert not app._ended.done()
        assert app._outputs.destinations.refusal("theirs") is None

    monkeypatch.setattr(app_module, "verify_destinations", verify)
    monkeypatch.setattr(app_module, "RETRY_S", 0.0)
    asyncio.run(story())


def test_an_earlier_look_at_destinations_does_not_hide_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, asked = threading.Event(), threading.Event()

    def verify(admin: object, topics: set[str], forbidden: object) -> tuple[dict[str, int], dict[str, str]]:
        if "theirs" not in topics:
            asked.set()
            slow.wait(DEADLINE_S)
        return found(admin, topics, forbidden)

    async def story() -> None:
        app = made(tmp_path)
        looking = asyncio.create_task(app._refresh_destinations())
        async with asyncio.timeout(DEADLINE_S):
            while not asked.is_set():
                await asyncio.sleep(0.001)
            app._take_definitions([record()])
            while app.view.revision < 0:
                await asyncio.sleep(0.001)
        slow.set()
        await looking

        assert app._outputs.destinations.refusal("theirs") is None

    monkeypatch.setattr(app_module, "verify_destinations", verify)
    asyncio.run(story())


def test_a_timer_goes_on_after_a_call_that_timed_out(tmp_path: Path) -> None:
    async def story() -> None:
        app = made(tmp_path)
        calls = 0

        async def work() -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise TimeoutError

        app._every(0.0, work)
        async with asyncio.timeout(DEADLINE_S):
            while calls < 3 and not app._ended.done():
                await asyncio.sleep(0.001)

        assert not app._ended.done()

    asyncio.run(story())


def test_a_worker_says_by_whom_it_was_fenced_and_nothing_of_others_or_of_a_former_life(
    tmp_path: Path,
) -> None:
    def announced(slot: str, by: str) -> InputRecord:
        output = takeover_output("workers", TakeoverRecord(slot, by, {"signals": [0]}, 0))
        return InputRecord(0, 0, output.key, output.value)

    async def story() -> None:
        app = made(tmp_path)
        worker = app.worker
        del app.worker
        app._take_roster([announced("w1", "w2")])
        app.worker = worker
        app._take_roster([announced("w9", "w2")])
        before = len(lines)
        app._take_roster([announced("w1", "w3")])

        assert before == 0

    with structlog.testing.capture_logs() as lines:
        asyncio.run(story())

    (line,) = lines
    assert (line["event"], line["by"], line["partitions"]) == ("fenced by another worker", "w3", {"signals": [0]})
