"""What lies on the bench while a shard is judged: what its records say, and what is known of the whole."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from signal_router.testing.reference import CandidateName, Definitions, Evaluation, Limits, Position
from signal_router.testing.reference_values import join_key_hash
from signal_router.verify.changelog import PartitionFold, PendingEntry, RememberedEntry, entries_of
from signal_router.verify.firings import Firing, named_candidate, read_document, read_firing
from signal_router.verify.logs import App
from signal_router.verify.report import Invariant
from signal_router.verify.shards import Shard, Written
from signal_router.verify.tally import Tally


@dataclass(slots=True)
class Bench:
    """What judging a shard needs to know of the whole, and what the whole needs to know of the shards."""

    app: App
    tally: Tally
    definitions: Definitions
    folds: Mapping[int, PartitionFold]
    topic_id: Callable[[str], str]
    replayed: Mapping[tuple[Position, str], str]
    read_before: Mapping[tuple[str, int], int]
    matched: bool
    ordered: bool
    steady_times: bool
    whole: bool
    absent: frozenset[str]
    limits: Limits
    pending_counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    doubtful: dict[CandidateName, str] = field(default_factory=dict)
    evaluation: Evaluation | None = None


@dataclass(slots=True)
class Outcome:
    """What a `signal/…` record says."""

    name: CandidateName
    document: dict[str, object]
    written: Written

    @property
    def outcome(self) -> str:
        return str(self.document.get("outcome"))

    @property
    def sequence(self) -> tuple[int, int]:
        match self.document.get("order"):
            case {"partition": int(partition), "sequence": int(sequence)}:
                return partition, sequence
        return -1, -1


@dataclass(slots=True)
class Said:
    """What a shard's records say."""

    triggers: list[Firing] = field(default_factory=list)
    recorded: list[Firing] = field(default_factory=list)
    undelivered: list[Firing] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    pending: list[tuple[int, PendingEntry]] = field(default_factory=list)
    remembered: list[tuple[int, RememberedEntry]] = field(default_factory=list)
    letters: list[Written] = field(default_factory=list)
    firing_of: dict[int, Firing] = field(default_factory=dict)

    @property
    def waiting(self) -> dict[CandidateName, tuple[int, PendingEntry]]:
        return {name_of(entry): (partition, entry) for partition, entry in self.pending}


def read_shard(shard: Shard, bench: Bench) -> Said:
    said = Said()
    for written in shard.written:
        key = written.key or b""
        if written.role == "lineage" and key.startswith(b"signal/"):
            name, document = named_candidate(key), read_document(written.value)
            if name is None or document is None:
                bench.tally.breaks(Invariant.ONE_OUTCOME, f"lineage {key!r} cannot be read")
            else:
                said.outcomes.append(Outcome(name, document, written))
            continue
        if written.role == "letter":
            said.letters.append(written)
            if document_of_letter(written) is None:
                continue
        document = document_of_letter(written) if written.role == "letter" else read_document(written.value)
        firing = None
        if document is not None:
            firing = read_firing(
                document,
                written.transaction,
                late=written.late,
                topic_id=bench.topic_id,
                replayed=bench.replayed,
            )
        if firing is None:
            broken = Invariant.LINEAGE if written.role == "lineage" else Invariant.SOUND
            bench.tally.breaks(broken, f'record {key!r} of topic "{written.topic}" is no trigger')
            continue
        said.firing_of[id(written)] = firing
        {"trigger": said.triggers, "lineage": said.recorded, "letter": said.undelivered}[written.role].append(firing)
    for partition, entries in shard.entries.items():
        for entry in entries_of(entries):
            if isinstance(entry, PendingEntry):
                said.pending.append((partition, entry))
                bench.pending_counts[partition, entry.subscription] += 1
                bench.pending_counts[partition, ""] += 1
            else:
                said.remembered.append((partition, entry))
    return said


def document_of_letter(written: Written) -> dict[str, object] | None:
    """The trigger that a dead letter holds; None where it holds none, or not all of it."""
    letter = read_document(written.value) or {}
    value = letter.get("value")
    if letter.get("kind") != "trigger" or letter.get("truncated") or not isinstance(value, str):
        return None
    return read_document(b64decode(value))


def trigger_named(outcome: Outcome) -> str:
    cause = outcome.document.get("cause")
    return str(cause.get("trigger_id") or "") if isinstance(cause, dict) else ""


def position_in(entry: PendingEntry) -> Position:
    signal = entry.pending.signal
    return Position(signal.topic, signal.partition, signal.offset)


def name_of(entry: PendingEntry) -> CandidateName:
    return position_in(entry), entry.subscription, join_key_hash(entry.key)


def shown(name: CandidateName) -> str:
    """A candidate in words."""
    position, subscription, key_hash = name
    return f'the candidate of {"/".join(map(str, position))} for "{subscription}" ({key_hash})'
