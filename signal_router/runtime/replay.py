"""Replaying dead letters: a trigger in one transaction with its lineage, a signal as the record it was.

A trigger is written only if no lineage says it was: the transactional id is taken first, which ends whatever another
replay had open, then lineage is read to its end, then the transaction begins. A signal may be sent twice: its identity
holds, by its own id or by the header `sr_replay_of`, so the second one is a duplicate.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.errors import RecordError, SignalRouterError
from signal_router.kafka.destinations import verify_destinations
from signal_router.kafka.offsets import describe
from signal_router.kafka.publish import Publisher
from signal_router.kafka.settings import Connection
from signal_router.kafka.tail import read_at, scan
from signal_router.kafka.topics import TopicNames
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model import lineage, triggers
from signal_router.model.candidates import position_text
from signal_router.model.dead_letters import DeadLetter, Kind
from signal_router.model.log import OutputRecord, TopicPartition
from signal_router.model.records import decode_signal
from signal_router.model.signals import REPLAY_OF, Position
from signal_router.model.triggers import Trigger
from signal_router.runtime.destinations import Destinations

_ANY_SIZE = 2**31
"""A signal refused for its size may fit since: the worker's limit is the operator's."""

_decode_trigger = msgspec.json.Decoder(Trigger).decode
_Headers = tuple[tuple[str, bytes | None], ...]
_Written = tuple[tuple[str, bytes], ...]


class ReplayRefusedError(SignalRouterError):
    """A dead letter that is not replayed, with the reason."""


class AlreadyFiredError(ReplayRefusedError):
    """A trigger whose lineage exists: it was written before, by a replay or because its set fired again."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay wrote: where it went, and the position (of a signal)."""

    destination: str
    position: Position | None


def refuse_kind(letter: DeadLetter) -> None:
    """Raises `ReplayRefusedError` for what has no way back."""
    if letter.kind is Kind.CANDIDATE:
        raise ReplayRefusedError(
            "a candidate is not replayed: it belongs to one state of the tables",
            hint=f"replay the signal itself; its position stands in the value: {_at(letter.position)}",
        )
    if letter.kind is Kind.DEFINITION:
        raise ReplayRefusedError(
            "a definition is not replayed: the document before it stays in force", hint="signal-router apply -f FILE"
        )


class SignalReplay:
    """Publishes the record that a signal's dead letter holds to the topic it came from."""

    def __init__(self, connection: Connection, admin: AdminClient, publisher: Publisher, *, force: bool) -> None:
        """`force` sends what would become the same dead letter again."""
        self._connection = connection
        self._admin = admin
        self._publisher = publisher
        self._force = force
        self._topic_ids: dict[str, str] = {}

    def identity(self, letter: DeadLetter) -> str:
        """What the replay stands for: the same for a record and for its replays. Raises `ReplayRefusedError`."""
        for name, content in letter.headers:
            if name.lower() == REPLAY_OF and content is not None:
                return content.decode(errors="replace")
        return position_text(self._topic_id(letter.position.topic), letter.position.partition, letter.position.offset)

    def check(self, letter: DeadLetter) -> str:
        """Gives the topic it would go to. Raises `ReplayRefusedError`."""
        self._record(letter)
        return letter.position.topic

    def send(self, letter: DeadLetter) -> Replayed:
        """Publishes the record and waits for the broker. Raises `ReplayRefusedError`, `BrokerError`."""
        record = self._record(letter)
        sent = self._publisher.publish_now(record)
        return Replayed(record.topic, Position(record.topic, sent.partition, sent.offset))

    def _record(self, letter: DeadLetter) -> OutputRecord:
        key, value, headers = self._content(letter)
        first = self.identity(letter)
        refusal = self._refusal(value, headers)
        if refusal is not None:
            raise ReplayRefusedError(
                f"it would become the same dead letter again: {refusal}",
                hint="publish a corrected signal (signal-router signals publish), or --force",
            )
        if not any(name.lower() == REPLAY_OF for name, _ in headers) and not _has_id(value, headers):
            headers = (*headers, (REPLAY_OF, first.encode()))
        return OutputRecord(letter.position.topic, key, value, headers=cast("_Written", headers))  # null stays null

    def _content(self, letter: DeadLetter) -> tuple[bytes | None, bytes | None, _Headers]:
        if not letter.truncated:
            return letter.key, letter.value, letter.headers
        at = letter.position
        record = read_at(self._connection, self._admin, TopicPartition(at.topic, at.partition), at.offset)
        if record is None or record.value is None or hashlib.sha256(record.value).hexdigest() != letter.sha256:
            raise ReplayRefusedError(
                f"the dead letter holds only the first 64 kB, and the record is gone from {_at(at)}",
                hint="let its producer publish it again",
            )
        return record.key, record.value, tuple(record.headers or ())

    def _refusal(self, value: bytes | None, headers: _Headers) -> str | None:
        if self._force:
            return None
        try:
            decode_signal(value, headers, limit_bytes=_ANY_SIZE)
        except RecordError as error:
            return error.message
        return None

    def _topic_id(self, topic: str) -> str:
        if topic not in self._topic_ids:
            found = describe(self._admin, [topic])
            if topic not in found:
                raise ReplayRefusedError(f'topic "{topic}" does not exist', hint="signal-router topics apply")
            self._topic_ids[topic] = found[topic].id
        return self._topic_ids[topic]


