"""`signal-router apply`: puts definitions in force, all or none, and waits until the workers have them."""

from __future__ import annotations

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.definition_files import files_option, load
from signal_router.cli.in_force import How, put_in_force
from signal_router.cli.output import Output, output_option
from signal_router.kafka.admin_client import connect
from signal_router.kafka.settings import Connection
from signal_router.runtime.apply import plan, refuse_destinations
from signal_router.runtime.roster import now_ms


@click.command()
@connection_options
@files_option
@click.option("--discard-pending", is_flag=True, help="Goes on where an edit ends signals that are pending.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the workers.",
)
@click.option("--dry-run", is_flag=True, help="Says what would change, and changes nothing.")
@output_option
def cli(
    connection: Connection,
    files: tuple[str, ...],
    *,
    discard_pending: bool,
    timeout_s: float,
    dry_run: bool,
    output: Output,
) -> None:
    """Puts definitions in force: all of them in one transaction, or none.

    Documents that stand already as they are given are left alone. Exit code 0: the workers alive have them; 1: applied,
    but a worker alive, which is named, does not have them yet; 2: nothing was applied.
    """
    reading = load(files)
    admin = connect(connection)
    refuse_destinations(connection, admin, reading.documents)
    how = How(discard_pending=discard_pending, timeout_s=timeout_s, dry_run=dry_run)
    put_in_force(connection, admin, lambda standings: plan(reading.documents, standings, now=now_ms()), how, output)
