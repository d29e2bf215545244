"""Marks: what this worker may announce of the signals partitions it reads."""

from __future__ import annotations

from collections.abc import Mapping

from signal_router.model.log import TopicPartition
from signal_router.runtime.join import JoinProcessor
from signal_router.runtime.match import MatchProcessor
from signal_router.runtime.stage import Stage


def input_name(tp: TopicPartition) -> str:
    """How marks name a signals partition."""
    return f"{tp.topic}/{tp.partition}"


class MarkKeeper:
    """Puts marks into stages: in the transaction of the offsets they speak of, behind their candidates."""

    def __init__(self, match: MatchProcessor, join: JoinProcessor) -> None:
        self._match = match
        self._join = join
        self._inputs: tuple[str, ...] = ()
        self._told: dict[str, int] = {}
        self._told_inputs: tuple[str, ...] = ()
        self._missing: frozenset[str] = frozenset()
        self._gone: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Begins anew after partitions were taken over: what was told before may not have been committed."""
        self._told.clear()
        self._told_inputs = ()

    def set_inputs(self, partitions: Mapping[str, int]) -> None:
        """Takes the signals topics that exist, with their partition counts.

        What other workers announce and this look does not show may be new; what the next look does not show is gone.
        """
        self._inputs = tuple(
            input_name(TopicPartition(topic, number))
            for topic, count in sorted(partitions.items())
            for number in range(count)
        )
        missing = self._known().difference(self._inputs)
        self._gone = missing & self._missing
        self._missing = missing

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of every signals partition of this worker."""
        return {tp: partition.next_offset for tp, partition in self._match.partitions.items()}

    def met_ends(self, ends: Mapping[TopicPartition, int], sampled_at: int) -> None:
        """Takes ends that were sampled at a time: a partition read up to its end has been read up to that time."""
        for tp, end in ends.items():
            partition = self._match.partitions.get(tp)
            if partition is not None and partition.next_offset >= end:
                partition.read_until = max(partition.read_until, sampled_at)

    def emit(self, stage: Stage) -> None:
        """Adds a mark for every candidates partition, if there is something new to tell."""
        announced = {
            input_name(tp): partition.read_until
            for tp, partition in self._match.partitions.items()
            if partition.read_until > self._told.get(input_name(tp), -1)
        }
        retired = self._retired()
        if not announced and not retired and self._inputs == self._told_inputs:
            return
        self._match.mark(stage, announced, self._inputs, retired)
        self._told.update(announced)
        self._told_inputs = self._inputs

    def _retired(self) -> tuple[str, ...]:
        if not self._inputs:
            return ()
        return tuple(sorted(self._known() & self._gone))

    def _known(self) -> frozenset[str]:
        """The signals partitions that hold the clocks of this worker's candidates partitions."""
        return frozenset(name for part in self._join.partitions.values() for name in part.table.progress().announced)
