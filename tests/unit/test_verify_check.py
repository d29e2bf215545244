"""A log that is as it should be holds; one that was tampered with in one record is broken under its name; a hole in it
leaves open what it hides.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from signal_router.core.tables import JoinSet, Progress
from signal_router.errors import BrokerError, ConfigurationError, SignalRouterError
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord, NextOffset, TopicPartition
from signal_router.state.store import MemoryStore
from signal_router.testing.driver import APP, MemoryWorker, Plant
from signal_router.verify.check import check as check_logs
from signal_router.verify.logs import HeldLogs, NextOffsets, Span, StoredTable
from signal_router.verify.report import Invariant, Report, Verdict
from signal_router.verify.spool import Spool, SpooledShards
from signal_router.verify.transactions import Struck

DOCUMENTS = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/pair}
spec:
  join: {k: any}
  within: 30s
  dedupe: 60s
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}"}}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/each}
spec:
  members:
    - {alias: c, signal: C}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/away}
spec:
  members:
    - {alias: d, signal: D}
  trigger: {topic: nowhere}
"""

Checking = Callable[..., Report]
HELD = set(Invariant) - {Invariant.STRUCK}


class Run:
    """One worker in memory over a few signals, until it has read them all."""

    def __init__(self) -> None:
        self.plant = plant = Plant(2, 2)
        for document in read_documents([("documents.yaml", DOCUMENTS)]).documents:
            each = definition(document, birth=1, join_generation=1, applied_at=0)
            plant.broker.append(plant.names.definitions, encode_definition(each), key=definition_key(each.id))
        self.worker = MemoryWorker(plant, "w1", rng=random.Random(7))
        for number in range(6):
            self.publish("A", number, f"a{number}")
            self.publish("B", number, f"b{number}")
        self.drain()
        self.publish("A", 0, "a0")  # a duplicate
        self.publish("D", 0, "d0")  # undeliverable
        self.publish("C", 0, "c0")
        self.publish("C", 0, None)
        self.publish("A", 98, "late")
        self.drain()
        plant.clock.advance(40_000)
        self.publish("A", 99, "a99")  # stays pending, and moves the clock beyond the deadline of the one before it
        self.publish("C", 1, "c1")
        plant.broker.append(plant.names.signals, b"no json", partition=0)
        self.drain(marks=True)

    def publish(self, name: str, key: int, identity: str | None) -> None:
        signal: dict[str, object] = {"name": name, "params": {"k": key}}
        if identity is not None:
            signal |= {"source": "s", "id": identity}
        self.plant.broker.append(self.plant.names.signals, json.dumps(signal).encode(), partition=key % 2)

    def drain(self, *, marks: bool = False) -> None:
        self.worker.draining = False
        for turn in range(2_000):
            self.plant.clock.advance(10)
            self.worker.draining = turn > 200 or not marks
            self.worker.poll()
            for _ in range(5):
                self.worker.step()
            if turn > 300 and not self.plant.unread() and not self.plant.broker.open_transactions():
                return
        raise AssertionError(f"unread: {self.plant.unread()}")


@pytest.fixture(scope="module")
def run() -> Run:
    return Run()


@pytest.fixture
def logs(run: Run) -> HeldLogs:
    """The logs of the run, as somebody sees them who does not know how its worker was set up."""
    found = run.plant.logs()
    found.app = replace(found.app, all_lineage=False)
    return found


