"""The reference evaluation: what the contract demands of given signals, written to be read and not to be fast.

It shares no code with the engine: it reads records, definitions and templates by itself, with the standard library
only, and takes nothing from tables. A worker is right when the topics hold what `evaluate` gives; `compare` says
where they do not.

    evidence = Evidence(app=…, definitions=…, signals=…, topic_ids=…, views=…, inputs=…)
    evaluation = evaluate(evidence)
    violations = [*evaluation.violations, *compare(evaluation, triggers=…, lineage=…, dead_letters=…)]

`count_any_order` needs no order of joining; it holds where no signal fits two aliases of one set and nothing ends but
by firing. The model itself is described in docs/model.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

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
    CandidateName,
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
    RememberedIdentity,
    SignalRecord,
    Standing,
    View,
    ViewInput,
    Violation,
)
from signal_router.testing.reference_values import UnreadableError
from signal_router.verify.report import Invariant

__all__ = [
    "TRIGGER_ID_NAMESPACE",
    "BadRecord",
    "CandidateInput",
    "CandidateName",
    "DefinitionRecord",
    "Definitions",
    "EndedCandidate",
    "Evaluation",
    "Evidence",
    "ExpectedCandidate",
    "ExpectedTrigger",
    "Input",
    "Limits",
    "MarkInput",
    "Matched",
    "PendingCandidate",
    "Position",
    "RememberedIdentity",
    "SignalRecord",
    "Standing",
    "View",
    "ViewInput",
    "Violation",
    "compare",
    "count_any_order",
    "evaluate",
    "evaluate_matched",
    "evidence_from_lineage",
    "lineage_key",
    "matched_candidates",
    "read_input",
    "revision_at",
]


def evaluate(evidence: Evidence) -> Evaluation:
    """Evaluates the whole contract. Pure; the same evidence gives the same evaluation."""
    return evaluate_matched(evidence, _match_all(evidence, Definitions(evidence.definitions)))


def evaluate_matched(evidence: Evidence, matched: Matched, *, whole: bool = True) -> Evaluation:
    """The same of signals that have been matched; `evidence.signals` and `evidence.views` are not looked at.

    Without `whole` it is a part of all join sets, with all marks and views but only their own candidates.
    """
    definitions = matched.definitions
    outcome = _Outcome(violations=order_violations(evidence, definitions, matched.candidates, whole=whole))
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
        remembered=tuple(outcome.remembered),
        standings=outcome.standings,
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
class Matched:
    """What stage 1 must give: all candidates, in the order of each signals partition."""

    definitions: Definitions
    candidates: dict[CandidateName, tuple[Signal, Match]] = field(default_factory=dict)
    dead_letters: list[BadRecord] = field(default_factory=list)
    tombstones: int = 0

    def take(
        self, record: SignalRecord, position: Position, topic_id: str, revision: int, value_limit_bytes: int
    ) -> list[CandidateName]:
        """Matches a record; returns the candidates it gave."""
        try:
            signal = read_signal(record, position, topic_id, value_limit_bytes)
        except UnreadableError as error:
            self.dead_letters.append(BadRecord(position, str(error)))
            return []
        if signal is None:
            self.tombstones += 1
            return []
        found = []
        for match in self.definitions.matches(signal, revision):
            name = (position, match.document.id, match.key_hash)
            self.candidates[name] = (signal, match)
            found.append(name)
        return found


@dataclass(slots=True)
class _Outcome:
    """What the partitions have given so far."""

    violations: list[Violation]
    triggers: list[ExpectedTrigger] = field(default_factory=list)
    undelivered: list[ExpectedTrigger] = field(default_factory=list)
    ended: list[EndedCandidate] = field(default_factory=list)
    pending: list[PendingCandidate] = field(default_factory=list)
    taken: set[CandidateName] = field(default_factory=set)
    remembered: list[RememberedIdentity] = field(default_factory=list)
    standings: dict[int, Standing] = field(default_factory=dict)


def _match_all(evidence: Evidence, definitions: Definitions) -> Matched:
    matched = Matched(definitions)
    for (topic, partition), records in sorted(evidence.signals.items()):
        views = evidence.views.get((topic, partition), ())
        for record in records:
            revision = revision_at(views, record.offset)
            if revision is not None:  # before the first view the partition was not read
                position = Position(topic, partition, record.offset)
                matched.take(record, position, evidence.topic_ids[topic], revision, evidence.value_limit_bytes)
    return matched


def revision_at(views: Iterable[View], offset: int) -> int | None:
    """The definitions revision with which a record was matched; None before the first view."""
    begun = [view for view in views if view.from_offset <= offset]
    return max(begun).revision if begun else None


def _evaluate_partition(
    partition: int,
    inputs: Iterable[Input],
    evidence: Evidence,
    matched: Matched,
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
    outcome.standings[partition] = Standing(joins.revision, joins.announced)
    outcome.remembered.extend(
        RememberedIdentity(partition, *known.set_name, known.identity, known.position, known.forget_at)
        for known in joins.remembered
    )
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


def _take(given: CandidateInput, partition: int, joins: Partition, matched: Matched, outcome: _Outcome) -> None:
    """Takes a candidate, unless it is unexpected, taken before, or was decided under an older view than its own."""
    name = (given.position, given.subscription, given.join_key_hash)
    where = f"candidates partition {partition}, sequence {given.sequence}: {_shown(name)}"
    if name not in matched.candidates:
        outcome.violations.append(Violation(Invariant.CONSERVED, f"{where} is matched by nothing"))
    elif name in outcome.taken:
        outcome.violations.append(Violation(Invariant.ONE_OUTCOME, f"{where} was taken before"))
    elif joins.revision < given.revision:
        outcome.taken.add(name)
        stale = f"{where} of revision {given.revision} was decided under revision {joins.revision}"
        outcome.violations.append(Violation(Invariant.SOUND, stale))
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
