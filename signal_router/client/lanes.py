"""Which trigger is next, and up to where all are done: the order of a consumer's work, without a client or a clock.

Triggers are handled one after the other within a *lane*, whichever waits holds up those behind it there and nobody
else. What a lane is decides the mode: with at least once it is a key, so that a trigger that has to be tried again
holds up its key only; with exactly once it is a partition, because a transaction can say of a partition only up to
where it was read, not what was left out on the way.

The next offset of a partition is that of the first record that is not done. Records behind it that are done may be
handled again after a restart, never the other way round.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from signal_router.model.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Work = TypeVar("Work")

Lane = tuple[TopicPartition, bytes | None]


class Item(Generic[Work]):
    """One record in work; `failures` counts how often it was handled in vain."""

    __slots__ = ("done", "failures", "gone", "lane", "offset", "tp", "work")

    def __init__(self, tp: TopicPartition, offset: int, lane: Lane, work: Work) -> None:
        self.tp = tp
        self.offset = offset
        self.lane = lane
        self.work = work
        self.failures = 0
        self.done = False
        self.gone = False


class _Partition(Generic[Work]):
    """The records of one partition from its next offset on, in order; those that were passed over have no item.

    `begun` is where reading began, `known` the next offset that the group has (None: none yet).
    """

    __slots__ = ("begun", "items", "known", "next_offset", "read_to")

    def __init__(self, next_offset: int, *, known: bool) -> None:
        self.items: deque[Item[Work]] = deque()
        self.begun = self.next_offset = self.read_to = next_offset
        self.known = next_offset if known else None

    def advance(self) -> None:
        while self.items and self.items[0].done:
            self.items.popleft()
        self.next_offset = self.items[0].offset if self.items else self.read_to


class Lanes(Generic[Work]):
    """The records in work of all assigned partitions."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition[Work]] = {}
        self._lanes: dict[Lane, deque[Item[Work]]] = {}
        self._ready: deque[Item[Work]] = deque()
        self._later: list[tuple[float, int, Item[Work]]] = []
        self._number = itertools.count()

    # --- partitions

    def begin(self, tp: TopicPartition, next_offset: int, *, known: bool) -> None:
        """Begins a partition at an offset, anew if it has one; `known` where the group has that offset already."""
        self.drop([tp])
        self._partitions[tp] = _Partition(next_offset, known=known)

    def drop(self, tps: Iterable[TopicPartition]) -> None:
        """Forgets partitions and whatever is in work there."""
        for tp in tps:
            partition = self._partitions.pop(tp, None)
            for item in partition.items if partition is not None else ():
                item.gone = True
                self._lanes.pop(item.lane, None)

    def waiting(self, tp: TopicPartition) -> int:
        """How many records of a partition are held: not done, or done behind one that is not."""
        partition = self._partitions.get(tp)
        return 0 if partition is None else len(partition.items)

    def next_offsets(self) -> dict[TopicPartition, int]:
        """The next offsets that the group does not know yet."""
        return {tp: each.next_offset for tp, each in self._partitions.items() if each.known != each.next_offset}

    def known(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Says that the group has these now."""
        for tp, next_offset in next_offsets.items():
            if tp in self._partitions:
                self._partitions[tp].known = next_offset

    def resume_at(self) -> dict[TopicPartition, tuple[int, bool]]:
        """Where each partition goes on if what was not committed is undone, and whether the group has that offset."""
        return {
            tp: (each.begun, False) if each.known is None else (each.known, True)
            for tp, each in self._partitions.items()
        }

    # --- records

    def add(self, tp: TopicPartition, offset: int, key: bytes | None, work: Work) -> Item[Work] | None:
        """Takes a record; it waits behind those of its lane. None for a partition that is not assigned."""
        partition = self._partitions.get(tp)
        if partition is None or offset < partition.read_to:
            return None
        item = Item(tp, offset, (tp, key), work)
        partition.items.append(item)
        partition.read_to = offset + 1
        lane = self._lanes.get(item.lane)
        if lane is None:
            self._lanes[item.lane] = deque([item])
            self._ready.append(item)
        else:
            lane.append(item)
        return item

    def pass_over(self, tp: TopicPartition, offset: int) -> None:
        """Takes note of a record that is nobody's work."""
        partition = self._partitions.get(tp)
        if partition is not None and offset >= partition.read_to:
            partition.read_to = offset + 1
            partition.advance()

    def take(self, now: float) -> Item[Work] | None:
        """Gives the next record whose turn it is: in order of the lane, and not before its time."""
        while self._later and (self._later[0][0] <= now or self._later[0][2].gone):
            _, _, item = heapq.heappop(self._later)
            self._ready.append(item)
        while self._ready:
            item = self._ready.popleft()
            if not item.gone:
                return item
        return None

    def next_at(self) -> float | None:
        """When the next record is due that waits for its time; None: there is none."""
        return self._later[0][0] if self._later else None

    def again(self, item: Item[Work], at: float) -> None:
        """Puts a record that was taken back, not to be taken before its time."""
        if not item.gone:
            heapq.heappush(self._later, (at, next(self._number), item))

    def finish(self, item: Item[Work]) -> None:
        """Ends a record; the one behind it in its lane has its turn."""
        if item.gone:
            return
        item.done = True
        lane = self._lanes[item.lane]
        lane.popleft()
        if lane:
            self._ready.append(lane[0])
        else:
            del self._lanes[item.lane]
        self._partitions[item.tp].advance()
