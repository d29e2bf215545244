"""What goes into the reference evaluation and what comes out of it.

Everything that goes in stands in logs: the definitions log, the signals logs, which definitions revision was in force
while each signals partition was matched (lineage `view/…`), and the order of joining per candidates partition
(setting `lineage: all`). Nothing comes from a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from signal_router.testing.reference_values import Json
from signal_router.verify.report import Invariant

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


class Position(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def as_json(self) -> dict[str, Json]:
        """Writes it as triggers and lineage do."""
        return {"topic": self.topic, "partition": self.partition, "offset": self.offset}


CandidateName: TypeAlias = tuple[Position, str, str]
"""Position, subscription id, join key hash: a candidate has one outcome."""


class Violation(NamedTuple):
    """Where logs and evaluation differ, and which invariant that breaks.

    `absent` names the role of the topic on which something was looked for and not found: where that topic is not there
    in full, nothing is broken.
    """

    invariant: Invariant
    text: str
    absent: str | None = None

    def __str__(self) -> str:
        return f"{self.invariant.value}: {self.text}"


class DefinitionRecord(NamedTuple):
    """A record of the definitions topic: `revision` is its offset."""

    revision: int
    value: bytes | None


class SignalRecord(NamedTuple):
    """A record of a signals topic; `timestamp` in epoch milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class View(NamedTuple):
    """From `from_offset` on, a partition's signals were matched with all documents up to `revision` (−1: none)."""

    from_offset: int
    revision: int


@dataclass(frozen=True, slots=True)
class CandidateInput:
    """A candidate was taken: `revision` is that of the view, or of the document, with which its signal was matched."""

    sequence: int
    position: Position
    subscription: str
    join_key_hash: str
    revision: int
    recorded_at: int


@dataclass(frozen=True, slots=True)
class MarkInput:
    """A mark was taken; `announced` maps `topic/partition` to epoch milliseconds."""

    sequence: int
    announced: Mapping[str, int]
    inputs: Sequence[str] = ()
    retired: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ViewInput:
    """From here on the partition decides with all documents up to `revision`."""

    sequence: int
    revision: int


Input: TypeAlias = CandidateInput | MarkInput | ViewInput


@dataclass(frozen=True, slots=True)
class Limits:
    """The most signals that may be pending for a key, a subscription in a partition, a partition; None = no limit."""

    per_key: int | None = None
    per_subscription: int | None = None
    per_partition: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the reference evaluation needs to know; see the module.

    `signals` holds, per (topic, partition), the records below the next offset up to which the evaluation is to go, in
    order of offset; `topic_ids` the UUIDs of their topics, as Kafka writes them. `inputs` maps a candidates partition
    to its decision inputs in order, and is gone through more than once. `undeliverable` maps the id of each trigger
    that went to the dead letters to the reason (`destination` or `size`): what a broker takes cannot be derived, so it
    is given.
    """

    app: str
    definitions: Sequence[DefinitionRecord]
    signals: Mapping[tuple[str, int], Sequence[SignalRecord]]
    topic_ids: Mapping[str, str]
    views: Mapping[tuple[str, int], Sequence[View]]
    inputs: Mapping[int, Iterable[Input]]
    limits: Limits = Limits()
    undeliverable: Mapping[str, str] = field(default_factory=dict)
    default_topic: str = "triggers"
    value_limit_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class ExpectedCandidate:
    """A candidate that matching must give: one signal for one (subscription, join key)."""

    position: Position
    subscription: str
    join_key_hash: str
    key_text: str
    aliases: tuple[str, ...]
    document_revision: int


@dataclass(frozen=True, slots=True)
class EndedCandidate:
    """What became of a candidate that is no longer pending.

    `cause` is the position of the first copy (duplicate) or of the newer signal (superseded); `trigger_id` belongs to
    the outcomes fired and undeliverable. `lineage` is the expected `signal/…` record (without `ended_at`), None for
    fired ones.
    """

    position: Position
    subscription: str
    join_key_hash: str
    partition: int
    sequence: int
    outcome: str
    reason: str
    cause: Position | None = None
    trigger_id: str | None = None
    lineage: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class ExpectedTrigger:
    """A trigger as it must stand on its topic. `headers` holds the CloudEvents ones and `content-type`."""

    trigger_id: str
    topic: str
    key: str
    value: Mapping[str, Json]
    headers: Mapping[str, str]

    @property
    def lineage(self) -> dict[str, Json]:
        """The `trigger/<id>` lineage: the trigger without payloads."""
        signals = self.value["signals"]
        bare = [
            {name: part for name, part in signal.items() if name != "payload"}
            for signal in (signals if isinstance(signals, list) else [])
            if isinstance(signal, dict)
        ]
        return {**self.value, "signals": [*bare]}


@dataclass(frozen=True, slots=True)
class PendingCandidate:
    """A candidate that still waits for its set."""

    position: Position
    subscription: str
    key_text: str
    aliases: tuple[str, ...]
    partition: int
    sequence: int
    deadline: int


@dataclass(frozen=True, slots=True)
class RememberedIdentity:
    """An identity that has ended and joins no more until the clock is beyond `forget_at`."""

    partition: int
    subscription: str
    key_text: str
    identity: str
    position: Position
    forget_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a candidates partition stands: the view it decides with, and the largest time announced for each signals
    partition (−1 where none has been).
    """

    revision: int
    announced: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record of a signals topic that must be among the dead letters; `problem` says why in the reference's words."""

    position: Position
    problem: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the contract demands of the evidence.

    `violations` lists where the evidence itself breaks a rule: a candidate that nothing matches, one taken twice, one
    lost on its way, an order that does not extend that of a signals partition. `in_transit` are candidates that no
    input has taken yet. `ignored_definitions` are the revisions of documents that cannot be read. `remembered` and
    `standings` are what the candidates partitions know at the end.
    """

    triggers: tuple[ExpectedTrigger, ...]
    undelivered: tuple[ExpectedTrigger, ...]
    ended: tuple[EndedCandidate, ...]
    pending: tuple[PendingCandidate, ...]
    in_transit: tuple[ExpectedCandidate, ...]
    expected: tuple[ExpectedCandidate, ...]
    dead_letters: tuple[BadRecord, ...]
    ignored_definitions: tuple[int, ...]
    tombstones: int
    violations: tuple[Violation, ...]
    remembered: tuple[RememberedIdentity, ...] = ()
    standings: Mapping[int, Standing] = field(default_factory=dict)
