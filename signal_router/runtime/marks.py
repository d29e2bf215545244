"""Marks: what this worker may announce of the signals partitions it reads.

Nothing later than its last look at what partitions there are is announced. A partition that comes into being after a
look so holds every clock from its first signal on, although nobody knows it yet: it stands in the marks of the next
look, and no clock is beyond the look before.
"""

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
        self._looked_at = -1
        self._told: dict[str, int] = {}
        self._told_inputs: tuple[str, ...] = ()
        self._missing: frozenset[str] = frozenset()
        self._gone: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Begins anew after partitions were taken over: what was told before may not have been committed."""
        self._told.clear()
        self._told_inputs = ()

    def look(self, partitions: Mapping[str, int], looked_at: int) -> None:
        """Takes the partition counts of the signals topics, as a look shows them that began at a time.

        A look that misses one is as good as none: whether it is gone is for `set_inputs` to say.
        """
        inputs = _names(partitions)
        if set(inputs).issuperset(self._inputs):
            self._inputs, self._looked_at = inputs, looked_at
            self._gone = self._gone.difference(inputs)

    def set_inputs(self, partitions: Mapping[str, int], looked_at: int) -> None:
        """Takes the signals topics that exist, with their partition counts, as a look shows them that began at a time.

        What other workers announce and this look does not show may be new; what the next look does not show is gone.
        """
        self._inputs, self._looked_at = _names(partitions), looked_at
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
        read = {
            input_name(tp): min(partition.read_until, self._looked_at)
            for tp, partition in self._match.partitions.items()
        }
        announced = {name: until for name, until in read.items() if until > self._told.get(name, -1)}
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


def _names(partitions: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(
        input_name(TopicPartition(topic, number))
        for topic, count in sorted(partitions.items())
        for number in range(count)
    )
