"""Counting from the topics, read as every consumer should read them: what the producers sent, what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec

from signal_router.demo.cluster import DemoCluster
from signal_router.demo.expected import SetKey
from signal_router.model.log import InputRecord


class Place(msgspec.Struct, frozen=True):
    """A record's position."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class TriggerSignal(msgspec.Struct, frozen=True):
    """One signal of a trigger, as far as the demo shows it."""

    alias: str
    name: str
    source: str
    id: str
    params: dict[str, str | int]
    recorded_at: str
    position: Place


class TriggerSubscription(msgspec.Struct, frozen=True):
    """Which subscription fired."""

    id: str


class Trigger(msgspec.Struct, frozen=True):
    """A trigger, or its lineage: what the demo reads of the public form."""

    trigger_id: str
    subscription: TriggerSubscription
    join_key: dict[str, str]
    params: dict[str, object]
    signals: list[TriggerSignal]
    opened_at: str
    fired_at: str

    @property
    def set_key(self) -> SetKey:
        """The set it was fired for."""
        first = self.signals[0]
        values = tuple(self.join_key[name] for name in sorted(self.join_key))
        return (self.subscription.id, *(values or (first.name, first.source, first.id)))


class Repeat(msgspec.Struct, frozen=True):
    """Lineage of a candidate that ended without a trigger."""

    position: Place
    subscription: str
    outcome: str
    reason: str
    cause: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class SignalCount:
    """What stands on the signals topic: distinct signals, further records of them, records that are no signal."""

    signals: int
    repeats: int
    bad: int


@dataclass(frozen=True, slots=True)
class Fired:
    """A trigger as read from its topic; `transaction` is slot/incarnation/number of the one that wrote it."""

    trigger: Trigger
    transaction: str


class _Wire(msgspec.Struct, frozen=True):
    name: str
    source: str
    id: str


_read_signal = msgspec.json.Decoder(_Wire).decode
_read_trigger = msgspec.json.Decoder(Trigger).decode
_read_repeat = msgspec.json.Decoder(Repeat).decode


def count_signals(cluster: DemoCluster) -> SignalCount:
    """Counts the signals topic."""
    seen: Counter[_Wire] = Counter()
    bad = 0
    for _, record in cluster.read(cluster.names.signals):
        try:
            seen[_read_signal(record.value or b"")] += 1
        except msgspec.DecodeError:
            bad += 1
    return SignalCount(len(seen), seen.total() - len(seen), bad)


def read_triggers(cluster: DemoCluster) -> list[Fired]:
    """Reads the triggers topic."""
    return [
        Fired(_read_trigger(record.value or b""), _transaction(record))
        for _, record in cluster.read(cluster.names.triggers)
    ]


def count_dead_letters(cluster: DemoCluster) -> int:
    """Counts the dead-letters topic."""
    return sum(1 for _ in cluster.read(cluster.names.dead_letters))


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the lineage topic holds: triggers by id, and candidates that ended without one."""

    triggers: dict[str, Trigger]
    ended: list[Repeat]

    def repeats_of(self, trigger: Trigger) -> list[Repeat]:
        """The later records of a trigger's signals, for its subscription."""
        firsts = [{"position": msgspec.to_builtins(signal.position)} for signal in trigger.signals]
        return [
            each
            for each in self.ended
            if each.outcome == "duplicate" and each.subscription == trigger.subscription.id and each.cause in firsts
        ]


def read_lineage(cluster: DemoCluster) -> Lineage:
    """Reads the lineage topic."""
    found = Lineage({}, [])
    for _, record in cluster.read(cluster.names.lineage):
        key, value = record.key or b"", record.value or b""
        if key.startswith(b"trigger/"):
            trigger = _read_trigger(value)
            found.triggers[trigger.trigger_id] = trigger
        elif key.startswith(b"signal/"):
            found.ended.append(_read_repeat(value))
    return found


def _transaction(record: InputRecord) -> str:
    return next((value or b"" for name, value in record.headers or () if name == "sr_txn"), b"").decode()
