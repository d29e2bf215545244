"""Judging one shard: every invariant that speaks of join sets, each from as little as it takes.

Uniqueness, lineage and conservation need no order of joining; the rest compares with the reference evaluation
(`signal_router.verify.compared`), where that can be made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

from signal_router.model.times import epoch_ms
from signal_router.testing.reference import CandidateName, Definitions
from signal_router.testing.reference_compare import DEAD_LETTERS, LINEAGE, TRIGGERS
from signal_router.verify.bench import Bench, Said, read_shard, shown, trigger_named
from signal_router.verify.compared import judge_by_reference
from signal_router.verify.firings import Firing, position_of, read_document
from signal_router.verify.report import Invariant
from signal_router.verify.shards import Shard, Written

DOUBTFUL = 1_000
"""The most positions that nothing matches which are looked up one by one."""


def judge(shard: Shard, bench: Bench) -> None:
    """Judges everything in a shard."""
    said = read_shard(shard, bench)
    _look_for_destinations(said, bench)
    _judge_unique(said, bench)
    _judge_lineage(said, bench)
    _judge_outcomes(said, bench)
    if bench.matched:
        _judge_conserved(shard, said, bench)
    if bench.matched and bench.ordered:
        judge_by_reference(shard, said, bench)
    elif bench.matched:
        _judge_letters(shard, said, bench)


def _look_for_destinations(said: Said, bench: Bench) -> None:
    """A topic that is not there may never have been; where lineage says that triggers went there, they are gone."""
    for firing in said.recorded if bench.absent else ():
        match firing.document:
            case {"subscription": {"id": str(subscription), "revision": int(revision)}}:
                document = bench.definitions.in_force(subscription, revision)
                if document is not None and document.topic in bench.absent:
                    reason = f'topic "{document.topic}", to which triggers went, does not exist'
                    bench.tally.gaps.setdefault(TRIGGERS, reason)
                    bench.tally.lacks(reason, Invariant.COMPLETE, Invariant.UNIQUE, Invariant.LINEAGE)


def _judge_unique(said: Said, bench: Bench) -> None:
    by_id: dict[str, list[Firing]] = defaultdict(list)
    for firing in said.triggers:
        by_id[firing.id].append(firing)
    bench.tally.examined(Invariant.UNIQUE, len(by_id))
    for firings in by_id.values():
        if len(firings) == 1:
            continue
        for (_, partition, sequence), count in Counter(each.which for each in firings).items():
            if count > 1:
                text = f"trigger {firings[0].id} at {partition}/{sequence} stands there {count} times"
                bench.tally.breaks(Invariant.UNIQUE, text)
        apart = {each.which: each for each in sorted(firings, key=lambda each: each.sequence)}
        for first, again in pairwise(apart.values()):
            if _within_the_horizon(first, again, bench.definitions):
                if bench.steady_times:
                    text = f"{again} fired at {first.sequence} before, within the horizon"
                    bench.tally.breaks(Invariant.UNIQUE, text)
                elif not (bench.matched and bench.ordered):  # else the reference evaluation says which fire again
                    reason = "times of signals go back, so that horizons cannot be told: " + str(again)
                    bench.tally.lacks(reason, Invariant.UNIQUE)


def _within_the_horizon(first: Firing, again: Firing, definitions: Definitions) -> bool:
    """Whether a signal of the later firing was recorded before its identity could be forgotten."""
    match first.document:
        case {"subscription": {"id": str(subscription), "revision": int(revision)}}:
            document = definitions.in_force(subscription, revision)
        case _:
            return False
    if document is None or document.revision != revision:
        return False
    times, later = _times(first), _times(again)
    return any(later[alias] <= at + document.dedupe_ms for alias, at in times.items() if alias in later)


def _times(firing: Firing) -> dict[str, int]:
    found = {}
    signals = firing.document.get("signals")
    for signal in signals if isinstance(signals, list) else ():
        match signal:
            case {"alias": str(alias), "recorded_at": str(text)}:
                found[alias] = epoch_ms(text)
    return found


def _judge_lineage(said: Said, bench: Bench) -> None:
    """One to one, under the same transaction. Compaction keeps the last lineage of an id that fired again."""
    triggers = {(each.which, each.transaction): each for each in said.triggers}
    recorded = {(each.which, each.transaction): each for each in said.recorded}
    bench.tally.examined(Invariant.LINEAGE, len(triggers) + len(recorded))
    last: dict[str, int] = {}
    for each in said.triggers:
        last[each.id] = max(each.sequence, last.get(each.id, -1))
    with_lineage = {each.which for each in said.recorded}
    reported = set()
    for name, each in triggers.items():
        if name in recorded or each.late or last[each.id] != each.sequence or each.which in reported:
            continue
        reported.add(each.which)
        what = "has lineage of another transaction" if each.which in with_lineage else "has no lineage"
        bench.tally.breaks(Invariant.LINEAGE, f"{each} of transaction {each.transaction} {what}", LINEAGE)
    for name, each in recorded.items():
        if name not in triggers:
            if not each.late and each.which not in reported:
                text = f"lineage of {each} of transaction {each.transaction} has no trigger of its transaction"
                bench.tally.breaks(Invariant.LINEAGE, text, TRIGGERS)
        elif not bench.ordered and _bare(each.document) != _bare(triggers[name].document):
            bench.tally.breaks(Invariant.LINEAGE, f"lineage of {each} says something else than the trigger")


def _bare(document: dict[str, object]) -> object:
    """A trigger without payloads; without params, too, where it is by position."""
    signals = document.get("signals")
    if document.get("by_position") or not isinstance(signals, list):
        return None
    bare = [
        {name: part for name, part in signal.items() if name != "payload"} if isinstance(signal, dict) else signal
        for signal in signals
    ]
    return {**document, "signals": bare}


def _judge_outcomes(said: Said, bench: Bench) -> None:
    """At most one outcome each, whatever the reference makes of it."""
    fired: dict[CandidateName, set[tuple[str, int, int]]] = defaultdict(set)
    for firing in [*said.triggers, *said.recorded]:
        if not firing.replay:
            for name in firing.names:
                fired[name].add(firing.which)
    ended = Counter(each.name for each in said.outcomes)
    other = {each.name: each.outcome for each in said.outcomes if each.outcome != "fired"}
    bench.tally.examined(Invariant.ONE_OUTCOME, len(fired.keys() | ended.keys()))
    for name, firings in fired.items():
        if len(firings) > 1:
            bench.tally.breaks(Invariant.ONE_OUTCOME, f"{shown(name)} is in {len(firings)} triggers")
        if name in other:
            bench.tally.breaks(Invariant.ONE_OUTCOME, f"{shown(name)} fired, and its lineage says {other[name]}")
    if bench.ordered:
        return  # the rest is what comparing finds
    for name, count in ended.items():
        if count > 1:
            bench.tally.breaks(Invariant.ONE_OUTCOME, f"{shown(name)} has {count} outcomes")
    late = {each.name for each in said.outcomes if each.written.late}
    late |= {name for firing in said.triggers for name in firing.names if firing.late}
    for name in said.waiting:
        if (name in ended or name in fired) and name not in late:
            bench.tally.breaks(Invariant.ONE_OUTCOME, f"{shown(name)} has an outcome and is pending")


def _judge_conserved(shard: Shard, said: Said, bench: Bench) -> None:
    places: dict[CandidateName, str] = {}
    for name in shard.transit:
        places[name] = "in transit"
    for name in said.waiting:
        places[name] = "pending"
    for each in said.outcomes:
        places[each.name] = each.outcome
    for firing in [*said.undelivered, *said.triggers, *said.recorded]:
        for name in firing.names:
            places[name] = f"part of {firing}"
    expected = shard.matched.candidates
    for name in expected:
        position = name[0]
        if position.offset >= bench.read_before.get((position.topic, position.partition), 0):
            continue
        bench.tally.examined(Invariant.CONSERVED)
        if name not in places:
            bench.tally.breaks(Invariant.CONSERVED, f"{shown(name)} is nowhere: its signal was read", LINEAGE)
    bench.tally.examined(Invariant.PARENTS, len(places))
    for name, place in places.items():
        if name not in expected and len(bench.doubtful) < DOUBTFUL:
            bench.doubtful[name] = place
    _judge_causes(shard, said, bench)


def _judge_causes(shard: Shard, said: Said, bench: Bench) -> None:
    """The first copy of a duplicate, and what superseded a signal, are candidates of the same set."""
    for each in said.outcomes:
        cause = each.document.get("cause")
        position = position_of(cause.get("position")) if isinstance(cause, dict) else None
        if position is not None:
            bench.tally.examined(Invariant.PARENTS)
            name = (position, *each.name[1:])
            if name not in shard.matched.candidates and len(bench.doubtful) < DOUBTFUL:
                bench.doubtful[name] = f"the cause of {shown(each.name)}"


def _judge_letters(shard: Shard, said: Said, bench: Bench) -> None:
    """Without an order of joining: bad records, and triggers whose signals say that they were undeliverable."""
    expected = Counter({("signal", "/".join(map(str, bad.position))): 1 for bad in shard.bad})
    undeliverable = [each for each in said.outcomes if each.outcome == "undeliverable"]
    expected.update({("trigger", trigger_named(each)) for each in undeliverable})
    actual = Counter(_letter_named(letter) for letter in said.letters)
    late = {_letter_named(letter) for letter in said.letters if letter.late}
    late |= {("trigger", trigger_named(each)) for each in undeliverable if each.written.late}
    bench.tally.examined(Invariant.DEAD_LETTERS, len(said.letters))
    for name in sorted((expected.keys() | actual.keys()) - late):
        if expected[name] != actual[name]:
            text = f"dead letter {name[0]} {name[1]}: {actual[name]} found, {expected[name]} expected"
            absent = DEAD_LETTERS if actual[name] < expected[name] else None
            bench.tally.breaks(Invariant.DEAD_LETTERS, text, absent)


def _letter_named(letter: Written) -> tuple[str, str]:
    kind = (read_document(letter.value) or {}).get("kind")
    return str(kind), (letter.key or b"").decode(errors="replace")
