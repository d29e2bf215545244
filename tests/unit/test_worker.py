"""A worker on its event loop, over the log in memory: what may be committed, and when."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from signal_router.errors import ConfigurationError, SignalRouterError, StateError
from signal_router.kafka.consume import Fetched
from signal_router.kafka.offsets import TopicDescription
from signal_router.kafka.settings import Connection
from signal_router.model import candidates
from signal_router.model.candidates import Candidate, Mark, SignalCopy
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.observe.meter import Meter
from signal_router.runtime import fetching
from signal_router.runtime import worker as worker_module
from signal_router.runtime.definitions import DefinitionsView, ReadDefinition
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.inbox import Inbox
from signal_router.runtime.match import SignalsPartition
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.roster import Roster, WorkerRecord, worker_output
from signal_router.runtime.settings import CLASSIC, CONSUMER, Pace, Times, WorkerSettings
from signal_router.runtime.takeover import Cluster, JoinStart, Takeover
from signal_router.runtime.worker import Phase, Worker
from signal_router.state.store import MemoryStore
from signal_router.testing.memory_log import MemoryLog
from signal_router.testing.plant import APP, Plant

DOCUMENT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/pair}
spec:
  join: {k: any}
  within: 30s
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}"}}
"""
DEADLINE_S = 5.0
EPOCH = 7


class Reader:
    """Stands where the consume thread does; the test itself hands batches over."""

    pending_records = 0
    silent_s = 0.0

    def __init__(self) -> None:
        self.started: list[int] = []
        self.offsets: Mapping[TopicPartition, int] = {}
        self.worker: Worker

    def taken(self, _batch: Fetched) -> None: ...

    def start_fetching(self, assignment: int, offsets: Mapping[TopicPartition, int]) -> None:
        self.started.append(assignment)
        self.offsets = offsets
        self.worker.fetching(assignment, EPOCH)

    def stop_fetching(self, assignment: int) -> None:
        self.worker.fetching(assignment, EPOCH)

    def stop(self, _deadline_s: float) -> bool:
        return True


