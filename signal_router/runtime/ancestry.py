"""Who caused what: answers from lineage, from dead letters, and for what is still open from the changelog.

Lineage holds what ended. A question scans it once and keeps only what belongs to the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.core.tables import Pending
from signal_router.errors import RecordError
from signal_router.kafka.settings import Connection
from signal_router.kafka.tail import Read, scan
from signal_router.kafka.topics import TopicNames
from signal_router.model.canonical import canonical_json
from signal_router.model.dead_letters import DeadLetter, decode_dead_letter
from signal_router.model.json_values import decode_json
from signal_router.model.signals import Position
from signal_router.runtime.pending_sets import PendingSet, Progress, pending_of

Document = dict[str, object]

_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Identity:
    """A signal by what its producer says. Without an id there is only its position."""

    name: str
    source: str
    id: str


Subject = Identity | Position


@dataclass(slots=True)
class TriggerStory:
    """What lineage knows of triggers whose id begins with a text: those fired, and signals of those undeliverable."""

    fired: dict[str, Document] = field(default_factory=dict)
    undeliverable: dict[str, list[Document]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """The ids found."""
        return sorted({*self.fired, *self.undeliverable})


@dataclass(slots=True)
class SignalStory:
    """What a signal caused: triggers it is in, outcomes elsewhere, sets it waits in, and what it made of others.

    `affected` are outcomes of other candidates that name this signal as their cause: repeats, and what it superseded.
    """

    triggers: list[Document] = field(default_factory=list)
    outcomes: list[Document] = field(default_factory=list)
    affected: list[Document] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    pending: list[PendingSet] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether anything is known."""
        return bool(self.triggers or self.outcomes or self.affected or self.dead_letters or self.pending)


def trigger_story(
    connection: Connection, admin: AdminClient, names: TopicNames, trigger_id: str, progress: Progress
) -> TriggerStory:
    """Scans lineage for a trigger; the beginning of its id is enough."""
    story = TriggerStory()
    wanted, hint = f"trigger/{trigger_id}".encode(), f'"trigger_id":"{trigger_id}'.encode()
    for read in scan(connection, admin, [names.lineage], progress=progress):
        key, value = read.record.key or b"", read.record.value
        if key.startswith(wanted):
            story.fired.pop(key.decode()[8:], None)
            if document := _document(value):
                story.fired[key.decode()[8:]] = document
        elif key.startswith(b"signal/") and value is not None and hint in value and (document := _document(value)):
            of = cause_of(document).get("trigger_id")
            if document.get("outcome") == "undeliverable" and isinstance(of, str):
                story.undeliverable.setdefault(of, []).append(document)
    return story


def signal_story(
    connection: Connection, admin: AdminClient, names: TopicNames, subject: Subject, progress: Callable[[str], Progress]
) -> SignalStory:
    """Scans lineage, dead letters and the changelog for a signal; `progress` gives the bar of each part by its name."""
    facts = _Facts(subject)
    for read in scan(connection, admin, [names.lineage], progress=progress("lineage")):
        facts.take(read)
    story = SignalStory([*facts.triggers.values()], [*facts.outcomes.values()], [*facts.affected.values()])
    if isinstance(subject, Position):
        story.dead_letters = _dead_letters(connection, admin, names, subject, progress("dead letters"))
    story.pending = pending_of(
        connection, admin, names.changelog, is_subject(subject), _hint(subject), progress("changelog")
    )
    return story


def is_subject(subject: Subject) -> Callable[[Pending], bool]:
    """Tells the asked signal among pending ones."""

    def same(pending: Pending) -> bool:
        signal = pending.signal
        if isinstance(subject, Position):
            return signal.position == subject
        return (signal.name, signal.source, signal.id) == (subject.name, subject.source, subject.id)

    return same


class _Facts:
    """Lineage records about one signal, the latest of each key."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._hint = _json_hint(subject)
        self.triggers: dict[bytes, Document] = {}
        self.outcomes: dict[bytes, Document] = {}
        self.affected: dict[bytes, Document] = {}

    def take(self, read: Read) -> None:
        key, value = read.record.key or b"", read.record.value
        if value is None or self._hint not in value or (document := _document(value)) is None:
            return
        if key.startswith(b"trigger/"):
            if any(map(self._about, signals_of(document))):
                self.triggers[key] = document
        elif key.startswith(b"signal/"):
            if self._about(document):
                self.outcomes[key] = document
            elif position_of(cause_of(document).get("position")) == self._subject:
                self.affected[key] = document

    def _about(self, document: Document) -> bool:
        subject = self._subject
        if isinstance(subject, Position):
            return position_of(document.get("position")) == subject
        found = (document.get("name"), document.get("source"), document.get("id"))
        return found == (subject.name, subject.source, subject.id)


def signals_of(trigger: Document) -> Iterator[Document]:
    """The signals of a trigger, in declaration order."""
    signals = trigger.get("signals")
    for signal in signals if isinstance(signals, list) else ():
        if isinstance(signal, dict):
            yield signal


def position_of(value: object) -> Position | None:
    """Reads a position; None where it is none."""
    match value:
        case {"topic": str(topic), "partition": int(partition), "offset": int(offset)}:
            return Position(topic, partition, offset)
        case _:
            return None


def _dead_letters(
    connection: Connection, admin: AdminClient, names: TopicNames, position: Position, progress: Progress
) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    hint = _json_hint(position)
    for read in scan(connection, admin, [names.dead_letters], progress=progress):
        value = read.record.value
        if value is not None and hint in value:
            try:
                letter = decode_dead_letter(value)
            except RecordError:
                continue
            if letter.position == position:
                found.append(letter)
    return found


def _document(value: bytes | None) -> Document | None:
    if value is None:
        return None
    try:
        document = decode_json(value, what="lineage")
    except RecordError:
        return None
    return document if isinstance(document, dict) else None


def cause_of(document: Document) -> Document:
    """What a candidate's lineage names as the cause of its outcome; empty where there is none."""
    cause = document.get("cause")
    return cause if isinstance(cause, dict) else {}


def _json_hint(subject: Subject) -> bytes:
    """Bytes that stand in every record about a signal: cheaper to look for than to read every record."""
    if isinstance(subject, Position):
        return f'"offset":{subject.offset}'.encode()
    return canonical_json(subject.id)


def _hint(subject: Subject) -> bytes:
    """The same for entries of the changelog, which are MessagePack: fields of a signal, or their identity."""
    if isinstance(subject, Position):
        return b"".join(map(_pack, (subject.topic, subject.partition, subject.offset)))
    return canonical_json([subject.name, subject.source, subject.id])
