"""The reference evaluation: what the contract demands of given signals, written to be read and not to be fast.

It shares no code with the engine: it reads records, definitions and templates by itself, with the standard library
only, and takes nothing from tables. A worker is right when the topics hold what `evaluate` gives; `compare` says
where they do not.

    evidence = Evidence(app=…, definitions=…, signals=…, topic_ids=…, views=…, inputs=…)
    evaluation = evaluate(evidence)
    discrepancies = [*evaluation.violations, *compare(evaluation, triggers=…, lineage=…, dead_letters=…)]

`count_any_order` needs no order of joining; it holds where no signal fits two aliases of one set and nothing ends but
by firing. The model itself is described in docs/model.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from signal_router.testing.reference_compare import compare
from signal_router.testing.reference_definitions import Definitions, Match
from signal_router.testing.reference_evidence import evidence_from_lineage, read_input
from signal_router.testing.reference_joins import Partition
from signal_router.testing.reference_order import order_violations
from signal_router.testing.reference_outputs import (
    TRIGGER_ID_NAMESPACE,
    ended_candidate,
    fired_candidate,
    lineage_key,
    trigger_of,
    undeliverable_candidate,
)
from signal_router.testing.reference_signals import Signal, read_signal
from signal_router.testing.reference_types import (
    BadRecord,
    CandidateInput,
    DefinitionRecord,
    EndedCandidate,
    Evaluation,
    Evidence,
    ExpectedCandidate,
    ExpectedTrigger,
    Input,
    Limits,
    MarkInput,
    PendingCandidate,
    Position,
    SignalRecord,
    View,
    ViewInput,
)
from signal_router.testing.reference_values import UnreadableError

__all__ = [
    "TRIGGER_ID_NAMESPACE",
    "BadRecord",
    "CandidateInput",
    "DefinitionRecord",
    "EndedCandidate",
    "Evaluation",
    "Evidence",
    "ExpectedCandidate",
    "ExpectedTrigger",
    "Input",
    "Limits",
    "MarkInput",
    "PendingCandidate",
    "Position",
    "SignalRecord",
    "View",
    "ViewInput",
    "compare",
    "count_any_order",
    "evaluate",
    "evidence_from_lineage",
    "lineage_key",
    "matched_candidates",
    "read_input",
]

CandidateName: TypeAlias = tuple[Position, str, str]
"""Position, subscription id, join key hash: a candidate has one outcome."""


def evaluate(evidence: Evidence) -> Evaluation:
    """Evaluates the whole contract. Pure; the same evidence gives the same evaluation."""
    definitions = Definitions(evidence.definitions)
    matched = _match_all(evidence, definitions)
    outcome = _Outcome(violations=order_violations(evidence, definitions, matched.candidates))
    for partition, inputs in sorted(evidence.inputs.items()):
        _evaluate_partition(partition, inputs, evidence, matched, outcome)
    return Evaluation(
        triggers=tuple(outcome.triggers),
        undelivered=tuple(outcome.undelivered),
        ended=tuple(outcome.ended),
        pending=tuple(outcome.pending),
        in_transit=tuple(
            _expected(signal, match)
            for name, (signal, match) in matched.candidates.items()
            if name not in outcome.taken
        ),
        expected=tuple(_expected(signal, match) for signal, match in matched.candidates.values()),
        dead_letters=tuple(matched.dead_letters),
        ignored_definitions=tuple(definitions.ignored),
        tombstones=matched.tombstones,
        violations=tuple(outcome.violations),
    )


def matched_candidates(
    definitions: Sequence[DefinitionRecord],
    record: SignalRecord,
    position: Position,
    topic_id: str,
    revision: int,
    *,
    value_limit_bytes: int = 256 * 1024,
) -> list[ExpectedCandidate]:
    """The candidates that one record gives under a definitions revision; none for a bad record or a tombstone."""
    try:
        signal = read_signal(record, position, topic_id, value_limit_bytes)
    except UnreadableError:
        return []
    if signal is None:
        return []
    return [_expected(signal, match) for match in Definitions(definitions).matches(signal, revision)]


def count_any_order(
    definitions: Sequence[DefinitionRecord],
    signals: Mapping[tuple[str, int], Sequence[SignalRecord]],
    topic_ids: Mapping[str, str],
) -> dict[tuple[str, str], int]:
    """How many triggers each (subscription id, join key text) must have under policy fifo, whatever the order of
    joining.

    That is the smallest number of distinct identities that any alias has. Holds where no signal fits two aliases of
    one set, the definitions do not change, and nothing ends but by firing; evaluated with the last document of each
    subscription.
    """
    library = Definitions(definitions)
    last = max((record.revision for record in definitions), default=-1)
    evidence = Evidence(
        app="",
        definitions=definitions,
        signals=signals,
        topic_ids=topic_ids,
        views={partition: [View(0, last)] for partition in signals},
        inputs={},
    )
    identities: dict[tuple[str, str], dict[str, set[str]]] = {}
    for signal, match in _match_all(evidence, library).candidates.values():
        name = (match.document.id, match.key_text)
        per_alias = identities.setdefault(name, {alias: set() for alias in match.document.aliases})
        for alias in match.aliases:
            per_alias[alias].add(signal.identity)
    counts = {name: min(len(found) for found in per_alias.values()) for name, per_alias in identities.items()}
    return {name: count for name, count in counts.items() if count}


@dataclass(slots=True)
class _Matched:
    """What stage 1 must give: all candidates, in the order of each signals partition."""

    definitions: Definitions
    candidates: dict[CandidateName, tuple[Signal, Match]] = field(default_factory=dict)
    dead_letters: list[BadRecord] = field(default_factory=list)
    tombstones: int = 0


@dataclass(slots=True)
class _Outcome:
    """What the partitions have given so far."""

    violations: list[str]
    triggers: list[ExpectedTrigger] = field(default_factory=list)
    undelivered: list[ExpectedTrigger] = field(default_factory=list)
    ended: list[EndedCandidate] = field(default_factory=list)
    pending: list[PendingCandidate] = field(default_factory=list)
    taken: set[CandidateName] = field(default_factory=set)


def _match_all(evidence: Evidence, definitions: Definitions) -> _Matched:
    matched = _Matched(definitions)
    for (topic, partition), records in sorted(evidence.signals.items()):
        views = evidence.views.get((topic, partition), ())
        for record in records:
            revision = _revision_at(views, record.offset)
            if revision is None:
                continue  # before the first view the partition was not read
            position = Position(topic, partition, record.offset)
            try:
                signal = read_signal(record, position, evidence.topic_ids[topic], evidence.value_limit_bytes)
            except UnreadableError as error:
                matched.dead_letters.append(BadRecord(position, str(error)))
                continue
            if signal is None:
                matched.tombstones += 1
                continue
            for match in definitions.matches(signal, revision):
                matched.candidates[position, match.document.id, match.key_hash] = (signal, match)
    return matched


def _revision_at(views: Iterable[View], offset: int) -> int | None:
    """The definitions revision with which a record was matched."""
    begun = [view for view in views if view.from_offset <= offset]
    return max(begun).revision if begun else None


def _evaluate_partition(
    partition: int,
    inputs: Sequence[Input],
    evidence: Evidence,
    matched: _Matched,
    outcome: _Outcome,
) -> None:
    joins = Partition(matched.definitions, evidence.limits)
    for each in inputs:
        match each:
            case ViewInput():
                joins.take_view(each)
            case MarkInput():
                joins.take_mark(each)
            case CandidateInput():
                _take(each, partition, joins, matched, outcome)
            case _:
                assert_never(each)
    outcome.ended.extend(ended_candidate(ended, partition) for ended in joins.ended)
    for firing in joins.fired:
        trigger = trigger_of(firing, partition, evidence)
        reason = evidence.undeliverable.get(trigger.trigger_id)
        (outcome.triggers if reason is None else outcome.undelivered).append(trigger)
        for taken in firing.bound.values():
            if reason is None:
                outcome.ended.append(fired_candidate(taken, partition, trigger.trigger_id))
            else:
                outcome.ended.append(undeliverable_candidate(taken, partition, trigger.trigger_id, reason))
    for pending in joins.pending:
        taken = pending.taken
        name = taken.match.document.id
        outcome.pending.append(
            PendingCandidate(
                taken.signal.position,
                name,
                taken.match.key_text,
                taken.match.aliases,
                partition,
                taken.sequence,
                pending.deadline,
            )
        )


def _take(given: CandidateInput, partition: int, joins: Partition, matched: _Matched, outcome: _Outcome) -> None:
    """Takes a candidate, unless it is unexpected, taken before, or was decided under an older view than its own."""
    name = (given.position, given.subscription, given.join_key_hash)
    where = f"candidates partition {partition}, sequence {given.sequence}: {_shown(name)}"
    if name not in matched.candidates:
        outcome.violations.append(f"{where} is matched by nothing")
    elif name in outcome.taken:
        outcome.violations.append(f"{where} was taken before")
    elif joins.revision < given.revision:
        outcome.taken.add(name)
        outcome.violations.append(f"{where} of revision {given.revision} was decided under revision {joins.revision}")
    else:
        outcome.taken.add(name)
        joins.take_candidate(given, *matched.candidates[name])


def _shown(name: CandidateName) -> str:
    position, subscription, join_key_hash = name
    where = f"{position.topic}/{position.partition}/{position.offset}"
    return f'the candidate of {where} for "{subscription}" ({join_key_hash})'


def _expected(signal: Signal, match: Match) -> ExpectedCandidate:
    return ExpectedCandidate(
        signal.position, match.document.id, match.key_hash, match.key_text, match.aliases, match.document.revision
    )
