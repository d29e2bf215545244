"""`signal-router subscriptions`: what is in force, and what a subscription makes of a signal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.definition_files import load
from signal_router.cli.definition_text import definition_text
from signal_router.cli.explanations import as_row, lines, tell_all
from signal_router.cli.in_force import How, put_in_force
from signal_router.cli.output import Output, output_option
from signal_router.cli.tested_signals import read_signals
from signal_router.errors import ConfigurationError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import resolve
from signal_router.model.checks import warnings
from signal_router.model.documents import compile_subscription
from signal_router.model.placeholders import field_text
from signal_router.model.times import rfc3339
from signal_router.runtime.apply import destination, plan_deletion
from signal_router.runtime.roster import now_ms
from signal_router.runtime.standing import Standing, Standings, read_standings

if TYPE_CHECKING:
    from signal_router.model.subscriptions import Subscription

EXIT_NO_MATCH = 1

_COLUMNS = ("subscription", "signals", "join", "policy", "within", "topic", "revision", "contact")


@click.group()
def cli() -> None:
    """Lists, shows, deletes and tests subscriptions."""


@cli.command("list")
@connection_options
@click.option("--signal", "signal_name", metavar="NAME", help="Only those that wait for signals of this name.")
@output_option
def list_(connection: Connection, signal_name: str | None, output: Output) -> None:
    """Lists the subscriptions in force."""
    standings = read_standings(connection, connect(connection))
    _say_unreadable(standings)
    rows = [
        _row(connection, standing, subscription)
        for standing in standings.in_force()
        if (subscription := standing.definition.subscription(standing.revision)) is not None
        and (signal_name is None or any(member.signal == signal_name for member in subscription.members))
    ]
    empty = "no subscription is in force" if signal_name is None else f'no subscription waits for "{signal_name}"'
    output.rows(_COLUMNS, rows, empty=empty)


@cli.command()
@connection_options
@click.argument("subscription", metavar="ID")
@output_option
def show(connection: Connection, subscription: str, output: Output) -> None:
    """Shows a subscription as YAML that `apply` takes, and in comments how it stands."""
    standings = read_standings(connection, connect(connection))
    standing = standings.find(subscription)
    definition = standing.definition
    state: dict[str, object] = {
        "revision": standing.revision,
        "version": definition.version,
        "birth": definition.birth,
        "join_generation": definition.join_generation,
        "applied_at": rfc3339(definition.applied_at),
        "deleted": definition.deleted,
    }
    compiled = definition.subscription(standing.revision)
    found = [] if compiled is None else [f"{field_text(where)}: {text}" for where, text, _ in warnings(compiled)]
    if output.for_programs:
        output.record(
            {"subscription": subscription, "contact": definition.contact}
            | state
            | {"warnings": found, "spec": definition.spec}
        )
        return
    for name, value in state.items():
        if name != "deleted":
            output.say(f"# {name.replace('_', ' ')}: {value}")
    if definition.deleted:
        output.say("# deleted; this is what was in force before")
    for warning in found:
        output.say(f"# warning: {warning}")
    click.echo(definition_text(subscription, definition.contact, definition.spec), nl=False)


@cli.command()
@connection_options
@click.argument("subscription", metavar="ID")
@click.option("--discard-pending", is_flag=True, help="Goes on where signals are pending, which end as discarded.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the workers.",
)
@click.option("--yes", is_flag=True, help="Does not ask.")
@output_option
def delete(
    connection: Connection, subscription: str, *, discard_pending: bool, timeout_s: float, yes: bool, output: Output
) -> None:
    """Deletes a subscription; what is pending for it ends as discarded.

    Exit code 0: the workers alive have it; 1: deleted, but a worker alive, which is named, does not have it yet; 2:
    nothing was changed.
    """
    admin = connect(connection)
    standing = read_standings(connection, admin).find(subscription)
    if standing.definition.deleted:
        output.say(f"{subscription} is deleted already, since {rfc3339(standing.definition.applied_at)}")
    elif not yes:
        _ask(subscription, connection, output)
    put_in_force(
        connection,
        admin,
        lambda standings: [plan_deletion(standings.find(subscription), now=now_ms())],
        How(discard_pending=discard_pending, timeout_s=timeout_s),
        output,
    )


@cli.command()
@connection_options
@click.argument("subscription", metavar="[ID]", required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="A definition file instead of an ID; - for stdin.")
@click.option(
    "--signal", "signals", required=True, metavar="FILE", help="One signal as JSON, or one per line; - for stdin."
)
@output_option
@click.pass_context
def test(
    context: click.Context,
    connection: Connection,
    subscription: str | None,
    file: str | None,
    signals: str,
    output: Output,
) -> None:
    """Says what a subscription makes of signals, predicate by predicate, with the values and types compared.

    The subscription comes from a file (nothing is asked of the cluster) or, by its ID, from what is in force. Exit code
    0: every signal matches; 1: one does not; 2: something could not be read.
    """
    compiled = _tested(connection, subscription, file, signals)
    results = [told for each in compiled for told in tell_all(each, read_signals(signals))]
    if output.for_programs:
        output.rows((), [as_row(told) for told in results])
    else:
        for number, told in enumerate(results):
            output.say(("\n" if number else "") + "\n".join(lines(told)))
    if not all(told.matches for told in results):
        context.exit(EXIT_NO_MATCH)


def _tested(connection: Connection, subscription: str | None, file: str | None, signals: str) -> list[Subscription]:
    if (subscription is None) == (file is None):
        raise click.UsageError("give either the ID of a subscription or a definition file with -f")
    if file is not None:
        if file == "-" == signals:
            raise click.UsageError("definition and signals cannot both come from stdin")
        documents = load([file]).documents
        chosen = [document for document in documents if subscription in {None, document.id}]
        if len(chosen) != 1:
            ids = ", ".join(document.id for document in documents)
            raise ConfigurationError(f'"{file}" holds {len(documents)} definitions: {ids}', hint="give one at a time")
        return [compile_subscription(chosen[0])]
    standing = read_standings(connection, connect(connection)).find(subscription or "")
    compiled = standing.definition.subscription(standing.revision)
    if compiled is None:
        raise ConfigurationError(f'subscription "{subscription}" is deleted', hint="signal-router subscriptions list")
    return [compiled]


def _row(connection: Connection, standing: Standing, subscription: Subscription) -> dict[str, object]:
    return {
        "subscription": subscription.id,
        "signals": [member.signal for member in subscription.members],
        "join": list(subscription.join_names),
        "policy": subscription.policy.value,
        "within": _duration(subscription.within_ms),
        "dedupe": _duration(subscription.dedupe_ms),
        "topic": destination(subscription, resolve(connection.prefix, connection.app)),
        "revision": standing.revision,
        "version": subscription.version,
        "contact": subscription.contact,
    }


def _duration(milliseconds: int) -> str:
    """Writes a duration as documents do."""
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def _say_unreadable(standings: Standings) -> None:
    for each in standings.unreadable:
        click.echo(f"warning: {each}; what stood before it stays in force", err=True)


def _ask(subscription: str, connection: Connection, output: Output) -> None:
    if not sys.stdin.isatty() or output.for_programs:
        raise ConfigurationError(
            f'subscription "{subscription}" is to be deleted, and nobody is there to ask',
            hint=f"signal-router subscriptions delete {subscription} --yes",
        )
    click.confirm(f"delete {subscription} on {connection.bootstrap}?", abort=True)
