"""Histories of one candidates partition, taken by the engine and by the reference evaluation alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from signal_router.core.join import Ended, Fired, Joiner, Limits, Waiting
from signal_router.core.join_sets import OpenSet
from signal_router.model import triggers
from signal_router.model.candidates import Candidate, Mark, SignalCopy
from signal_router.model.canonical import canonical_json
from signal_router.model.subscriptions import JoinParameter, JoinType, Member, Policy, Subscription
from signal_router.model.templates import parse_template
from signal_router.model.triggers import Bound
from signal_router.state.keys import LOCAL_POSITION, partition_prefix
from signal_router.state.restore import local_entries
from signal_router.state.store import Store
from signal_router.state.tables import PartitionTable
from signal_router.testing import reference_joins
from signal_router.testing.reference_definitions import Definitions, Match, matches
from signal_router.testing.reference_outputs import trigger_of
from signal_router.testing.reference_signals import Payload, Signal
from signal_router.testing.reference_types import (
    CandidateInput,
    DefinitionRecord,
    Evidence,
    MarkInput,
    Position,
    ViewInput,
)
from signal_router.testing.reference_types import Limits as ReferenceLimits

TOPIC_ID = "5c1d6c2e-0000-4000-8000-000000000001"
PARTITION = 3
SUBSCRIPTIONS = ("ns/one", "ns/two")
START = 1_000  # epoch milliseconds; histories last about a hundred


# ---- what is drawn


@dataclass(frozen=True)
class Arrives:
    """A signal comes as a candidate. `lag`: how many documents ago it was matched."""

    subscription: str
    fits: int
    key: int
    id: int | None
    content: int
    at: int
    lag: int


@dataclass(frozen=True)
class Clock:
    """A mark comes."""

    announced: dict[str, int]
    inputs: tuple[str, ...]
    retired: tuple[str, ...]


@dataclass(frozen=True)
class Applies:
    """A document is applied; the partition does not see it yet."""

    subscription: str
    what: str
    members: int
    within_ms: int
    dedupe_ms: int
    latest: bool
    joined: bool


@dataclass(frozen=True)
class Sees:
    """The partition takes the newest definitions."""


@dataclass(frozen=True)
class Happens:
    """Something happens to the worker; the decisions must not show it."""

    what: str


Step = Arrives | Clock | Applies | Sees | Happens

_documents = st.builds(
    Applies,
    subscription=st.sampled_from(SUBSCRIPTIONS),
    what=st.sampled_from(("edit", "edit", "reshape", "delete")),
    members=st.integers(1, 4),
    within_ms=st.sampled_from((8, 20, 60)),
    dedupe_ms=st.integers(0, 40),
    latest=st.booleans(),
    joined=st.sampled_from((True, True, True, False)),
)
_arrivals = st.builds(
    Arrives,
    subscription=st.sampled_from((*SUBSCRIPTIONS, SUBSCRIPTIONS[0])),
    fits=st.sampled_from((1, 2, 1, 2, 4, 8, 3, 5, 6, 7, 10, 12, 15)),
    key=st.sampled_from((0, 0, 0, 0, 1)),
    id=st.one_of(st.none(), st.integers(0, 40)),
    content=st.sampled_from((0, 0, 0, 1)),
    at=st.integers(0, 60),
    lag=st.sampled_from((0, 0, 0, 0, 1, 2)),
)
_inputs = ("signals/0", "signals/1")
_marks = st.builds(
    Clock,
    announced=st.one_of(
        st.integers(0, 60).map(lambda at: dict.fromkeys(_inputs, at)),
        st.dictionaries(st.sampled_from(_inputs), st.integers(0, 90), max_size=2),
    ),
    inputs=st.lists(st.sampled_from(_inputs), max_size=2).map(tuple),
    retired=st.sampled_from(((), (), (), (_inputs[1],))),
)
_happenings = st.builds(Happens, st.sampled_from(("commit", "commit", "crash", "restart", "restore")))
_bulks = st.builds(
    lambda first, count: [
        Arrives(first.subscription, first.fits, first.key, 100 + number, 0, first.at + number, 0)
        for number in range(count)
    ],
    _arrivals,
    st.integers(2, 14),
)
_parts = st.one_of(
    *[_arrivals.map(lambda step: [step])] * 12,
    _bulks,
    *[_marks.map(lambda step: [step])] * 2,
    *[_happenings.map(lambda step: [step])] * 3,
    _documents.map(lambda step: [step, Sees()]),
    _documents.map(lambda step: [step]),
)
_beginnings = st.lists(
    st.builds(
        Applies,
        subscription=st.just(""),
        what=st.just("edit"),
        members=st.sampled_from((1, 2, 2, 2, 3, 4)),
        within_ms=st.sampled_from((8, 20, 60)),
        dedupe_ms=st.integers(0, 40),
        latest=st.booleans(),
        joined=st.sampled_from((True, True, True, False)),
    ),
    min_size=len(SUBSCRIPTIONS),
    max_size=len(SUBSCRIPTIONS),
)
histories = st.builds(
    lambda beginnings, parts: [
        *(replace(first, subscription=name) for first, name in zip(beginnings, SUBSCRIPTIONS, strict=True)),
        Sees(),
        *(step for part in parts for step in part),
    ],
    _beginnings,
    st.one_of(st.lists(_parts, max_size=12), st.lists(_parts, min_size=15, max_size=60)),
)
limits = st.one_of(
    st.just(Limits()), st.just(Limits()), st.builds(Limits, st.integers(1, 4), st.integers(1, 8), st.integers(1, 12))
)
pauses = st.lists(st.sampled_from((0, 1, 1, 2, 3, 7)), max_size=12)


# ---- definitions, for both


@dataclass
class Documents:
    """The definitions log. As the engine's definitions, `revision` is what the worker has seen."""

    records: list[DefinitionRecord] = field(default_factory=list)
    revision: int = -1
    closed: bool = False
    _compiled: dict[str, list[tuple[int, Subscription | None]]] = field(default_factory=dict)
    _last: dict[str, tuple[int, int, object]] = field(default_factory=dict)
    _read: tuple[int, Definitions] = (0, Definitions(()))

    def apply(self, step: Applies) -> None:
        birth, generation, shape = self._last.get(step.subscription, (0, 0, None))
        revision = len(self.records)
        if step.what == "delete":
            if shape is None:
                return
            value = _document(step, birth, generation, deleted=True)
            compiled, shape = None, None
        else:
            now = (step.members, step.joined)
            if step.what == "edit" and shape is not None:
                now = shape
            birth, generation = (birth + 1, 1) if shape is None else (birth, generation + (now != shape))
            shape = now
            value = _document(step, birth, generation, *now)
            compiled = _subscription(step, birth, generation, revision, *now)
        self.records.append(DefinitionRecord(revision, canonical_json(value)))
        self._compiled.setdefault(step.subscription, []).append((revision, compiled))
        self._last[step.subscription] = (birth, generation, shape)

    def read(self) -> Definitions:
        """The log as the reference reads it."""
        if self._read[0] != len(self.records):
            self._read = (len(self.records), Definitions(self.records))
        return self._read[1]

    def find(self, subscription: str) -> Subscription | None:
        return self.at(subscription, self.revision)

    def at(self, subscription: str, revision: int) -> Subscription | None:
        if self.closed:
            raise LookupError("work looked at the definitions, which may be newer by now")
        until = [document for offset, document in self._compiled[subscription] if offset <= revision]
        return until[-1]

    def changed_since(self, revision: int) -> Iterable[str]:
        for subscription, documents in self._compiled.items():
            if any(revision < offset <= self.revision for offset, _ in documents):
                yield subscription


