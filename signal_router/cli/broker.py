"""`signal-router broker`: an embedded real Kafka in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from signal_router.errors import BrokerError
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.jars import KAFKA_VERSION

if TYPE_CHECKING:
    from types import FrameType


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0 takes a free one.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps the data there; without it the data vanish with the broker.",
)
def cli(port: int, data_dir: Path | None) -> None:
    """Runs an embedded real Kafka in the foreground, on 127.0.0.1 only.

    The first start fetches Kafka's jars (44 MB, checked against pinned SHA-256) into ~/.cache/signal-router;
    SIGNAL_ROUTER_KAFKA_JARS names a folder that has them. Needs Java 17 or later, or the extra `embedded`.
    """
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    broker = EmbeddedBroker(data_dir.absolute() if data_dir else None, port=port)
    try:
        click.echo(f"starting Apache Kafka {KAFKA_VERSION}", err=True)
        broker.start()
        click.echo(f"Apache Kafka {KAFKA_VERSION} at {broker.bootstrap}")
        where = f"data in {data_dir}" if data_dir else "data vanish at the end (--data-dir keeps them)"
        click.echo(f"{where}; Ctrl-C stops it", err=True)
        code = broker.wait()
        raise BrokerError(f"the embedded broker ended by itself (exit code {code}):\n{broker.log_tail()}")
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the JVM half-stopped
        broker.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, previous)


def _as_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
