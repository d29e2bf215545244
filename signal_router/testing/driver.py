"""Workers in memory, stopped between any two effects: the real processors and the real commit over the memory log.

    plant = Plant(signals_partitions=2, candidates_partitions=2)
    worker = MemoryWorker(plant, "w1")
    worker.poll()           # as the consume thread does: assignments come and go
    worker.step()           # one effect more: of a take-over, of a batch, of a commit

Nothing happens between two calls. Whoever calls is the scheduler: a crash is a worker that is not called any more, a
zombie one that goes on after `member.expire()`, and a rebalance may fall between any two effects of a commit. What a
worker keeps on disk (`store`) may outlive it. `MUTANTS` names rules of the protocol that can be left out, so that a
proof can show that it would notice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from signal_router.core.join import Joiner, Limits
from signal_router.errors import StateError
from signal_router.kafka.topics import TopicNames, resolve
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import InputRecord, LogError, NextOffset, ProducerFencedError, TopicPartition
from signal_router.runtime.commit import Result, Verdict, commit
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.join import CandidatesPartition, JoinProcessor, Progress
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.marks import MarkKeeper
from signal_router.runtime.match import MatchProcessor, SignalsPartition
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.positions import LocalPosition, TablePosition, decode_local, decode_position, encode_local
from signal_router.runtime.stage import Stage
from signal_router.state.keys import LOCAL_POSITION, POSITION, partition_prefix
from signal_router.state.restore import local_entries
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable
from signal_router.testing.clock import ManualClock
from signal_router.testing.memory_broker import OFFSETS_PARTITION
from signal_router.testing.memory_log import Faults, Isolation, MemoryBroker, MemoryLog, MemoryMember, Unstable
from signal_router.testing.reference import Evaluation, Evidence, evaluate
from signal_router.verify.check import check, evaluate_and_check
from signal_router.verify.logs import App, HeldLogs, NextOffsets, Span, StoredTable
from signal_router.verify.report import Report
from signal_router.verify.transactions import Struck

Committed = Mapping[TopicPartition, NextOffset | None]
TPs = frozenset[TopicPartition]

APP = "app"
_LARGE = 1_000_000
_FOR_EVER = 1 << 62

MUTANTS = frozenset(
    {
        "anonymous metadata",  # nobody claims to be a member, so the broker fences nothing
        "refreshed metadata",  # the stage of an ended assignment speaks with the next one's generation
        "touched partition left out",  # a table is changed without its partition's offset in the transaction
        "no seek after an abort",  # the client does not seek back by itself
        "replay to the stable end",  # offsets may be visible before the changelog's marker is (KAFKA-10167)
        "local at once",  # candidates overtake those that earlier owners of their signals partition sent
        "local past own candidates",  # candidates overtake those that this worker sent itself
        "local past what was sent meanwhile",  # … and those that it sent to a partition while it was taken over
        "local past what came",  # where partitions come, what their former owners sent to kept ones is overtaken
        "producer kept",  # no new producer after a call whose first request may still be on its way
    }
)


@dataclass(slots=True)
class MemoryBatch:
    """Records of one partition as they were read; see `signal_router.runtime.batches.Batch`."""

    tp: TopicPartition
    records: list[InputRecord]
    next_offset: int
    at: int = 0


@dataclass(slots=True)
class Plant:
    """One app's topics on a broker in memory, its clock, and the faults of its clients.

    `happened` counts what struck.
    """

    signals_partitions: int = 2
    candidates_partitions: int = 2
    clock: ManualClock = field(default_factory=ManualClock)
    faults: Faults = field(default_factory=Faults)
    happened: Counter[str] = field(default_factory=Counter)
    slots: set[str] = field(default_factory=set)
    stores: dict[str, MemoryStore] = field(default_factory=dict)
    broker: MemoryBroker = field(init=False)
    names: TopicNames = field(init=False)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.clock)
        self.names = names = resolve("", APP)
        self.broker.create_topic(names.signals, self.signals_partitions, timestamps="LogAppendTime")
        self.broker.create_topic(names.candidates, self.candidates_partitions)
        self.broker.create_topic(names.changelog, self.candidates_partitions, compacted=True)
        for name in (names.definitions, names.triggers, names.lineage, names.dead_letters):
            self.broker.create_topic(name)

    @property
    def inputs(self) -> list[TopicPartition]:
        """Every partition of both stages."""
        return [
            *(TopicPartition(self.names.signals, number) for number in range(self.signals_partitions)),
            *(TopicPartition(self.names.candidates, number) for number in range(self.candidates_partitions)),
        ]

    def unread(self) -> list[TopicPartition]:
        """The partitions with records that no committed offset covers."""
        committed = self.broker.committed(APP, self.inputs)
        found = []
        for tp in self.inputs:
            at = committed[tp]
            records, _, at_end = self.broker.read(tp, 0 if at is None else at.offset, max_records=1)
            if records or not at_end:
                found.append(tp)
        return found

    def evaluate(self) -> tuple[Evaluation, list[str]]:
        """What the reference makes of the logs, and every difference between that and the topics."""
        report, evaluation = evaluate_and_check(self.logs())
        differences = report.differences()
        return evaluation or evaluate(Evidence(APP, (), {}, {}, {}, {})), differences

    def check(self, struck: Struck | None = None) -> Report:
        """What a check says of the logs; with `struck` also whether the faults did."""
        return check(self.logs(), struck=struck)

    def logs(self) -> HeldLogs:
        """The logs as they are now, for a check."""
        names, broker = self.names, self.broker
        logs = HeldLogs(App(APP, APP, names, (names.signals,), all_lineage=True), {})
        logs.topic_ids = {topic: str(broker.topic_id(topic)) for topic in broker.topics()}
        for topic in broker.topics():
            uncommitted = broker.read_all(topic, Isolation.READ_UNCOMMITTED)
            for tp, records in broker.read_all(topic).items():
                end = broker.end_offset(tp)
                stable = broker.end_offset(tp, Isolation.READ_COMMITTED)
                logs.records[tp], logs.uncommitted[tp] = records, uncommitted[tp]
                logs.spans[tp] = Span(broker.start_offset(tp), end, end, stable, end)
        logs.next_offsets = {tp: NextOffsets(at, at) for tp, at in broker.committed(APP, self.inputs).items()}
        logs.commits = [
            _committed_offset(record) for record in broker.read_all(OFFSETS_PARTITION.topic)[OFFSETS_PARTITION]
        ]
        logs.tables = lambda: list(self._stored_tables())
        return logs

    def _stored_tables(self) -> Iterator[StoredTable]:
        """The tables on disk that go as far as the changelog does."""
        for slot, store in self.stores.items():
            for number in range(self.candidates_partitions):
                prefix = partition_prefix(number)
                raw = store.get(prefix + LOCAL_POSITION)
                local = None if raw is None else decode_local(raw)
                changelog = self.broker.read_all(self.names.changelog)[TopicPartition(self.names.changelog, number)]
                if local is not None and changelog and local.changelog_offset > changelog[-1].offset:
                    entries = store.scan(prefix, partition_prefix(number + 1))
                    yield StoredTable(slot, number, {key[len(prefix) :]: value for key, value in entries})


def _committed_offset(record: InputRecord) -> tuple[TopicPartition, int]:
    _, topic, partition = (record.key or b"").decode().rsplit("/", 2)
    return TopicPartition(topic, int(partition)), int(record.value or b"-1")


class _Found(NamedTuple):
    """What a take-over found of some partitions; `ends` of the kept candidates partitions, too."""

    assignment: int
    reloads: int
    committed: Committed
    ends: Mapping[int, int]


class MemoryWorker:
    """One life of a slot. `store` is what an earlier life left on disk; `rng` decides how much a step takes.

    `incremental`: in a KIP-848 group, where what does not move runs on. As in `signal_router.runtime.worker` partitions
    are taken over beside those that run.
    """

    def __init__(
        self,
        plant: Plant,
        slot: str,
        *,
        incarnation: int = 1,
        store: MemoryStore | None = None,
        static: bool = True,
        incremental: bool = False,
        local: bool = True,
        mutants: frozenset[str] = frozenset(),
        rng: random.Random | None = None,
    ) -> None:
        self.plant = plant
        self.slot = slot
        plant.slots.add(slot)
        self.incarnation = incarnation
        self.store = store or MemoryStore()
        plant.stores[slot] = self.store
        self.mutants = mutants
        self.ended: str | None = None
        self.draining = False
        names = plant.names
        self._incremental = incremental
        self.member: MemoryMember = plant.broker.join(
            APP,
            [names.signals, names.candidates],
            instance=slot if static else None,
            protocol="consumer" if incremental else "classic",
        )
        self._rng = rng or random.Random(0)
        self._static = static
        self._log = MemoryLog(
            plant.broker, f"{APP}-{slot}", faults=plant.faults, tripwire="producer kept" not in mutants
        )
        self._log_broken = True
        self._view = DefinitionsView(names.triggers)
        self._match = MatchProcessor(
            names, self._view, slot=slot, candidates_partitions=plant.candidates_partitions, limit_bytes=256 * 1024
        )
        destinations = Destinations({names.triggers: _LARGE, names.lineage: _LARGE})
        self._join = JoinProcessor(
            names,
            self._view,
            Outputs(names, APP, destinations, all_lineage=True),
            slot=slot,
            candidates_partitions=plant.candidates_partitions,
            all_lineage=True,
        )
        self._local = LocalCandidates(self._join, names.candidates, enabled=local)
        self._marks = MarkKeeper(self._match, self._join)
        self._marks.set_inputs({names.signals: plant.signals_partitions}, _FOR_EVER)  # there will be no others
        self._assignments = self._assignment = 0
        self._tps: TPs = frozenset()
        self._running: TPs = frozenset()
        self._had: TPs = frozenset()
        self._reloads = 0
        self._beside: Iterator[str] | None = None
        self._found: _Found | None = None
        self._group_metadata = b""
        self._stage: Stage | None = None
        self._read: set[int] = set()
        self._sending: Stage | None = None
        self._transactions = 0
        self._behind: set[int] = set()
        self._activity: Iterator[str] | None = None
        self.at = "idle"
        """The effect that comes next."""

    # ---- the consume thread's part

    def poll(self) -> None:
        """One poll of the consumer, with its callbacks. A revoke finishes the open work or voids it, by chance."""
        rebalance = self.member.poll()
        if rebalance is None:
            return
        happened = self.plant.happened
        happened[rebalance.kind] += 1
        if rebalance.kind == "assigned":
            if self._incremental and self._assignment:
                happened["grew"] += 1
            else:
                self._assignments += 1
                self._assignment = self._assignments
            self._tps = frozenset(self.member.partitions)
            self._group_metadata = self.member.group_metadata()
            return
        self._beside = self._found = None
        clean = rebalance.kind == "revoked" and self._rng.random() < 0.6
        if clean:
            self._finish()
        else:
            happened[f"void at {self.at}"] += 1
            self._void()
        gone = frozenset(rebalance.partitions)
        if rebalance.kind == "revoked" and self._incremental:
            self._keep(gone, clean=clean)
        else:
            self._forget()
            self._assignment, self._tps = 0, frozenset()
        if rebalance.kind == "fenced":
            self.ended = "fenced"

    def _keep(self, gone: TPs, *, clean: bool) -> None:
        """What a revoke leaves goes on under the next number, or is read anew where the last transaction is in
        doubt. The metadata stays that from before.
        """
        self._assignments += 1
        self._assignment = self._assignments
        self._tps -= gone
        if not clean or self._log_broken or not self._running - gone:
            self._forget()
            return
        self.plant.happened["kept"] += 1
        for tp in gone & self._running:
            if tp.topic == self.plant.names.signals:
                del self._match.partitions[tp]
            else:
                del self._join.partitions[tp.partition]
                self._local.forget(tp.partition)
        self._running -= gone

    def _finish(self) -> None:
        while self._activity is not None and not self.at.startswith("take-over"):
            self.step()
        if self._stage is not None and self._running:
            self._activity = self._commit()
            while self._activity is not None:
                self.step()

    def _void(self) -> None:
        if "refreshed metadata" not in self.mutants:
            for stage in (self._stage, self._sending):
                if stage is not None:
                    stage.void()
        self._log_broken = True

    def _forget(self) -> None:
        """Before anything goes on its place has to be read from the log."""
        self._reloads += 1
        self._had = self._running or self._had
        self._running = frozenset()
        self._beside = self._found = None
        self._match.partitions = {}
        self._join.partitions = {}
        self._local.begin({})

    # ---- the event loop's part

    def step(self) -> None:
        """Does one effect; begins the next activity where none is under way."""
        if self.ended is not None:
            return
        if self._beside is not None and self._rng.random() < 0.4:
            self._beside = None if next(self._beside, None) is None else self._beside
        if self._activity is None:
            self._activity = self._next_activity()
        try:
            self.at = next(self._activity)
        except StopIteration:
            self._activity, self.at = None, "idle"

    def _next_activity(self) -> Iterator[str]:
        if not self._tps:
            self._drop_stage()
            return iter(())
        if not self._running:
            return self._take_over(self._assignment)
        if self._found is not None:
            found, self._found = self._found, None
            return self._run(found)
        if self._tps - self._running and self._beside is None:
            self._beside = self._take_over_beside(self._tps - self._running)
        if self._rng.random() < 0.15:
            self._learn()
        if not self.draining and self._rng.random() < 0.1:
            return self._mark()
        return self._turn()

    def _turn(self) -> Iterator[str]:
        """Takes a batch, and commits now and then."""
        tp = self._rng.choice(sorted(self._running))
        yield f"batch of {tp.topic}"
        if tp not in self._running:
            return
        batch = self._fetch(tp)
        if not batch.records:
            self._met_end(batch)
        elif tp.topic == self.plant.names.signals:
            stage = self._open()
            self._match.step(batch, stage, now=self.plant.clock(), max_outputs=_LARGE, max_records=_LARGE)
            self._local.join(stage, max_outputs=self._rng.choice((len(stage.outputs) + 3, _LARGE)))
        else:
            self._read.add(tp.partition)
            if self._join.step(batch, self._open(), max_outputs=_LARGE, max_records=_LARGE) is Progress.BEHIND:
                self.plant.happened["waited for definitions"] += 1
                self._learn()
        if self._stage is not None and self._rng.random() < (1.0 if self.draining else 0.4):
            yield from self._commit()

    def _fetch(self, tp: TopicPartition) -> MemoryBatch:
        if tp.topic == self.plant.names.signals:
            at = self._match.partitions[tp].next_offset
        else:
            at = self._join.partitions[tp.partition].next_offset
        records, next_offset, _ = self.plant.broker.read(tp, at, max_records=self._rng.randint(1, 5))
        return MemoryBatch(tp, list(records), next_offset)

    def _met_end(self, batch: MemoryBatch) -> None:
        if batch.tp.topic == self.plant.names.signals:
            self._match.met_end(batch.tp, batch.next_offset)
        else:
            self._join.met_end(batch.tp.partition, batch.next_offset)

    def _mark(self) -> Iterator[str]:
        """Announces how far the signals have been read, and finishes what the definitions ask for."""
        sampled_at = self.plant.clock()
        positions = self._marks.positions()
        ends = {tp: self.plant.broker.end_offset(tp) for tp in positions}
        yield "mark"
        if not self._running:
            return
        self._marks.met_ends(ends, sampled_at)
        self._local.send(self._open(), max_outputs=_LARGE)
        self._marks.emit(self._open())
        for partition in self._join.partitions.values():
            self._join.settle(partition, self._open(), max_outputs=_LARGE)
        yield from self._commit()

    def _learn(self) -> None:
        at = self._view.revision + 1
        records, _, _ = self.plant.broker.read(TopicPartition(self.plant.names.definitions, 0), at)
        for record in records:
            self._view.take(self._view.read(record))

    # ---- stages

    def _open(self) -> Stage:
        if self._stage is None:
            self._transactions += 1
            self._stage = Stage(self._assignment, f"{self.slot}/{self.incarnation}/{self._transactions}")
            self._stage.group_metadata = self._group_metadata
            self._read = set()
            self._match.flush_ends(self._stage)
            self._join.flush_ends(self._stage)
        return self._stage

    def _commit(self) -> Iterator[str]:
        stage = self._stage
        if stage is not None:
            self._local.send(stage, max_outputs=_LARGE)
        if stage is None or stage.empty:
            self._stage = None
            return
        self._stage, self._sending = None, stage
        self._mutate(stage)
        result = yield from self._effects(stage)
        self._sending = None
        self._settle(stage, result)

    def _effects(self, stage: Stage) -> Generator[str, None, Result]:
        steps = commit(stage, self._log, self.plant.names.changelog, self._local_position)
        try:
            effect = next(steps)
            while True:
                yield effect.name
                if effect.name == "changelog" and "refreshed metadata" in self.mutants:
                    stage.group_metadata = self.member.group_metadata()
                try:
                    effect.run()
                except LogError as error:
                    effect = steps.throw(error)
                else:
                    effect = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _mutate(self, stage: Stage) -> None:
        if "anonymous metadata" in self.mutants:
            stage.group_metadata = GroupMetadata(APP, -1, "").encode()
        if "touched partition left out" in self.mutants and self._running:
            for number in set(stage.tables) - self._read:
                stage.next_offsets.pop(TopicPartition(self.plant.names.candidates, number), None)

    def _settle(self, stage: Stage, result: Result) -> None:
        self.plant.happened[f"transaction {result.verdict.value}"] += 1
        if result.verdict is Verdict.COMMITTED:
            self.plant.happened["joined locally"] += stage.counts.get(("candidates", "", "local"), 0)
            self.plant.happened["sent through the topic"] += stage.counts.get(("candidates", "", "topic"), 0)
            if "local past own candidates" not in self.mutants:
                self._local.committed(stage, self._log.delivered())
            return
        for table in stage.tables.values():
            table.discard()
        if result.verdict is not Verdict.ABORTED:
            self._log_broken = True
        elif "no seek after an abort" in self.mutants:
            return
        self._forget()

    def _drop_stage(self) -> None:
        if self._stage is not None:
            for table in self._stage.tables.values():
                table.discard()
            self._stage = None

    def _local_position(self, changelog_offset: int) -> bytes:
        names = self.plant.names
        topic_id = str(self.plant.broker.topic_id(names.changelog))
        return encode_local(LocalPosition(changelog_offset, "memory", APP, topic_id, self.plant.clock()))

    # ---- taking over

    def _take_over(self, assignment: int) -> Iterator[str]:
        """Takes over what can run soon, where nothing runs."""
        self._drop_stage()
        if self._log_broken:
            yield "take-over: init"
            try:
                self._log.init()
            except ProducerFencedError:
                return
            except LogError:
                return
            self._log_broken = False
        if assignment != self._assignment:
            return
        candidates = {tp for tp in self._tps if tp.topic == self.plant.names.candidates}
        at_hand = candidates & self._had
        found = yield from self._find(self._tps - (candidates - at_hand) if at_hand else self._tps)
        if found is not None:
            yield from self._run(found)

    def _take_over_beside(self, tps: TPs) -> Iterator[str]:
        self._found = yield from self._find(tps)

    def _find(self, tps: TPs) -> Generator[str, None, _Found | None]:
        """As `signal_router.runtime.takeover`: stable offsets, then the changelog's end, then the replay."""
        broker, names = self.plant.broker, self.plant.names
        assignment, reloads, kept = self._assignment, self._reloads, tuple(self._join.partitions)
        while True:
            yield "take-over: offsets"
            if assignment != self._assignment:
                return None
            committed = broker.stable_committed(APP, sorted(tps))
            if not isinstance(committed, Unstable):
                break
            self.plant.happened["waited for stable offsets"] += 1
            self._fence_another()
        yield "take-over: target"
        mine = sorted(tp.partition for tp in tps if tp.topic == names.candidates)
        replayed = (
            Isolation.READ_COMMITTED if "replay to the stable end" in self.mutants else Isolation.READ_UNCOMMITTED
        )
        targets = {number: broker.end_offset(TopicPartition(names.changelog, number), replayed) for number in mine}
        ends = {number: broker.end_offset(TopicPartition(names.candidates, number)) for number in (*mine, *kept)}
        for number in mine:
            yield from self._restore(number, targets[number])
        if assignment != self._assignment:
            return None
        if broker.stable_committed(APP, sorted(tps)) != committed:
            # Somebody else goes on with these partitions: this assignment has ended, and the group will say so.
            self.plant.happened["overtaken"] += 1
            return None
        if "local past what came" in self.mutants:
            ends = {number: end for number, end in ends.items() if number in mine}
        return _Found(
            assignment, reloads, committed, dict.fromkeys(ends, 0) if "local at once" in self.mutants else ends
        )

    def _run(self, found: _Found) -> Iterator[str]:
        """Lets partitions run that were taken over, unless something came between."""
        if self._running:
            self.plant.happened["taken over beside"] += 1
            yield from self._commit()
        if found.assignment != self._assignment or found.reloads != self._reloads:
            return
        self._adopt(found.committed)
        if "local past what was sent meanwhile" in self.mutants:
            self._local.begin(dict(found.ends))
        else:
            self._local.close(found.ends)
        self._learn()
        yield from self._announce(found)

    def _fence_another(self) -> None:
        """As `signal_router.runtime.former_owners`, but without asking whether the other one is dead."""
        others = sorted(self.plant.slots - {self.slot})
        if others and self._rng.random() < 0.1:
            with suppress(LogError):
                MemoryLog(self.plant.broker, f"{APP}-{self._rng.choice(others)}").init()
                self.plant.happened["another slot fenced"] += 1

    def _restore(self, number: int, target: int) -> Iterator[str]:
        changelog = TopicPartition(self.plant.names.changelog, number)
        prefix = partition_prefix(number)
        raw = self.store.get(prefix + LOCAL_POSITION)
        local = None if raw is None else decode_local(raw)
        at = 0 if local is None else local.changelog_offset
        while at < target:
            yield "take-over: replay"
            records, behind, _ = self.plant.broker.read(changelog, at, Isolation.READ_COMMITTED, 20)
            if behind == at:
                self.plant.happened["waited for the changelog"] += 1
                self._fence_another()
                continue
            writes: list[tuple[bytes, bytes | None]] = []
            for record in records:
                key = record.key or b""
                writes.append((prefix + key, record.value))
                if record.value is not None and key[:1] in b"SQI":
                    writes += [(prefix + entry, value) for entry, value in local_entries(key, record.value)]
            writes.append((prefix + LOCAL_POSITION, self._local_position(behind)))
            self.store.write(writes)
            at = behind

    def _adopt(self, committed: Committed) -> None:
        plant, names = self.plant, self.plant.names
        for tp, found in committed.items():
            at = NextOffset(0) if found is None else found
            topic_id = str(plant.broker.topic_id(tp.topic))
            if tp.topic == names.signals:
                revision = int(at.metadata.rpartition(" ")[2] or -1)
                self._match.partitions[tp] = SignalsPartition(topic_id, at.offset, revision)
                continue
            raw = self.store.get(partition_prefix(tp.partition) + POSITION)
            position = None if raw is None else decode_position(raw)
            self._check(tp, position, found)
            table = PartitionTable(self.store, tp.partition)
            sequence = 0 if position is None else position.sequence
            joiner = Joiner(table, self._view, Limits())
            self._join.partitions[tp.partition] = CandidatesPartition(table, joiner, at.offset, sequence, topic_id)
        self._marks.begin()

    @staticmethod
    def _check(tp: TopicPartition, position: TablePosition | None, found: NextOffset | None) -> None:
        stands = None if position is None else position.next_offset
        committed = None if found is None else found.offset
        if stands != committed:
            raise StateError(f"{tp}: the table was decided up to {stands}, but {committed} is to be read next")

    def _announce(self, found: _Found) -> Iterator[str]:
        """Makes the first offsets of new inputs explicit."""
        for tp, at in found.committed.items():
            if at is not None:
                continue
            if tp.topic == self.plant.names.candidates:
                self._join.advance(tp.partition, self._open())
            else:
                self._match.advance(tp, self._open())
        yield from self._commit()
        if found.assignment == self._assignment and found.reloads == self._reloads and not self._log_broken:
            self._running |= frozenset(found.committed)
