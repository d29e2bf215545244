"""`signal-router lineage`: which signals caused a trigger, what a signal caused, and following both."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from signal_router.cli import tailing
from signal_router.cli.aligned import aligned_rows
from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.cli.progress import progress_bar
from signal_router.cli.signal_answer import answer, say_answer
from signal_router.cli.tailing import bound, document_of, envelope, malformed, pairs, place, tail_options, who
from signal_router.cli.triggers import subscription_of
from signal_router.errors import ConfigurationError, RecordError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.tail import Read, Start, tail
from signal_router.kafka.topics import resolve
from signal_router.model.signals import Position
from signal_router.runtime.ancestry import Identity, signal_story, signals_of, trigger_story
from signal_router.runtime.declared import read_declared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from signal_router.kafka.settings import Connection
    from signal_router.runtime.ancestry import Document, TriggerStory

EXIT_NOTHING = 1
_KINDS = ("trigger", "signal", "view", "input")
_POSITION = re.compile(r"(?P<topic>[^/]+)/(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")


@click.group()
def cli() -> None:
    """Answers which signals caused a trigger, and what a signal caused."""


@cli.group()
def show() -> None:
    """Answers about one trigger or one signal; exit code 1 when nothing is known."""


@show.command("trigger")
@connection_options
@click.argument("trigger_id")
@output_option
@click.pass_context
def show_trigger(context: click.Context, connection: Connection, trigger_id: str, output: Output) -> None:
    """Shows a trigger, its signals, and the runs that announced them. The beginning of the id is enough."""
    admin = connect(connection)
    with progress_bar("reading lineage") as tell:
        story = trigger_story(connection, admin, resolve(connection.prefix, connection.app), trigger_id, tell)
    if not story.ids:
        tailing.say(f"no trigger {trigger_id} in lineage")
        tailing.say("hint: signal-router triggers tail --from beginning -e; its lineage is kept 400 days")
        context.exit(EXIT_NOTHING)
    if len(story.ids) > 1:
        raise ConfigurationError(
            f"{len(story.ids)} triggers begin with {trigger_id}: {', '.join(story.ids[:5])}", hint="give more of the id"
        )
    found = story.ids[0]
    if found in story.fired:
        _say_trigger(story.fired[found], output)
    else:
        _say_undeliverable(found, story, output)


def _say_trigger(trigger: Document, output: Output) -> None:
    if output.for_programs:
        output.record(trigger)
        return
    subscription = trigger.get("subscription")
    revision = subscription.get("revision") if isinstance(subscription, dict) else "?"
    output.record(
        {
            "trigger": trigger.get("trigger_id"),
            "subscription": f"{subscription_of(trigger)} (revision {revision})",
            "join_key": pairs(trigger.get("join_key")),
            "params": pairs(trigger.get("params")),
            "opened_at": trigger.get("opened_at"),
            "fired_at": trigger.get("fired_at"),
        }
        | ({"missing": trigger["missing"]} if trigger.get("missing") else {})
        | ({"cut": "the trigger was too large: params of its signals are left out"} if "by_position" in trigger else {})
    )
    output.say("\nfired by")
    rows = [
        {
            "alias": signal.get("alias"),
            "signal": signal.get("name"),
            "source": signal.get("source"),
            "run": signal.get("id") or "(no id)",
            "params": pairs(signal.get("params")),
            "recorded_at": signal.get("recorded_at"),
            "position": place(signal.get("position")),
        }
        for signal in signals_of(trigger)
    ]
    aligned_rows(output, ("alias", "signal", "source", "run", "params", "recorded_at", "position"), rows)


def _say_undeliverable(trigger_id: str, story: TriggerStory, output: Output) -> None:
    signals = story.undeliverable[trigger_id]
    if output.for_programs:
        output.record({"trigger_id": trigger_id, "kind": "undeliverable", "signals": signals})
        return
    first = signals[0]
    output.record(
        {
            "trigger": f"{trigger_id}, not delivered",
            "subscription": first.get("subscription"),
            "join_key": pairs(first.get("join_key")),
            "reason": first.get("reason"),
        }
    )
    output.say("\nits signals")
    rows = [
        {
            "aliases": signal.get("aliases"),
            "signal": signal.get("name"),
            "source": signal.get("source"),
            "run": signal.get("id") or "(no id)",
            "position": place(signal.get("position")),
        }
        for signal in signals
    ]
    aligned_rows(output, ("aliases", "signal", "source", "run", "position"), rows)
    output.say(f"\nwhat was not delivered: signal-router dead-letters show {trigger_id}")


@show.command("signal")
@connection_options
@click.argument("name", required=False)
@click.argument("source", required=False)
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--position", metavar="T/P/O", help="A signal by where it stands: topic/partition/offset.")
@output_option
@click.pass_context
def show_signal(
    context: click.Context,
    connection: Connection,
    name: str | None,
    source: str | None,
    id_: str | None,
    position: str | None,
    output: Output,
) -> None:
    """Shows what a signal caused: triggers, other outcomes with their cause, and what it still waits for.

    A signal is named by NAME SOURCE ID, or by --position, which is the only way for one without an id.
    """
    subject = _subject(name, source, id_, position)
    admin = connect(connection)
    names = resolve(connection.prefix, connection.app)
    with ExitStack() as bars:

        def bar(what: str) -> Callable[[int, int], None]:
            bars.close()  # two at once would draw over each other
            return bars.enter_context(progress_bar(f"reading {what}"))

        story = signal_story(connection, admin, names, subject, bar)
    declared = read_declared(connection, admin, names) if story.pending else {}
    found = answer(connection, admin, subject, story, declared)
    say_answer(found, output)
    if not story.found:
        context.exit(EXIT_NOTHING)


def _subject(name: str | None, source: str | None, id_: str | None, position: str | None) -> Identity | Position:
    if position is not None:
        place_ = _POSITION.fullmatch(position)
        if place_ is None or name is not None:
            raise click.UsageError(f'"{position}" is not the position of a signal: signals/0/17')
        return Position(place_["topic"], int(place_["partition"]), int(place_["offset"]))
    if name is None or source is None or id_ is None:
        raise click.UsageError("give NAME SOURCE ID, or --position TOPIC/PARTITION/OFFSET")
    return Identity(name, source, id_)


@cli.command("tail")
@connection_options
@click.option("--subscription", metavar="ID", help="Only this subscription.")
@click.option("--name", help="Only records about a signal of this name.")
@click.option("--outcome", help="Only candidates with this outcome, such as expired.")
@click.option(
    "--kind", "kinds", type=click.Choice(_KINDS), multiple=True, help="Instead of trigger and signal; repeatable."
)
@tail_options
@output_option
def tail_(
    connection: Connection,
    subscription: str | None,
    name: str | None,
    outcome: str | None,
    kinds: tuple[str, ...],
    start: Start,
    *,
    follow: bool,
    output: Output,
) -> None:
    """Follows lineage: triggers as they fire, and candidates that ended without one."""
    admin = connect(connection)
    emit = output.stream(_line)
    wanted = _wanted(subscription, name, outcome, kinds or ("trigger", "signal"))
    topics = [resolve(connection.prefix, connection.app).lineage]
    records = tail(connection, admin, topics, start, wanted, follow=follow, say=tailing.say)
    for record in records:
        emit(record)


def _wanted(
    subscription: str | None, name: str | None, outcome: str | None, kinds: tuple[str, ...]
) -> Callable[[Read], dict[str, object] | None]:
    def record(read: Read) -> dict[str, object] | None:
        if read.record.value is None:
            return None  # a tombstone: somebody deleted the record
        try:
            document = document_of(read, "lineage")
        except RecordError as error:
            return None if subscription or name or outcome else malformed(read, error)
        kind = "trigger" if document.get("kind") == "fired" else document.get("kind")
        of = subscription_of(document) if kind == "trigger" else document.get("subscription")
        about = [signal.get("name") for signal in signals_of(document)] or [document.get("name")]
        if (
            kind not in kinds
            or (subscription is not None and of != subscription)
            or (name is not None and name not in about)
            or (outcome is not None and outcome != ("fired" if kind == "trigger" else document.get("outcome")))
        ):
            return None
        return envelope(read) | {"lineage": document}

    return record


_COLOURS = {"fired": "green", "duplicate": "bright_black", "undeliverable": "red", "expired": "yellow"}


def _line(record: Mapping[str, object]) -> str:
    at = (str(record["timestamp"]), "bright_black")
    document = record.get("lineage")
    if isinstance(document, dict):
        return tailing.line([at, *_parts(document)])
    match record:
        case {"error": {"reason": reason, "message": message}}:
            return tailing.line([at, (str(reason), "red"), str(message), (place(record["position"]), "bright_black")])
        case _:
            return ""


def _parts(document: Document) -> list[tailing.Part]:
    match document.get("kind"):
        case "fired":
            of = (subscription_of(document), "cyan")
            key, trigger_id = pairs(document.get("join_key")), str(document.get("trigger_id"))
            return [("fired", "green"), of, key, bound(signals_of(document)), (trigger_id, "bright_black")]
        case "signal":
            outcome, reason = str(document.get("outcome")), document.get("reason")
            because = outcome if reason in {None, "completed"} else f"{outcome}/{reason}"
            parts: list[tailing.Part] = [(because, _COLOURS.get(outcome, "magenta"))]
            parts += [(str(document.get("subscription")), "cyan"), pairs(document.get("join_key"))]
            parts += [f"{document.get('name')} {who(document)}", (place(document.get("position")), "bright_black")]
            return parts
        case "view":
            where = f"{document.get('topic')}/{document.get('partition')} from offset {document.get('offset')}"
            return [("view", "blue"), f"revision {document.get('revision')} in force for {where}"]
        case other:
            return [(str(other), "blue"), str(document)]
