"""A set being decided on: where its pending signals and remembered identities stand, in its head or in entries of their own.

Costs do not grow with depth: signals that fit the same aliases form a queue that is read from its front, and an identity is
found by itself. The head holds the first few of both, because most sets never have more.
"""

from __future__ import annotations

from collections.abc import Iterator

from signal_router.core.tables import Due, JoinSet, Pending, Remembered, Table
from signal_router.errors import StateError
from signal_router.model.candidates import SignalCopy

HEAD_ENTRIES = 8
"""Pending signals, and as many identities, that a head may hold: enough for nearly every set, small enough to rewrite."""
HEAD_ENTRY_BYTES = 1024
"""A larger signal gets an entry of its own, so that a head stays within a few kilobytes."""

_EMPTY = JoinSet()


class OpenSet:
    """One set, read once and saved once per decision."""

    __slots__ = (
        "_due",
        "_indexes",
        "_key",
        "_noted",
        "_pending",
        "_queued",
        "_queues",
        "_remembered",
        "_subscription",
        "_table",
        "_was_empty",
    )

    def __init__(self, table: Table, subscription: str, key: str) -> None:
        head = table.join_set(subscription, key)
        self._was_empty = head is None
        head = head or _EMPTY
        self._table = table
        self._subscription = subscription
        self._key = key
        self._pending = list(head.pending)
        self._remembered = list(head.remembered)
        self._queues = dict(head.queues)
        self._queued = head.queued
        self._noted = head.noted
        self._due = head.due
        self._indexes: dict[int, int] = {}

    @property
    def pending_count(self) -> int:
        """How many signals wait here."""
        return len(self._pending) + self._queued

    def find(self, identity: str) -> tuple[bytes, SignalCopy | Remembered] | None:
        """Finds an identity, pending or remembered: its digest, and what stands for its first copy."""
        for pending in self._pending:
            if pending.signal.identity == identity:
                return pending.signal.digest, pending.signal
        for remembered in self._remembered:
            if remembered.identity == identity:
                return remembered.digest, remembered
        if self._noted:
            noted = self._table.noted(self._subscription, self._key, identity)
            if noted is not None:
                return noted.digest, noted
        return None

    def masks(self) -> set[int]:
        """The alias masks of what is pending."""
        masks = {pending.aliases for pending in self._pending}
        if self._queues:
            masks.update(self._queues)
        return masks

    def arrivals(self, aliases: int, *, newest_first: bool = False) -> Iterator[Pending]:
        """The pending signals that fit exactly these aliases, in joining order or against it."""
        inline = [pending for pending in self._pending if pending.aliases == aliases]
        if newest_first:
            yield from self._queue(aliases, newest_first=True)
            yield from reversed(inline)
        else:
            yield from inline
            yield from self._queue(aliases, newest_first=False)

    def all_arrivals(self, *, newest_first: bool = False) -> list[Pending]:
        """Everything pending, in joining order or against it. Costs as much as is pending."""
        everything = [pending for mask in self.masks() for pending in self.arrivals(mask)]
        everything.sort(key=_sequence, reverse=newest_first)
        return everything

    def add(self, pending: Pending) -> None:
        """Adds the newest arrival."""
        signal = pending.signal
        if (
            len(self._pending) < HEAD_ENTRIES
            and pending.aliases not in self._queues
            and len(signal.params) + len(signal.payload or b"") <= HEAD_ENTRY_BYTES
        ):
            self._pending.append(pending)
            return
        low, high = self._queues.get(pending.aliases, (0, 0))
        self._queues[pending.aliases] = (low, high + 1)
        self._queued += 1
        self._table.put_queued(self._subscription, self._key, pending.aliases, high, pending)
        self._table.put_due(Due(pending.deadline, 1, self._subscription, self._key, pending.aliases, high))
        self._note(_remember(signal, 0, pending.aliases, high))
        self._noted += 1

    def end(self, pending: Pending, forget_at: int) -> None:
        """Takes a pending signal out; its identity is remembered until `forget_at`."""
        if pending in self._pending:
            self._pending.remove(pending)
            self.remember(pending.signal, forget_at)
            return
        self._dequeue(pending)
        self._note(_remember(pending.signal, forget_at))

    def drop(self, pending: Pending) -> None:
        """Takes a pending signal out and forgets its identity."""
        if pending in self._pending:
            self._pending.remove(pending)
            return
        self._dequeue(pending)
        self._table.put_noted(self._subscription, self._key, pending.signal.identity, None)
        self._noted -= 1

    def remember(self, signal: SignalCopy, forget_at: int) -> None:
        """Remembers the identity of a signal that is not pending here."""
        if len(self._remembered) < HEAD_ENTRIES:
            self._remembered.append(_remember(signal, forget_at))
            return
        self._note(_remember(signal, forget_at))
        self._noted += 1

    def forget_before(self, clock: int) -> None:
        """Forgets the identities in the head whose time has come."""
        self._remembered = [remembered for remembered in self._remembered if remembered.forget_at >= clock]

    def forget_noted(self, identity: str) -> None:
        """Forgets an identity noted outside the head."""
        self._table.put_noted(self._subscription, self._key, identity, None)
        self._noted -= 1

    def forget_all(self) -> None:
        """Forgets every identity that is not pending."""
        self._remembered = []
        for noted in list(self._table.noted_of(self._subscription, self._key)) if self._noted else ():
            if noted.forget_at:
                self.forget_noted(noted.identity)

    def overdue(self, clock: int) -> list[Pending]:
        """The signals in the head whose deadline lies before the clock, earliest first."""
        late = [pending for pending in self._pending if pending.deadline < clock]
        late.sort(key=lambda pending: (pending.deadline, pending.sequence))
        return late

    def left_index(self) -> None:
        """Notes that the set's entry in the time index was taken out."""
        self._due = 0

    @property
    def due(self) -> int:
        """The time at which the set stands in the time index."""
        return self._due

    def save(self) -> None:
        """Writes the head back and keeps its entry in the time index at or before the earliest time in it."""
        table, subscription, key = self._table, self._subscription, self._key
        if not self._pending and not self._remembered and not self._queued and not self._noted:
            if self._due:
                table.drop_due(Due(self._due, 0, subscription, key))
            if not self._was_empty:
                table.put_join_set(subscription, key, None)
            return
        earliest = 0
        for pending in self._pending:
            if not earliest or pending.deadline < earliest:
                earliest = pending.deadline
        for remembered in self._remembered:
            if not earliest or remembered.forget_at < earliest:
                earliest = remembered.forget_at
        if earliest and (not self._due or earliest < self._due):
            table.put_due(Due(earliest, 0, subscription, key))
            self._due = earliest
        head = JoinSet(
            tuple(self._pending), tuple(self._remembered), self._queues, self._queued, self._noted, self._due
        )
        table.put_join_set(subscription, key, head)

    def _note(self, remembered: Remembered) -> None:
        self._table.put_noted(self._subscription, self._key, remembered.identity, remembered)
        if remembered.forget_at:
            self._table.put_due(
                Due(remembered.forget_at, 2, self._subscription, self._key, identity=remembered.identity)
            )

    def _queue(self, aliases: int, *, newest_first: bool) -> Iterator[Pending]:
        low, high = self._queues.get(aliases, (0, 0))
        for index in range(high - 1, low - 1, -1) if newest_first else range(low, high):
            pending = self._table.queued(self._subscription, self._key, aliases, index)
            if pending is not None:
                self._indexes[pending.sequence] = index
                yield pending

    def _dequeue(self, pending: Pending) -> None:
        aliases, index = pending.aliases, self._index_of(pending)
        low, high = self._queues[aliases]
        self._table.put_queued(self._subscription, self._key, aliases, index, None)
        self._queued -= 1
        if index == low:
            low = self._next_queued(aliases, low + 1, high)
        elif index == high - 1:
            high = index
        if low >= high:
            del self._queues[aliases]
        else:
            self._queues[aliases] = (low, high)

    def _next_queued(self, aliases: int, low: int, high: int) -> int:
        while low < high and self._table.queued(self._subscription, self._key, aliases, low) is None:
            low += 1
        return low

    def _index_of(self, pending: Pending) -> int:
        index = self._indexes.get(pending.sequence)
        if index is not None:
            return index
        noted = self._table.noted(self._subscription, self._key, pending.signal.identity)
        if noted is None:
            raise StateError(f'a queued signal of subscription "{self._subscription}", key {self._key} is not noted')
        return noted.index


def _remember(signal: SignalCopy, forget_at: int, aliases: int = 0, index: int = 0) -> Remembered:
    return Remembered(
        signal.identity, signal.digest, forget_at, signal.topic, signal.partition, signal.offset, aliases, index
    )


def _sequence(pending: Pending) -> int:
    return pending.sequence
