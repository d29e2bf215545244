"""Stage 1: signals in, candidates out; `runtime.local` says where to. Stateless but for how far, and under which
definitions, each partition was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from signal_router.errors import RecordError
from signal_router.kafka.topics import TopicNames
from signal_router.model import lineage
from signal_router.model.candidates import Candidate, Mark, SignalCopy, encode, identity_of, partition_of
from signal_router.model.canonical import canonical_scalars, canonicalize_json_text
from signal_router.model.dead_letters import Kind
from signal_router.model.log import InputRecord, NextOffset, OutputRecord, TopicPartition
from signal_router.model.matches import Match
from signal_router.model.records import decode_signal
from signal_router.model.signals import Signal
from signal_router.runtime.batches import Batch
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.outputs import refuse
from signal_router.runtime.stage import Stage

_TRACEPARENT_CHARACTERS = 256

_EMPTY_DIGEST = hashlib.blake2b(digest_size=8)
"""Copied for each signal, as setting one up costs more."""


@dataclass(slots=True)
class SignalsPartition:
    """How far one signals partition has been read.

    `revision` is that of the definitions last in force for it, `read_until` the time up to which it has been read,
    both −1 at first; `next_offset` is that of the stage chain.
    """

    topic_id: str
    next_offset: int
    revision: int = -1
    read_until: int = -1


class MatchProcessor:
    """Matches the signals of the partitions this worker owns."""

    def __init__(
        self, names: TopicNames, view: DefinitionsView, *, slot: str, candidates_partitions: int, limit_bytes: int
    ) -> None:
        self._names = names
        self._view = view
        self._slot = slot
        self._candidates_partitions = candidates_partitions
        self._limit_bytes = limit_bytes
        self.partitions: dict[TopicPartition, SignalsPartition] = {}
        self._ends: set[TopicPartition] = set()
        self._seen = _Seen()

    def step(self, batch: Batch, stage: Stage, *, now: int, max_outputs: int, max_records: int) -> bool:
        """Stages a batch as far as the stage has room; False if a part is left. `now` caps the records' times."""
        partition = self.partitions[batch.tp]
        if batch.at == 0:
            self._begin(batch, partition, stage)
        records, began = batch.records, batch.at
        until = min(len(records), began + max_records - stage.records)
        self._seen = _Seen()
        while batch.at < until and stage.size < max_outputs:
            self._record(batch.tp, partition, records[batch.at], stage, now)
            batch.at += 1
        self._seen.settle(stage)
        stage.records += batch.at - began
        if batch.at < len(records):
            self._advance(batch.tp, partition, records[batch.at].offset, stage)
            return False
        for subscription, count in self._view.index.take_refusals().items():
            stage.count("without_join_key", subscription, count=count)
        self._advance(batch.tp, partition, batch.next_offset, stage)
        return True

    def met_end(self, tp: TopicPartition, next_offset: int) -> None:
        """Notes an end without records, behind markers; the next stage carries it, none is opened for it."""
        self.partitions[tp].next_offset = next_offset
        self._ends.add(tp)

    def flush_ends(self, stage: Stage) -> None:
        """Adds the ends noted since the last stage."""
        for tp in self._ends:
            if tp in self.partitions:
                self.advance(tp, stage)
        self._ends.clear()

    def advance(self, tp: TopicPartition, stage: Stage) -> None:
        """Adds the next offset of a partition to a stage."""
        self._advance(tp, self.partitions[tp], self.partitions[tp].next_offset, stage)

    def mark(
        self, stage: Stage, announced: Mapping[str, int], inputs: tuple[str, ...], retired: tuple[str, ...]
    ) -> None:
        """Announces to every candidates partition how far signals partitions have been read."""
        value = encode(Mark(self._slot, announced, inputs, retired))
        for partition in range(self._candidates_partitions):
            stage.emit(OutputRecord(self._names.candidates, None, value, partition, stage.headers))

    def _begin(self, batch: Batch, partition: SignalsPartition, stage: Stage) -> None:
        revision = self._view.revision
        if revision == partition.revision or not batch.records:
            return
        partition.revision = revision
        tp, offset = batch.tp, batch.records[0].offset
        stage.emit(
            OutputRecord(
                self._names.lineage,
                lineage.view_key(tp.topic, tp.partition, revision),
                lineage.view_value(tp.topic, tp.partition, offset, revision),
                headers=stage.headers,
            )
        )

    def _advance(self, tp: TopicPartition, partition: SignalsPartition, next_offset: int, stage: Stage) -> None:
        partition.next_offset = next_offset
        stage.next_offsets[tp] = NextOffset(next_offset, f"{self._slot} {partition.revision}")

    def _record(
        self, tp: TopicPartition, partition: SignalsPartition, record: InputRecord, stage: Stage, now: int
    ) -> None:
        recorded_at = record.timestamp if record.timestamp < now else now
        if recorded_at > partition.read_until:  # noqa: PLR1730 - a call, for every record
            partition.read_until = recorded_at
        try:
            signal = decode_signal(record.value, record.headers, limit_bytes=self._limit_bytes)
            if signal is None:
                stage.count("tombstones")
                return
            matches = self._view.index.match(signal)
            # All candidates of a signal are made before one is staged, so that a refusal leaves none behind.
            found: list[tuple[int, Candidate]] = []
            if matches:
                copy = _copy(signal, tp, partition.topic_id, record.offset, recorded_at)
                found = self._candidates(matches, signal.payload, copy)
        except RecordError as error:
            refuse(self._names.dead_letters, Kind.SIGNAL, tp, record, error, stage)
            return
        except Exception as error:  # whatever one record does, the partition goes on
            internal = RecordError("internal", f"matching failed: {error!r}")
            refuse(self._names.dead_letters, Kind.SIGNAL, tp, record, internal, stage)
            return
        self._seen.signals += 1
        if not found:
            self._seen.unmatched += 1
        for number, candidate in found:
            stage.hold(number, candidate)

    def _candidates(self, matches: list[Match], payload: bytes | None, copy: SignalCopy) -> list[tuple[int, Candidate]]:
        partitions = self._candidates_partitions
        with_payload = None
        found = []
        for match in matches:
            subscription = match.subscription
            carried = copy
            if payload is not None and any(member.payload for member in subscription.members):
                carried = with_payload = with_payload or _with_payload(copy, payload)
            key = match.key_text or copy.identity
            candidate = Candidate(
                subscription.id,
                subscription.birth,
                subscription.join_generation,
                subscription.revision,
                key,
                match.alias_mask,
                carried,
            )
            found.append((partition_of(subscription.id, key, partitions), candidate))
        return found


