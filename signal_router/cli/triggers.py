"""`signal-router triggers`: following what was fired, as a workflow would read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from signal_router.cli import tailing
from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.cli.tailing import bound, document_of, envelope, malformed, pairs, tail_options
from signal_router.errors import RecordError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.offsets import describe
from signal_router.kafka.tail import Read, Start, tail
from signal_router.kafka.topics import resolve
from signal_router.runtime.ancestry import signals_of
from signal_router.runtime.declared import trigger_topics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka.admin import AdminClient

    from signal_router.kafka.settings import Connection


@click.group()
def cli() -> None:
    """Follows triggers."""


@cli.command("tail")
@connection_options
@click.option("--subscription", metavar="ID", help="Only triggers of this subscription.")
@click.option("--name", help="Only triggers with a signal of this name.")
@click.option("--topic", "topics", multiple=True, help="Instead of all topics that subscriptions name; repeatable.")
@tail_options
@output_option
def tail_(
    connection: Connection,
    subscription: str | None,
    name: str | None,
    topics: tuple[str, ...],
    start: Start,
    *,
    follow: bool,
    output: Output,
) -> None:
    """Follows triggers as they are committed; never shows one of an aborted transaction."""
    admin = connect(connection)
    emit = output.stream(_line)
    records = tail(
        connection,
        admin,
        topics or _topics(connection, admin),
        start,
        lambda read: _record(read, subscription, name),
        follow=follow,
        say=tailing.say,
    )
    for record in records:
        emit(record)


def _topics(connection: Connection, admin: AdminClient) -> list[str]:
    """The topics that exist of those that subscriptions name; a missing one must not hide the others."""
    names = resolve(connection.prefix, connection.app)
    wanted = trigger_topics(connection, admin, names)
    existing = describe(admin, wanted)
    return [topic for topic in wanted if topic in existing or topic == names.triggers]


def _record(read: Read, subscription: str | None, name: str | None) -> dict[str, object] | None:
    try:
        trigger = document_of(read, "trigger")
    except RecordError as error:
        return None if subscription or name else malformed(read, error)
    if not isinstance(trigger.get("trigger_id"), str):
        foreign = RecordError("not-trigger", "record has no trigger_id: something else writes to this topic")
        return None if subscription or name else malformed(read, foreign)
    if subscription is not None and subscription_of(trigger) != subscription:
        return None
    if name is not None and all(signal.get("name") != name for signal in signals_of(trigger)):
        return None
    return envelope(read) | {"trigger": trigger}


def subscription_of(trigger: Mapping[str, object]) -> str:
    """The id of a trigger's subscription."""
    subscription = trigger.get("subscription")
    return str(subscription.get("id")) if isinstance(subscription, dict) else "?"


def _line(record: Mapping[str, object]) -> str:
    at = (str(record["timestamp"]), "bright_black")
    match record:
        case {"trigger": dict(trigger)}:
            return tailing.line(
                [
                    at,
                    (subscription_of(trigger), "cyan"),
                    (pairs(trigger.get("join_key")), "green"),
                    pairs(trigger.get("params")),
                    (str(trigger["trigger_id"]), "bright_black"),
                    (bound(signals_of(trigger)), "bright_black"),
                ]
            )
        case {"error": {"reason": reason, "message": message}}:
            place = tailing.place(record["position"])
            return tailing.line([at, (str(reason), "red"), str(message), (place, "bright_black")])
        case _:
            return ""
