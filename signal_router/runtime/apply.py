"""Putting definitions in force: what changes, what it would end, and one transaction for all of it.

1  take the transactional id `<app>-apply`: an apply that is under way elsewhere is fenced, so births and join
   generations are never given twice
2  read the topic to its end, behind the marker of whatever 1 aborted
3  plan: birth + 1 after a delete, join generation + 1 when the join's shape changes, unchanged documents left out
4  write all documents in one transaction
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError, ConfigurationError, FencedError
from signal_router.kafka.destinations import verify_destinations
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import TopicNames, resolve
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model.definitions import Definition, definition, definition_key, deletion, encode_definition
from signal_router.model.documents import Document, compile_subscription, join_shape
from signal_router.model.log import (
    AbortableError,
    OutputRecord,
    ProducerFencedError,
    TopicPartition,
    TransactionLog,
    UnknownOutcomeError,
)
from signal_router.model.subscriptions import Subscription
from signal_router.runtime.await_workers import read_roster
from signal_router.runtime.definitions import DEFAULT_TOPIC
from signal_router.runtime.standing import Standing, Standings, read_standings


class Change(Enum):
    """What becomes of one subscription."""

    CREATED = "created"
    EDITED = "edited"
    DELETED = "deleted"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Step:
    """One subscription's part: what stands for it afterwards, and whether its pending signals end by it."""

    change: Change
    definition: Definition
    ends_pending: bool = False

    @property
    def id(self) -> str:
        """The subscription's id."""
        return self.definition.id


def plan(documents: Iterable[Document], standings: Standings, *, now: int) -> list[Step]:
    """Says what putting documents in force changes, in their order; `now` is epoch milliseconds."""
    return [_step(document, standings.by_id.get(document.id), now) for document in documents]


def plan_deletion(standing: Standing, *, now: int) -> Step:
    """Says what a delete changes: nothing, where it is deleted already."""
    if standing.definition.deleted:
        return Step(Change.UNCHANGED, standing.definition)
    return Step(Change.DELETED, deletion(standing.definition, applied_at=now), ends_pending=True)


def _step(document: Document, standing: Standing | None, now: int) -> Step:
    if standing is None:
        return Step(Change.CREATED, definition(document, birth=1, join_generation=1, applied_at=now))
    last = standing.definition
    if last.document is None:
        return Step(Change.CREATED, definition(document, birth=last.birth + 1, join_generation=1, applied_at=now))
    if last.version == document.version and last.contact == document.contact:
        return Step(Change.UNCHANGED, last)
    reshaped = join_shape(last.document) != join_shape(document)
    generation = last.join_generation + reshaped
    edited = definition(document, birth=last.birth, join_generation=generation, applied_at=now)
    return Step(Change.EDITED, edited, ends_pending=reshaped)


def refuse_destinations(connection: Connection, admin: AdminClient, documents: Sequence[Document]) -> None:
    """Refuses documents whose triggers could not be written where they should go, naming every one.

    Raises `ConfigurationError`, `BrokerError`.
    """
    names = resolve(connection.prefix, connection.app)
    compiled = [compile_subscription(document) for document in documents]
    topics = {destination(subscription, names) for subscription in compiled}
    inputs = {names.signals} | _inputs(connection, admin, names)
    forbidden = (names.own() | inputs) - {names.triggers}
    _, refused = verify_destinations(admin, topics, frozenset(forbidden))
    problems = [
        f'subscription "{subscription.id}": {refused[topic]}'
        for subscription in compiled
        if (topic := destination(subscription, names)) in refused
    ]
    if problems:
        raise ConfigurationError(
            "; ".join(problems),
            hint="nothing was applied; create the topic, permit WRITE on it, or change spec.trigger.topic",
        )


def destination(subscription: Subscription, names: TopicNames) -> str:
    """The real name of the topic that a subscription's triggers go to."""
    return names.triggers if subscription.topic == DEFAULT_TOPIC else subscription.topic


def _inputs(connection: Connection, admin: AdminClient, names: TopicNames) -> set[str]:
    """The topics that workers read signals from, as they said."""
    roster = read_roster(connection, admin)
    return {tp.topic for tp in roster.inputs} - {names.candidates}


class Publication:
    """One apply or delete. Making it fences every other that is under way; `close` it in the end.

    Raises `BrokerError`, `ConfigurationError`, and `FencedError` where another one came in between.
    """

    def __init__(self, connection: Connection, admin: AdminClient, *, log: TransactionLog | None = None) -> None:
        self._topic = resolve(connection.prefix, connection.app).definitions
        self._log = log or KafkaTransactionLog(
            connection.producer_config({}), f"{connection.prefix}{connection.app}-apply"
        )
        try:
            self._log.init()
        except ProducerFencedError as error:
            raise _fenced(error) from error
        except (AbortableError, UnknownOutcomeError) as error:
            raise BrokerError(f"the definitions cannot be written: {error.message}", hint=_PERMISSION) from error
        self.standings = read_standings(connection, admin)

    def publish(self, steps: Iterable[Step]) -> int:
        """Writes what changes, in one transaction; returns the newest revision (the present one if nothing changes)."""
        records = [
            OutputRecord(self._topic, definition_key(step.id), encode_definition(step.definition), 0, tracked=True)
            for step in steps
            if step.change is not Change.UNCHANGED
        ]
        if not records:
            return self.standings.revision
        try:
            self._log.begin()
            self._log.produce(records)
            self._log.commit()
        except ProducerFencedError as error:
            raise _fenced(error) from error
        except AbortableError as error:
            raise BrokerError(f"nothing was applied: {error.message}", hint=_PERMISSION) from error
        except UnknownOutcomeError as error:
            raise BrokerError(
                f"whether the definitions were applied is not known: {error.message}",
                hint="run the same command again; what was applied is left as it is",
            ) from error
        return self._log.delivered()[TopicPartition(self._topic, 0)]

    def close(self) -> None:
        """Gives the producer up. Idempotent."""
        self._log.close()


_PERMISSION = "check that WRITE on the definitions topic and on the transactional id is permitted, and try again"


def _fenced(error: ProducerFencedError) -> FencedError:
    return FencedError(
        f"another apply or delete came in between, and nothing of this one was applied: {error.message}",
        hint="run the command again",
    )
