"""`signal-router demo`: the whole story on a real Kafka in under a minute, with a count at the end."""

from __future__ import annotations

import signal
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NoReturn

import click

from signal_router.cli.progress import quiet_clients

if TYPE_CHECKING:
    from types import FrameType

    from signal_router.demo.play import Play

EXIT_WRONG = 1  # the count found a trigger missing or twice


@click.command()
@click.option("--keep", is_flag=True, help="Leaves broker and worker running at the end, until Ctrl-C.")
@click.option(
    "--fault",
    type=click.Choice(["duplicate", "loss"]),
    help="Puts a false record on the topic (or takes one away) before the count, which must end red.",
)
@click.option("--days", type=click.IntRange(10, 365), default=60, show_default=True, help="How long the story is.")
@click.pass_context
def cli(context: click.Context, *, keep: bool, fault: str | None, days: int) -> None:
    """Tells the whole story on a real Kafka in under a minute.

    Several teams' producers, a worker that is killed with kill -9 inside a transaction, and a count from the topics:
    every complete set has exactly one trigger, or the exit code is 1.
    """
    from signal_router.demo.faults import Fault  # noqa: PLC0415  --help does without the clients
    from signal_router.demo.play import Play, scratch_folder, stage  # noqa: PLC0415
    from signal_router.demo.screen import Screen  # noqa: PLC0415

    quiet_clients()
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    screen = Screen()
    screen.headline("signal-router: several teams, one Kafka, every trigger exactly once")
    try:
        with stage(screen) as cluster, scratch_folder() as folder:
            play = Play(cluster, screen, folder, web_port=_free_port() if keep else None)
            try:
                play.prepare()
                good = play.perform(Fault(fault) if fault else None, days=days)
                play.show_next()
                if keep:
                    _until_interrupted(play)
            finally:
                play.stop()
    finally:
        signal.signal(signal.SIGTERM, previous)
    context.exit(0 if good else EXIT_WRONG)


def _until_interrupted(play: Play) -> None:
    with suppress(KeyboardInterrupt):
        play.wait()


def _free_port() -> int:
    from signal_router.kafka.embedded import free_port  # noqa: PLC0415

    with ExitStack() as held:
        return free_port(held)


def _as_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