@pytest.fixture(params=[0, 1, 3], ids=["held", "one file", "three files"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Checking:
    """A check in memory, and one by shards on disk: both must say the same."""
    if not request.param:
        return check_logs
    shards = partial(SpooledShards, spool=Spool(tmp_path), count=request.param, value_limit_bytes=256 * 1024)
    return partial(check_logs, shards=shards)


def find(logs: HeldLogs, topic: str, wanted: Callable[[InputRecord], bool]) -> tuple[TopicPartition, int]:
    """The first record of a topic that is wanted: its partition, and its place there."""
    for tp in [TopicPartition(topic, number) for number in logs.partitions(topic)]:
        for place, record in enumerate(logs.records[tp]):
            if wanted(record):
                return tp, place
    raise AssertionError(f"{topic} has no such record")


def put(logs: HeldLogs, tp: TopicPartition, place: int, *records: InputRecord) -> None:
    """Puts records in the place of one."""
    found = list(logs.records[tp])
    found[place : place + 1] = records
    logs.records[tp] = found


def changed(record: InputRecord, **fields: object) -> InputRecord:
    return msgspec.structs.replace(record, **fields)


def document(record: InputRecord) -> dict[str, object]:
    return json.loads(record.value or b"{}")  # type: ignore[no-any-return]


def with_fields(record: InputRecord, **fields: object) -> InputRecord:
    return changed(record, value=json.dumps({**document(record), **fields}).encode())


def lineage(logs: HeldLogs, kind: bytes, **fields: object) -> tuple[TopicPartition, int]:
    def wanted(record: InputRecord) -> bool:
        said = document(record)
        return (record.key or b"").startswith(kind) and all(said.get(name) == each for name, each in fields.items())

    return find(logs, logs.app.names.lineage, wanted)


def record_at(logs: HeldLogs, at: tuple[TopicPartition, int]) -> InputRecord:
    return logs.records[at[0]][at[1]]


def of(report: Report, verdict: Verdict) -> set[Invariant]:
    return {each.invariant for each in report if each.verdict is verdict}


# ---- what is as it should be


def test_logs_that_are_as_they_should_be_hold(logs: HeldLogs, check: Checking) -> None:
    report = check(logs)

    assert of(report, Verdict.HOLDS) == HELD, report.differences()
    assert report.verdict is Verdict.HOLDS
    assert all(each.examined for each in report)


def test_the_run_has_every_kind_of_thing_in_it(logs: HeldLogs) -> None:
    outcomes = {
        document(record).get("outcome")
        for tp in logs.records
        for record in logs.records[tp]
        if tp.topic == logs.app.names.lineage
    }

    assert {"duplicate", "expired", "fired", "undeliverable"} <= outcomes
    assert any(
        (record.key or b"")[:1] == b"S" and msgspec.msgpack.decode(record.value or b"\x90", type=JoinSet).pending
        for tp in logs.records
        if tp.topic == logs.app.names.changelog
        for record in logs.records[tp]
    )


# ---- what is broken, and under which name


def trigger(logs: HeldLogs) -> tuple[TopicPartition, int]:
    return find(logs, logs.app.names.triggers, lambda record: len(document(record)["signals"]) == 2)  # type: ignore[arg-type]


def remove_trigger(logs: HeldLogs) -> None:
    put(logs, *trigger(logs))


def double_trigger(logs: HeldLogs) -> None:
    at = trigger(logs)
    record = record_at(logs, at)
    put(logs, *at, record, changed(record, offset=record.offset))


def change_trigger(logs: HeldLogs) -> None:
    at = trigger(logs)
    put(logs, *at, with_fields(record_at(logs, at), params={"k": "another"}))


def fire_again(logs: HeldLogs) -> None:
    """As if identities had been forgotten too early: another firing of the same set, with lineage."""
    at = trigger(logs)
    record = record_at(logs, at)
    order = {**document(record)["order"], "sequence": 1_000_000}  # type: ignore[dict-item]
    again = with_fields(record, order=order)
    put(logs, *at, record, again)
    tp, place = lineage(logs, b"trigger/", trigger_id=document(record)["trigger_id"])
    put(logs, tp, place, logs.records[tp][place], changed(again, key=logs.records[tp][place].key))


def tear(logs: HeldLogs) -> None:
    """Puts the lineage of a trigger into the transaction behind its own."""
    tp, place = lineage(logs, b"trigger/")
    record = logs.records[tp][place]
    behind = next(n for n in range(place, len(logs.records[tp])) if logs.records[tp][n].headers != record.headers)
    put(logs, tp, behind, logs.records[tp][behind], changed(record, headers=logs.records[tp][behind].headers))
    put(logs, tp, place)


def remove_trigger_lineage(logs: HeldLogs) -> None:
    put(logs, *lineage(logs, b"trigger/"))


def change_trigger_lineage(logs: HeldLogs) -> None:
    at = lineage(logs, b"trigger/")
    put(logs, *at, with_fields(record_at(logs, at), params={"k": "another"}))


def change_outcome(logs: HeldLogs) -> None:
    at = lineage(logs, b"signal/", outcome="duplicate")
    put(logs, *at, with_fields(record_at(logs, at), outcome="expired", reason="within", cause=None))


def double_outcome(logs: HeldLogs) -> None:
    at = lineage(logs, b"signal/", outcome="duplicate")
    put(logs, *at, record_at(logs, at), record_at(logs, at))


def lose_outcome(logs: HeldLogs) -> None:
    put(logs, *lineage(logs, b"signal/", outcome="duplicate"))


def name_no_record(logs: HeldLogs) -> None:
    at = lineage(logs, b"signal/", outcome="duplicate")
    put(
        logs,
        *at,
        with_fields(record_at(logs, at), cause={"position": {"topic": "signals", "partition": 0, "offset": 9_999}}),
    )


def swap_inputs(logs: HeldLogs) -> None:
    """Exchanges the numbers of two candidates of one signals partition, and of what came of them."""
    names = logs.app.names
    found: dict[tuple[int, int], list[tuple[TopicPartition, int]]] = {}
    for tp in [tp for tp in logs.records if tp.topic == names.lineage]:
        for place, record in enumerate(logs.records[tp]):
            said = document(record)
            given = said.get("input", {})
            if said.get("kind") == "input" and given.get("kind") == "candidate":  # type: ignore[union-attr]
                lane = (said["partition"], given["position"]["partition"])  # type: ignore[index]
                found.setdefault(lane, []).append((tp, place))  # type: ignore[arg-type]
    (first, second, *_) = next(each for each in found.values() if len(each) > 1)
    one, other = document(record_at(logs, first))["input"], document(record_at(logs, second))["input"]
    put(logs, *first, with_fields(record_at(logs, first), input=other))
    put(logs, *second, with_fields(record_at(logs, second), input=one))


def move_offset_back(logs: HeldLogs) -> None:
    commits = list(logs.commits or ())
    tp, offset = next(each for each in reversed(commits) if each[1] > 0)
    logs.commits = [*commits, (tp, offset - 1)]


def commit_beyond_the_end(logs: HeldLogs) -> None:
    tp = TopicPartition(logs.app.names.signals, 1)
    at = NextOffset(logs.span(tp).begun + 10)
    logs.next_offsets[tp] = NextOffsets(at, at)


def foreign_incarnation(logs: HeldLogs) -> None:
    """A life that was followed by a later one writes once more."""
    tp = TopicPartition(logs.app.names.candidates, 0)
    records = list(logs.records[tp])
    later = changed(records[0], headers=(("sr_txn", b"w1/2/1"),))
    logs.records[tp] = [later, *records[1:]]


def open_transaction(logs: HeldLogs) -> None:
    tp = TopicPartition(logs.app.names.lineage, 0)
    span = logs.span(tp)
    logs.spans[tp] = replace(span, begun=span.begun + 3)


def leave_unread(logs: HeldLogs) -> None:
    """A signal that nobody has read, in the log when the check began."""
    tp = TopicPartition(logs.app.names.signals, 0)
    span, last = logs.span(tp), logs.records[tp][-1]
    logs.records[tp] = [*logs.records[tp], changed(last, offset=span.begun)]
    logs.spans[tp] = replace(span, begun=span.begun + 1, sure=span.sure + 1, stable=span.stable + 1)


def table_entry(logs: HeldLogs, change: Callable[[JoinSet], JoinSet], wanted: Callable[[JoinSet], object]) -> None:
    for tp in [tp for tp in logs.records if tp.topic == logs.app.names.changelog]:
        for place in reversed(range(len(logs.records[tp]))):
            record = logs.records[tp][place]
            if (record.key or b"")[:1] == b"S" and record.value is not None:
                head = msgspec.msgpack.decode(record.value, type=JoinSet)
                if wanted(head):
                    put(logs, tp, place, changed(record, value=msgspec.msgpack.encode(change(head))))
                    return
    raise AssertionError("no such entry")


def last_of(logs: HeldLogs, key: bytes) -> tuple[TopicPartition, int]:
    """The last changelog record with a key, in a partition that has one."""
    tp, _ = find(logs, logs.app.names.changelog, lambda record: record.key == key)
    return tp, max(place for place, record in enumerate(logs.records[tp]) if record.key == key)


def change_deadline(logs: HeldLogs) -> None:
    def later(head: JoinSet) -> JoinSet:
        pending = tuple(msgspec.structs.replace(each, deadline=each.deadline + 1) for each in head.pending)
        return msgspec.structs.replace(head, pending=pending)

    table_entry(logs, later, lambda head: head.pending)


def forget(logs: HeldLogs) -> None:
    table_entry(logs, lambda head: msgspec.structs.replace(head, remembered=()), lambda head: head.remembered)


def change_count(logs: HeldLogs) -> None:
    tp, last = last_of(logs, b"N")
    put(logs, tp, last, changed(logs.records[tp][last], value=msgspec.msgpack.encode(77)))


def change_clock(logs: HeldLogs) -> None:
    tp, last = last_of(logs, b"V")
    progress = msgspec.msgpack.decode(logs.records[tp][last].value or b"", type=Progress)
    earlier = {name: time - 1 for name, time in progress.announced.items()}
    value = msgspec.msgpack.encode(msgspec.structs.replace(progress, announced=earlier))
    put(logs, tp, last, changed(logs.records[tp][last], value=value))


def change_store(logs: HeldLogs) -> None:
    stored, *others = logs.stored_tables()
    entries = dict(stored.entries)
    key = next(key for key in entries if key[:1] == b"S")
    entries[key] += b"\0"
    logs.tables = lambda: [StoredTable(stored.slot, stored.partition, entries), *others]


def lose_dead_letter(logs: HeldLogs) -> None:
    put(logs, *find(logs, logs.app.names.dead_letters, lambda _record: True))


def more_dead_letters(logs: HeldLogs) -> None:
    at = find(logs, logs.app.names.dead_letters, lambda _record: True)
    put(logs, *at, record_at(logs, at), record_at(logs, at))


def lose_candidate(logs: HeldLogs) -> None:
    """A candidate that is in no table, no lineage and on no topic: its pending entry goes, with all that counts it."""
    table_entry(logs, lambda head: msgspec.structs.replace(head, pending=()), lambda head: head.pending)


TAMPERED: Iterable[tuple[Callable[[HeldLogs], None], set[Invariant]]] = [
    (remove_trigger, {Invariant.COMPLETE, Invariant.LINEAGE}),
    (double_trigger, {Invariant.UNIQUE}),
    (change_trigger, {Invariant.SOUND}),
    (fire_again, {Invariant.UNIQUE, Invariant.SOUND, Invariant.LINEAGE, Invariant.ONE_OUTCOME}),
    (tear, {Invariant.LINEAGE}),
    (remove_trigger_lineage, {Invariant.LINEAGE}),
    (change_trigger_lineage, {Invariant.LINEAGE}),
    (change_outcome, {Invariant.ONE_OUTCOME}),
    (double_outcome, {Invariant.ONE_OUTCOME}),
    (lose_outcome, {Invariant.CONSERVED}),
    (name_no_record, {Invariant.PARENTS, Invariant.ONE_OUTCOME}),
    (move_offset_back, {Invariant.OFFSETS}),
    (commit_beyond_the_end, {Invariant.OFFSETS}),
    (foreign_incarnation, {Invariant.FENCED}),
    (open_transaction, {Invariant.CLOSED}),
    (leave_unread, {Invariant.CAUGHT_UP}),
    (change_deadline, {Invariant.TABLES}),
    (forget, {Invariant.TABLES}),
    (change_count, {Invariant.TABLES}),
    (change_clock, {Invariant.TABLES}),
    (change_store, {Invariant.TABLES}),
    (lose_dead_letter, {Invariant.DEAD_LETTERS}),
    (more_dead_letters, {Invariant.DEAD_LETTERS}),
    (lose_candidate, {Invariant.CONSERVED, Invariant.TABLES}),
]


@pytest.mark.parametrize(("tamper", "broken"), TAMPERED, ids=lambda each: getattr(each, "__name__", ""))
def test_one_record_tampered_with_breaks_what_it_stands_for(
    logs: HeldLogs,
    tamper: Callable[[HeldLogs], None],
    broken: set[Invariant],
    check: Checking,
) -> None:
    if tamper not in (change_store,):
        logs.tables = tuple
    tamper(logs)

    report = check(logs)

    assert of(report, Verdict.BROKEN) == broken, report.violations()


def test_an_order_against_that_of_a_signals_partition_is_broken(logs: HeldLogs, check: Checking) -> None:
    logs.tables = tuple
    swap_inputs(logs)

    assert Invariant.ORDER in check(logs).broken


def test_every_invariant_is_broken_by_some_tampering() -> None:
    assert set.union(*(broken for _, broken in TAMPERED)) | {Invariant.ORDER} == HELD


def test_a_trigger_whose_dead_letter_is_gone_is_told_from_one_that_was_never_written(
    logs: HeldLogs, check: Checking
) -> None:
    put(logs, *find(logs, logs.app.names.dead_letters, lambda record: document(record)["kind"] == "trigger"))

    assert check(logs).broken == (Invariant.DEAD_LETTERS,)


# ---- what cannot be judged, and why


def without(logs: HeldLogs, topic: str, wanted: Callable[[InputRecord], bool]) -> None:
    for tp in [tp for tp in logs.records if tp.topic == topic]:
        logs.records[tp] = [record for record in logs.records[tp] if not wanted(record)]


def cut_off(logs: HeldLogs, topic: str, below: int) -> None:
    """What retention does."""
    tp = TopicPartition(topic, 0)
    logs.records[tp] = [record for record in logs.records[tp] if record.offset >= below]
    logs.spans[tp] = replace(logs.span(tp), start=below)


def lose_triggers(logs: HeldLogs) -> set[Invariant]:
    cut_off(logs, logs.app.names.triggers, 6)
    return {Invariant.COMPLETE, Invariant.UNIQUE, Invariant.LINEAGE}


def lose_a_destination(logs: HeldLogs) -> set[Invariant]:
    """A topic that triggers went to is deleted: here by the word of the document that was in force for one of them."""
    tp, place = find(logs, logs.app.names.definitions, lambda record: document(record)["id"] == "team/each")
    spec = {**document(logs.records[tp][place])["spec"], "trigger": {"topic": "gone"}}  # type: ignore[dict-item]
    put(logs, tp, place, with_fields(logs.records[tp][place], spec=spec))
    without(logs, logs.app.names.triggers, lambda record: b"team/each" in (record.value or b""))
    return {Invariant.COMPLETE, Invariant.UNIQUE, Invariant.LINEAGE}


def lose_lineage(logs: HeldLogs) -> set[Invariant]:
    cut_off(logs, logs.app.names.lineage, 30)
    return {
        *(Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.CONSERVED, Invariant.LINEAGE),
        *(Invariant.PARENTS, Invariant.ORDER, Invariant.TABLES, Invariant.DEAD_LETTERS),
    }


def lose_signals(logs: HeldLogs) -> set[Invariant]:
    cut_off(logs, logs.app.names.signals, 2)
    return {
        *(Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.CONSERVED),
        *(Invariant.PARENTS, Invariant.TABLES, Invariant.DEAD_LETTERS),
    }


def lose_documents(logs: HeldLogs) -> set[Invariant]:
    without(logs, logs.app.names.definitions, lambda record: record.offset == 0)
    return {
        *(Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.CONSERVED),
        *(Invariant.PARENTS, Invariant.TABLES, Invariant.DEAD_LETTERS),
    }


def lose_dead_letters(logs: HeldLogs) -> set[Invariant]:
    cut_off(logs, logs.app.names.dead_letters, 5)
    return {Invariant.DEAD_LETTERS}


def lose_an_input(logs: HeldLogs) -> set[Invariant]:
    put(logs, *lineage(logs, b"input/"))
    return {Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.ORDER, Invariant.TABLES}


def test_an_input_that_must_be_there_is_lost(logs: HeldLogs, check: Checking) -> None:
    logs.app = replace(logs.app, all_lineage=True)
    lose_an_input(logs)

    assert Invariant.ORDER in check(logs).broken


def write_no_inputs(logs: HeldLogs) -> set[Invariant]:
    """As workers do without `--lineage all`."""
    names = logs.app.names
    without(logs, names.lineage, lambda record: (record.key or b"").startswith(b"input/"))
    without(logs, names.lineage, lambda record: document(record).get("outcome") == "fired")
    return {Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.ORDER, Invariant.TABLES}


def lose_views(logs: HeldLogs) -> set[Invariant]:
    without(logs, logs.app.names.lineage, lambda record: (record.key or b"").startswith(b"view/signals"))
    return {
        *(Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.CONSERVED),
        *(Invariant.PARENTS, Invariant.TABLES, Invariant.DEAD_LETTERS),
    }


def name_another_input(logs: HeldLogs) -> set[Invariant]:
    """The topics to look at are given, and one that was read is left out."""
    logs.app = replace(logs.app, inputs=("other",))
    logs.records[TopicPartition("other", 0)] = []
    logs.next_offsets[TopicPartition("other", 0)] = NextOffsets(NextOffset(0), NextOffset(0))
    return {
        *(Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.CONSERVED),
        *(Invariant.PARENTS, Invariant.TABLES, Invariant.DEAD_LETTERS),
    }


def hide_the_history(logs: HeldLogs) -> set[Invariant]:
    logs.commits = None
    return {Invariant.OFFSETS}


def meet_a_limit(logs: HeldLogs) -> set[Invariant]:
    at = lineage(logs, b"signal/", outcome="duplicate")
    value = (record_at(logs, at).value or b"").replace(b'"reason":"repeat"', b'"reason":"limit"')
    put(logs, *at, changed(record_at(logs, at), value=value))
    return {Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.TABLES}


HOLES = [
    *(lose_triggers, lose_a_destination, lose_lineage, lose_signals, lose_documents, lose_dead_letters, lose_an_input),
    *(write_no_inputs, lose_views, name_another_input, hide_the_history, meet_a_limit),
]


@pytest.mark.parametrize("hole", HOLES, ids=lambda each: each.__name__)
def test_what_a_hole_hides_is_left_open_and_the_rest_judged(
    logs: HeldLogs,
    hole: Callable[[HeldLogs], set[Invariant]],
    check: Checking,
) -> None:
    hidden = hole(logs)

    report = check(logs)

    assert report.broken == (), report.violations()
    assert of(report, Verdict.UNJUDGED) == hidden
    assert all(report[each].details for each in hidden)


def test_a_newer_format_of_lineage_leaves_everything_open(logs: HeldLogs, check: Checking) -> None:
    at = lineage(logs, b"input/")
    put(logs, *at, with_fields(record_at(logs, at), format=2))

    report = check(logs)

    assert of(report, Verdict.UNJUDGED) == HELD
    assert "format 2" in report[Invariant.COMPLETE].details[0]


def test_another_prefix_is_no_clean_log(logs: HeldLogs, check: Checking) -> None:
    elsewhere = {TopicPartition(f"x-{tp.topic}", tp.partition): records for tp, records in logs.records.items()}
    unread = replace(logs, next_offsets={})

    for empty in (replace(logs, records={}), replace(logs, records=elsewhere), unread):
        report = check(empty)
        assert of(report, Verdict.UNJUDGED) == HELD
        assert "prefix and app" in report[Invariant.COMPLETE].details[0]


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        (double_trigger, {Invariant.UNIQUE}),
        (fire_again, {Invariant.UNIQUE, Invariant.ONE_OUTCOME}),
        (tear, {Invariant.LINEAGE}),
        (change_trigger_lineage, {Invariant.LINEAGE}),
        (remove_trigger, {Invariant.LINEAGE}),
        (lose_outcome, {Invariant.CONSERVED}),
        (double_outcome, {Invariant.ONE_OUTCOME}),
        (name_no_record, {Invariant.PARENTS}),
        (lose_candidate, {Invariant.CONSERVED, Invariant.TABLES}),
        (change_count, {Invariant.TABLES}),
        (lose_dead_letter, {Invariant.DEAD_LETTERS}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_much_is_found_without_the_order_of_joining(
    logs: HeldLogs,
    tamper: Callable[[HeldLogs], None],
    broken: set[Invariant],
    check: Checking,
) -> None:
    logs.tables = tuple
    write_no_inputs(logs)
    tamper(logs)

    report = check(logs)

    assert of(report, Verdict.BROKEN) == broken, report.violations()


# ---- faults


def test_a_run_without_faults_proves_nothing_of_them(logs: HeldLogs, check: Checking) -> None:
    assert check(logs, struck=Struck({}, {}))[Invariant.STRUCK].verdict is Verdict.UNJUDGED


def test_a_fault_that_came_too_seldom_or_left_no_trace_is_named(logs: HeldLogs, check: Checking) -> None:
    seldom = check(logs, struck=Struck({"kill": 2}, {"kill": 1}))[Invariant.STRUCK]
    untraced = check(logs, struck=Struck({"kill": 1}, {"kill": 1}))[Invariant.STRUCK]

    assert "kill: 1 times, at least 2 were to be" in seldom.details
    assert untraced.details == ("no record of an aborted transaction stands on the outputs",)


def test_an_abort_that_was_done_again_is_seen(logs: HeldLogs, check: Checking) -> None:
    tp, place = lineage(logs, b"input/")
    record = logs.records[tp][place]
    logs.uncommitted[tp] = [changed(record, offset=record.offset - 0.5), *logs.uncommitted[tp]]  # type: ignore[list-item]

    assert check(logs, struck=Struck({"kill": 1}, {"kill": 1}))[Invariant.STRUCK].verdict is Verdict.HOLDS


# ---- while workers go on


def test_what_was_written_behind_the_cut_breaks_nothing(check: Checking) -> None:
    run = Run()
    plant = run.plant
    before = plant.logs()
    for number in range(200, 206):
        run.publish("A", number, f"a{number}")
        run.publish("B", number, f"b{number}")
    run.publish("B", 99, "b99")  # completes what was pending at the cut
    run.publish("D", 5, "d5")
    plant.broker.append(plant.names.signals, b"no json either", partition=1)
    run.drain()
    after = plant.logs()

    # The outputs are read later than the changelog and the offsets, as far as they have come by then.
    names = plant.names
    for tp in [tp for tp in after.records if tp.topic in (names.changelog, names.candidates)]:
        after.records[tp], after.spans[tp] = before.records[tp], before.spans[tp]
    for tp in [tp for tp in after.records if tp.topic not in (names.changelog, names.candidates)]:
        old = before.span(tp)
        after.spans[tp] = replace(after.span(tp), begun=old.begun, sure=old.sure)
    after.next_offsets, after.tables = before.next_offsets, tuple

    report = check(after)
    write_no_inputs(after)
    without_order = check(after)

    assert report.verdict is Verdict.HOLDS, report.differences()
    assert without_order.broken == (), without_order.violations()


def test_a_worker_on_a_store_of_its_own_is_compared_with_the_changelog(run: Run) -> None:
    assert isinstance(run.worker.store, MemoryStore)
    assert {each.slot for each in run.plant.logs().stored_tables()} == {"w1"}
    assert run.plant.logs().app.group == APP


def test_a_transaction_of_somebody_else_on_a_topic_that_others_may_write_to_breaks_nothing(logs: HeldLogs) -> None:
    elsewhere = TopicPartition("nowhere", 0)
    logs.records[elsewhere], logs.spans[elsewhere] = (), Span(0, 9, 9, 4, 9)

    found = check_logs(logs)[Invariant.CLOSED]

    assert found.verdict is Verdict.UNJUDGED
    assert "nowhere/0" in found.details[0]


@pytest.mark.parametrize("error", [BrokerError("hidden"), ConfigurationError("denied")])
def test_offsets_of_the_past_that_cannot_be_read_after_all_leave_the_rest_judged(
    logs: HeldLogs, error: SignalRouterError
) -> None:
    def history() -> Iterator[tuple[TopicPartition, int]]:
        yield from list(logs.commits or ())[:3]
        raise error

    report = check_logs(replace(logs, commits=history()))  # type: ignore[arg-type]

    assert report[Invariant.OFFSETS].verdict is Verdict.UNJUDGED
    assert error.message in report[Invariant.OFFSETS].details[0]
    assert report.broken == ()
    assert report[Invariant.COMPLETE].verdict is Verdict.HOLDS