class TriggerReplay:
    """Writes the trigger that a dead letter holds, and its lineage, in one transaction each."""

    def __init__(self, connection: Connection, admin: AdminClient, names: TopicNames, ids: frozenset[str]) -> None:
        """`ids` are the triggers that may be replayed: lineage is asked for all of them at once."""
        self._connection = connection
        self._admin = admin
        self._names = names
        self._ids = ids
        self._incarnation = uuid.uuid4().hex[:8]
        self._count = 0
        self._destinations: dict[str, Destinations] = {}
        self._log: KafkaTransactionLog | None = None
        self._fired: set[str] | None = None

    def check(self, letter: DeadLetter) -> str:
        """Gives the topic it would go to. Raises `ReplayRefusedError`."""
        trigger = _trigger_of(letter)
        if trigger.trigger_id in self._already_fired():
            raise AlreadyFiredError(
                f"trigger {trigger.trigger_id} was written already",
                hint=f"signal-router lineage show trigger {trigger.trigger_id}",
            )
        topic = self._topic(letter)
        destinations = self._destinations_of(topic)
        refusal = destinations.refusal(topic)
        if refusal is not None:
            raise ReplayRefusedError(refusal, hint="create the topic or grant WRITE, then replay again")
        if not destinations.fits(topic, letter.key, letter.value or b"", _kept(letter.headers)):
            raise ReplayRefusedError(
                f'it does not fit topic "{topic}"', hint=f'raise max.message.bytes of "{topic}", then replay again'
            )
        return topic

    def begin(self) -> None:
        """Takes the transactional id, which ends other replays, before lineage is asked. Needed before `send`."""
        self._log = KafkaTransactionLog(
            self._connection.producer_config({}), f"{self._connection.prefix}{self._connection.app}-replay"
        )
        self._log.init()
        self._fired = None

    def send(self, letter: DeadLetter) -> Replayed:
        """Writes trigger and lineage. Raises `ReplayRefusedError` and what the transaction raises."""
        topic = self.check(letter)
        trigger = _trigger_of(letter)
        log = self._log
        if log is None:
            raise RuntimeError("begin comes before send")
        self._count += 1
        transaction = (("sr_txn", f"replay/{self._incarnation}/{self._count}".encode()),)
        log.begin()
        log.produce(
            [
                OutputRecord(topic, letter.key, letter.value, headers=_kept(letter.headers) + transaction),
                OutputRecord(
                    self._names.lineage,
                    lineage.trigger_key(trigger.trigger_id),
                    self._lineage_value(trigger, transaction),
                    headers=transaction,
                ),
            ]
        )
        log.commit()
        self._already_fired().add(trigger.trigger_id)
        return Replayed(topic, None)

    def close(self) -> None:
        """Gives the producer up. Idempotent."""
        if self._log is not None:
            self._log.close()

    def _lineage_value(self, trigger: Trigger, headers: tuple[tuple[str, bytes], ...]) -> bytes:
        topic = self._names.lineage
        value = triggers.encode(triggers.without_payloads(trigger))
        fits = self._destinations_of(topic).fits(topic, lineage.trigger_key(trigger.trigger_id), value, headers)
        return value if fits else triggers.encode(triggers.by_position(trigger))

    def _topic(self, letter: DeadLetter) -> str:
        topic = letter.destination
        if not isinstance(topic, str):
            raise ReplayRefusedError("the dead letter does not say where its trigger should have gone")
        if topic == self._names.signals or topic in self._names.own() - {self._names.triggers}:
            raise ReplayRefusedError(
                f'topic "{topic}" is one of signal-router\'s own or an input',
                hint="name another topic in the subscription; the signals have to come again",
            )
        return topic

    def _destinations_of(self, topic: str) -> Destinations:
        if topic not in self._destinations:
            self._destinations[topic] = Destinations(*verify_destinations(self._admin, [topic], frozenset()))
        return self._destinations[topic]

    def _already_fired(self) -> set[str]:
        if self._fired is None:
            fired = set()
            for read in scan(self._connection, self._admin, [self._names.lineage], stable=True):
                key = (read.record.key or b"").decode(errors="replace")
                if key.startswith("trigger/") and (trigger_id := key[8:]) in self._ids:
                    fired.add(trigger_id)
            self._fired = fired
        return self._fired


def _trigger_of(letter: DeadLetter) -> Trigger:
    if letter.truncated or letter.value is None:
        raise ReplayRefusedError(
            "the dead letter holds only the first 64 kB of the trigger",
            hint="its signals stand in lineage as undeliverable: let their producers publish them again",
        )
    try:
        return _decode_trigger(letter.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReplayRefusedError(f"the dead letter holds no trigger: {error}") from None


def _has_id(value: bytes | None, headers: _Headers) -> bool:
    with suppress(RecordError):
        signal = decode_signal(value, headers, limit_bytes=_ANY_SIZE)
        return signal is not None and signal.id is not None
    return False


def _kept(headers: Iterable[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, content) for name, content in headers if content is not None and name != "sr_txn")


def _at(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"
