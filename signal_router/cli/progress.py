"""Progress on a terminal, for whatever takes longer than two seconds; a pipe and a program see nothing."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOWN_AFTER_S = 2.0


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that takes (done, total); the bar shows on stderr once the work has taken two seconds."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415  only slow work on a terminal pays for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=None)
    began = time.monotonic()

    def tell(done: int, total: int) -> None:
        if not bar.live.is_started and time.monotonic() - began > SHOWN_AFTER_S:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        bar.stop()


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """Gives a function that says on a terminal's last line what is waited for, once it has taken two seconds."""
    began = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console  # noqa: PLC0415

    status = Console(stderr=True).status(text)
    shown = False

    def tell(now: str) -> None:
        nonlocal shown
        if not shown and time.monotonic() - began > SHOWN_AFTER_S:
            shown = True
            status.start()
        status.update(f"{text}: {now}")

    try:
        yield tell
    finally:
        status.stop()


def quiet_clients() -> None:
    """Keeps what Kafka's client says of retries off the screen: what lasts is raised as an error."""
    logging.getLogger("signal_router.kafka").setLevel(logging.ERROR)
