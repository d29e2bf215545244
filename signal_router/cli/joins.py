"""`signal-router joins`: what is pending, and what each set still waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from signal_router.cli.aligned import aligned_rows
from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.cli.pending_rows import now_ms, pending_row, person_row
from signal_router.cli.progress import progress_bar
from signal_router.cli.tailing import DurationType
from signal_router.kafka.admin_client import connect
from signal_router.kafka.topics import resolve
from signal_router.runtime.declared import read_declared
from signal_router.runtime.pending_sets import PendingFold, fold_pending

if TYPE_CHECKING:
    from signal_router.kafka.settings import Connection

SHOWN = 50
_COLUMNS = ("subscription", "join_key", "has", "waits_for", "pending", "age", "deadline")


@click.group()
def cli() -> None:
    """Lists what is pending and what it still waits for."""


@cli.command("list")
@connection_options
@click.option("--subscription", metavar="ID", help="Only sets of this subscription.")
@click.option("--older-than", "older_than_ms", type=DurationType(), metavar="DURATION", help="Only sets older: 1h, 7d.")
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"The oldest only; a table shows {SHOWN} unless told otherwise."
)
@output_option
def list_(
    connection: Connection, subscription: str | None, older_than_ms: int | None, limit: int | None, output: Output
) -> None:
    """Lists the sets that wait, the oldest first: what they have, what they wait for, and when they expire.

    Reads the changelog; the workers are not asked and need not run. A deadline passes once every signals partition has
    been read beyond it, so nothing expires while workers are down or behind.
    """
    admin = connect(connection)
    names = resolve(connection.prefix, connection.app)
    fold = PendingFold(lambda name, _value: subscription is None or name[0] == subscription)
    with progress_bar("reading the changelog") as tell:
        sets = fold_pending(connection, admin, names.changelog, fold, tell)
    now = now_ms()
    if older_than_ms is not None:
        sets = [each for each in sets if now - each.opened_at >= older_than_ms]
    sets.sort(key=lambda each: (each.opened_at, each.subscription, each.key))
    declared = read_declared(connection, admin, names) if sets else {}
    shown = sets[: limit or (None if output.for_programs else SHOWN)]
    rows = [pending_row(each, declared, now=now) for each in shown]
    if output.for_programs:
        aligned_rows(output, _COLUMNS, rows)
        return
    aligned_rows(output, _COLUMNS, map(person_row, rows), empty="nothing is pending")
    if len(sets) > len(shown):
        output.say(f"\nthe {len(shown)} oldest of {len(sets)} sets; --limit N shows more")