class Bench:
    """One worker with one signals and one candidates partition."""

    def __init__(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        pace: Pace | None = None,
        *,
        local: bool = False,
        protocol: str = CLASSIC,
    ) -> None:
        self.plant = plant = Plant(1, 1)
        self.names = names = plant.names
        plant.broker.create_topic(names.workers)
        self.member = plant.broker.join(APP, [names.signals, names.candidates], instance="w1")
        while (rebalance := self.member.poll()) is None or rebalance.kind != "assigned":
            pass
        self.signals = TopicPartition(names.signals, 0)
        self.candidates = TopicPartition(names.candidates, 0)
        self.takeovers = {
            1: Takeover(signals={self.signals: SignalsPartition("t", 0)}, joins={0: JoinStart(0, 0)}, ends={0: 0})
        }
        monkeypatch.setattr(worker_module, "take_over", lambda *_: self.takeovers[max(self.takeovers)])
        monkeypatch.setattr(worker_module, "uncover", lambda *_: None)
        self.failures: list[SignalRouterError] = []
        self.roster = Roster()
        self.store = MemoryStore()
        self.before: Callable[[str], object] = lambda _effect: None
        self.view = DefinitionsView(names.triggers)
        self.reader = Reader()
        self.offset = self.read = 0
        limits = {names.triggers: 1_000_000, names.lineage: 1_000_000}
        topic = TopicDescription("t", 1)
        self.worker = Worker(
            WorkerSettings(
                Connection(app=APP),
                "w1",
                tmp_path,
                local_candidates=local,
                group_protocol=protocol,
                times=Times(revoke_ms=500),
                pace=pace or Pace(),
            ),
            Cluster(Connection(app=APP), None, names, APP, "cluster", topic, topic),  # type: ignore[arg-type]
            self.store,
            self.view,
            self.roster,
            Outputs(names, APP, Destinations(limits), all_lineage=False),
            lambda slot: MemoryLog(plant.broker, f"{APP}-{slot}"),
            Meter(),
            self.failures.append,
            lambda effect: self.before(effect),  # noqa: PLW0108 - a test sets it later
        )
        self.reader.worker = self.worker
        self.worker.attach(self.reader)  # type: ignore[arg-type]

    def definition(self, offset: int) -> ReadDefinition:
        document = read_documents([("pair.yaml", DOCUMENT)]).documents[0]
        made = definition(document, birth=1, join_generation=1, applied_at=0)
        return self.view.read(InputRecord(offset, 0, definition_key(made.id), encode_definition(made)))

    async def begin(self) -> None:
        await self.worker.take_definitions([self.definition(0)])
        self.worker.assigned(1, frozenset({self.signals, self.candidates}), self.member.group_metadata())
        await until(lambda: self.worker.phase is Phase.RUNNING)
        await asyncio.sleep(0)

    def candidate(self, name: str) -> bytes:
        identity = f'["{name}","s","1"]'
        signal = SignalCopy(identity, name, "s", "1", b'{"k":1}', None, None, 1, self.names.signals, 0, 0, b"digest")
        return candidates.encode(Candidate("team/pair", 1, 1, 0, '{"k":1}', 1 if name == "A" else 2, signal))

    def batch(self, *values: bytes) -> Fetched:
        records = [InputRecord(self.offset + at, 1, None, value) for at, value in enumerate(values)]
        self.offset += len(values)
        return Fetched(self.candidates, records, self.offset, EPOCH, 0)

    def signal(self, name: str) -> Fetched:
        self.read += 1
        value = b'{"name":"%s","source":"s","id":"1","params":{"k":1}}' % name.encode()
        records = [InputRecord(self.read - 1, 1, None, value)]
        return Fetched(self.signals, records, self.read, EPOCH, 0)

    @property
    def written(self) -> list[bytes]:
        return [each.value or b"" for each in self.plant.broker.read_all(self.names.candidates)[self.candidates]]

    @property
    def triggers(self) -> int:
        return sum(len(records) for records in self.plant.broker.read_all(self.names.triggers).values())

    @property
    def next_offset(self) -> int | None:
        committed = self.plant.broker.committed(APP, [self.candidates])[self.candidates]
        return None if committed is None else committed.offset


def held_commits() -> tuple[Callable[[str], None], threading.Event, threading.Event]:
    """What holds each commit before it is sent, and the events that say so and let it go."""
    reached, released = threading.Event(), threading.Event()

    def hold(effect: str) -> None:
        if effect == "commit":
            reached.set()
            released.wait(DEADLINE_S)

    return hold, reached, released


def inbox(*batches: Fetched) -> Inbox:
    filled = Inbox()
    for batch in batches:
        filled.put(batch)
    return filled


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def play(story: Callable[[Bench], Awaitable[None]]) -> None:
        async def told() -> None:
            await story(Bench(tmp_path, monkeypatch))

        asyncio.run(told())

    return play


def test_a_cancelled_commit_keeps_its_turn_until_its_tables_are_settled(bench: Any) -> None:
    async def story(given: Bench) -> None:
        await given.begin()
        hold, reached, released = held_commits()

        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        given.before = hold
        marking = asyncio.create_task(given.worker.mark())
        await until(reached.is_set)
        marking.cancel()
        completing = asyncio.create_task(given.worker.on_candidates(inbox(given.batch(given.candidate("B")))))
        for _ in range(10):
            await asyncio.sleep(0)
        released.set()
        await completing
        await given.worker.mark()
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"), given.candidate("B"))))
        await given.worker.mark()

        assert given.triggers == 1
        assert given.next_offset == 4
        await given.worker.stop()

    bench(story)


