"""Parts of the logs that can be judged by themselves: everything that belongs to some of the join sets.

Join sets know nothing of each other but for marks and views, which every shard gets. So a log of any size is judged in
bounded memory by dividing it; a small one is one shard.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec

from signal_router.testing.reference import (
    BadRecord,
    CandidateInput,
    CandidateName,
    Definitions,
    Input,
    Matched,
    Position,
    SignalRecord,
)

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]


class Signal(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A record of a signals topic and the view it was matched with."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Headers
    topic_id: str
    revision: int

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.topic, self.partition, self.offset)


class Written(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A record of an output. `role` says of which: `trigger`, `lineage`, `letter`; `late`: it may be of a decision
    behind the cut.
    """

    role: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    late: bool

    @property
    def transaction(self) -> str:
        """Who wrote it: slot, incarnation and number."""
        return next((value or b"" for name, value in self.headers if name == "sr_txn"), b"").decode(errors="replace")

    @property
    def output(self) -> tuple[bytes | None, bytes | None, Headers]:
        """What the reference compares."""
        return self.key, self.value, self.headers


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """A changelog record of a set."""

    partition: int
    key: bytes
    value: bytes | None


class Transit(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """A candidate that stands on the candidates topic and has not been taken."""

    position: tuple[str, int, int]
    subscription: str
    join_key_hash: str

    @property
    def name(self) -> CandidateName:
        """The candidate."""
        return Position(*self.position), self.subscription, self.join_key_hash


class Taken(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """A candidate as a decision input of a candidates partition."""

    partition: int
    sequence: int
    position: tuple[str, int, int]
    subscription: str
    join_key_hash: str
    revision: int
    recorded_at: int


class Bad(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    """A record of a signals topic that must be a dead letter."""

    position: tuple[str, int, int]
    problem: str


Item: TypeAlias = Signal | Written | Entry | Transit | Taken | Bad
Part: TypeAlias = Written | Entry | Transit | Bad
"""What is put into one shard as it is."""


@dataclass(slots=True)
class Shard:
    """All that belongs to some of the join sets. `inputs` are their candidates with the marks and views of all."""

    matched: Matched
    inputs: Mapping[int, Iterable[Input]]
    written: list[Written] = field(default_factory=list)
    entries: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    transit: set[CandidateName] = field(default_factory=set)
    bad: list[BadRecord] = field(default_factory=list)

    def take(self, item: Part) -> None:
        """Adds what was put into this shard, in order."""
        if isinstance(item, Written):
            self.written.append(item)
        elif isinstance(item, Entry):
            entries = self.entries.setdefault(item.partition, {})
            if item.value is None:
                entries.pop(item.key, None)
            else:
                entries[item.key] = item.value
        elif isinstance(item, Bad):
            self.bad.append(BadRecord(Position(*item.position), item.problem))
        else:
            self.transit.add(item.name)


class Shards(Protocol):
    """Takes what was read, and gives it back by shards."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def replayed(self) -> Mapping[tuple[Position, str], str]:
        """The join key hash of candidates, by position and subscription, whose identity their record alone tells."""

    def signal(self, signal: Signal, value_limit_bytes: int) -> BadRecord | None:
        """Takes a signal to every shard in which it has a candidate; returns why it can be none."""

    def put(self, shard: int | None, item: Part) -> None:
        """Takes an item; without a shard it waits for `settle`."""

    def add_input(self, partition: int, order: int, given: Mapping[str, object]) -> None:
        """Takes a decision input as lineage has it; `order` names the lineage partition, in which they ascend."""

    def input_partitions(self) -> Sequence[int]:
        """The candidates partitions that have inputs."""

    def inputs_in_order(self, partition: int) -> Iterator[Mapping[str, object]]:
        """The decision inputs of a candidates partition by their numbers."""

    def take_input(self, partition: int, given: Input) -> None:
        """Takes a decision input that is to be evaluated, in order."""

    def waiting(self) -> Iterator[Written]:
        """What was put without a shard."""

    def shards(self) -> Iterator[Shard]:
        """The shards, one after the other."""


def shard_of(subscription: str, join_key_hash: str, count: int) -> int:
    """The shard of a join set."""
    return zlib.crc32(f"{subscription}\0{join_key_hash}".encode()) % count


class HeldShards:
    """One shard in memory."""

    def __init__(self, definitions: Definitions) -> None:
        self._matched = Matched(definitions)
        self._given: dict[int, list[Mapping[str, object]]] = {}
        self._inputs: dict[int, list[Input]] = {}
        self._shard = Shard(self._matched, self._inputs)
        self.replayed: dict[tuple[Position, str], str] = {}

    count = 1

    def signal(self, signal: Signal, value_limit_bytes: int) -> BadRecord | None:
        """Matches a signal."""
        bad, _ = match(self._matched, signal, value_limit_bytes, self.replayed)
        return bad

    def put(self, shard: int | None, item: Part) -> None:  # noqa: ARG002 - there is one
        """Takes an item."""
        self._shard.take(item)

    def add_input(self, partition: int, order: int, given: Mapping[str, object]) -> None:  # noqa: ARG002
        """Takes a decision input."""
        self._given.setdefault(partition, []).append(given)

    def input_partitions(self) -> Sequence[int]:
        """The candidates partitions that have inputs."""
        return sorted(self._given)

    def inputs_in_order(self, partition: int) -> Iterator[Mapping[str, object]]:
        """The decision inputs of a candidates partition by their numbers."""
        return iter(sorted(self._given.pop(partition), key=sequence_of))

    def take_input(self, partition: int, given: Input) -> None:
        """Takes a decision input."""
        self._inputs.setdefault(partition, []).append(given)

    def waiting(self) -> Iterator[Written]:
        """Nothing waits where there is one shard."""
        return iter(())

    def shards(self) -> Iterator[Shard]:
        """The one shard."""
        yield self._shard


def match(
    matched: Matched, signal: Signal, value_limit_bytes: int, replayed: dict[tuple[Position, str], str]
) -> tuple[BadRecord | None, list[CandidateName]]:
    """Matches a signal: why it can be none, and the candidates it gives. Notes those of a replay."""
    record = SignalRecord(signal.offset, signal.timestamp, None, signal.value, signal.headers)
    bad, position = len(matched.dead_letters), signal.position
    names = matched.take(record, position, signal.topic_id, signal.revision, value_limit_bytes)
    if names and any(name.lower() == "sr_replay_of" for name, _ in signal.headers):
        replayed.update({(position, subscription): join_key_hash for _, subscription, join_key_hash in names})
    return (matched.dead_letters[-1] if len(matched.dead_letters) > bad else None), names


def sequence_of(given: Mapping[str, object]) -> int:
    """The number of a decision input as lineage has it."""
    sequence = given["sequence"]
    return sequence if isinstance(sequence, int) else -1


def taken(partition: int, given: CandidateInput) -> Taken:
    """A candidate as it is kept."""
    return Taken(
        partition,
        given.sequence,
        (given.position.topic, given.position.partition, given.position.offset),
        given.subscription,
        given.join_key_hash,
        given.revision,
        given.recorded_at,
    )
