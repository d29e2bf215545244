"""Workers in memory, stopped between any two effects: the real processors and the real commit over the memory log.

    plant = Plant(signals_partitions=2, candidates_partitions=2)
    worker = MemoryWorker(plant, "w1")
    worker.poll()           # as the consume thread does: assignments come and go
    worker.step()           # one effect more: of a take-over, of a batch, of a commit

Nothing happens between two calls. Whoever calls is the scheduler: a crash is a worker that is not called any more, a
zombie one that goes on after `member.expire()`, and a rebalance may fall between any two effects of a commit, or while
the answer to one is on its way. What a worker keeps on disk (`store`) may outlive it. What a worker decides by chance
follows from its `rng`, which may be replaced between two calls.

The methods and factories that `signal_router.testing.mutants` replaces are public for it.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from signal_router.core.join import Joiner, Limits
from signal_router.errors import StateError
from signal_router.model.log import InputRecord, LogError, NextOffset, ProducerFencedError, TopicPartition
from signal_router.runtime.commit import Effect, Result, Verdict, commit
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.join import CandidatesPartition, JoinProcessor, Progress
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.marks import MarkKeeper
from signal_router.runtime.match import MatchProcessor, SignalsPartition
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.positions import LocalPosition, TablePosition, decode_local, decode_position, encode_local
from signal_router.runtime.stage import Stage
from signal_router.state.keys import LOCAL_POSITION, POSITION, after, partition_prefix
from signal_router.state.restore import local_entries
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable
from signal_router.testing.memory_log import (
    Isolation,
    MemoryLog,
    MemoryMember,
    OffsetOutOfRangeError,
    Rebalance,
    Unstable,
)
from signal_router.testing.plant import APP, Plant

Committed = Mapping[TopicPartition, NextOffset | None]
TPs = frozenset[TopicPartition]

DELETE_RETENTION_MS = 120_000
"""How long a tombstone of the changelog stays after it was cleaned for the first time."""

_LARGE = 1_000_000
_FOR_EVER = 1 << 62
_COMMITS = 0.4
"""So many batches are committed before the next is taken."""
_LEARNS = 0.05
"""So often a worker looks for new definitions: seldom, so that workers know different ones for a while."""
_LATE_ANSWERS = 0.25
"""So many effects have happened for a while before the worker hears of it."""


@dataclass(slots=True)
class MemoryBatch:
    """Records of one partition as they were read; see `signal_router.runtime.batches.Batch`."""

    tp: TopicPartition
    records: list[InputRecord]
    next_offset: int
    at: int = 0


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

    joins: type[JoinProcessor] = JoinProcessor
    joiners: type[Joiner] = Joiner
    marks: type[MarkKeeper] = MarkKeeper
    views: type[DefinitionsView] = DefinitionsView

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
        rng: random.Random | None = None,
    ) -> None:
        self.plant = plant
        self.slot = slot
        plant.slots[slot] = max(incarnation, plant.slots.get(slot, 0))
        self.incarnation = incarnation
        self.store = store or MemoryStore()
        plant.stores[slot] = self.store
        self.limits = Limits(per_key=plant.per_key)
        self.ended: str | None = None
        """Why this life is over."""
        self.draining = False
        names = plant.names
        self._incremental = incremental
        self.member: MemoryMember = plant.broker.join(
            APP,
            [names.signals, names.candidates],
            instance=slot if static else None,
            protocol="consumer" if incremental else "classic",
        )
        self.rng = rng or random.Random(0)
        self._log = self.make_log()
        self._log_broken = True
        self.view = self.views(names.triggers)
        self._match = MatchProcessor(
            names, self.view, slot=slot, candidates_partitions=plant.candidates_partitions, limit_bytes=256 * 1024
        )
        destinations = Destinations({names.triggers: _LARGE, names.lineage: _LARGE})
        self._join = self.joins(
            names,
            self.view,
            Outputs(names, APP, destinations, all_lineage=True),
            slot=slot,
            candidates_partitions=plant.candidates_partitions,
            all_lineage=True,
        )
        self.local = LocalCandidates(self._join, names.candidates, enabled=local)
        self._marks = self.marks(self._match, self._join)
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
        self.read: set[int] = set()
        self._sending: Stage | None = None
        self._transactions = 0
        self._behind: set[int] = set()
        self._activity: Iterator[str] | None = None
        self.at = "idle"
        """The effect that comes next."""

    @property
    def running(self) -> TPs:
        """The partitions that were taken over."""
        return self._running

    @property
    def committing(self) -> bool:
        """Whether a commit is under way."""
        return self._sending is not None

    def make_log(self) -> MemoryLog:
        """Gives the transactional log of this slot."""
        return MemoryLog(self.plant.broker, f"{APP}-{self.slot}", faults=self.plant.faults)

    # ---- the consume thread's part

    def poll(self, *, finish: bool = True) -> None:
        """One poll of the consumer, with its callbacks. A revoke lets the open work `finish`, or voids it, as it does
        where there is no time.
        """
        rebalance = self.member.poll()
        if rebalance is not None:
            self.plant.happened[rebalance.kind] += 1
            self.rebalanced(rebalance, finish=finish)

    def leave(self) -> None:
        """A clean stop: finishes the open work and leaves the group; the life is over."""
        if self._tps:
            self._finish()
            self._void()
        self.member.leave()
        self.ended = "left"

    def rebalanced(self, rebalance: Rebalance, *, finish: bool) -> None:
        """The group's callback."""
        happened = self.plant.happened
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
        clean = rebalance.kind == "revoked" and finish
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
                self.local.forget(tp.partition)
        self._running -= gone

    def _finish(self) -> None:
        while self._activity is not None and not self.at.startswith("take-over"):
            self.step()
        if self._stage is not None and self._running:
            self._activity = self._commit()
            while self._activity is not None:
                self.step()

    def _void(self) -> None:
        for stage in (self._stage, self._sending):
            if stage is not None:
                self.void(stage)
        self._log_broken = True

    def void(self, stage: Stage) -> None:
        """Takes the right to commit from a stage whose assignment has ended."""
        stage.void()

    def _forget(self) -> None:
        """Before anything goes on its place has to be read from the log."""
        self._reloads += 1
        self._had = self._running or self._had
        self._running = frozenset()
        self._beside = self._found = None
        self._match.partitions = {}
        self._join.partitions = {}
        self.local.begin({})

    # ---- the event loop's part

    def step(self) -> None:
        """Does one effect; begins the next activity where none is under way."""
        if self.ended is not None:
            return
        if self._beside is not None and self.rng.random() < 0.4:
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
        if self.rng.random() < _LEARNS:
            self._learn()
        if not self.draining and self.rng.random() < 0.1:
            return self._mark()
        return self._turn()

    def _turn(self) -> Iterator[str]:
        """Takes a batch, and commits now and then."""
        tp = self.rng.choice(sorted(self._running))
        yield f"batch of {tp.topic}"
        if tp not in self._running:
            return
        try:
            batch = self._fetch(tp)
        except OffsetOutOfRangeError:  # who has the partition now has read on, and deleted what was read
            self.plant.happened["read what was deleted"] += 1
            self.ended = "overtaken"
            return
        full = False
        if not batch.records:
            self._met_end(batch)
        elif tp.topic == self.plant.names.signals:
            stage = self._open()
            full = not self._match.step(
                batch, stage, now=self.plant.clock(), max_outputs=self._room(), max_records=_LARGE
            )
            self.local.join(stage, max_outputs=self.rng.choice((len(stage.outputs) + 3, _LARGE)))
        else:
            self.read.add(tp.partition)
            progress = self._join.step(batch, self._open(), max_outputs=self._room(), max_records=_LARGE)
            full = progress is Progress.FULL
            if progress is Progress.BEHIND:
                self.plant.happened["waited for definitions"] += 1
                self._learn()
        if full:
            self.plant.happened["stage full"] += 1
        if self._stage is not None and (full or self.draining or self.rng.random() < _COMMITS):
            yield from self._commit()

    def _room(self) -> int:
        """How many outputs a stage may have: at times so few that a batch, or what is due, does not fit."""
        return _LARGE if self.draining else self.rng.choice((3, 12, _LARGE, _LARGE))

    def _fetch(self, tp: TopicPartition) -> MemoryBatch:
        if tp.topic == self.plant.names.signals:
            at = self._match.partitions[tp].next_offset
        else:
            at = self._join.partitions[tp.partition].next_offset
        records, next_offset, _ = self.plant.broker.read(tp, at, max_records=self.rng.randint(1, 5))
        return MemoryBatch(tp, list(records), next_offset)

    def _met_end(self, batch: MemoryBatch) -> None:
        if batch.tp.topic == self.plant.names.signals:
            self._match.met_end(batch.tp, batch.next_offset)
        else:
            self._join.met_end(batch.tp.partition, batch.next_offset)
            if self.draining:  # a timer does it, where there is one
                self._join.settle(self._join.partitions[batch.tp.partition], self._open(), max_outputs=_LARGE)

    def _mark(self) -> Iterator[str]:
        """Announces how far the signals have been read, and finishes what the definitions ask for."""
        sampled_at = self.plant.clock()
        positions = self._marks.positions()
        ends = {tp: self.plant.broker.end_offset(tp) for tp in positions}
        yield "mark"
        if not self._running:
            return
        self._marks.met_ends(ends, sampled_at)
        self.local.send(self._open(), max_outputs=_LARGE)
        self._marks.emit(self._open())
        for partition in self._join.partitions.values():
            self._join.settle(partition, self._open(), max_outputs=self._room())
        yield from self._commit()

    def _learn(self) -> None:
        at = self.view.revision + 1
        records, _, _ = self.plant.broker.read(TopicPartition(self.plant.names.definitions, 0), at)
        for record in records:
            self.view.take(self.view.read(record))

    # ---- stages

    def _open(self) -> Stage:
        if self._stage is None:
            self._transactions += 1
            self._stage = Stage(self._assignment, f"{self.slot}/{self.incarnation}/{self._transactions}")
            self._stage.group_metadata = self._group_metadata
            self.read = set()
            self._match.flush_ends(self._stage)
            self._join.flush_ends(self._stage)
        return self._stage

    def _commit(self) -> Iterator[str]:
        stage = self._stage
        if stage is not None:
            self.local.send(stage, max_outputs=_LARGE)
        if stage is None or stage.empty:
            self._stage = None
            return
        self._stage, self._sending = None, stage
        self.staged(stage)
        result = yield from self._effects(stage)
        self._sending = None
        self.settle(stage, result)

    def staged(self, stage: Stage) -> None:
        """Sees a stage that is about to be committed."""

    def _effects(self, stage: Stage) -> Generator[str, None, Result]:
        steps = commit(stage, self._log, self.plant.names.changelog, self._local_position)
        try:
            effect = next(steps)
            while True:
                yield effect.name
                try:
                    self.do(effect, stage)
                except LogError as error:
                    if self.rng.random() < _LATE_ANSWERS:
                        yield f"answer to {effect.name}"
                    effect = steps.throw(error)
                else:
                    if self.rng.random() < _LATE_ANSWERS:
                        yield f"answer to {effect.name}"
                    effect = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def do(self, effect: Effect, stage: Stage) -> None:  # noqa: ARG002 - a mutant may want to know of what
        """Does one effect of a commit."""
        effect.run()

    def settle(self, stage: Stage, result: Result) -> None:
        """Goes on after a commit, as its verdict says."""
        self.plant.happened[f"transaction {result.verdict.value}"] += 1
        if result.verdict is Verdict.COMMITTED:
            self.plant.happened["joined locally"] += stage.counts.get(("candidates", "", "local"), 0)
            self.plant.happened["sent through the topic"] += stage.counts.get(("candidates", "", "topic"), 0)
            self.sent(stage)
            return
        for table in stage.tables.values():
            table.discard()
        if result.verdict is not Verdict.ABORTED:
            self._log_broken = True
        self.seek(result)

    def seek(self, result: Result) -> None:  # noqa: ARG002 - a mutant may want to know what failed
        """Goes back to the committed offsets after a transaction that did not become durable, or may not have."""
        self._forget()

    def write(self, stage: Stage) -> None:
        """Writes a stage's tables as the commit does, but at any time: what no worker but a mutant does."""
        changelog = self.plant.names.changelog
        for number, table in stage.tables.items():
            if number in stage.writes:
                end = self.plant.broker.end_offset(TopicPartition(changelog, number))
                local = (LOCAL_POSITION, self._local_position(end))
                table.apply([*stage.writes[number], (POSITION, stage.positions[number]), local])

    def sent(self, stage: Stage) -> None:
        """Takes note of the candidates that a committed stage sent through their topic."""
        self.local.committed(stage, self._log.delivered())

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
            if self.plant.slots[self.slot] > self.incarnation:
                self.plant.happened["slot taken"] += 1
                self.ended = "slot taken"
                return
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
        for tp, at in committed.items():
            if at is not None and at.offset < broker.start_offset(tp):
                raise StateError(f"{tp}: {at.offset} is to be read next, but was deleted")
        yield "take-over: target"
        mine = sorted(tp.partition for tp in tps if tp.topic == names.candidates)
        targets = {number: self.target(TopicPartition(names.changelog, number)) for number in mine}
        ends = self.barriers(mine, kept)
        for number in mine:
            yield from self._restore(number, targets[number])
        if assignment != self._assignment:
            return None
        if broker.stable_committed(APP, sorted(tps)) != committed:
            # Somebody else goes on with these partitions: this assignment has ended, and the group will say so.
            self.plant.happened["overtaken"] += 1
            return None
        return _Found(assignment, reloads, committed, ends)

    def target(self, changelog: TopicPartition) -> int:
        """Gives the offset up to which a changelog partition is replayed."""
        return self.plant.broker.end_offset(changelog)

    def barriers(self, coming: Iterable[int], kept: Iterable[int]) -> Mapping[int, int]:
        """Gives the offsets up to which candidates partitions are read before they take candidates locally."""
        topic = self.plant.names.candidates
        return {number: self.plant.broker.end_offset(TopicPartition(topic, number)) for number in (*coming, *kept)}

    def close_local(self, ends: Mapping[int, int]) -> None:
        """Keeps candidates partitions from taking candidates locally before these offsets."""
        self.local.close(ends)

    def _run(self, found: _Found) -> Iterator[str]:
        """Lets partitions run that were taken over, unless something came between."""
        if self._running:
            self.plant.happened["taken over beside"] += 1
            yield from self._commit()
        if found.assignment != self._assignment or found.reloads != self._reloads:
            return
        self._adopt(found.committed)
        self.close_local(found.ends)
        self._learn()
        yield from self._announce(found)

    def _fence_another(self) -> None:
        """As `signal_router.runtime.former_owners`, but without asking whether the other one is dead."""
        others = sorted(self.plant.slots.keys() - {self.slot})
        if others and self.rng.random() < 0.1:
            with suppress(LogError):
                MemoryLog(self.plant.broker, f"{APP}-{self.rng.choice(others)}").init()
                self.plant.happened["another slot fenced"] += 1

    def _restore(self, number: int, target: int) -> Iterator[str]:
        changelog = TopicPartition(self.plant.names.changelog, number)
        prefix = partition_prefix(number)
        raw = self.store.get(prefix + LOCAL_POSITION)
        local = None if raw is None else decode_local(raw)
        if local is not None and local.written_at < self.plant.clock() - DELETE_RETENTION_MS // 2:
            self.plant.happened["store too old"] += 1
            self.store.delete_range(prefix, after(prefix))
            local = None
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
            self.check(tp, position, found)
            table = PartitionTable(self.store, tp.partition)
            sequence = 0 if position is None else position.sequence
            joiner = self.joiner(table)
            self._join.partitions[tp.partition] = CandidatesPartition(table, joiner, at.offset, sequence, topic_id)
        self._marks.begin()

    def joiner(self, table: PartitionTable) -> Joiner:
        """Gives who decides for a candidates partition."""
        return self.joiners(table, self.view, self.limits)

    def check(self, tp: TopicPartition, position: TablePosition | None, found: NextOffset | None) -> None:
        """Refuses a table that does not fit the committed offset, as `signal_router.runtime.takeover` does."""
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
