"""`signal-router run`: one worker in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.logging import log_to_stderr
from signal_router.cli.throughput import STARTING, Counts, Lag, TerminalLine, on_terminal, tell
from signal_router.core.join import Limits
from signal_router.errors import ConfigurationError
from signal_router.kafka.settings import Connection
from signal_router.model.records import DEFAULT_SIGNAL_BYTES
from signal_router.runtime.settings import CLASSIC, CONSUMER, WorkerSettings
from signal_router.runtime.state_dir import claim

if TYPE_CHECKING:
    from collections.abc import Callable

    from signal_router.cli.throughput import Display
    from signal_router.errors import SignalRouterError
    from signal_router.runtime.app import Application

DEFAULT_WEB_PORT = 6066
EXIT_AT_ONCE = 130

_LIMITS = Limits()


def _web_port(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """Reads a port number, or `off`."""
    if value == "off":
        return None
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise click.BadParameter(f'"{value}" is neither a port from 1 to 65535 nor "off"', context, parameter)
    return int(value)


def _limit(name: str, what: str, default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        name,
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        metavar="N",
        help=f"The most signals that may be pending {what}; what comes beyond ends as discarded.",
    )


@click.command()
@click.option(
    "--slot",
    envvar="SIGNAL_ROUTER_SLOT",
    required=True,
    metavar="NAME",
    help="This worker's stable name; each worker of an app has its own [env: SIGNAL_ROUTER_SLOT].",
)
@click.option(
    "--state-dir",
    envvar="SIGNAL_ROUTER_STATE_DIR",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where it keeps its tables; can be deleted, they are restored [env: SIGNAL_ROUTER_STATE_DIR].",
)
@connection_options
@click.option(
    "--signals",
    multiple=True,
    metavar="TOPIC|^PATTERN",
    help="The topics to read signals from, all workers of an app the same; repeatable. Default: PREFIXsignals.",
)
@click.option(
    "--web-port",
    envvar="SIGNAL_ROUTER_WEB_PORT",
    default=str(DEFAULT_WEB_PORT),
    show_default=True,
    callback=_web_port,
    metavar="PORT|off",
    help="For metrics and health [env: SIGNAL_ROUTER_WEB_PORT].",
)
@click.option("--web-host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address it binds to.")
@click.option(
    "--lineage",
    type=click.Choice(["ended", "all"]),
    default="ended",
    show_default=True,
    help="Write lineage of triggers and of what ended without one, or of every decision.",
)
@click.option(
    "--candidates",
    type=click.Choice(["local", "topic"]),
    default="local",
    show_default=True,
    help="local: what this worker matches for its own partitions is joined in the same transaction; topic: all of it"
    " goes through the candidates topic, one transaction later.",
)
@click.option(
    "--membership",
    type=click.Choice(["static", "dynamic"]),
    help="static (the default of the classic protocol): killed or stopped, the slot goes on at once when it comes back;"
    " until then its partitions stay idle, also after a clean stop, up to the session time-out (12 s). dynamic: a clean"
    " stop gives them to other workers at once, a kill costs the session time-out also where the slot comes back.",
)
@click.option(
    "--group-protocol",
    type=click.Choice([CLASSIC, CONSUMER]),
    default=CLASSIC,
    show_default=True,
    help="All workers of an app the same. consumer (KIP-848, brokers from 4.3): what does not move runs on when workers"
    " come and go.",
)
@click.option(
    "--signal-bytes",
    type=click.IntRange(min=1),
    default=DEFAULT_SIGNAL_BYTES,
    show_default=True,
    metavar="N",
    help="The largest record that is read as a signal; a larger one becomes a dead letter.",
)
@_limit("--pending-per-key", "for one join key", _LIMITS.per_key)
@_limit("--pending-per-subscription", "for a subscription, in each partition", _LIMITS.per_subscription)
@_limit("--pending-per-partition", "in each partition", _LIMITS.per_partition)
@click.option("-v", "--verbose", is_flag=True, help="Logs details, and what Kafka's client says.")
def cli(
    slot: str,
    state_dir: Path,
    connection: Connection,
    signals: tuple[str, ...],
    web_port: int | None,
    web_host: str,
    lineage: str,
    candidates: str,
    membership: str | None,
    group_protocol: str,
    signal_bytes: int,
    pending_per_key: int,
    pending_per_subscription: int,
    pending_per_partition: int,
    *,
    verbose: bool,
) -> None:
    """Runs one worker in the foreground: signals in, triggers and lineage out.

    Ctrl-C or SIGTERM stop it cleanly (exit code 0), a second one at once. Exit code 2: it could not start or go on; the
    last lines say why, and what to do. Start as many as there are partitions, each with a slot and a directory of its
    own.
    """
    settings = WorkerSettings(
        connection=connection,
        slot=slot,
        state_dir=state_dir,
        signals=signals,
        web_port=web_port,
        web_host=web_host,
        signal_bytes=signal_bytes,
        all_lineage=lineage == "all",
        local_candidates=candidates == "local",
        static_membership=None if membership is None else membership == "static",
        group_protocol=group_protocol,
        limits=Limits(pending_per_key, pending_per_subscription, pending_per_partition),
    )
    if web_port is not None:
        refuse_taken(web_host, web_port)
    with claim(state_dir, slot):
        _run(settings, verbose=verbose)


def refuse_taken(host: str, port: int) -> None:
    """Raises `ConfigurationError` where the web server could not listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections of a former life that are still closing do not take the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f'web port {port} on "{host}" cannot be used: {error.strerror or error}',
            hint="--web-port with another port, or --web-port off",
        ) from error


def _run(settings: WorkerSettings, *, verbose: bool) -> None:
    if on_terminal():
        with TerminalLine() as display:
            log_to_stderr(verbose=verbose)
            error = asyncio.run(_work(settings, display))
    else:
        log_to_stderr(verbose=verbose)
        error = asyncio.run(_work(settings, None))
    if error is not None:
        raise error


async def _work(settings: WorkerSettings, display: Display | None) -> SignalRouterError | None:
    from signal_router.runtime.app import Application  # noqa: PLC0415  Faust takes a second; --help and refusals do without

    application = Application(settings)
    _stop_on_signals(application)
    telling = asyncio.create_task(tell(lambda: _counts(application), Lag(settings.connection, settings.group), display))
    try:
        return await application.run()
    finally:
        telling.cancel()


def _stop_on_signals(application: Application) -> None:
    loop = asyncio.get_running_loop()
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            os._exit(EXIT_AT_ONCE)
        asked = True
        click.echo("stopping; once more stops at once", err=True)
        application.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _counts(application: Application) -> Counts:
    meter = application.meter
    worker = getattr(application, "worker", None)
    if worker is None:
        return Counts(STARTING, 0, 0, 0, ())
    return Counts(
        phase=worker.phase.value,
        signals=meter.total("signals"),
        fired=meter.total("fired"),
        dead_letters=meter.total("dead_letters"),
        # Those of candidates always end in marks and in the markers of their transactions.
        signals_partitions=tuple(tp for tp in worker.partitions if tp.topic != application.names.candidates),
        transactions=meter.transactions,
        commit_seconds=meter.commit_seconds,
    )
