"""Local candidates: those of this worker's own partitions are joined in the transaction that matched them.

That saves them the way through their topic, and the signal a transaction. It must not let them overtake those that are
still on that way: the candidates of one signals partition are joined in its order. So a partition takes candidates
locally only while it has been read up to

    (a) the end of its topic, open transactions included, as it was when the worker took its partitions over, after
        the committed offsets were stable: behind everything that earlier owners of any signals partition wrote,
    (b) the last candidate that this worker itself sent there.

Otherwise all that is held for the partition goes through the topic, behind what is there. Having caught up with the
topic once is not enough: (a) and (b) each forbid an order that random schedules find within minutes. Under load a
partition would never catch up with what is sent after it, so the worker leaves the signals alone for as long as
`behind` names any.
"""

from __future__ import annotations

from collections.abc import Mapping

from signal_router.model.candidates import encode
from signal_router.model.log import OutputRecord, TopicPartition
from signal_router.runtime.join import JoinProcessor
from signal_router.runtime.stage import Stage

FAN_OUT = 4
"""How far the last candidates of a stage may go beyond its room: each writes a trigger and its lineage, seldom more."""


class LocalCandidates:
    """Takes the candidates that a stage holds to where they are joined: here, or through their topic."""

    def __init__(self, join: JoinProcessor, topic: str, *, enabled: bool) -> None:
        """`topic` is the candidates topic. Not `enabled`: every candidate goes through it."""
        self._join = join
        self._topic = topic
        self._enabled = enabled
        self._barriers: dict[int, int] = {}
        self._sent: dict[int, int] = {}  # (b), of every partition: one may become our own

    def begin(self, ends: Mapping[int, int]) -> None:
        """Begins anew with an assignment; `ends` are those of (a), by own candidates partition."""
        self._barriers = dict(ends)

    def close(self, ends: Mapping[int, int]) -> None:
        """Takes the ends of (a) where partitions came; own partitions are closed until they have been read so far, and
        up to what was sent to them since the ends were sampled.
        """
        for number, end in ends.items():
            self._barriers[number] = max(end, self._barriers.get(number, 0), self._sent.get(number, 0))

    def forget(self, number: int) -> None:
        """Lets go of a candidates partition."""
        self._barriers.pop(number, None)

    @property
    def behind(self) -> frozenset[int]:
        """The own partitions that must be read further before they take candidates locally."""
        if not self._enabled:
            return frozenset()
        partitions = self._join.partitions
        return frozenset(number for number, at in self._barriers.items() if partitions[number].next_offset < at)

    def join(self, stage: Stage, *, max_outputs: int) -> None:
        """Joins what a stage holds for partitions that may take it, as far as the stage has room."""
        for partition in self._open(stage):
            taken = self._join.take(partition, stage.candidates[partition], stage, max_outputs=max_outputs)
            if taken:
                stage.release(partition, taken)
                stage.count("candidates", reason="local", count=taken)

    def send(self, stage: Stage, *, max_outputs: int) -> None:
        """Leaves nothing held: joins what may be joined here, and sends the rest through the topic.

        Comes before a mark is written and before the stage is committed. What is held has been counted as outputs
        before (`Stage.size`), and may become a few times as many.
        """
        self.join(stage, max_outputs=len(stage.outputs) + FAN_OUT * max_outputs)
        for partition, held in list(stage.candidates.items()):
            last = len(held) - 1
            for place, candidate in enumerate(held):
                # The last one's offset is what (b) asks for.
                value, tracked = encode(candidate), place == last
                stage.emit(OutputRecord(self._topic, None, value, partition, stage.headers, tracked=tracked))
            stage.release(partition, len(held))
            stage.count("candidates", reason="topic", count=len(held))
            stage.sent.add(partition)

    def committed(self, stage: Stage, delivered: Mapping[TopicPartition, int]) -> None:
        """Takes from a committed stage up to where partitions have to be read before they are open again."""
        for partition in stage.sent:
            behind = delivered[TopicPartition(self._topic, partition)] + 1
            self._sent[partition] = behind
            if partition in self._barriers:
                self._barriers[partition] = behind

    def _open(self, stage: Stage) -> list[int]:
        if not self._enabled:
            return []
        closed = self.behind | stage.sent
        return [number for number in stage.candidates if number in self._barriers and number not in closed]
