"""The definitions in force, as one worker sees them: the latest document of every id, and the match index over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from signal_router.core.index import MatchIndex
from signal_router.errors import RecordError
from signal_router.model.definitions import Definition, decode_definition
from signal_router.model.log import InputRecord
from signal_router.model.subscriptions import Subscription

DEFAULT_TOPIC = "triggers"
"""What a document that names no topic means: the app's own triggers topic, whatever its prefix."""


@dataclass(frozen=True, slots=True)
class ReadDefinition:
    """A record of the definitions topic, read: what it puts in force for an id, or why it is no document.

    `subscription` is None where the document deletes it, `id` where there is no document at all.
    """

    record: InputRecord
    id: str | None = None
    subscription: Subscription | None = None
    error: RecordError | None = None


class DefinitionsView:
    """Folds the definitions topic. Changes only between batches, so that a batch is matched under one view."""

    def __init__(self, triggers: str = DEFAULT_TOPIC) -> None:
        """`triggers` is the real name of the topic that documents call `triggers`."""
        self._triggers = triggers
        self.index = MatchIndex()
        self._latest: dict[str, Subscription | None] = {}
        self._revision = -1
        self._changes: list[tuple[int, str]] = []
        self._refused: list[tuple[InputRecord, RecordError]] = []

    @property
    def revision(self) -> int:
        """The offset of the newest document seen; −1 = none yet."""
        return self._revision

    def __len__(self) -> int:
        """How many subscriptions are in force."""
        return sum(subscription is not None for subscription in self._latest.values())

    def subscriptions(self) -> Iterable[Subscription]:
        """The subscriptions in force, in order of their ids."""
        for _, subscription in sorted(self._latest.items()):
            if subscription is not None:
                yield subscription

    def destinations(self) -> frozenset[str]:
        """The topics that triggers of the subscriptions in force go to."""
        return frozenset(subscription.topic for subscription in self.subscriptions())

    def find(self, subscription: str) -> Subscription | None:
        """The subscription in force; None if its last document deletes it. Raises `KeyError` where there never was
        one.
        """
        return self._latest[subscription]

    def changed_since(self, revision: int) -> Iterable[str]:
        """The ids whose documents came after a revision."""
        for offset, subscription in reversed(self._changes):
            if offset <= revision:
                return
            yield subscription

    def refused_since(self, revision: int) -> Iterable[tuple[InputRecord, RecordError]]:
        """The records after a revision that are no documents; what stood before them stays in force."""
        return [(record, error) for record, error in self._refused if record.offset > revision]

    def read(self, record: InputRecord) -> ReadDefinition:
        """Reads a record without taking it. Raises `NewerFormatError` for a document of a newer format."""
        try:
            definition = decode_definition(record.key, record.value)
            subscription = None if definition is None else self._compiled(definition, record.offset)
        except RecordError as error:
            return ReadDefinition(record, error=error)
        if definition is None:
            return ReadDefinition(record)
        return ReadDefinition(record, definition.id, subscription)

    def take(self, read: ReadDefinition) -> None:
        """Takes the next record of the definitions topic."""
        self._revision = read.record.offset
        if read.error is not None:
            self._refused.append((read.record, read.error))
        if read.id is None:
            return
        if self._latest.get(read.id) is not None:
            self.index.remove(read.id)
        if read.subscription is not None:
            self.index.add(read.subscription)
        self._latest[read.id] = read.subscription
        self._changes.append((self._revision, read.id))

    def _compiled(self, definition: Definition, revision: int) -> Subscription | None:
        subscription = definition.subscription(revision)
        if subscription is not None and subscription.topic == DEFAULT_TOPIC:
            return replace(subscription, topic=self._triggers)
        return subscription