def _params(members: int) -> dict[str, object]:
    return {f"from_{number}": f"{{m{number}.params.content}}" for number in range(members)} | {"all": "{m0.source}!"}


def _document(
    step: Applies, birth: int, generation: int, members: int = 0, joined: bool = False, *, deleted: bool = False
) -> dict[str, object]:
    spec = {
        "members": [
            {"alias": f"m{number}", "signal": "s", "match": {f"fits_{number}": {"exists": True}}}
            for number in range(members)
        ],
        "join": {"key": "any"} if joined else {},
        "policy": "latest" if step.latest else "fifo",
        "within": f"{step.within_ms}ms",
        "dedupe": f"{step.within_ms + step.dedupe_ms}ms",
        "trigger": {"params": _params(members)},
    }
    return {
        "format": 1,
        "kind": "Subscription",
        "id": step.subscription,
        "birth": birth,
        "join_generation": generation,
        "version": f"sha256:{step.within_ms}",
        "deleted": deleted,
        "spec": spec,
    }


def _subscription(
    step: Applies, birth: int, generation: int, revision: int, members: int, joined: bool
) -> Subscription:
    join = (JoinParameter("key", JoinType.ANY, "key"),) if joined else ()
    return Subscription(
        id=step.subscription,
        birth=birth,
        join_generation=generation,
        revision=revision,
        version=f"sha256:{step.within_ms}",
        contact=None,
        members=tuple(Member(f"m{number}", "s", (), join, False) for number in range(members)),
        join_names=("key",) if joined else (),
        policy=Policy.LATEST if step.latest else Policy.FIFO,
        within_ms=step.within_ms,
        dedupe_ms=step.within_ms + step.dedupe_ms,
        topic="triggers",
        template=parse_template(_params(members)),
    )