def test_what_a_failed_batch_has_staged_is_never_committed(bench: Any) -> None:
    async def story(given: Bench) -> None:
        await given.begin()

        newer = b"\x91\x63"
        with suppress(StateError):  # who calls may hear of it or not
            await given.worker.on_candidates(inbox(given.batch(given.candidate("A"), given.candidate("B"), newer)))
        await given.worker.mark()
        await given.worker.tell_roster()
        await given.worker.stop()

        assert given.triggers == 0
        assert given.next_offset is None
        assert [type(error) for error in given.failures] == [StateError]

    bench(story)


def test_a_take_over_that_waited_for_definitions_ends_with_its_assignment(bench: Any) -> None:
    async def story(given: Bench) -> None:
        loop = asyncio.get_running_loop()
        given.takeovers[1].revision = 1
        given.worker.assigned(1, frozenset({given.signals, given.candidates}), given.member.group_metadata())
        await until(lambda: given.worker.phase is Phase.TAKING_OVER)
        await loop.run_in_executor(None, given.worker.revoked, 1, frozenset({given.signals, given.candidates}))

        given.takeovers[3] = Takeover(signals={given.signals: SignalsPartition("t", 0)})
        given.worker.assigned(3, frozenset({given.signals}), given.member.group_metadata())
        await until(lambda: given.worker.phase is Phase.RUNNING)
        given.worker.fetching(3, EPOCH)
        await given.worker.take_definitions([given.definition(0), given.definition(1)])
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await given.worker.mark()

        assert given.reader.started == [3]
        assert given.next_offset is None
        await given.worker.stop()

    bench(story)


def test_a_new_assignment_takes_no_offsets_from_the_one_before(bench: Any) -> None:
    async def story(given: Bench) -> None:
        await given.begin()
        hold, reached, released = held_commits()

        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        await given.worker.on_signals(inbox(Fetched(given.signals, [], 5, EPOCH, 0)))
        given.before = hold
        marking = asyncio.create_task(given.worker.mark())
        await until(reached.is_set)
        telling = asyncio.create_task(given.worker.tell_roster())
        await asyncio.sleep(0)
        given.worker.lost(1)
        given.takeovers[3] = Takeover(joins={0: JoinStart(1, 1)}, ends={0: 1})
        given.worker.assigned(3, frozenset({given.candidates}), given.member.group_metadata())
        await asyncio.sleep(0)
        released.set()
        await asyncio.gather(marking, telling)
        await until(lambda: given.reader.started == [1, 3])

        assert given.plant.broker.committed(APP, [given.signals])[given.signals] is None
        assert not given.failures
        await given.worker.stop()

    bench(story)


def test_nothing_later_than_the_last_look_at_the_inputs_is_announced(bench: Any) -> None:
    async def story(given: Bench) -> None:
        def told() -> list[tuple[int | None, int]]:
            written = [candidates.decode(each.value or b"") for each in given.plant.broker.read_all(topic)[tp]]
            marks = [each for each in written if isinstance(each, Mark)]
            return [(mark.announced.get(f"{given.names.signals}/0"), len(mark.inputs)) for mark in marks]

        async def look(count: int, looked_at: int) -> None:
            given.worker.marks.look({given.names.signals: count}, looked_at)
            await given.worker.mark()

        topic, tp = given.names.candidates, given.candidates
        given.worker.marks.set_inputs({given.names.signals: 1}, 10)
        await given.begin()
        given.worker.marks.met_ends({given.signals: 0}, 25)

        await given.worker.mark()
        await look(2, 20)
        await look(1, 30)  # one is missing: that look says nothing
        await look(2, 40)

        assert told() == [(10, 1), (20, 2), (25, 2)]
        await given.worker.stop()

    bench(story)


