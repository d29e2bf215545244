"""What to type after the demo: commands that work as they stand, on the demo's broker or on one of one's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from signal_router.kafka.settings import Connection

Command = tuple[str, str]
"""A command, and what it is for."""


def while_it_runs(connection: Connection, trigger_id: str | None, web_port: int) -> Sequence[Command]:
    """Commands for another terminal while broker and worker still run."""
    program = _program()
    where = f"export SIGNAL_ROUTER_BOOTSTRAP={connection.bootstrap}"
    if connection.prefix:
        where += f" SIGNAL_ROUTER_PREFIX={connection.prefix}"
    caused = [(f"{program} lineage show trigger {trigger_id}", "which signals caused this run?")] if trigger_id else []
    return [
        (where, "in another terminal, for all that follow"),
        *caused,
        (f"{program} joins list", "what waits, and for what?"),
        (f"{program} dead-letters list", "what could not be read, and why?"),
        (f"{program} triggers tail --from -3", "the last triggers, and those to come"),
        (f"curl -s http://127.0.0.1:{web_port}/metrics", "the worker's metrics"),
    ]


def from_scratch() -> Sequence[Command]:
    """Commands that lead from nothing to a first trigger of one's own."""
    program, folder = _program(), _shown(Path(str(resources.files("signal_router.demo"))) / "subscriptions")
    publish = f"{program} signals publish --name"
    return [
        (f"{program} broker", "a real Kafka of your own, in a terminal of its own"),
        (f"{program} topics apply --yes", "the topics"),
        (f"{program} apply -f {folder}", "who waits for what: files to read and to change"),
        (f"{program} run --slot worker-0 --state-dir /tmp/worker-0", "a worker, in a terminal of its own"),
        (f"{publish} warehouse/titles.ready \\\n    --param date=2026-03-10 --param country=US --param rows=1500"
         " --param state=final", "two signals of one set"),
        (f"{publish} streaming/plays.ready \\\n    --param dateint=20260310 --param cc=US", ""),
        (f"{program} triggers tail", "their trigger"),
    ]  # fmt: skip


def _program() -> str:
    return _shown(Path(sys.argv[0])) if os.sep in sys.argv[0] else sys.argv[0]


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    path, here = Path(os.path.abspath(path)), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
