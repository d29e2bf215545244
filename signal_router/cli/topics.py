"""`signal-router topics`: what the files say, how the cluster differs, and making it like the files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.errors import ConfigurationError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.topic_changes import WantedTopic, apply_topics, diff_topics, refuse_unsafe, wanted_topics
from signal_router.kafka.topics import load_topics, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signal_router.kafka.settings import Connection
    from signal_router.kafka.topic_changes import Difference

_COLUMNS = ("topic", "setting", "wanted", "found")


@click.group()
def cli() -> None:
    """Compares the cluster's topics with their files, and applies them."""


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    partitions = click.option(
        "--partitions",
        envvar="SIGNAL_ROUTER_PARTITIONS",
        type=click.IntRange(min=1),
        help="Instead of the files' 4, for all topics that may have several [env: SIGNAL_ROUTER_PARTITIONS].",
    )
    folder = click.option(
        "--topics",
        "folder",
        envvar="SIGNAL_ROUTER_TOPICS",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Your own copy of the topic files [env: SIGNAL_ROUTER_TOPICS].",
    )
    return partitions(folder(command))


def _wanted(connection: Connection, folder: Path | None, partitions: int | None) -> tuple[WantedTopic, ...]:
    resolve(connection.prefix, connection.app)  # refuses names that Kafka would refuse, before anything is asked
    files = load_topics(folder)
    return wanted_topics(files, prefix=connection.prefix, app=connection.app, partitions=partitions)


@cli.command("list")
@connection_options
@_file_options
@output_option
def list_(connection: Connection, folder: Path | None, partitions: int | None, output: Output) -> None:
    """Lists the topics as their files say, under this prefix and app; asks no cluster."""
    rows = [
        {
            "topic": topic.name,
            "access": topic.file.about.access,
            "partitions": topic.file.partitions,
            "cleanup": topic.file.config["cleanup.policy"],
            "owner": topic.file.about.owner,
            "key": topic.file.about.key,
            "purpose": topic.file.about.purpose,
        }
        | ({"config": topic.file.config} if output.for_programs else {})
        for topic in _wanted(connection, folder, partitions)
    ]
    output.rows(("topic", "access", "partitions", "cleanup", "owner", "purpose"), rows)


@cli.command()
@connection_options
@_file_options
@output_option
@click.pass_context
def diff(
    context: click.Context, connection: Connection, folder: Path | None, partitions: int | None, output: Output
) -> None:
    """Says how the cluster differs from the files: exit code 0 same, 1 differs, 2 could not be told."""
    wanted = _wanted(connection, folder, partitions)
    differences = diff_topics(connect(connection), wanted)
    output.rows(_COLUMNS, _rows(differences), empty=f"the {len(wanted)} topics are as their files say")
    if differences:
        if not output.for_programs:
            output.say("\nto make the cluster like the files: signal-router topics apply")
        context.exit(1)


@cli.command()
@connection_options
@_file_options
@click.option("--yes", is_flag=True, help="Does not ask.")
@output_option
def apply(connection: Connection, folder: Path | None, partitions: int | None, *, yes: bool, output: Output) -> None:
    """Makes the cluster like the files: creates topics, alters settings, adds partitions to public topics.

    Never changes the partition counts of candidates and changelog: pending sets would be torn apart.
    """
    wanted = _wanted(connection, folder, partitions)
    admin = connect(connection)
    differences = diff_topics(admin, wanted)
    refuse_unsafe(differences, wanted)
    if not differences:
        output.rows(_COLUMNS, [], empty=f"nothing to change: the {len(wanted)} topics are as their files say")
        return
    if not yes:
        _ask(differences, connection, output)
    applied = apply_topics(admin, wanted)
    if output.for_programs:
        output.rows(_COLUMNS, _rows(applied))
    else:
        output.say(f"applied {len(applied)} differences to {connection.bootstrap}")


def _ask(differences: Sequence[Difference], connection: Connection, output: Output) -> None:
    if not sys.stdin.isatty() or output.for_programs:
        raise ConfigurationError(
            f"{len(differences)} differences to apply to {connection.bootstrap}, and nobody to ask",
            hint="signal-router topics apply --yes",
        )
    output.rows(_COLUMNS, _rows(differences))
    click.confirm(f"apply these to {connection.bootstrap}?", abort=True)


def _rows(differences: Sequence[Difference]) -> list[dict[str, object]]:
    return [
        {"topic": each.topic, "setting": each.setting, "wanted": each.wanted, "found": each.found}
        for each in differences
    ]