def test_an_input_is_retired_only_when_a_second_look_does_not_show_it(bench: Any) -> None:
    async def story(given: Bench) -> None:
        def retired() -> set[str]:
            marks = [candidates.decode(each.value or b"") for each in given.plant.broker.read_all(topic)[tp]]
            return {name for mark in marks if isinstance(mark, Mark) for name in mark.retired}

        topic, tp = given.names.candidates, given.candidates
        given.worker.marks.set_inputs({given.names.signals: 1}, 1)
        await given.begin()
        of_another = Mark("w2", {}, (f"{given.names.signals}/0", f"{given.names.signals}/1"))
        await given.worker.on_candidates(inbox(given.batch(candidates.encode(of_another))))

        await given.worker.mark()
        before = retired()
        given.worker.marks.set_inputs({given.names.signals: 2}, 1)
        await given.worker.mark()
        seen = retired()
        given.worker.marks.set_inputs({given.names.signals: 1}, 1)
        await given.worker.mark()
        once = retired()
        given.worker.marks.set_inputs({given.names.signals: 1}, 1)
        await given.worker.mark()

        assert (before, seen, once) == (set(), set(), set())
        assert retired() == {f"{given.names.signals}/1"}
        await given.worker.stop()

    bench(story)


def test_a_take_over_that_timed_out_is_tried_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(given: Bench) -> None:
        answers: list[TimeoutError | Takeover] = [TimeoutError(), given.takeovers[1]]

        def answer(*_: object) -> Takeover:
            found = answers.pop(0)
            if isinstance(found, TimeoutError):
                raise found
            return found

        monkeypatch.setattr(worker_module, "take_over", answer)
        await given.begin()

        assert given.worker.phase is Phase.RUNNING
        assert not given.failures
        await given.worker.stop()

    bench(story)


def test_a_slot_is_taken_only_by_a_newer_worker(bench: Any) -> None:
    async def story(given: Bench) -> None:
        def written(incarnation: int) -> SignalRouterError | None:
            worker = WorkerRecord("w1", incarnation, "1", "elsewhere", 0, {}, at=0)
            output = worker_output(given.names.workers, worker, ())
            given.roster.take([InputRecord(0, 0, output.key, output.value)])
            return given.worker.slot_taken()

        assert given.worker.slot_taken() is None
        assert written(1) is None
        assert 'slot "w1" was taken by a newer worker at elsewhere' in str(written(2))
        await given.worker.stop()

    bench(story)


@pytest.mark.parametrize("effect", ["offsets", "commit", "tables"])
def test_after_a_commit_that_failed_for_no_known_reason_nothing_is_committed(bench: Any, effect: str) -> None:
    async def story(given: Bench) -> None:
        def fail(name: str) -> None:
            if name == effect:
                raise RuntimeError(name)

        def records() -> dict[str, int]:
            read = given.plant.broker.read_all
            return {topic: sum(map(len, read(topic).values())) for topic in given.plant.broker.topics()}

        await given.begin()
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        await given.worker.mark()
        before, tables = given.next_offset, dict(given.store.scan(b"", b"\xff"))
        await given.worker.on_candidates(inbox(given.batch(given.candidate("B"))))
        given.before = fail
        await given.worker.mark()
        given.before = lambda _effect: None
        stood = records()

        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"), given.candidate("B"))))
        await given.worker.mark()
        await given.worker.tell_roster()
        await given.worker.take_definitions([given.definition(1)])
        given.worker.assigned(3, frozenset({given.signals, given.candidates}), given.member.group_metadata())
        await asyncio.sleep(0)
        await given.worker.mark()
        left = dict(given.store.scan(b"", b"\xff"))
        await given.worker.stop()

        assert [type(error) for error in given.failures] == [StateError]
        assert "the commit failed: RuntimeError" in str(given.failures[0])
        assert records() == stood
        assert left == tables
        assert (before, given.next_offset) == (1, 2 if effect == "tables" else 1)
        assert given.triggers == (1 if effect == "tables" else 0)

    bench(story)


def test_a_transaction_waits_for_the_candidates_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, Pace(idle_ms=1, echo_ms=60_000))
        await given.begin()

        await given.worker.on_signals(inbox(given.signal("A")))
        await until(lambda: len(given.written) == 1)
        await given.worker.on_signals(inbox(given.signal("B")))
        await asyncio.sleep(0.05)
        waiting = len(given.written)
        await given.worker.on_candidates(inbox(given.batch(given.written[0])))
        await until(lambda: given.next_offset == 1)

        assert waiting == 1
        assert len(given.written) == 2
        await given.worker.stop()

    asyncio.run(story())


