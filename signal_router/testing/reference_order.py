"""Whether an order of joining may be one at all, for the reference evaluation.

The order in which a candidates partition takes its inputs is given, not derived; but it must extend the order of each
signals partition, hold every candidate once, and leave none behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from signal_router.testing.reference_definitions import Definitions, Match
from signal_router.testing.reference_signals import Signal
from signal_router.testing.reference_types import CandidateInput, CandidateName, Evidence, Violation
from signal_router.verify.report import Invariant


def order_violations(
    evidence: Evidence,
    definitions: Definitions,
    matched: Mapping[CandidateName, tuple[Signal, Match]],
    *,
    whole: bool,
) -> list[Violation]:
    """Lists where the evidence contradicts the logs or itself; evaluating finds what is taken twice or unmatched.

    Without `whole` what only the inputs of all sets show is left out.
    """
    found = {
        Invariant.ORDER: [*_one_partition_per_set(evidence)],
        Invariant.SOUND: [*_other_definitions(evidence, definitions, matched)],
    }
    if whole:
        found[Invariant.ORDER] += [*_numbers(evidence), *_order_of_signals(evidence)]
        found[Invariant.CONSERVED] = [*_left_behind(evidence, matched)]
    return [Violation(invariant, text) for invariant, texts in found.items() for text in texts]


def _candidates(evidence: Evidence) -> Iterator[tuple[int, CandidateInput]]:
    for partition, inputs in sorted(evidence.inputs.items()):
        for given in inputs:
            if isinstance(given, CandidateInput):
                yield partition, given


def _where(partition: int, given: CandidateInput) -> str:
    position = given.position
    return (
        f"candidates partition {partition}, sequence {given.sequence} "
        f'({position.topic}/{position.partition}/{position.offset} for "{given.subscription}")'
    )


def _numbers(evidence: Evidence) -> Iterator[str]:
    for partition, inputs in sorted(evidence.inputs.items()):
        for before, after in pairwise(inputs):
            if after.sequence <= before.sequence:
                yield f"candidates partition {partition}: sequence {after.sequence} follows {before.sequence}"


def _order_of_signals(evidence: Evidence) -> Iterator[str]:
    reached: dict[tuple[int, str, int], int] = {}
    for partition, given in _candidates(evidence):
        position = given.position
        lane = (partition, position.topic, position.partition)
        if position.offset < reached.get(lane, 0):
            yield f"{_where(partition, given)} comes after offset {reached[lane]} of its signals partition"
        reached[lane] = max(position.offset, reached.get(lane, 0))


def _one_partition_per_set(evidence: Evidence) -> Iterator[str]:
    homes: dict[tuple[str, str], int] = {}
    for partition, given in _candidates(evidence):
        home = homes.setdefault((given.subscription, given.join_key_hash), partition)
        if home != partition:
            yield f"{_where(partition, given)}: other candidates of its set are in partition {home}"


def _left_behind(evidence: Evidence, matched: Mapping[CandidateName, tuple[Signal, Match]]) -> Iterator[str]:
    """Candidates that were overtaken by a later one of the same signals partition are lost, not in transit."""
    homes: dict[tuple[str, str], int] = {}
    reached: dict[tuple[int, str, int], int] = {}
    taken = set()
    for partition, given in _candidates(evidence):
        homes[given.subscription, given.join_key_hash] = partition
        reached[partition, given.position.topic, given.position.partition] = given.position.offset
        taken.add((given.position, given.subscription, given.join_key_hash))
    for name in matched:
        position, subscription, join_key_hash = name
        home = homes.get((subscription, join_key_hash))
        if name in taken or home is None:
            continue
        if position.offset < reached.get((home, position.topic, position.partition), -1):
            where = f"{position.topic}/{position.partition}/{position.offset}"
            yield f'the candidate of {where} for "{subscription}" ({join_key_hash}) is lost: later ones were taken'


def _other_definitions(
    evidence: Evidence,
    definitions: Definitions,
    matched: Mapping[CandidateName, tuple[Signal, Match]],
) -> Iterator[str]:
    for partition, given in _candidates(evidence):
        found = matched.get((given.position, given.subscription, given.join_key_hash))
        if found is None:
            continue
        signal, match = found
        if definitions.in_force(given.subscription, given.revision) != match.document:
            yield (
                f"{_where(partition, given)} says revision {given.revision}, "
                f"but the view in force there gives document {match.document.revision}"
            )
        if given.recorded_at > signal.timestamp:
            where = _where(partition, given)
            yield f"{where} was recorded at {given.recorded_at}, after its record's {signal.timestamp}"
