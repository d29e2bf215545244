"""The worker's web pages, on Faust's own server: `/metrics`, `/livez`, `/readyz`, and a short status at `/`.

Faust's own pages are left out: they speak of its tables and its partition assignor, which this program does not use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import faust
from aiohttp import web
from faust.web.base import BlueprintManager

from signal_router.errors import ConfigurationError
from signal_router.model.log import TopicPartition
from signal_router.observe.exposition import CONTENT_TYPE, State, render
from signal_router.observe.meter import Meter
from signal_router.runtime.roster import partitions_by_topic
from signal_router.runtime.settings import WorkerSettings
from signal_router.runtime.worker import Phase

SILENT_S = 60.0
"""A consume thread turns 20 times a second, but for a revoke, which it waits for some seconds."""


class Shown(Protocol):
    """What pages ask of a worker; see `Worker`."""

    phase: Phase
    trouble: str

    @property
    def complete(self) -> bool:
        """Whether all partitions of the assignment are being worked on."""

    @property
    def member(self) -> bool:
        """Whether the group has given it an assignment, be it an empty one."""

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """The partitions of the assignment."""

    @property
    def silent_s(self) -> float:
        """Seconds since the consume thread began its present turn."""


class Pages:
    """Answers for one worker. That an answer comes at all says that the event loop turns."""

    def __init__(self, worker: Shown, meter: Meter, state: Callable[[], State]) -> None:
        """`state` is called on the event loop."""
        self._worker = worker
        self._meter = meter
        self._state = state
        self._started = time.monotonic()

    def routes(self) -> list[web.RouteDef]:
        """The pages, as aiohttp takes them."""
        return [
            web.get("/", self.status),
            web.get("/metrics", self.metrics),
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
        ]

    def add_to(self, app: faust.App) -> None:
        """Puts the pages on the app's web server; before the app is started."""
        app.web.blueprints = BlueprintManager()
        app.web.web_app.router.add_routes(self.routes())

    async def metrics(self, _request: web.Request) -> web.Response:
        """Metrics for Prometheus; written in a thread, since there may be many."""
        body = await asyncio.to_thread(render, self._meter, self._state())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def livez(self, _request: web.Request) -> web.Response:
        """200 while the worker makes progress; 503 means that only a restart helps."""
        return _answer(self._fault())

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 once what is assigned is restored and read; 503 with the reason before."""
        return _answer(self._fault() or self._unready())

    async def status(self, _request: web.Request) -> web.Response:
        """A short status as JSON."""
        return web.json_response(self._status(self._state()))

    def _fault(self) -> str | None:
        silent_s = self._worker.silent_s
        if silent_s > SILENT_S:
            return f"the consume thread has not turned for {silent_s:.0f} s"
        if self._worker.phase is Phase.STOPPED:
            return "stopped"
        return None

    def _unready(self) -> str | None:
        worker = self._worker
        if worker.complete or (worker.member and not worker.partitions):
            return None  # without partitions it stands by: there are more workers than partitions
        reason = "waiting for partitions" if worker.phase is Phase.WAITING else "restoring its partitions"
        return f"{reason}: {worker.trouble}" if worker.trouble else reason

    def _status(self, state: State) -> dict[str, object]:
        unready = self._fault() or self._unready()
        return {
            "slot": state.slot,
            "app": state.app,
            "version": state.version,
            "up_seconds": round(time.monotonic() - self._started, 1),
            "phase": state.phase,
            "ready": unready is None,
            "reason": unready,
            "partitions": partitions_by_topic(state.assigned),
            "behind": sum(state.lag.values()) if state.lag else None,
            "definitions_revision": state.revision,
            "subscriptions": state.subscriptions,
            "signals": self._meter.total("signals"),
            "triggers": self._meter.total("fired"),
            "dead_letters": self._meter.total("dead_letters"),
            "transactions": self._meter.transactions,
            "pending": sum(state.pending.values()),
            "pages": ["/metrics", "/livez", "/readyz"],
        }


async def start(app: faust.App, settings: WorkerSettings) -> None:
    """Starts the app with its web server. Raises ConfigurationError where the server cannot listen."""
    try:
        await app.start()
    except OSError as error:
        await app.stop()
        raise ConfigurationError(
            f'web port {settings.web_port} on "{settings.web_host}" cannot be used: {error.strerror or error}',
            hint="--web-port with another port, or --web-port off",
        ) from error


def _answer(fault: str | None) -> web.Response:
    return web.Response(text="ok\n" if fault is None else f"{fault}\n", status=200 if fault is None else 503)