def test_a_transaction_does_not_wait_for_ever_for_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, Pace(idle_ms=1, echo_ms=30))
        await given.begin()

        await given.worker.on_signals(inbox(given.signal("A")))
        await until(lambda: len(given.written) == 1)
        await given.worker.on_signals(inbox(given.signal("B")))

        await until(lambda: len(given.written) == 2)
        await given.worker.stop()

    asyncio.run(story())


def test_local_candidates_are_joined_in_the_transaction_that_matched_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, local=True)
        await given.begin()

        await given.worker.on_signals(inbox(given.signal("A")))
        await given.worker.on_signals(inbox(given.signal("B")))
        await until(lambda: given.worker.meter.counts["candidates", "", "local"] == 2)

        assert given.triggers == 1
        assert given.written == []
        assert given.next_offset == 0
        await given.worker.stop()

    asyncio.run(story())


def test_a_mark_comes_behind_the_candidates_it_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, Pace(idle_ms=60_000))
        await given.begin()

        await given.worker.on_signals(inbox(given.signal("A")))
        given.worker.marks.set_inputs({given.names.signals: 1}, 1)
        await given.worker.mark()

        assert [type(candidates.decode(each)) for each in given.written] == [Candidate, Mark]
        await given.worker.stop()

    asyncio.run(story())


def test_a_long_batch_is_committed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, Pace(max_records=2))
        await given.begin()
        long = given.signal("A")
        for name in "BABA":
            long.join(given.signal(name))
        before = given.worker.meter.transactions

        await given.worker.on_signals(inbox(long))

        assert given.worker.meter.total("signals") == 4
        assert given.worker.meter.transactions == before + 2
        await given.worker.mark()
        assert given.worker.meter.total("signals") == 5
        await given.worker.stop()

    asyncio.run(story())


def test_signals_wait_until_the_candidates_on_their_way_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, local=True)
        given.takeovers[1].ends[0] = 2  # two records of an earlier life are on their way
        await given.begin()
        at_first = set(given.reader.offsets)

        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        halfway = set(given.reader.offsets)
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        await asyncio.sleep(0)

        assert at_first == halfway == {given.candidates}
        assert given.reader.offsets == {given.candidates: 2, given.signals: 0}
        await given.worker.on_signals(inbox(given.signal("B")))
        await until(lambda: given.worker.meter.counts["candidates", "", "local"] == 1)
        assert given.triggers == 1
        await given.worker.stop()

    asyncio.run(story())


def test_what_comes_after_an_assignment_ended_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, local=True)
        await given.begin()
        late = given.batch(given.candidate("A"))
        given.worker.lost(1)
        await until(lambda: given.worker.phase is Phase.WAITING)

        await given.worker.on_candidates(inbox(late))
        await given.worker.mark()

        assert given.failures == []
        assert given.triggers == 0
        await given.worker.stop()

    asyncio.run(story())


# ---- partitions that come and go while others stay (KIP-848)


def test_what_a_revoke_leaves_goes_on_without_a_take_over(bench: Any) -> None:
    async def story(given: Bench) -> None:
        loop = asyncio.get_running_loop()
        await given.begin()
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        taken_over = given.takeovers.pop(1)
        given.takeovers[1] = Takeover()  # nothing would be known of a partition that was taken over again

        await loop.run_in_executor(None, given.worker.revoked, 1, frozenset({given.signals}))
        committed = given.next_offset
        given.worker.assigned(2, frozenset({given.candidates}), given.member.group_metadata())
        await until(lambda: given.reader.started == [1, 2])
        await asyncio.sleep(0)
        await given.worker.on_candidates(inbox(given.batch(given.candidate("B"))))
        await given.worker.mark()

        assert taken_over.signals
        assert committed == 1
        assert given.reader.offsets == {given.candidates: 1}
        assert given.worker.complete
        assert given.triggers == 1
        await given.worker.stop()

    bench(story)


