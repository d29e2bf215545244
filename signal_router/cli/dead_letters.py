"""`signal-router dead-letters`: what could not become what it should, why, and the way back."""

from __future__ import annotations

import base64
import heapq
import json
from typing import TYPE_CHECKING

import click

from signal_router.cli.aligned import aligned_rows
from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.cli.progress import progress_bar, quiet_clients
from signal_router.cli.replaying import EXIT_REFUSED, Selection, replay_all
from signal_router.cli.tailing import TimeType, printable, text_of
from signal_router.errors import RecordError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.tail import Beginning, Read, Since, scan
from signal_router.kafka.topics import resolve
from signal_router.model.dead_letters import DeadLetter, Kind, decode_dead_letter
from signal_router.model.json_values import decode_json
from signal_router.model.times import rfc3339

if TYPE_CHECKING:
    from signal_router.kafka.settings import Connection

EXIT_NOTHING = 1
SHOWN = 100
_COLUMNS = ("at", "kind", "key", "reason", "message")
_KINDS = click.Choice([kind.value for kind in Kind])


@click.group()
def cli() -> None:
    """Lists, shows and replays dead letters."""


@cli.command("list")
@connection_options
@click.option("--kind", type=_KINDS, help="Only of this kind.")
@click.option("--reason", help="Only with this reason, such as not-json.")
@click.option("--since", type=TimeType(), metavar="TIME", help="Only from this time on, or so long ago: 2h.")
@click.option("--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True, help="The latest only.")
@output_option
def list_(
    connection: Connection, kind: str | None, reason: str | None, since: int | None, limit: int, output: Output
) -> None:
    """Lists dead letters, the latest at the end."""
    admin = connect(connection)
    topic = resolve(connection.prefix, connection.app).dead_letters
    selection = Selection(kind=kind, reason=reason)
    latest: list[tuple[int, int, dict[str, object]]] = []
    count = 0
    start = Beginning() if since is None else Since(since)
    with progress_bar("reading dead letters") as tell:
        for read in scan(connection, admin, [topic], since=start, progress=tell):
            row = _row(read, selection)
            if row is not None:
                count += 1
                entry = (read.record.timestamp, count, row)
                (heapq.heappush if len(latest) < limit else heapq.heappushpop)(latest, entry)
    rows = [row for _, _, row in sorted(latest, key=lambda entry: entry[:2])]
    aligned_rows(output, _COLUMNS, rows, empty="no dead letters")
    if count > len(rows):
        output.say(f"\nthe latest {len(rows)} of {count}; --limit N shows more")


def _row(read: Read, selection: Selection) -> dict[str, object] | None:
    try:
        letter = decode_dead_letter(read.record.value or b"")
    except RecordError as error:
        if selection.narrow:
            return None
        return {"at": rfc3339(read.record.timestamp), "kind": "?", "reason": error.reason, "message": error.message}
    if not selection.takes(letter):
        return None
    return {
        "at": rfc3339(read.record.timestamp),
        "kind": letter.kind.value,
        "key": _key(read),
        "reason": letter.reason,
        "message": printable(letter.message),
        "hint": letter.hint,
        "trigger_id": letter.trigger_id or None,
        "destination": letter.destination or None,
        "position": _position(letter),
    }


@cli.command()
@connection_options
@click.argument("key")
@output_option
@click.pass_context
def show(context: click.Context, connection: Connection, key: str, output: Output) -> None:
    """Shows a dead letter with the record it holds, decoded; KEY as `list` gives it. Exit code 1 when there is none."""
    admin = connect(connection)
    topic = resolve(connection.prefix, connection.app).dead_letters
    found: Read | None = None
    with progress_bar("reading dead letters") as tell:
        for read in scan(connection, admin, [topic], progress=tell):
            if _key(read) == key and (found is None or read.record.timestamp >= found.record.timestamp):
                found = read
    if found is None:
        click.echo(f'no dead letter with the key "{key}"\nhint: signal-router dead-letters list', err=True)
        context.exit(EXIT_NOTHING)
    letter = decode_dead_letter(found.record.value or b"")
    if output.for_programs:
        output.record(_for_programs(found, letter))
        return
    _say(found, letter, output)


def _for_programs(read: Read, letter: DeadLetter) -> dict[str, object]:
    return {
        "key": _key(read),
        "at": rfc3339(read.record.timestamp),
        "kind": letter.kind.value,
        "position": _position(letter),
        "reason": letter.reason,
        "message": letter.message,
        "hint": letter.hint,
        "trigger_id": letter.trigger_id or None,
        "destination": letter.destination or None,
        "record": {
            "key": None if letter.key is None else text_of(letter.key),
            "headers": {name: None if content is None else text_of(content) for name, content in letter.headers},
            "value": None if letter.value is None else text_of(letter.value),
            "value_base64": None if letter.value is None else base64.b64encode(letter.value).decode(),
        },
        "truncated": letter.truncated,
        "sha256": letter.sha256,
    }


def _say(read: Read, letter: DeadLetter, output: Output) -> None:
    at = letter.position
    fields: dict[str, object] = {
        "key": _key(read),
        "at": rfc3339(read.record.timestamp),
        "kind": letter.kind.value,
        "of": f"{at.topic}/{at.partition}/{at.offset}",
        "reason": letter.reason,
        "message": printable(letter.message),
    }
    if letter.destination:
        fields["destination"] = letter.destination
    if letter.hint:
        fields["hint"] = printable(letter.hint)
    if letter.key is not None:
        fields["record's key"] = printable(text_of(letter.key))
    output.record(fields)
    if letter.headers:
        output.say("\nheaders")
        for name, content in letter.headers:
            output.say(f"  {printable(name)}: {'null' if content is None else printable(text_of(content))}")
    size = "" if not letter.truncated else ", cut: the dead letter keeps the first 64 kB"
    output.say(f"\nvalue ({len(letter.value or b'')} bytes{size})")
    output.say(_value_text(letter.value))
    output.say(f"\nto send it again: signal-router dead-letters replay {_key(read)}")


def _value_text(value: bytes | None) -> str:
    if value is None:
        return "null"
    try:
        return json.dumps(decode_json(value, what="value"), ensure_ascii=False, indent=2)
    except RecordError:
        return "\n".join(printable(line) for line in text_of(value).split("\n"))


@cli.command()
@connection_options
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "every", is_flag=True, help="All that the other options leave, instead of KEYs.")
@click.option("--kind", type=_KINDS, help="With --all: only of this kind.")
@click.option("--reason", help="With --all: only with this reason, such as destination.")
@click.option("--since", type=TimeType(), metavar="TIME", help="With --all: only from this time, or 2h (ago), on.")
@click.option("--dry-run", is_flag=True, help="Says what would be done; writes nothing.")
@click.option("--force", is_flag=True, help="Sends signals that would become the same dead letter again, too.")
@output_option
@click.pass_context
def replay(
    context: click.Context,
    connection: Connection,
    keys: tuple[str, ...],
    kind: str | None,
    reason: str | None,
    since: int | None,
    *,
    every: bool,
    dry_run: bool,
    force: bool,
    output: Output,
) -> None:
    """Sends dead letters where they should have gone.

    A trigger is written with its lineage in one transaction, and refused if that lineage exists: it never fires twice.
    A signal is published as it was; its identity holds, so sending it again is a duplicate. Exit code 1: some refused.
    """
    if bool(keys) == every:
        raise click.UsageError("give KEYs as `dead-letters list` shows them, or --all")
    if keys and (kind or reason or since):
        raise click.UsageError("--kind, --reason and --since go with --all")
    quiet_clients()
    selection = Selection(frozenset(keys) or None, kind, reason, since)
    if replay_all(connection, selection, dry_run=dry_run, force=force, output=output):
        context.exit(EXIT_REFUSED)


def _key(read: Read) -> str:
    return (read.record.key or b"").decode("utf-8", "replace")


def _position(letter: DeadLetter) -> dict[str, object]:
    at = letter.position
    return {"topic": at.topic, "partition": at.partition, "offset": at.offset}
