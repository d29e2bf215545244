"""The definitions in force as tools need them: names and topics only, without compiling what they declare."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.kafka.settings import Connection
from signal_router.kafka.tail import scan
from signal_router.kafka.topics import TopicNames

DEFAULT_TOPIC = "triggers"
"""As in `signal_router.runtime.definitions`, which takes half a second to load."""


class DeclaredMember(msgspec.Struct, frozen=True):
    """A member's alias and the name of its signal."""

    alias: str
    signal: str


class _Trigger(msgspec.Struct, frozen=True):
    topic: str = DEFAULT_TOPIC


class _Spec(msgspec.Struct, frozen=True):
    members: tuple[DeclaredMember, ...] = ()
    trigger: _Trigger = _Trigger()
    within: str | None = None


class Declared(msgspec.Struct, frozen=True):
    """What a document says, as far as tools ask."""

    id: str
    join_generation: int = 1
    deleted: bool = False
    spec: _Spec = _Spec()

    def signal_of(self, alias: str) -> str | None:
        """The name of the signal that an alias stands for."""
        return next((member.signal for member in self.spec.members if member.alias == alias), None)


_decode = msgspec.json.Decoder(Declared).decode


def read_declared(connection: Connection, admin: AdminClient, names: TopicNames) -> dict[str, Declared]:
    """Reads the definitions topic: the latest document of every id, deleted ones too. Unreadable ones are left out."""
    return {declared.id: declared for declared in _documents(connection, admin, names)}


def trigger_topics(connection: Connection, admin: AdminClient, names: TopicNames) -> list[str]:
    """The topics that triggers of the subscriptions in force go to, `triggers` first."""
    declared = read_declared(connection, admin, names).values()
    named = {each.spec.trigger.topic for each in declared if not each.deleted} - {DEFAULT_TOPIC, names.triggers}
    return [names.triggers, *sorted(named)]


def _documents(connection: Connection, admin: AdminClient, names: TopicNames) -> Iterator[Declared]:
    for read in scan(connection, admin, [names.definitions]):
        if read.record.value is not None:
            try:
                yield _decode(read.record.value)
            except msgspec.DecodeError:
                continue