def test_what_comes_in_addition_is_taken_over_beside_what_runs(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(given: Bench) -> None:
        asked: list[tuple[frozenset[TopicPartition], tuple[int, ...]]] = []
        released = threading.Event()

        def take_over(*given_to: Any) -> Takeover:
            asked.append((frozenset(given_to[3]), given_to[6]))
            if len(asked) == 1:
                return Takeover(joins={0: JoinStart(0, 0)}, ends={0: 0})
            released.wait(DEADLINE_S)
            return Takeover(signals={given.signals: SignalsPartition("t", 3)}, ends={0: 5})

        monkeypatch.setattr(worker_module, "take_over", take_over)
        await given.worker.take_definitions([given.definition(0)])
        given.worker.assigned(1, frozenset({given.candidates}), given.member.group_metadata())
        await until(lambda: given.worker.complete)
        await asyncio.sleep(0)

        given.worker.assigned(1, frozenset({given.candidates, given.signals}), given.member.group_metadata())
        await until(lambda: len(asked) == 2)
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"), given.candidate("B"))))
        await given.worker.mark()
        meanwhile = given.triggers, given.worker.complete
        released.set()
        await until(lambda: given.worker.complete)

        assert asked == [(frozenset({given.candidates}), ()), (frozenset({given.signals}), (0,))]
        assert meanwhile == (1, False)
        assert given.reader.offsets == {given.candidates: 2, given.signals: 3}
        await given.worker.stop()

    bench(story)


def test_a_kept_partition_is_closed_until_it_was_read_up_to_where_the_new_ones_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, local=True)
        given.takeovers[1].signals.clear()
        await given.worker.take_definitions([given.definition(0)])
        given.worker.assigned(1, frozenset({given.candidates}), given.member.group_metadata())
        await until(lambda: given.worker.complete)

        # The former owner of the signals partition left a candidate on the way.
        given.takeovers[2] = Takeover(signals={given.signals: SignalsPartition("t", 0)}, ends={0: 1})
        given.worker.assigned(1, frozenset({given.candidates, given.signals}), given.member.group_metadata())
        await until(lambda: given.reader.started == [1, 1])
        waiting = dict(given.reader.offsets)
        await asyncio.sleep(0)
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        await asyncio.sleep(0)

        assert waiting == {given.candidates: 0}
        assert given.reader.offsets == {given.candidates: 1, given.signals: 0}
        await given.worker.stop()

    asyncio.run(story())


def test_what_is_kept_is_read_anew_where_the_last_transaction_is_in_doubt(bench: Any) -> None:
    async def story(given: Bench) -> None:
        loop = asyncio.get_running_loop()
        await given.begin()
        hold, reached, released = held_commits()
        given.before = hold
        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        marking = asyncio.create_task(given.worker.mark())
        await until(reached.is_set)

        revoking = loop.run_in_executor(None, given.worker.revoked, 1, frozenset({given.signals}))
        await revoking  # past the deadline
        given.takeovers[2] = Takeover(joins={0: JoinStart(1, 1)}, ends={0: 1})
        given.worker.assigned(2, frozenset({given.candidates}), given.member.group_metadata())
        released.set()
        await marking
        await until(lambda: given.reader.started == [1, 2])

        assert given.worker.complete
        assert given.reader.offsets == {given.candidates: 1}
        await given.worker.stop()

    bench(story)


