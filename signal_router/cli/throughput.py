"""What a running worker says of itself: a line renewed every second on a terminal, else a log line now and then."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from signal_router.errors import SignalRouterError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.lag import gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confluent_kafka.admin import AdminClient

    from signal_router.kafka.settings import Connection
    from signal_router.model.log import TopicPartition

SHOWN_EVERY_S = 1.0
LOGGED_EVERY_S = 10.0
ANSWERED_WITHIN_S = 0.5
"""How long before it is told the lag is asked for; what comes later is told the next time."""
CONSPICUOUS_S = 4.0
"""No answer to questions asked for so long means that the broker is away."""
STARTING = "starting"
"""The phase before there is a worker."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a worker has committed since it started, and where it is now. `phase` is one of `runtime.worker.Phase`."""

    phase: str
    signals: int
    fired: int
    dead_letters: int
    signals_partitions: tuple[TopicPartition, ...]
    transactions: int = 0
    commit_seconds: float = 0.0


class Display(Protocol):
    """Where the renewed line stands."""

    def update(self, line: str) -> None:
        """Renews it."""


class Rates:
    """Makes rates of counts: per second between two looks."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._signals = self._fired = self._transactions = 0
        self._commit_seconds = 0.0

    def since(self, counts: Counts, now: float) -> tuple[float, float]:
        """Signals and triggers per second since the last look."""
        seconds = max(now - self._at, 1e-3)
        rates = (counts.signals - self._signals) / seconds, (counts.fired - self._fired) / seconds
        self._at, self._signals, self._fired = now, counts.signals, counts.fired
        return rates

    def commits(self, counts: Counts) -> tuple[int, float]:
        """Transactions since the last look at them, and the milliseconds that each took to commit."""
        transactions, seconds = counts.transactions - self._transactions, counts.commit_seconds - self._commit_seconds
        self._transactions, self._commit_seconds = counts.transactions, counts.commit_seconds
        return transactions, seconds * 1000 / max(transactions, 1)


def line(counts: Counts, rates: tuple[float, float], behind: int | None, away_s: float | None) -> str:
    """The line for people. `behind` None: not known; `away_s`: since when the broker does not answer."""
    signals, fired = rates
    parts = [counts.phase, f"{signals:,.0f} signals/s", f"{fired:,.0f} triggers/s"]
    if away_s is not None:
        parts.append(f"no broker answers for {away_s:.0f} s, waiting for it")
    elif behind is not None:
        parts.append(f"{behind:,} signals waiting")
    if counts.dead_letters:
        parts.append(f"{counts.dead_letters:,} dead letters")
    return " · ".join(parts)


class Lag:
    """How far the worker is behind, asked for in a thread of its own that nobody waits for."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._connection = connection
        self._group = group
        self._admin: AdminClient | None = None
        self._thread: threading.Thread | None = None
        self._asked = False
        self._answered_at = time.monotonic()
        self.behind: int | None = None

    @property
    def away_s(self) -> float | None:
        """Since when the broker has not answered, once that is conspicuous."""
        silent_s = time.monotonic() - self._answered_at
        return silent_s if self._asked and silent_s > CONSPICUOUS_S else None

    def look(self, tps: Iterable[TopicPartition]) -> None:
        """Begins to ask, unless the last question is still open; the answer stands in `behind` later."""
        wanted = tuple(tps)
        if wanted and (self._thread is None or not self._thread.is_alive()):
            if not self._asked:
                self._asked, self._answered_at = True, time.monotonic()
            self._thread = threading.Thread(target=self._ask, args=(wanted,), name="lag", daemon=True)
            self._thread.start()

    def _ask(self, tps: tuple[TopicPartition, ...]) -> None:
        try:
            if self._admin is None:
                self._admin = connect(self._connection)
            self.behind = sum(map(len, gaps(self._connection, self._admin, self._group, tps).values()))
            self._answered_at = time.monotonic()
        except SignalRouterError:
            self.behind = None


async def tell(counts: Callable[[], Counts], behind: Lag, display: Display | None) -> None:
    """Tells for ever: renews the display every second, or logs every ten seconds where there is none."""
    rates = Rates(time.monotonic())
    every_s = LOGGED_EVERY_S if display is None else SHOWN_EVERY_S
    while True:
        await asyncio.sleep(every_s - ANSWERED_WITHIN_S)
        behind.look(counts().signals_partitions)
        await asyncio.sleep(ANSWERED_WITHIN_S)
        now = counts()
        if now.phase == STARTING:
            continue
        signals, fired = rates.since(now, time.monotonic())
        if display is not None:
            display.update(line(now, (signals, fired), behind.behind, behind.away_s))
        else:
            transactions, commit_ms = rates.commits(now)
            _log.info(
                "throughput",
                phase=now.phase,
                signals_per_s=round(signals, 1),
                triggers_per_s=round(fired, 1),
                transactions=transactions,
                commit_ms=round(commit_ms, 1),
                waiting=behind.behind,
                dead_letters=now.dead_letters,
            )


class TerminalLine:
    """The last line of a terminal; what is logged meanwhile scrolls above it. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> TerminalLine:
        from rich.console import Console  # noqa: PLC0415  only a terminal pays for it
        from rich.live import Live  # noqa: PLC0415

        console = Console(stderr=True, highlight=False)
        self._live = self._stack.enter_context(
            Live("starting", console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def update(self, line: str) -> None:
        """Renews the line."""
        self._live.update(line, refresh=True)


def on_terminal() -> bool:
    """Whether somebody looks."""
    return sys.stderr.isatty()
