"""Stage 2: candidates and marks in; triggers, lineage, dead letters and changed tables out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from signal_router.core.join import Decision, Ended, Fired, Joiner, Waiting
from signal_router.errors import RecordError, StateError
from signal_router.kafka.topics import TopicNames
from signal_router.model import candidates, lineage
from signal_router.model.candidates import Candidate, Mark
from signal_router.model.dead_letters import Kind
from signal_router.model.log import InputRecord, NextOffset, OutputRecord, TopicPartition
from signal_router.runtime.batches import Batch
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.outputs import Outputs, refuse
from signal_router.runtime.positions import TablePosition, encode_position
from signal_router.runtime.stage import Stage
from signal_router.state.keys import FORMAT
from signal_router.state.tables import PartitionTable


class Progress(Enum):
    """What came of a step: the batch is staged, the stage is full, or the definitions are older than a candidate's."""

    DONE = "done"
    FULL = "full"
    BEHIND = "behind"


@dataclass(slots=True)
class CandidatesPartition:
    """One candidates partition of this worker: its table, who decides on it, and where the stage chain stands."""

    table: PartitionTable
    joiner: Joiner
    next_offset: int
    sequence: int
    topic_id: str


class JoinProcessor:
    """Joins the candidates of the partitions this worker owns."""

    def __init__(
        self,
        names: TopicNames,
        view: DefinitionsView,
        outputs: Outputs,
        *,
        slot: str,
        candidates_partitions: int,
        all_lineage: bool,
    ) -> None:
        self._names = names
        self._view = view
        self._outputs = outputs
        self._slot = slot
        self._candidates_partitions = candidates_partitions
        self._all_lineage = all_lineage
        self.partitions: dict[int, CandidatesPartition] = {}
        self._ends: set[int] = set()

    def step(self, batch: Batch, stage: Stage, *, max_outputs: int, max_records: int) -> Progress:
        """Stages a batch as far as the stage has room. `batch.at` says how far it came."""
        partition = self.partitions[batch.tp.partition]
        if not self.settle(partition, stage, max_outputs=max_outputs):
            return Progress.FULL
        records, outputs, revision = batch.records, stage.outputs, self._view.revision
        while batch.at < len(records):
            record = records[batch.at]
            if len(outputs) >= max_outputs or stage.records >= max_records:
                self._advance(partition, record.offset, stage)
                return Progress.FULL
            decoded = self._decode(partition, record, stage)
            if type(decoded) is Candidate:
                if decoded.revision > revision:
                    self._advance(partition, record.offset, stage)
                    return Progress.BEHIND
                error = self._joined(partition, decoded, stage)
                if error is not None:
                    self._refuse(partition, record, RecordError("internal", f"joining failed: {error!r}"), stage)
            batch.at += 1
            stage.records += 1
            if type(decoded) is Mark:
                self._mark(partition, decoded, stage)
                if not self.settle(partition, stage, max_outputs=max_outputs):
                    self._advance(partition, record.offset + 1, stage)
                    return Progress.FULL
        self._advance(partition, batch.next_offset, stage)
        return Progress.DONE

    def take(self, number: int, found: Sequence[Candidate], stage: Stage, *, max_outputs: int) -> int:
        """Stages candidates that come from no topic, as far as the stage has room; returns how many it took.

        One that cannot be joined is left, as are those behind it: where it comes from decides what becomes of it.
        """
        partition = self.partitions[number]
        taken = 0
        if self.settle(partition, stage, max_outputs=max_outputs):
            for candidate in found:
                if len(stage.outputs) >= max_outputs or self._joined(partition, candidate, stage) is not None:
                    break
                taken += 1
        self._advance(partition, partition.next_offset, stage)
        return taken

    def settle(self, partition: CandidatesPartition, stage: Stage, *, max_outputs: int) -> bool:
        """Takes newer definitions and finishes what earlier inputs left; False if the stage is full before."""
        if not self._work(partition, stage, max_outputs):
            return False
        if partition.joiner.behind:
            before, sequence = partition.table.progress().revision, self._next(partition)
            partition.joiner.change_view()
            self._changed_view(partition, before, sequence, stage)
            return self._work(partition, stage, max_outputs)
        return True

    def met_end(self, number: int, next_offset: int) -> None:
        """Notes an end without records, behind markers; the next stage carries it, none is opened for it."""
        self.partitions[number].next_offset = next_offset
        self._ends.add(number)

    def flush_ends(self, stage: Stage) -> None:
        """Adds the ends noted since the last stage."""
        for number in self._ends:
            if number in self.partitions:
                self.advance(number, stage)
        self._ends.clear()

    def advance(self, number: int, stage: Stage) -> None:
        """Adds the next offset and the table of a partition to a stage."""
        self._advance(self.partitions[number], self.partitions[number].next_offset, stage)

    def _work(self, partition: CandidatesPartition, stage: Stage, max_outputs: int) -> bool:
        for pieces, decision in enumerate(partition.joiner.work(), 1):
            self._decided(partition, decision, stage)
            # Forgetting a million identities writes no output but as many changes of the table.
            if len(stage.outputs) >= max_outputs or pieces >= max_outputs:
                self._advance(partition, partition.next_offset, stage)
                return False
        if partition.table.touched:
            self._advance(partition, partition.next_offset, stage)
        return True

    def _decode(self, partition: CandidatesPartition, record: InputRecord, stage: Stage) -> Candidate | Mark | None:
        try:
            return candidates.decode(record.value or b"")
        except msgspec.ValidationError as error:
            raise StateError(
                f'record {record.offset} of "{self._names.candidates}" is of a newer format: {error}',
                hint="run the newer program version, or use a new --prefix",
            ) from error
        except msgspec.DecodeError as error:
            self._refuse(partition, record, RecordError("not-candidate", f"record cannot be read: {error}"), stage)
            return None

    def _joined(self, partition: CandidatesPartition, candidate: Candidate, stage: Stage) -> Exception | None:
        """Joins a candidate; what made that fail, if nothing of it is staged."""
        savepoint, staged = partition.table.savepoint(), stage.savepoint()
        sequence = partition.sequence
        partition.sequence = sequence + 1
        try:
            if self._all_lineage:
                self._input(partition, sequence, _described(candidate), stage)
            for decision in partition.joiner.candidate(sequence, candidate):
                self._decided(partition, decision, stage)
        except StateError:
            raise
        except Exception as error:  # whatever one record does, the partition goes on
            partition.table.rollback(savepoint)
            stage.rollback(staged)
            partition.sequence = sequence
            return error
        return None

    def _mark(self, partition: CandidatesPartition, mark: Mark, stage: Stage) -> None:
        number = self._next(partition)
        if self._all_lineage:
            described: dict[str, object] = {
                "kind": "mark",
                "announced": dict(mark.announced),
                "inputs": list(mark.inputs),
                "retired": list(mark.retired),
            }
            self._input(partition, number, described, stage)
        partition.joiner.mark(mark)

    def _changed_view(self, partition: CandidatesPartition, before: int, sequence: int, stage: Stage) -> None:
        number, revision = partition.table.partition, self._view.revision
        stage.emit(
            OutputRecord(
                self._names.lineage,
                lineage.view_key(self._names.candidates, number, revision),
                lineage.view_value(self._names.candidates, number, partition.next_offset, revision),
                headers=stage.headers,
            )
        )
        if self._all_lineage:
            self._input(partition, sequence, {"kind": "view", "revision": revision}, stage)
        if number == 0:
            # Written with the partition's progress, so that a document is refused once, whoever reads it how often.
            for record, error in self._view.refused_since(before):
                tp = TopicPartition(self._names.definitions, 0)
                refuse(self._names.dead_letters, Kind.DEFINITION, tp, record, error, stage)

    def _decided(self, partition: CandidatesPartition, decision: Decision, stage: Stage) -> None:
        if isinstance(decision, Waiting):
            stage.count("pending", decision.subscription)
        elif isinstance(decision, Fired):
            self._outputs.fired(decision, partition.table.partition, stage)
        elif isinstance(decision, Ended):
            ended_at = max(partition.table.progress().clock, decision.signal.recorded_at)
            self._outputs.ended(decision, partition.table.partition, ended_at, stage)

    def _refuse(self, partition: CandidatesPartition, record: InputRecord, error: RecordError, stage: Stage) -> None:
        tp = TopicPartition(self._names.candidates, partition.table.partition)
        refuse(self._names.dead_letters, Kind.CANDIDATE, tp, record, error, stage)

    def _input(self, partition: CandidatesPartition, sequence: int, what: dict[str, object], stage: Stage) -> None:
        number = partition.table.partition
        stage.emit(
            OutputRecord(
                self._names.lineage,
                lineage.input_key(number, sequence),
                lineage.input_value(number, sequence, what),
                headers=stage.headers,
            )
        )

    def _next(self, partition: CandidatesPartition) -> int:
        sequence = partition.sequence
        partition.sequence += 1
        return sequence

    def _advance(self, partition: CandidatesPartition, next_offset: int, stage: Stage) -> None:
        partition.next_offset = next_offset
        number = partition.table.partition
        tp = TopicPartition(self._names.candidates, number)
        stage.next_offsets[tp] = NextOffset(next_offset, f"{self._slot} {self._view.revision}")
        stage.tables[number] = partition.table
        stage.positions[number] = encode_position(
            TablePosition(FORMAT, next_offset, partition.sequence, partition.topic_id, self._candidates_partitions)
        )


def _described(candidate: Candidate) -> dict[str, object]:
    signal = candidate.signal
    return {
        "kind": "candidate",
        "position": {"topic": signal.topic, "partition": signal.partition, "offset": signal.offset},
        "subscription": candidate.subscription,
        "join_key_hash": lineage.join_key_hash(candidate.key),
        "revision": candidate.revision,
        "recorded_at": signal.recorded_at,
    }