def test_what_was_sent_to_a_partition_while_its_table_was_restored_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        given = Bench(tmp_path, monkeypatch, local=True)
        sampled, released = threading.Event(), threading.Event()

        def take_over(*given_to: Any) -> Takeover:
            if given.signals in given_to[3]:
                return Takeover(signals={given.signals: SignalsPartition("t", 0)})
            found = Takeover(joins={0: JoinStart(0, 0)}, ends={0: len(given.written)})
            sampled.set()
            released.wait(DEADLINE_S)
            return found

        monkeypatch.setattr(worker_module, "take_over", take_over)
        await given.worker.take_definitions([given.definition(0)])
        given.worker.assigned(1, frozenset({given.signals}), given.member.group_metadata())
        await until(lambda: given.worker.complete)
        given.worker.assigned(1, frozenset({given.signals, given.candidates}), given.member.group_metadata())
        await until(sampled.is_set)
        await given.worker.on_signals(inbox(given.signal("A")))
        await until(lambda: len(given.written) == 1)

        released.set()
        await until(lambda: given.worker.complete)
        await asyncio.sleep(0)
        await given.worker.on_signals(inbox(given.signal("B")))
        await given.worker.mark()

        assert given.reader.offsets == {given.candidates: 0}
        assert [type(candidates.decode(each)) for each in given.written] == [Candidate, Candidate]
        await given.worker.stop()

    asyncio.run(story())


def test_what_was_lost_is_read_anew_though_all_of_it_comes_back_at_once(bench: Any) -> None:
    async def story(given: Bench) -> None:
        await given.begin()
        both, metadata = frozenset({given.signals, given.candidates}), given.member.group_metadata()
        prepare = given.worker._prepare_log

        async def come_back() -> None:
            await prepare()
            given.worker._prepare_log = prepare  # type: ignore[method-assign]
            given.takeovers[3] = Takeover(joins={0: JoinStart(4, 2)}, ends={0: 4})  # somebody else went on meanwhile
            given.worker.assigned(3, both, metadata)

        given.worker._prepare_log = come_back  # type: ignore[method-assign]
        given.worker.assigned(1, both | {TopicPartition(given.names.signals, 1)}, metadata)
        given.worker.lost(1)
        await until(lambda: 3 in given.reader.started)

        assert given.reader.offsets[given.candidates] == 4
        await given.worker.stop()

    bench(story)


def test_a_reload_does_not_wait_for_what_is_restored_beside(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(given: Bench) -> None:
        asked: list[frozenset[TopicPartition]] = []

        def take_over(*given_to: Any) -> Takeover:
            asked.append(frozenset(given_to[3]))
            if len(asked) == 2 and given_to[4].wait(DEADLINE_S):
                raise InterruptedError
            signals = {tp: SignalsPartition("t", 0) for tp in asked[-1] if tp == given.signals}
            return Takeover(signals=signals, joins={0: JoinStart(0, 0)}, ends={0: 0})

        monkeypatch.setattr(worker_module, "take_over", take_over)
        await given.worker.take_definitions([given.definition(0)])
        given.worker.assigned(1, frozenset({given.candidates}), given.member.group_metadata())
        await until(lambda: given.worker.complete)
        await asyncio.sleep(0)
        given.worker.assigned(1, frozenset({given.candidates, given.signals}), given.member.group_metadata())
        await until(lambda: len(asked) == 2)

        await given.worker.on_candidates(inbox(given.batch(given.candidate("A"))))
        assert given.worker._stage is not None
        given.worker._stage.void()
        await given.worker.mark()
        failed = given.worker.phase
        async with asyncio.timeout(DEADLINE_S / 2):
            await until(lambda: given.worker.complete)

        assert failed is Phase.TAKING_OVER
        assert len(asked) == 3
        await given.worker.stop()

    bench(story)


def test_signals_do_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(fetching, "CATCH_UP_S", 0.02)
        given = Bench(tmp_path, monkeypatch, local=True)
        given.takeovers[1].ends[0] = 2
        await given.begin()

        await until(lambda: given.signals in given.reader.offsets)
        await asyncio.sleep(0)
        await given.worker.on_signals(inbox(given.signal("A")))

        await until(lambda: len(given.written) == 1)
        await given.worker.stop()

    asyncio.run(story())


@pytest.mark.parametrize(("protocol", "stops"), [(CONSUMER, True), (CLASSIC, False)])
def test_offsets_that_the_group_refuses_again_and_again_stop_a_worker_that_would_never_hear_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, stops: bool
) -> None:
    async def story() -> None:
        monkeypatch.setattr(worker_module, "REFUSED_S", 0.3)
        given = Bench(tmp_path, monkeypatch, protocol=protocol)
        await given.worker.take_definitions([given.definition(0)])
        stale = GroupMetadata.decode(given.member.group_metadata())._replace(generation=99).encode()
        given.worker.assigned(1, frozenset({given.signals, given.candidates}), stale)

        refused = 0
        while refused < 5 and not given.failures:
            await until(lambda: given.worker.phase is Phase.RUNNING)
            await asyncio.sleep(0)
            await given.worker.on_signals(inbox(Fetched(given.signals, [], 5, EPOCH, 0)))
            await given.worker.mark()
            refused += 1

        assert refused > 1
        assert [type(error) for error in given.failures] == [ConfigurationError] * stops
        assert all("--group-protocol classic" in str(error) for error in given.failures)
        await given.worker.stop()

    asyncio.run(story())