class _Seen:
    """How many signals a step saw. They are counted at its end, as a call for each would cost what its match costs."""

    __slots__ = ("signals", "unmatched")

    def __init__(self) -> None:
        self.signals = self.unmatched = 0

    def settle(self, stage: Stage) -> None:
        stage.count("signals", count=self.signals)
        stage.count("unmatched", count=self.unmatched)


def _copy(signal: Signal, tp: TopicPartition, topic_id: str, offset: int, recorded_at: int) -> SignalCopy:
    params = canonical_scalars(signal.params)
    content = params if signal.payload is None else params + canonicalize_json_text(signal.payload)
    # A trace context that is longer than any version of it may be is none.
    traceparent = signal.context.get("traceparent")
    if traceparent is not None and len(traceparent) > _TRACEPARENT_CHARACTERS:
        traceparent = None
    return SignalCopy(
        identity_of(signal, topic_id, tp.partition, offset),
        signal.name,
        signal.source,
        signal.id,
        params,
        None,
        signal.time,
        recorded_at,
        tp.topic,
        tp.partition,
        offset,
        _digest(content),
        traceparent,
    )


def _digest(content: bytes) -> bytes:
    digest = _EMPTY_DIGEST.copy()
    digest.update(content)
    return digest.digest()


def _with_payload(copy: SignalCopy, payload: bytes) -> SignalCopy:
    return SignalCopy(
        copy.identity,
        copy.name,
        copy.source,
        copy.id,
        copy.params,
        payload,
        copy.time,
        copy.recorded_at,
        copy.topic,
        copy.partition,
        copy.offset,
        copy.digest,
        copy.traceparent,
    )
