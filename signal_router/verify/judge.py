"""Judging one shard: every invariant that speaks of join sets, each from as little as it takes.

Uniqueness, lineage and conservation need no order of joining; the rest compares with the reference evaluation, where
that can be made.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from signal_router.model.times import epoch_ms
from signal_router.testing.reference import (
    CandidateName,
    Definitions,
    EndedCandidate,
    Evaluation,
    Evidence,
    Limits,
    Position,
    compare,
    evaluate_matched,
)
from signal_router.testing.reference_compare import DEAD_LETTERS, LINEAGE, TRIGGERS
from signal_router.testing.reference_values import join_key_hash
from signal_router.verify.changelog import PartitionFold, PendingEntry, RememberedEntry, entries_of
from signal_router.verify.firings import Firing, named_candidate, position_of, read_document, read_firing
from signal_router.verify.logs import App
from signal_router.verify.report import Invariant
from signal_router.verify.shards import Shard, Written
from signal_router.verify.tally import Tally

DOUBTFUL = 1_000
"""The most positions that nothing matches which are looked up one by one."""

_NOTHING = Evaluation((), (), (), (), (), (), (), (), 0, ())


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
    limits: Limits
    pending_counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    doubtful: dict[CandidateName, str] = field(default_factory=dict)
    evaluation: Evaluation | None = None


@dataclass(slots=True)
class _Outcome:
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
class _Said:
    """What a shard's records say."""

    triggers: list[Firing] = field(default_factory=list)
    recorded: list[Firing] = field(default_factory=list)
    undelivered: list[Firing] = field(default_factory=list)
    outcomes: list[_Outcome] = field(default_factory=list)
    pending: list[tuple[int, PendingEntry]] = field(default_factory=list)
    remembered: list[tuple[int, RememberedEntry]] = field(default_factory=list)
    letters: list[Written] = field(default_factory=list)
    firing_of: dict[int, Firing] = field(default_factory=dict)

    @property
    def waiting(self) -> dict[CandidateName, tuple[int, PendingEntry]]:
        return {_name_of(entry): (partition, entry) for partition, entry in self.pending}


def judge(shard: Shard, bench: Bench) -> None:
    """Judges everything in a shard."""
    said = _read(shard, bench)
    _judge_unique(said, bench)
    _judge_lineage(said, bench)
    _judge_outcomes(said, bench)
    if bench.matched:
        _judge_conserved(shard, said, bench)
    if bench.matched and bench.ordered:
        _judge_by_reference(shard, said, bench)
    elif bench.matched:
        _judge_letters(shard, said, bench)


def _read(shard: Shard, bench: Bench) -> _Said:
    said = _Said()
    for written in shard.written:
        key = written.key or b""
        if written.role == "lineage" and key.startswith(b"signal/"):
            name, document = named_candidate(key), read_document(written.value)
            if name is None or document is None:
                bench.tally.breaks(Invariant.ONE_OUTCOME, f"lineage {key!r} cannot be read")
            else:
                said.outcomes.append(_Outcome(name, document, written))
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


# ---- what needs no evaluation


def _judge_unique(said: _Said, bench: Bench) -> None:
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
                else:
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


def _judge_lineage(said: _Said, bench: Bench) -> None:
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


def _judge_outcomes(said: _Said, bench: Bench) -> None:
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


def _judge_conserved(shard: Shard, said: _Said, bench: Bench) -> None:
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


def _judge_causes(shard: Shard, said: _Said, bench: Bench) -> None:
    """The first copy of a duplicate, and what superseded a signal, are candidates of the same set."""
    for each in said.outcomes:
        cause = each.document.get("cause")
        position = position_of(cause.get("position")) if isinstance(cause, dict) else None
        if position is not None:
            bench.tally.examined(Invariant.PARENTS)
            name = (position, *each.name[1:])
            if name not in shard.matched.candidates and len(bench.doubtful) < DOUBTFUL:
                bench.doubtful[name] = f"the cause of {shown(each.name)}"