def test_refusals_are_counted_from_the_last_offsets_that_were_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        monkeypatch.setattr(worker_module, "REFUSED_S", 0.05)
        given = Bench(tmp_path, monkeypatch, protocol=CONSUMER)
        await given.worker.take_definitions([given.definition(0)])
        good = given.member.group_metadata()
        stale = GroupMetadata.decode(good)._replace(generation=99).encode()
        tps = frozenset({given.signals, given.candidates})

        for metadata in (stale, good, stale):
            given.worker.assigned(1, tps, metadata)
            await until(lambda: given.worker.phase is Phase.RUNNING)
            await asyncio.sleep(0.1)
            await given.worker.on_signals(inbox(Fetched(given.signals, [], 5, EPOCH, 0)))
            await given.worker.mark()

        assert not given.failures
        await given.worker.stop()

    asyncio.run(story())


def test_a_take_over_is_not_begun_for_an_assignment_that_ended_while_the_log_was_made_ready(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(given: Bench) -> None:
        asked: list[frozenset[TopicPartition]] = []

        def take_over(*given_to: Any) -> Takeover:
            asked.append(frozenset(given_to[3]))
            if given.signals in asked[-1] and given_to[4].wait(DEADLINE_S):  # a long restore
                raise InterruptedError
            return Takeover(joins={0: JoinStart(0, 0)}, ends={0: 0})

        monkeypatch.setattr(worker_module, "take_over", take_over)
        metadata = given.member.group_metadata()
        prepare = given.worker._prepare_log

        async def change_hands() -> None:
            given.worker._prepare_log = prepare  # type: ignore[method-assign]
            await prepare()
            given.worker.lost(1)
            given.worker.assigned(3, frozenset({given.candidates}), metadata)
            await asyncio.sleep(0.01)

        given.worker._prepare_log = change_hands  # type: ignore[method-assign]
        await given.worker.take_definitions([given.definition(0)])
        given.worker.assigned(1, frozenset({given.signals, given.candidates}), metadata)
        async with asyncio.timeout(DEADLINE_S / 2):
            await until(lambda: given.worker.complete)

        assert asked == [frozenset({given.candidates})]
        await given.worker.stop()

    bench(story)


def test_a_worker_that_stops_in_a_take_over_leaves_no_error_behind(bench, monkeypatch):
    began = threading.Event()

    def take_over(_cluster, _store, _roster, _tps, interrupted, *_more):
        began.set()
        interrupted.wait(DEADLINE_S)
        raise InterruptedError

    async def story(given: Bench) -> None:
        unheard: list[Mapping[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
        monkeypatch.setattr(worker_module, "take_over", take_over)
        given.worker.assigned(1, frozenset({given.signals, given.candidates}), given.member.group_metadata())
        await until(began.is_set)

        await given.worker.stop()
        await asyncio.sleep(0)
        gc.collect()

        assert not unheard
        assert not given.failures

    bench(story)
