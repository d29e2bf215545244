"""What `apply` and `subscriptions delete` share: sparing what is pending, publishing, waiting for the workers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from signal_router.cli.progress import progress_bar, quiet_clients, waiting
from signal_router.errors import ConfigurationError
from signal_router.kafka.topics import resolve
from signal_router.model.documents import compile_subscription
from signal_router.runtime.apply import Change, Publication, Step, destination
from signal_router.runtime.await_workers import Arrival, await_workers
from signal_router.runtime.pending import pending_counts
from signal_router.runtime.standing import Standings, read_standings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka.admin import AdminClient

    from signal_router.cli.output import Output
    from signal_router.kafka.settings import Connection

EXIT_WAITING = 1
"""Published, but not every worker alive has it yet."""


@dataclass(frozen=True, slots=True)
class How:
    """What the options of both commands say."""

    discard_pending: bool
    timeout_s: float
    dry_run: bool = False


def put_in_force(
    connection: Connection,
    admin: AdminClient,
    planned: Callable[[Standings], Sequence[Step]],
    how: How,
    output: Output,
) -> None:
    """Plans on what stands, publishes it in one transaction, waits for the workers, and says all of it.

    Ends the command with exit code 1 where a worker alive does not have it in time.
    """
    quiet_clients()
    if how.dry_run:
        steps = planned(read_standings(connection, admin))
        ending = _ending(connection, admin, steps)
        _say(connection, steps, ending, None, None, output)
        return
    with closing(Publication(connection, admin)) as publication:
        steps = planned(publication.standings)
        ending = _ending(connection, admin, steps)
        if ending and not how.discard_pending:
            raise ConfigurationError(_would_end(ending), hint="signal-router joins list; to go on: --discard-pending")
        revision = publication.publish(steps)
    with waiting(f"waiting for the workers to have revision {revision}") as tell:
        found = await_workers(
            connection,
            admin,
            revision,
            timeout_s=how.timeout_s,
            tell=lambda now: tell(", ".join(f"{slot} has {have}" for slot, have in now.waiting.items())),
        )
    _say(connection, steps, ending, revision, found, output)
    if found.waiting:
        click.get_current_context().exit(EXIT_WAITING)


def _ending(connection: Connection, admin: AdminClient, steps: Sequence[Step]) -> Mapping[str, int]:
    """How many pending signals end, by subscription."""
    ids = [step.id for step in steps if step.ends_pending]
    if not ids:
        return {}
    with progress_bar("counting what is pending") as tell:
        counts = pending_counts(connection, admin, tell)
    return {each: counts[each] for each in ids if each in counts}


def _would_end(ending: Mapping[str, int]) -> str:
    what = ", ".join(f'{count} pending signals of subscription "{each}"' for each, count in ending.items())
    return f"nothing was changed: this would end {what}"


def _say(
    connection: Connection,
    steps: Sequence[Step],
    ending: Mapping[str, int],
    revision: int | None,
    found: Arrival | None,
    output: Output,
) -> None:
    rows = [_row(connection, step, ending) for step in steps]
    if output.for_programs:
        output.record(
            {
                "applied": revision is not None,
                "revision": revision,
                "subscriptions": rows,
                "workers": None if found is None else {"have": found.have, "waiting": dict(found.waiting)},
            }
        )
        return
    for row in rows:
        output.say(_line(row))
    if found is None:
        output.say("dry run: nothing was changed")
        return
    if not found.have and not found.waiting:
        output.say("no worker is alive: the next one to start reads it")
    elif not found.waiting:
        output.say(f"in force on {_workers(len(found.have))}: {', '.join(found.have)}")
    for slot, have in found.waiting.items():
        click.echo(f"warning: worker {slot} still has revision {have}, not {revision}", err=True)


def _row(connection: Connection, step: Step, ending: Mapping[str, int]) -> dict[str, object]:
    document = step.definition.document
    names = resolve(connection.prefix, connection.app)
    return {
        "subscription": step.id,
        "change": step.change.value,
        "version": step.definition.version,
        "birth": step.definition.birth,
        "join_generation": step.definition.join_generation,
        "topic": None if document is None else destination(compile_subscription(document), names),
        "ends_pending": ending.get(step.id, 0),
    }


def _line(row: Mapping[str, object]) -> str:
    text = f"{row['subscription']}: {row['change']}"
    if row["change"] in {Change.CREATED.value, Change.EDITED.value}:
        text += f", triggers go to {row['topic']}"
    if row["ends_pending"]:
        text += f", ends {row['ends_pending']} pending signals"
    return text


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"
