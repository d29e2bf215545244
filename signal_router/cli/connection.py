"""The options by which every command finds the cluster, and a first look at it that fails within seconds."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from signal_router.kafka.settings import DEFAULT_APP, DEFAULT_BOOTSTRAP, Connection, load_overrides

if TYPE_CHECKING:
    from collections.abc import Callable


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say where the cluster is; its function takes `connection: Connection`."""

    @functools.wraps(command)
    def with_connection(
        *,
        bootstrap: str,
        prefix: str,
        app: str,
        settings: tuple[str, ...],
        kafka_config: Path | None,
        **others: Any,  # noqa: ANN401  the command's own options
    ) -> Any:  # noqa: ANN401
        overrides = load_overrides(settings, file=kafka_config, environment=os.environ)
        connection = Connection(bootstrap=bootstrap, prefix=prefix, app=app, overrides=overrides)
        return command(connection=connection, **others)

    for option in reversed(_OPTIONS):
        with_connection = option(with_connection)
    return with_connection


_OPTIONS = (
    click.option(
        "--bootstrap",
        envvar="SIGNAL_ROUTER_BOOTSTRAP",
        default=DEFAULT_BOOTSTRAP,
        show_default=True,
        metavar="HOST:PORT",
        help="The cluster [env: SIGNAL_ROUTER_BOOTSTRAP].",
    ),
    click.option(
        "--prefix",
        envvar="SIGNAL_ROUTER_PREFIX",
        default="",
        help="What all topic names begin with [env: SIGNAL_ROUTER_PREFIX].",
    ),
    click.option(
        "--app",
        envvar="SIGNAL_ROUTER_APP",
        default=DEFAULT_APP,
        show_default=True,
        help="Names the consumer group and the internal topics [env: SIGNAL_ROUTER_APP].",
    ),
    click.option(
        "-X",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A librdkafka setting; repeatable [env: SIGNAL_ROUTER_KAFKA_<KEY>].",
    ),
    click.option(
        "--kafka-config",
        envvar="SIGNAL_ROUTER_KAFKA_CONFIG",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="librdkafka settings, key=value per line [env: SIGNAL_ROUTER_KAFKA_CONFIG].",
    ),
)