# ---- the numbered inputs that a history gives


@dataclass(frozen=True)
class Taken:
    """A candidate, in the shape of each side."""

    given: CandidateInput
    signal: Signal
    match: Match
    candidate: Candidate


Input = Taken | MarkInput | ViewInput


def inputs_of(steps: Iterable[Step], documents: Documents) -> Iterator[Input | Happens]:
    """Numbers the inputs from 1. A candidate that nothing would match is left out."""
    sequence, revision = 0, -1
    for step in steps:
        made: Input | None = None
        match step:
            case Happens():
                yield step
            case Applies():
                documents.apply(step)
            case Sees():
                if len(documents.records) - 1 > revision:
                    revision = len(documents.records) - 1
                    made = ViewInput(sequence + 1, revision)
            case Clock():
                announced = {name: START + at for name, at in step.announced.items()}
                made = MarkInput(sequence + 1, announced, step.inputs, step.retired)
            case Arrives():
                made = _taken(step, sequence + 1, max(0, revision - step.lag), documents)
        if made is not None:
            sequence += 1
            yield made


def _taken(step: Arrives, sequence: int, revision: int, documents: Documents) -> Taken | None:
    signal = _signal(step, sequence)
    document = documents.read().in_force(step.subscription, revision)
    for found in matches(document, signal) if document is not None else ():
        given = CandidateInput(sequence, signal.position, step.subscription, found.key_hash, revision, START + step.at)
        candidate = Candidate(
            step.subscription,
            found.document.birth,
            found.document.join_generation,
            found.document.revision,
            found.key_text,
            sum(1 << int(alias[1:]) for alias in found.aliases),
            _copy(signal, given.recorded_at),
        )
        return Taken(given, signal, found, candidate)
    return None


def _signal(step: Arrives, offset: int) -> Signal:
    position = Position("signals", 0, offset)
    params: dict[str, object] = {f"fits_{bit}": 1 for bit in range(4) if step.fits >> bit & 1}
    return Signal(
        name="s",
        source="ours",
        id=None if step.id is None else str(step.id),
        params={**params, "key": step.key, "content": step.content},
        payload=Payload({"large": "x" * 1500}) if step.content else None,
        time=None,
        context={},
        position=position,
        timestamp=START + step.at,
        identity_tail={"position": [TOPIC_ID, 0, offset]} if step.id is None else str(step.id),
    )


