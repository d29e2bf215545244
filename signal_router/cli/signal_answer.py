"""What `lineage show signal` answers: what became of a signal, subscription by subscription, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from signal_router.cli.aligned import aligned_rows
from signal_router.cli.pending_rows import now_ms, pending_row, waits_for
from signal_router.cli.record_at import look_at
from signal_router.cli.tailing import pairs, place
from signal_router.cli.triggers import subscription_of
from signal_router.model.signals import Position
from signal_router.runtime.ancestry import Identity, cause_of, is_subject, position_of, signals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from confluent_kafka.admin import AdminClient

    from signal_router.cli.output import Output
    from signal_router.kafka.settings import Connection
    from signal_router.runtime.ancestry import Document, SignalStory, Subject
    from signal_router.runtime.declared import Declared

_COLUMNS = ("subscription", "join_key", "outcome", "position", "at", "why")


def answer(
    connection: Connection,
    admin: AdminClient,
    subject: Subject,
    story: SignalStory,
    declared: Mapping[str, Declared],
) -> dict[str, object]:
    """Puts the answer together: the signal, what became of it, and where nothing is known, why that may be."""
    outcomes = sorted(_outcomes(subject, story, declared), key=_order)
    signal = next(_mentions(subject, story), None)
    note = None
    if isinstance(subject, Position) and signal is None:
        signal, note = look_at(connection, admin, subject)
        if story.dead_letters:
            note = (
                f"signal-router dead-letters show {subject.topic}/{subject.partition}/{subject.offset} has the record"
            )
        elif story.found:
            note = None
    elif not story.found:
        note = (
            "no lineage, and nothing pending: it was not published here, or it matched no subscription "
            "(signal-router subscriptions test tells why)"
        )
    return {
        "signal": signal or _of_subject(subject),
        "outcomes": outcomes,
        "affected": [_ended(document) for document in story.affected],
        "note": note,
    }


def say_answer(found: Mapping[str, object], output: Output) -> None:
    """Prints the answer."""
    if output.for_programs:
        output.record(found)
        return
    signal, outcomes, affected = found["signal"], found["outcomes"], found["affected"]
    if isinstance(signal, dict):
        params = {"params": pairs(signal["params"])} if "params" in signal else {}
        output.record(
            {name: value for name, value in signal.items() if name != "params" and value is not None} | params
        )
    if isinstance(outcomes, list) and outcomes:
        output.say("")
        aligned_rows(output, _COLUMNS, map(_flat, outcomes))
    if isinstance(affected, list) and affected:
        output.say("\nwhat it made of others")
        aligned_rows(output, _COLUMNS, map(_flat, affected))
    if found["note"] is not None:
        output.say(f"\n{found['note']}")


def _order(row: Mapping[str, object]) -> tuple[str, bool]:
    return str(row["at"]), row["outcome"] == "fired"


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    return dict(row) | {"position": place(row["position"]), "join_key": pairs(row["join_key"])}


def _outcomes(subject: Subject, story: SignalStory, declared: Mapping[str, Declared]) -> Iterator[dict[str, object]]:
    for trigger in story.triggers:
        for signal in filter(_about(subject), signals_of(trigger)):
            yield {
                "position": signal.get("position"),
                "subscription": subscription_of(trigger),
                "join_key": trigger.get("join_key"),
                "outcome": "fired",
                "reason": "completed",
                "why": f"trigger {trigger.get('trigger_id')}",
                "at": trigger.get("fired_at"),
                "trigger_id": trigger.get("trigger_id"),
            }
    fired = {trigger.get("trigger_id") for trigger in story.triggers}
    for document in story.outcomes:
        if document.get("outcome") == "fired":
            continue  # with `lineage: all` it stands here, too
        row = _ended(document)
        if cause_of(document).get("trigger_id") in fired:
            row["why"] = f"{row['why']}, replayed since"
        yield row
    yield from _waiting(subject, story, declared)
    for letter in story.dead_letters:
        at = letter.position
        yield {
            "position": {"topic": at.topic, "partition": at.partition, "offset": at.offset},
            "subscription": None,
            "join_key": None,
            "outcome": "dead letter",
            "reason": letter.reason,
            "why": f"{letter.reason}: {letter.message}" if letter.message else letter.reason,
            "at": None,
        }


def _waiting(subject: Subject, story: SignalStory, declared: Mapping[str, Declared]) -> Iterator[dict[str, object]]:
    mine = is_subject(subject)
    for found in story.pending:
        row = pending_row(found, declared, now=now_ms())
        for pending in filter(mine, found.pending):
            at = pending.signal.position
            deadline = row["deadline"]
            yield {
                "position": {"topic": at.topic, "partition": at.partition, "offset": at.offset},
                "subscription": found.subscription,
                "join_key": row["join_key"],
                "outcome": "pending",
                "reason": None,
                "why": f"waits for {waits_for(row)} until {deadline}",
                "at": row["opened_at"],
                "waits_for": row["waits_for"],
                "deadline": deadline,
            }


def _ended(document: Document) -> dict[str, object]:
    cause, because = cause_of(document), ""
    if "trigger_id" in cause:
        because = f" (trigger {cause['trigger_id']})"
    elif "position" in cause:
        because = f" {'of' if document.get('outcome') == 'duplicate' else 'by'} {place(cause['position'])}"
    return {
        "position": document.get("position"),
        "subscription": document.get("subscription"),
        "join_key": document.get("join_key"),
        "outcome": document.get("outcome"),
        "reason": document.get("reason"),
        "why": f"{document.get('reason')}{because}",
        "at": document.get("ended_at"),
        "cause": document.get("cause"),
    }


def _about(subject: Subject) -> Callable[[Document], bool]:
    def same(signal: Document) -> bool:
        if isinstance(subject, Identity):
            return (signal.get("name"), signal.get("source"), signal.get("id")) == (
                subject.name,
                subject.source,
                subject.id,
            )
        return position_of(signal.get("position")) == subject

    return same


def _mentions(subject: Subject, story: SignalStory) -> Iterator[dict[str, object]]:
    """The signal as records about it say."""
    for trigger in story.triggers:
        for signal in filter(_about(subject), signals_of(trigger)):
            yield {name: signal.get(name) for name in ("name", "source", "id", "time", "params")}
    for found in story.pending:
        for pending in filter(is_subject(subject), found.pending):
            one = pending.signal
            yield {"name": one.name, "source": one.source, "id": one.id, "time": one.time}
    for document in story.outcomes:
        yield {name: document.get(name) for name in ("name", "source", "id")}


def _of_subject(subject: Subject) -> dict[str, object]:
    if isinstance(subject, Identity):
        return {"name": subject.name, "source": subject.source, "id": subject.id}
    return {"position": f"{subject.topic}/{subject.partition}/{subject.offset}"}
