"""What stands on the definitions topic: the latest document of every id, as commands read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from signal_router.errors import ConfigurationError, RecordError
from signal_router.kafka.follow import read_to_end
from signal_router.kafka.offsets import describe, end_offsets
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import resolve
from signal_router.model.definitions import Definition, decode_definition
from signal_router.model.log import InputRecord, TopicPartition


@dataclass(frozen=True, slots=True)
class Standing:
    """The latest readable document of an id, a deletion too; `revision` is its offset."""

    revision: int
    definition: Definition


@dataclass(frozen=True, slots=True)
class Standings:
    """Everything on the topic. `revision` is the newest record's (−1: none); `unreadable` tells what is no document."""

    by_id: dict[str, Standing]
    revision: int
    unreadable: tuple[str, ...]

    def in_force(self) -> list[Standing]:
        """The subscriptions that are not deleted, in order of their ids."""
        return [each for _, each in sorted(self.by_id.items()) if not each.definition.deleted]

    def find(self, subscription: str) -> Standing:
        """One subscription, deleted or not. Raises `ConfigurationError` where there never was one."""
        standing = self.by_id.get(subscription)
        if standing is None:
            raise ConfigurationError(
                f'subscription "{subscription}" does not exist', hint="signal-router subscriptions list"
            )
        return standing


def fold(records: Iterable[InputRecord]) -> Standings:
    """Folds records of the definitions topic as a worker does: what cannot be read leaves what stood before in force.

    Raises `NewerFormatError`.
    """
    by_id: dict[str, Standing] = {}
    revision = -1
    unreadable: list[str] = []
    for record in records:
        revision = record.offset
        try:
            definition = decode_definition(record.key, record.value)
        except RecordError as error:
            unreadable.append(f"revision {record.offset}: {error.message}")
            continue
        if definition is not None:
            by_id[definition.id] = Standing(record.offset, definition)
    return Standings(by_id, revision, tuple(unreadable))


def read_standings(connection: Connection, admin: AdminClient) -> Standings:
    """Reads the definitions topic to its end.

    Raises `ConfigurationError` where the topic does not exist or may not be read, `BrokerError`, `NewerFormatError`.
    """
    topic = resolve(connection.prefix, connection.app).definitions
    require(admin, topic)
    tp = TopicPartition(topic, 0)
    return fold(read_to_end(connection, {tp: 0}, end_offsets(admin, [tp]))[tp])


def require(admin: AdminClient, topic: str) -> int:
    """Gives a topic's partition count. Raises `ConfigurationError` where it does not exist."""
    found = describe(admin, [topic]).get(topic)
    if found is None:
        raise ConfigurationError(f'topic "{topic}" does not exist', hint="signal-router topics apply")
    return found.partitions
