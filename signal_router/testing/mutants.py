"""Workers with one rule left out, so that a proof can show that it would notice.

Each mutant changes one thing of the real processors, of the real commit or of what drives them in memory, and is bound
to die: schedules must break the invariant that it names. A proof that lets one live proves nothing about its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from json.encoder import encode_basestring
from unittest.mock import patch

from signal_router.core import join_keys
from signal_router.core.join import Decision, Definitions, Ended, Joiner, Limits
from signal_router.core.join_sets import OpenSet
from signal_router.core.tables import Due, Pending, Table
from signal_router.model.candidates import Candidate
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import InputRecord, NextOffset, TopicPartition
from signal_router.model.subscriptions import JoinType, Subscription
from signal_router.runtime.batches import Batch
from signal_router.runtime.commit import Effect, Result, Verdict
from signal_router.runtime.definitions import DefinitionsView, ReadDefinition
from signal_router.runtime.join import JoinProcessor, Progress
from signal_router.runtime.marks import MarkKeeper
from signal_router.runtime.positions import TablePosition
from signal_router.runtime.stage import Stage, StageState
from signal_router.state.tables import PartitionTable
from signal_router.testing.driver import MemoryWorker
from signal_router.testing.memory_log import Isolation, MemoryLog, Rebalance
from signal_router.testing.plant import APP
from signal_router.verify.report import Invariant

REFUSED = "the engine's own check"
"""Stands for an invariant where a worker stopped with a `StateError` before it could break one."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, and what is broken by it. The one without arguments is none.

    `worker` is what the simulation runs, `patch` changes the engine itself meanwhile.
    """

    fault: str = ""
    breaks: tuple[Invariant | str, ...] = ()
    worker: type[MemoryWorker] = MemoryWorker
    patch: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def broken(self) -> str:
        """What is broken by it, for people."""
        return " or ".join(each.value if isinstance(each, Invariant) else each for each in self.breaks)


# ---- the commit


class _OffsetsOutside(MemoryWorker):
    def do(self, effect: Effect, stage: Stage) -> None:
        if effect.name == "offsets":
            metadata = GroupMetadata.decode(stage.group_metadata or b"")
            self.plant.broker.commit_outside(stage.next_offsets, metadata)
        else:
            effect.run()


class _TablesFirst(MemoryWorker):
    def do(self, effect: Effect, stage: Stage) -> None:
        if effect.name == "commit":
            self.write(stage)
        if effect.name != "tables":
            effect.run()


class _NoSeek(MemoryWorker):
    def seek(self, result: Result) -> None:
        if result.verdict is not Verdict.ABORTED:
            super().seek(result)


class _ProducerKept(MemoryWorker):
    def make_log(self) -> MemoryLog:
        return MemoryLog(self.plant.broker, f"{APP}-{self.slot}", faults=self.plant.faults, tripwire=False)


class _AnotherId(MemoryWorker):
    def make_log(self) -> MemoryLog:
        name = f"{APP}-{self.slot}-{self.incarnation}"
        return MemoryLog(self.plant.broker, name, faults=self.plant.faults)


class _VoidWritten(MemoryWorker):
    def settle(self, stage: Stage, result: Result) -> None:
        if stage.state is StageState.VOID and stage.writes:
            self.write(stage)
        super().settle(stage, result)


class _Blind(MemoryWorker):
    """Goes on where a table does not fit the committed offset."""

    def check(self, tp: TopicPartition, position: TablePosition | None, found: NextOffset | None) -> None:
        """Has no check of its own."""


# ---- the group


class _Refreshed(MemoryWorker):
    def void(self, stage: Stage) -> None:
        """Leaves the stage its right."""

    def do(self, effect: Effect, stage: Stage) -> None:
        if effect.name == "changelog":
            stage.group_metadata = self.member.group_metadata()
        effect.run()


class _Anonymous(MemoryWorker):
    def staged(self, stage: Stage) -> None:
        stage.group_metadata = GroupMetadata(APP, -1, "").encode()


class _TouchedLeftOut(MemoryWorker):
    def staged(self, stage: Stage) -> None:
        if self.running:
            for number in set(stage.tables) - self.read:
                stage.next_offsets.pop(TopicPartition(self.plant.names.candidates, number), None)


class _NoBarrier(MemoryWorker):
    def rebalanced(self, rebalance: Rebalance, *, finish: bool) -> None:
        if rebalance.kind != "revoked":
            super().rebalanced(rebalance, finish=finish)


# ---- restore and local candidates


class _StableEnd(MemoryWorker):
    def target(self, changelog: TopicPartition) -> int:
        return self.plant.broker.end_offset(changelog, Isolation.READ_COMMITTED)


class _BacklogEnd(MemoryWorker):
    def barriers(self, coming: Iterable[int], kept: Iterable[int]) -> Mapping[int, int]:
        topic, broker = self.plant.names.candidates, self.plant.broker
        numbers = (*coming, *kept)
        return {
            number: broker.end_offset(TopicPartition(topic, number), Isolation.READ_COMMITTED) for number in numbers
        }

    def sent(self, stage: Stage) -> None:
        """Has forgotten what it sent."""


class _LocalAtOnce(MemoryWorker):
    def close_local(self, ends: Mapping[int, int]) -> None:
        super().close_local(dict.fromkeys(ends, 0))


class _LocalPastOwn(MemoryWorker):
    def sent(self, stage: Stage) -> None:
        """Has forgotten what it sent."""


class _LocalPastMeanwhile(MemoryWorker):
    def close_local(self, ends: Mapping[int, int]) -> None:
        self.local.begin(dict(ends))


class _LocalPastWhatCame(MemoryWorker):
    def barriers(self, coming: Iterable[int], kept: Iterable[int]) -> Mapping[int, int]:  # noqa: ARG002
        return super().barriers(coming, ())


# ---- the join


class _ForgetsFired(Joiner):
    def _in_head(self, subscription: Subscription, sequence: int, candidate: Candidate) -> None:
        """Decides all in the general way."""

    def _fire(
        self,
        join_set: OpenSet,
        subscription: Subscription,
        members: tuple[Pending, ...],
        arriving: Pending,
        clock: int,  # noqa: ARG002
    ) -> None:
        for member in members:
            if member is not arriving:
                join_set.drop(member)
        if len(members) > 1:
            self._table.add_pending(subscription.id, 1 - len(members))


class _ForgetsExpired(Joiner):
    def _expire(self, join_set: OpenSet, due: Due, pending: Pending, clock: int) -> Ended:
        ended = super()._expire(join_set, due, pending, clock)
        join_set._remembered = [one for one in join_set._remembered if one.identity != pending.signal.identity]
        join_set.save()
        return ended


class _PositionPerName(Joiner):
    """What fired under a name takes all before it along, whatever their keys."""

    def __init__(self, table: Table, definitions: Definitions, limits: Limits) -> None:
        super().__init__(table, definitions, limits)
        self._read: dict[str, int] = {}

    def _in_head(self, subscription: Subscription, sequence: int, candidate: Candidate) -> None:
        """Decides all in the general way."""

    def _join(
        self, join_set: OpenSet, subscription: Subscription, key: str, arriving: Pending, clock: int
    ) -> list[Decision]:
        for pending in list(join_set.all_arrivals()):
            if pending.sequence < self._read.get(pending.signal.name, -1):
                join_set.drop(pending)
                self._table.add_pending(subscription.id, -1)
        return super()._join(join_set, subscription, key, arriving, clock)

    def _fire(
        self, join_set: OpenSet, subscription: Subscription, members: tuple[Pending, ...], arriving: Pending, clock: int
    ) -> None:
        super()._fire(join_set, subscription, members, arriving, clock)
        for member in members:
            self._read[member.signal.name] = max(member.sequence, self._read.get(member.signal.name, -1))


def _joining(joiner: type[Joiner]) -> type[MemoryWorker]:
    return type(joiner.__name__, (MemoryWorker,), {"joiners": joiner})


def _blind(worker: type[MemoryWorker]) -> type[MemoryWorker]:
    return type(f"{worker.__name__}Blind", (_Blind, worker), {})


class _WallClock(MemoryWorker):
    def joiner(self, table: PartitionTable) -> Joiner:
        wall = self.plant.clock

        class ByTheWall(Joiner):
            def _now(self) -> int:
                return wall()

        return ByTheWall(table, self.view, self.limits)


class _StaleJoiner(Joiner):
    def _in_force(self, candidate: Candidate) -> Subscription | None:
        return self._definitions.find(candidate.subscription)


class _StaleJoins(JoinProcessor):
    """Decides with what it knows, where it should wait for newer definitions."""

    def step(self, batch: Batch, stage: Stage, *, max_outputs: int, max_records: int) -> Progress:
        partition = self.partitions[batch.tp.partition]
        while True:
            progress = super().step(batch, stage, max_outputs=max_outputs, max_records=max_records)
            if progress is not Progress.BEHIND:
                return progress
            decoded = self._decode(partition, batch.records[batch.at], stage)
            if not isinstance(decoded, Candidate) or self._joined(partition, decoded, stage) is not None:
                return progress
            batch.at += 1


class _StaleView(MemoryWorker):
    joins = _StaleJoins
    joiners = _StaleJoiner


class _AheadMarks(MarkKeeper):
    def met_ends(self, ends: Mapping[TopicPartition, int], sampled_at: int) -> None:
        super().met_ends(dict.fromkeys(ends, 0), sampled_at)


class _MarksAhead(MemoryWorker):
    marks = _AheadMarks


class _AbsenceView(DefinitionsView):
    def read(self, record: InputRecord) -> ReadDefinition:
        if record.value is None and record.key is not None:
            return ReadDefinition(record, record.key.decode().removeprefix("subscription/"))
        return super().read(record)


class _DeleteByAbsence(MemoryWorker):
    views = _AbsenceView


def _untyped_keys() -> AbstractContextManager[object]:
    writers = join_keys._WRITERS[JoinType.ANY]
    return patch.dict(writers, {int: lambda number: encode_basestring(str(number))})


MUTANTS: Mapping[str, Mutant] = {
    "offsets outside the transaction": Mutant(
        "offsets are committed by the consumer, whatever becomes of the transaction",
        (Invariant.CONSERVED,),
        _OffsetsOutside,
    ),
    "table written before commit": Mutant(
        "the local table is ahead of a transaction that may be aborted", (Invariant.TABLES,), _TablesFirst
    ),
    "no seek after abort": Mutant(
        "reading goes on behind what was aborted; the client does not seek back", (Invariant.CONSERVED,), _NoSeek
    ),
    "producer kept after an uncertain outcome": Mutant(
        "a straggling request ends or changes a later transaction (KIP-890)",
        (Invariant.OFFSETS, Invariant.CONSERVED, Invariant.ONE_OUTCOME),
        _ProducerKept,
    ),
    "random transactional id": Mutant("a new life fences nobody", (Invariant.FENCED,), _AnotherId),
    "restore to the last stable offset": Mutant(
        "offsets may be visible before the changelog's marker is (KAFKA-10167)", (REFUSED,), _StableEnd
    ),
    "refreshed metadata": Mutant(
        "a stage of an ended assignment speaks with the next one's generation",
        (Invariant.UNIQUE, Invariant.OFFSETS),
        _Refreshed,
    ),
    "anonymous metadata": Mutant(
        "nobody claims to be a member, so the broker fences nothing", (Invariant.OFFSETS,), _Anonymous
    ),
    "touched partition left out": Mutant(
        "a table changes without its partition's offset in the transaction", (REFUSED,), _TouchedLeftOut
    ),
    "void stage written to the table": Mutant(
        "the local table holds what the broker refused", (REFUSED,), _VoidWritten
    ),
    "no barrier on revoke": Mutant("what was taken away goes on", (Invariant.OFFSETS,), _NoBarrier),
    "de-duplication forgotten after fire": Mutant(
        "a set fires again with repeats", (Invariant.UNIQUE,), _joining(_ForgetsFired)
    ),
    "de-duplication forgotten after expiry": Mutant(
        "a repeat of what expired waits again", (Invariant.ONE_OUTCOME,), _joining(_ForgetsExpired)
    ),
    "local candidates taken at the backlog's end": Mutant(
        "what earlier owners and this one sent is overtaken", (Invariant.ORDER,), _BacklogEnd
    ),
    "local at once": Mutant(
        "candidates overtake those that earlier owners of their signals partition sent",
        (Invariant.ORDER,),
        _LocalAtOnce,
    ),
    "local past own candidates": Mutant(
        "candidates overtake those that this worker sent itself", (Invariant.ORDER,), _LocalPastOwn
    ),
    "local past what was sent meanwhile": Mutant(
        "… and those that it sent to a partition while it was taken over", (Invariant.ORDER,), _LocalPastMeanwhile
    ),
    "local past what came": Mutant(
        "where partitions come, what their former owners sent to kept ones is overtaken",
        (Invariant.ORDER,),
        _LocalPastWhatCame,
    ),
    "join position per name": Mutant(
        "what fired takes earlier signals of its name along, whatever their keys",
        (Invariant.COMPLETE,),
        _joining(_PositionPerName),
    ),
    "expiry by wall clock during lag": Mutant(
        "deadlines pass while the partner is in the log", (Invariant.COMPLETE,), _WallClock
    ),
    "marks ahead of the offsets they speak of": Mutant(
        "a signals partition is announced as read that was not", (Invariant.ORDER,), _MarksAhead
    ),
    "definition taken from a stale view": Mutant(
        "stage 2 decides with older definitions than stage 1 saw", (Invariant.SOUND,), _StaleView
    ),
    "delete by absence": Mutant("a tombstone deletes a subscription", (Invariant.CONSERVED,), _DeleteByAbsence),
    "blind: restore to the last stable offset": Mutant(
        "… and the worker does not notice", (Invariant.CONSERVED,), _blind(_StableEnd)
    ),
    "blind: touched partition left out": Mutant(
        "… and the worker does not notice", (Invariant.ONE_OUTCOME,), _blind(_TouchedLeftOut)
    ),
    "blind: void stage written to the table": Mutant(
        "… and the worker does not notice", (Invariant.TABLES,), _blind(_VoidWritten)
    ),
    "key without types": Mutant('1 and "1" join', (Invariant.SOUND,), patch=_untyped_keys),
}
"""By name; each with what schedules must find broken."""