def _copy(signal: Signal, recorded_at: int) -> SignalCopy:
    return SignalCopy(
        signal.identity,
        signal.name,
        signal.source,
        signal.id,
        canonical_json(signal.params),
        None if signal.payload is None else canonical_json(signal.payload.value),
        signal.time,
        recorded_at,
        *signal.position,
        signal.content.encode(),
    )


# ---- what is compared


@dataclass
class Result:
    """What became of a history."""

    ended: list[tuple[object, ...]]
    triggers: list[object]
    pending: list[tuple[object, ...]]
    remembered: list[tuple[object, ...]]


def by_reference(inputs: Iterable[Input], documents: Documents, at_most: Limits) -> Result:
    """Evaluates with the reference."""
    of_reference = ReferenceLimits(at_most.per_key, at_most.per_subscription, at_most.per_partition)
    partition = reference_joins.Partition(documents.read(), of_reference)
    for each in inputs:
        match each:
            case Taken():
                partition.take_candidate(each.given, each.signal, each.match)
            case MarkInput():
                partition.take_mark(each)
            case ViewInput():
                partition.take_view(each)
    evidence = Evidence("app", (), {}, {}, {}, {})
    return Result(
        ended=sorted(
            (one.taken.sequence, one.taken.match.document.id, one.outcome, one.reason, one.aliases, one.cause)
            for one in partition.ended
        ),
        triggers=[trigger_of(one, PARTITION, evidence).value for one in partition.fired],
        pending=[
            (one.taken.sequence, *one.taken.set_name, one.deadline, one.taken.aliases) for one in partition.pending
        ],
        remembered=sorted(
            (*one.set_name, one.identity, one.content.encode(), one.position, one.forget_at)
            for one in partition.remembered
        ),
    )