def _judge_letters(shard: Shard, said: _Said, bench: Bench) -> None:
    """Without an order of joining: bad records, and triggers whose signals say that they were undeliverable."""
    undeliverable = {_trigger_named(each) for each in said.outcomes if each.outcome == "undeliverable"}
    expected = Counter({("signal", "/".join(map(str, bad.position))): 1 for bad in shard.bad})
    expected.update(("trigger", each) for each in undeliverable if each)
    actual = Counter(
        (str((read_document(letter.value) or {}).get("kind")), (letter.key or b"").decode(errors="replace"))
        for letter in said.letters
    )
    bench.tally.examined(Invariant.DEAD_LETTERS, len(expected.keys() | actual.keys()) or 1)
    for name in sorted(expected.keys() | actual.keys()):
        if expected[name] != actual[name]:
            text = f"dead letter {name[0]} {name[1]}: {actual[name]} found, {expected[name]} expected"
            bench.tally.breaks(Invariant.DEAD_LETTERS, text, DEAD_LETTERS if actual[name] < expected[name] else None)


def _trigger_named(outcome: _Outcome) -> str:
    cause = outcome.document.get("cause")
    return str(cause.get("trigger_id") or "") if isinstance(cause, dict) else ""


# ---- what the reference evaluation says


def _judge_by_reference(shard: Shard, said: _Said, bench: Bench) -> None:
    undeliverable = {
        _trigger_named(each): str(each.document.get("reason"))
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
        dead_letters=[each.output for each in said.letters],
    )
    # These two are judged without the reference.
    tally.take(each for each in found if each.invariant not in (Invariant.UNIQUE, Invariant.CONSERVED))
    tally.examined(Invariant.COMPLETE, len(evaluation.triggers))
    tally.examined(Invariant.SOUND, len(said.triggers))
    tally.examined(Invariant.ONE_OUTCOME, len(evaluation.ended))
    tally.examined(Invariant.DEAD_LETTERS, len(shard.bad) + len(said.letters) or 1)
    _judge_tables(said, evaluation, unfinished, bench)


def _unfinished(said: _Said, bench: Bench) -> set[CandidateName]:
    """What is due or must end by an edit, and has not been got to: it may have been written or not."""
    found = set()
    for partition, entry in said.pending:
        progress = bench.folds[partition].progress
        due = entry.pending.deadline < progress.clock
        if due or any(change.subscription == entry.subscription for change in progress.changes):
            found.add(_name_of(entry))
    return found


def _triggers(
    shard: Shard, said: _Said, evaluation: Evaluation, bench: Bench
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


def _lineage(shard: Shard, said: _Said, evaluation: Evaluation, bench: Bench) -> Iterator[Written]:
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


def _behind_the_cut(firing: Firing, bench: Bench) -> bool:
    fold = bench.folds.get(firing.partition)
    return firing.late and fold is not None and firing.sequence >= fold.sequence


def _order(value: Mapping[str, object]) -> tuple[int, int]:
    match value.get("order"):
        case {"partition": int(partition), "sequence": int(sequence)}:
            return partition, sequence
    return -1, -1


def _judge_tables(said: _Said, evaluation: Evaluation, unfinished: set[CandidateName], bench: Bench) -> None:
    """Who is pending and remembered, from the changelog and from the reference evaluation."""
    changing = {
        (partition, change.subscription) for partition, fold in bench.folds.items() for change in fold.progress.changes
    }
    waiting, aside = {}, set()
    for partition, entry in said.pending:
        if _name_of(entry) in unfinished:
            aside.add((partition, entry.subscription, entry.key, _position(entry)))
            continue
        life = bench.folds[partition].lives.get(entry.subscription)
        aliases = () if life is None else _chosen(life.aliases, entry.pending.aliases)
        place = (partition, entry.subscription, entry.key, _position(entry))
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


def _position(entry: PendingEntry) -> Position:
    signal = entry.pending.signal
    return Position(signal.topic, signal.partition, signal.offset)


def _name_of(entry: PendingEntry) -> CandidateName:
    return _position(entry), entry.subscription, join_key_hash(entry.key)


def _candidate(ended: EndedCandidate) -> CandidateName:
    return ended.position, ended.subscription, ended.join_key_hash


def shown(name: CandidateName) -> str:
    """A candidate in words."""
    position, subscription, key_hash = name
    return f'the candidate of {"/".join(map(str, position))} for "{subscription}" ({key_hash})'
