"""What the topics of a round say, invariant by invariant.

The reference evaluation gives the differences; here they get the names of the invariants that they break.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from harness import LiveCluster, Proof, Read

from signal_router.kafka.offsets import stable_ends
from signal_router.model.log import TopicPartition
from signal_router.verify.report import Finding, Invariant, Report, Verdict, finding

_NAMES: tuple[tuple[str, Invariant], ...] = (
    (r"trigger .* is missing$", Invariant.COMPLETE),
    (r"trigger .* stands? there \d+ times$", Invariant.UNIQUE),
    (r"trigger without lineage|lineage without a trigger|lineage trigger/", Invariant.LINEAGE),
    (r"trigger |a record of topic", Invariant.SOUND),
    (r"lineage signal/|.* was taken before$", Invariant.ONE_OUTCOME),
    (r"dead letter ", Invariant.DEAD_LETTERS),
    (r"in transit: ", Invariant.CAUGHT_UP),
    (r".* is matched by nothing$", Invariant.CONSERVED),
)
"""The first that fits; all else the reference says is about the order of joining."""


def report(cluster: LiveCluster, proof: Proof, *, shared: Collection[str] = ()) -> Report:
    """Judges what has come to rest; its workers must have stopped. `shared` are slots that two live workers had at
    once: they fence each other by turns until the older one has heard of the newer.
    """
    broken: dict[Invariant, list[str]] = {}
    for text in proof.discrepancies:
        broken.setdefault(named(text), []).append(text)
    evaluation = proof.evaluation
    candidates = len(evaluation.ended) + len(evaluation.pending) + len(evaluation.in_transit)
    examined = {
        Invariant.COMPLETE: len(evaluation.triggers),
        Invariant.SOUND: len(proof.triggers),
        Invariant.UNIQUE: len(proof.triggers),
        Invariant.ONE_OUTCOME: len(evaluation.ended),
        Invariant.CONSERVED: candidates,
        Invariant.LINEAGE: len(proof.triggers),
        Invariant.ORDER: candidates,
        Invariant.CAUGHT_UP: candidates,
    }
    findings = [finding(name, broken.get(name, ()), examined=count) for name, count in examined.items()]
    letters = broken.get(Invariant.DEAD_LETTERS, ())
    # None written and none expected is an answer, where signals were looked at.
    findings.append(finding(Invariant.DEAD_LETTERS, letters, examined=len(proof.dead_letters) or candidates))
    return Report((*findings, _fenced(cluster, proof, shared), _closed(cluster)))


def named(difference: str) -> Invariant:
    """The invariant that a difference from the reference evaluation breaks."""
    return next((name for pattern, name in _NAMES if re.match(pattern, difference)), Invariant.ORDER)


def together(reports: Iterable[Report]) -> Report:
    """Adds up what several rounds say: one that is broken breaks it."""
    found: dict[Invariant, list[Finding]] = {}
    for each in (single for one in reports for single in one):
        found.setdefault(each.invariant, []).append(each)
    return Report(tuple(_sum(found[name]) for name in Invariant if name in found))


def _sum(findings: list[Finding]) -> Finding:
    examined = sum(each.examined for each in findings)
    broken = [detail for each in findings if each.verdict is Verdict.BROKEN for detail in each.details]
    unjudged = [detail for each in findings if each.verdict is Verdict.UNJUDGED for detail in each.details]
    # What one round had nothing of, others may have had.
    return finding(findings[0].invariant, broken, examined=examined, unjudged=() if examined else unjudged)


def _fenced(cluster: LiveCluster, proof: Proof, shared: Collection[str]) -> Finding:
    """Along each partition the lives of a slot only grow."""
    outputs = [proof.triggers, proof.lineage, proof.dead_letters, cluster.read(cluster.names.changelog)]
    records = [
        each
        for topic in outputs
        for each in topic
        if each.transaction and each.transaction.rsplit("/", 2)[0] not in shared
    ]
    return finding(Invariant.FENCED, gone_back(records), examined=len(records))


def gone_back(records: Iterable[Read]) -> Iterator[str]:
    newest: dict[tuple[str, int, str], int] = {}
    for each in sorted(records, key=lambda one: (one.topic, one.partition, one.offset)):
        slot, incarnation, _ = each.transaction.rsplit("/", 2)
        place = (each.topic, each.partition, slot)
        if int(incarnation) < newest.get(place, 0):
            where = f"{each.topic}/{each.partition}/{each.offset}"
            yield f"{where} is of life {incarnation} of {slot}, behind life {newest[place]}"
        newest[place] = max(newest.get(place, 0), int(incarnation))


def _closed(cluster: LiveCluster) -> Finding:
    names = cluster.names
    topics = (names.candidates, names.changelog, names.triggers, names.lineage, names.dead_letters, names.workers)
    ends = {TopicPartition(topic, number): end for topic in topics for number, end in cluster.ends(topic).items()}
    stable = stable_ends(cluster.admin, ends)
    hidden = (
        f"{tp.topic}/{tp.partition} is hidden behind {stable[tp]}" for tp, end in ends.items() if stable[tp] < end
    )
    return finding(Invariant.CLOSED, hidden, examined=len(ends))