class Engine:
    """Takes inputs as a worker does: staged, committed, replayed after a crash, restored from the changelog."""

    def __init__(self, store: Store, partition: int, documents: Documents, at_most: Limits, pauses: list[int]) -> None:
        self._store = store
        self._partition = partition
        self._documents = documents
        self._limits = at_most
        self._pauses = list(pauses)
        self._changelog: dict[bytes, bytes] = {}
        self._records: list[tuple[bytes, bytes | None]] = []
        self._decisions: list[Ended | Fired | Waiting] = []
        self._committed = (0, 0, -1)  # next input, decisions, revision
        self._next = 0
        self._inputs: list[Input] = []
        self.restored = False
        self._open()

    def run(self, history: Iterable[Input | Happens]) -> None:
        """Takes a whole history and commits."""
        for step in history:
            if isinstance(step, Happens):
                {"commit": self._commit, "crash": self._crash, "restart": self._restart, "restore": self._restore}[
                    step.what
                ]()
            else:
                self._inputs.append(step)
                self._take_all()
        self._take_all()
        self._commit()

    def result(self) -> Result:
        """What became of it all, read from the table and the decisions."""
        pending, remembered = [], []
        for subscription in SUBSCRIPTIONS:
            count = 0
            for key in self.table.keys_of(subscription):
                join_set = OpenSet(self.table, subscription, key)
                arrivals = list(join_set.all_arrivals())
                count += len(arrivals)
                pending += [
                    (one.sequence, subscription, key, one.deadline, frozenset(_aliases(one.aliases)))
                    for one in arrivals
                ]
                head = self.table.join_set(subscription, key)
                noted = list(self.table.noted_of(subscription, key))
                assert join_set.pending_count == len(arrivals)
                assert head.noted == len(noted)
                assert head.queued == sum(not one.forget_at for one in noted)
                remembered += [
                    (subscription, key, one.identity, one.digest, (one.topic, one.partition, one.offset), one.forget_at)
                    for one in (*head.remembered, *noted)
                    if one.forget_at
                ]
            assert self.table.pending_count(subscription) == count
        assert self.table.pending_count("") == len(pending)
        return Result(
            ended=sorted(
                (
                    one.sequence,
                    one.subscription,
                    one.outcome.value,
                    one.reason.value,
                    one.aliases,
                    None if one.cause is None else (one.cause.topic, one.cause.partition, one.cause.offset),
                )
                for one in self._decisions
                if isinstance(one, Ended)
            ),
            triggers=[_trigger(one) for one in self._decisions if isinstance(one, Fired)],
            pending=sorted(pending),
            remembered=sorted(remembered),
        )

    def stored(self) -> dict[bytes, bytes]:
        """The store's entries of this partition."""
        prefix = partition_prefix(self._partition)
        return {key[2:]: value for key, value in self._store.scan(prefix, partition_prefix(self._partition + 1))}

    def restored_store(self) -> dict[bytes, bytes]:
        """What a restore from the changelog's latest records gives."""
        entries = dict(self._changelog)
        for key, value in self._changelog.items():
            entries.update(local_entries(key, value))
        return entries

    def _open(self) -> None:
        self.table = PartitionTable(self._store, self._partition)
        self.joiner = Joiner(self.table, self._documents, self._limits)

    def _take_all(self) -> None:
        while True:
            self._finish_work()
            if self._next == len(self._inputs):
                return
            each = self._inputs[self._next]
            self._next += 1
            match each:
                case Taken():
                    if each.given.sequence % 3 == 0:
                        self._fail_first(each)
                    self._decisions += self.joiner.candidate(each.given.sequence, each.candidate)
                case MarkInput():
                    self.joiner.mark(Mark("w", dict(each.announced), tuple(each.inputs), tuple(each.retired)))
                case ViewInput():
                    self._documents.revision = each.revision
                    assert self.joiner.behind
                    self.joiner.change_view()
                    assert not self.joiner.behind

    def _fail_first(self, each: Taken) -> None:
        savepoint = self.table.savepoint()
        self.joiner.candidate(each.given.sequence, each.candidate)
        self.table.rollback(savepoint)

    def _finish_work(self) -> None:
        while True:
            left = self._pauses.pop() if self._pauses else None
            self._documents.closed = True
            finished = True
            work = self.joiner.work()
            while left is None or left >= 0:
                decision = next(work, None)
                if decision is None:
                    break
                if isinstance(decision, Ended):
                    self._decisions.append(decision)
                left = None if left is None else left - 1
            else:
                finished = False
            self._documents.closed = False
            if finished:
                return
            self._commit()

    def _commit(self) -> None:
        writes = self.table.staged()
        self._records += writes
        for key, value in writes:
            if value is None:
                self._changelog.pop(key, None)
            else:
                self._changelog[key] = value
        position = (LOCAL_POSITION, b"%d" % len(self._records))
        self.table.apply([*writes, *self.table.staged_locally(), position])
        self._committed = (self._next, len(self._decisions), self._documents.revision)

    def _back(self) -> None:
        self._next, decisions, self._documents.revision = self._committed
        del self._decisions[decisions:]

    def _crash(self) -> None:
        self.table.discard()
        self._back()
        self._take_all()

    def _restart(self) -> None:
        self._open()
        self._back()
        self._take_all()

    def _restore(self) -> None:
        """Begins with an empty store and the whole changelog, older records of a key too."""
        prefix = partition_prefix(self._partition)
        self._store.delete_range(prefix, partition_prefix(self._partition + 1))
        self.restored = True
        for key, value in self._records:
            entries = [(key, value)] if value is None else [(key, value), *local_entries(key, value)]
            self._store.write([(prefix + name, entry) for name, entry in entries])
        self._restart()


def _aliases(mask: int) -> Iterator[str]:
    return (f"m{bit}" for bit in range(4) if mask >> bit & 1)


def _trigger(fired: Fired) -> object:
    bound = [
        Bound(member.alias, pending.sequence, pending.signal, member.payload)
        for member, pending in zip(fired.subscription.members, fired.members, strict=True)
    ]
    completing = next(one for one in bound if one.sequence == fired.completing.sequence)
    return json.loads(triggers.encode(triggers.build(fired.subscription, fired.key, bound, completing, PARTITION)))
