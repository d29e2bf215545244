"""Comparing a shard with the reference evaluation: triggers, lineage, dead letters, and what the tables hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from signal_router.testing.reference import (
    CandidateName,
    EndedCandidate,
    Evaluation,
    Evidence,
    Position,
    compare,
    evaluate_matched,
)
from signal_router.verify.bench import Bench, Said, name_of, position_in, trigger_named
from signal_router.verify.firings import Firing
from signal_router.verify.report import Invariant
from signal_router.verify.shards import Shard, Written
from signal_router.verify.tally import Tally

_NOTHING = Evaluation((), (), (), (), (), (), (), (), 0, ())


def judge_by_reference(shard: Shard, said: Said, bench: Bench) -> None:
    """Evaluates a shard and compares."""
    undeliverable = {
        trigger_named(each): str(each.document.get("reason"))
        for each in said.outcomes
        if each.outcome == "undeliverable"
    }
    evidence = Evidence(
        app=bench.app.name,
        definitions=(),
        signals={},
        topic_ids={},
        views={},
        inputs=shard.inputs,
        limits=bench.limits,
        undeliverable=undeliverable,
        default_topic=bench.app.names.triggers,
    )
    evaluation = evaluate_matched(evidence, shard.matched, whole=False)
    # Of one shard among others nobody wants more, and it would stay in memory beside the next.
    bench.evaluation = evaluation if bench.whole else replace(_NOTHING, standings=evaluation.standings)
    tally = bench.tally
    tally.take(evaluation.violations)
    unfinished = _unfinished(said, bench)
    ended = tuple(each for each in evaluation.ended if _candidate(each) not in unfinished)
    evaluation = replace(evaluation, ended=ended, dead_letters=tuple(shard.bad))
    found = compare(
        evaluation,
        triggers=_triggers(shard, said, evaluation, bench),
        lineage=[each.output for each in _lineage(shard, said, evaluation, bench)],
        dead_letters=[each.output for each in said.letters if not _later(said.firing_of.get(id(each)), bench)],
    )
    # These two are judged without the reference.
    tally.take(each for each in found if each.invariant not in (Invariant.UNIQUE, Invariant.CONSERVED))
    tally.examined(Invariant.COMPLETE, len(evaluation.triggers))
    tally.examined(Invariant.SOUND, len(said.triggers))
    tally.examined(Invariant.ONE_OUTCOME, len(evaluation.ended))
    tally.examined(Invariant.DEAD_LETTERS, len(said.letters))
    _judge_tables(said, evaluation, unfinished, bench)


def _unfinished(said: Said, bench: Bench) -> set[CandidateName]:
    """What is due or must end by an edit, and has not been got to: it may have been written or not."""
    found = set()
    for partition, entry in said.pending:
        progress = bench.folds[partition].progress
        due = entry.pending.deadline < progress.clock
        if due or any(change.subscription == entry.subscription for change in progress.changes):
            found.add(name_of(entry))
    return found


def _triggers(
    shard: Shard, said: Said, evaluation: Evaluation, bench: Bench
) -> dict[str, list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]]]:
    """The triggers to compare: not those behind the cut."""
    expected = {(each.trigger_id, *_order(each.value)) for each in evaluation.triggers}
    found: dict[str, list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]]] = {}
    for written in shard.written:
        if written.role != "trigger":
            continue
        firing = said.firing_of.get(id(written))
        if firing is not None and firing.which not in expected and _behind_the_cut(firing, bench):
            continue
        found.setdefault(written.topic, []).append(written.output)
    return found


def _lineage(shard: Shard, said: Said, evaluation: Evaluation, bench: Bench) -> Iterator[Written]:
    """The lineage to compare: not that behind the cut."""
    expected = {(each.trigger_id, *_order(each.value)) for each in evaluation.triggers}
    ended = {_candidate(each) for each in evaluation.ended}
    unfinished = _unfinished(said, bench)
    outcomes = {id(each.written): each for each in said.outcomes}
    for written in shard.written:
        if written.role != "lineage":
            continue
        firing, outcome = said.firing_of.get(id(written)), outcomes.get(id(written))
        if firing is not None and firing.which not in expected and _behind_the_cut(firing, bench):
            continue
        if outcome is not None and outcome.name not in ended:
            partition, sequence = outcome.sequence
            taken_later = partition in bench.folds and sequence >= bench.folds[partition].sequence
            if outcome.name in unfinished or (written.late and (taken_later or outcome.name in said.waiting)):
                continue
        yield written


def _later(firing: Firing | None, bench: Bench) -> bool:
    return firing is not None and _behind_the_cut(firing, bench)


def _behind_the_cut(firing: Firing, bench: Bench) -> bool:
    fold = bench.folds.get(firing.partition)
    return firing.late and fold is not None and firing.sequence >= fold.sequence


def _order(value: Mapping[str, object]) -> tuple[int, int]:
    match value.get("order"):
        case {"partition": int(partition), "sequence": int(sequence)}:
            return partition, sequence
    return -1, -1


def _judge_tables(said: Said, evaluation: Evaluation, unfinished: set[CandidateName], bench: Bench) -> None:
    """Who is pending and remembered, from the changelog and from the reference evaluation."""
    changing = {
        (partition, change.subscription) for partition, fold in bench.folds.items() for change in fold.progress.changes
    }
    waiting, aside = {}, set()
    for partition, entry in said.pending:
        if name_of(entry) in unfinished:
            aside.add((partition, entry.subscription, entry.key, position_in(entry)))
            continue
        life = bench.folds[partition].lives.get(entry.subscription)
        aliases = () if life is None else _chosen(life.aliases, entry.pending.aliases)
        place = (partition, entry.subscription, entry.key, position_in(entry))
        waiting[place] = (entry.pending.sequence, aliases, entry.pending.deadline)
    known = {}
    for partition, noted in said.remembered:
        one, progress = noted.remembered, bench.folds[partition].progress
        if one.forget_at >= progress.clock and (partition, noted.subscription) not in changing:
            place = (partition, noted.subscription, noted.key, Position(one.topic, one.partition, one.offset))
            known[place] = (one.identity, one.forget_at)
    should_wait = {
        (each.partition, each.subscription, each.key_text, each.position): (
            each.sequence,
            each.aliases,
            each.deadline,
        )
        for each in evaluation.pending
        if (each.partition, each.subscription) not in changing
    }
    should_know = {
        (each.partition, each.subscription, each.key_text, each.position): (each.identity, each.forget_at)
        for each in evaluation.remembered
        if (each.partition, each.subscription) not in changing
    }
    bench.tally.examined(Invariant.TABLES, len(waiting.keys() | should_wait.keys()))
    bench.tally.examined(Invariant.TABLES, len(known.keys() | should_know.keys()))
    for place in aside:
        should_know.pop(place, None)
    _differing("pending", waiting, should_wait, bench.tally)
    _differing("remembered", known, should_know, bench.tally)


def _differing(
    what: str,
    actual: Mapping[tuple[int, str, str, Position], object],
    expected: Mapping[tuple[int, str, str, Position], object],
    tally: Tally,
) -> None:
    if actual == expected:
        return
    for place in sorted(actual.keys() | expected.keys()):
        found, wanted = actual.get(place), expected.get(place)
        if found != wanted:
            partition, subscription, key, position = place
            where = f"partition {partition}, {subscription} {key}, {'/'.join(map(str, position))}"
            tally.breaks(Invariant.TABLES, f"{what} in {where}: {found} in the changelog, {wanted} by the reference")


def _chosen(aliases: tuple[str, ...], mask: int) -> tuple[str, ...]:
    return tuple(alias for bit, alias in enumerate(aliases) if mask >> bit & 1)


def _candidate(ended: EndedCandidate) -> CandidateName:
    return ended.position, ended.subscription, ended.join_key_hash
