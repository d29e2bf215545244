"""A set being decided on: its pending signals and remembered identities, in its head or in entries of their own.

Costs do not grow with depth: signals that fit the same aliases form a queue that is read from its front, and an
identity is found by itself. The head holds the first few of both, because most sets never have more.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge

from signal_router.core.tables import NOTED_DUE, QUEUED_DUE, SET_DUE, Due, JoinSet, Pending, Remembered, Table
from signal_router.errors import StateError
from signal_router.model.candidates import SignalCopy

HEAD_ENTRIES = 8
"""Pending signals, and as many identities, that a head may hold: enough for nearly every set, cheap to rewrite."""
HEAD_ENTRY_BYTES = 1024
"""What is larger gets an entry of its own, so that a head stays within a few kilobytes."""

_EMPTY = JoinSet()


class OpenSet:
    """One set, read once and saved after each decision."""

    __slots__ = (
        "_due",
        "_exists",
        "_key",
        "_noted",
        "_pending",
        "_places",
        "_queued",
        "_queues",
        "_remembered",
        "_subscription",
        "_table",
    )

    def __init__(self, table: Table, subscription: str, key: str) -> None:
        head = table.join_set(subscription, key)
        self._exists = head is not None
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
        self._places: dict[int, int] = {}

    @property
    def pending_count(self) -> int:
        """How many signals wait here."""
        return len(self._pending) + self._queued

    @property
    def head(self) -> list[Pending]:
        """The signals that wait in the head, in joining order."""
        return self._pending

    @property
    def queued(self) -> int:
        """How many signals wait outside the head."""
        return self._queued

    @property
    def due(self) -> int:
        """The time at which the set stands in the time index (0 = not there)."""
        return self._due

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

    def all_arrivals(self, *, newest_first: bool = False) -> Iterator[Pending]:
        """Everything pending, in joining order or against it. Ending what it gave last is allowed meanwhile."""
        queues = [self.arrivals(mask, newest_first=newest_first) for mask in self.masks()]
        return merge(*queues, key=_sequence, reverse=newest_first)

    def add(self, pending: Pending) -> None:
        """Adds the newest arrival."""
        if (
            len(self._pending) < HEAD_ENTRIES
            and pending.aliases not in self._queues  # those in the head come before those in a queue
            and _fits_head(pending.signal)
        ):
            self._pending.append(pending)
            return
        low, high = self._queues.get(pending.aliases, (0, 0))
        self._queues[pending.aliases] = (low, high + 1)
        self._queued += 1
        self._table.put_queued(self._subscription, self._key, pending.aliases, high, pending)
        self._table.put_due(self._due_of(pending, high))
        self._note(_remember(pending.signal, 0, pending.aliases, high))
        self._noted += 1

    def end(self, pending: Pending, forget_at: int) -> None:
        """Takes a pending signal out; its identity is remembered until `forget_at`."""
        if self._leave_head(pending):
            self.remember(pending.signal, forget_at)
            return
        self._dequeue(pending)
        self._note(_remember(pending.signal, forget_at))

    def drop(self, pending: Pending) -> None:
        """Takes a pending signal out and forgets its identity."""
        if self._leave_head(pending):
            return
        self._dequeue(pending)
        self._table.put_noted(self._subscription, self._key, pending.signal.identity, None)
        self._noted -= 1

    def remember(self, signal: SignalCopy, forget_at: int) -> None:
        """Remembers the identity of a signal that is not pending here."""
        if len(self._remembered) < HEAD_ENTRIES and len(signal.identity) <= HEAD_ENTRY_BYTES:
            self._remembered.append(_remember(signal, forget_at))
            return
        self._note(_remember(signal, forget_at))
        self._noted += 1

    def forget_before(self, clock: int) -> bool:
        """Forgets the identities in the head whose time has come, and says whether there were any."""
        kept = [remembered for remembered in self._remembered if remembered.forget_at >= clock]
        forgotten = len(kept) < len(self._remembered)
        self._remembered = kept
        return forgotten

    def forget_noted(self, noted: Remembered) -> None:
        """Forgets an identity noted outside the head that is not pending."""
        self._table.put_noted(self._subscription, self._key, noted.identity, None)
        self._table.drop_due(self._due_of_noted(noted))
        self._noted -= 1

    def forget_all(self) -> Iterator[None]:
        """Forgets every identity of a set in which nothing is pending; yields after each that is noted by itself."""
        self._remembered = []
        for noted in self._table.noted_of(self._subscription, self._key) if self._noted else ():
            self.forget_noted(noted)
            self.save()
            yield
        self.save()

    def overdue(self, clock: int) -> list[Pending]:
        """The signals in the head whose deadline lies before the clock, earliest first."""
        late = [pending for pending in self._pending if pending.deadline < clock]
        late.sort(key=lambda pending: (pending.deadline, pending.sequence))
        return late

    def leave_index(self) -> None:
        """Takes the set out of the time index; saving it puts it back at its next time."""
        if self._due:
            self._table.drop_due(Due(self._due, SET_DUE, self._subscription, self._key))
            self._due = 0

    def save(self) -> None:
        """Writes the head back and keeps its entry in the time index at or before the earliest time in it."""
        if not self._pending and not self._remembered and not self._queued and not self._noted:
            self.leave_index()
            if self._exists:
                self._table.put_join_set(self._subscription, self._key, None)
                self._exists = False
            return
        earliest, stood_at = self._earliest(), self._due
        if earliest and (not stood_at or earliest < stood_at):
            self._due = earliest
        head = JoinSet(
            tuple(self._pending),
            tuple(self._remembered),
            dict(self._queues) if self._queues else _EMPTY.queues,
            self._queued,
            self._noted,
            self._due,
        )
        self._table.replace_join_set(self._subscription, self._key, stood_at, head)
        self._exists = True

    def _earliest(self) -> int:
        earliest = 0
        for pending in self._pending:
            if not earliest or pending.deadline < earliest:
                earliest = pending.deadline
        for remembered in self._remembered:
            if not earliest or remembered.forget_at < earliest:
                earliest = remembered.forget_at
        return earliest

    def _leave_head(self, pending: Pending) -> bool:
        for place, other in enumerate(self._pending):
            if other.sequence == pending.sequence:
                del self._pending[place]
                return True
        return False

    def _note(self, remembered: Remembered) -> None:
        self._table.put_noted(self._subscription, self._key, remembered.identity, remembered)
        if remembered.forget_at:
            self._table.put_due(self._due_of_noted(remembered))

    def _due_of(self, pending: Pending, place: int) -> Due:
        return Due(pending.deadline, QUEUED_DUE, self._subscription, self._key, pending.aliases, place)

    def _due_of_noted(self, noted: Remembered) -> Due:
        return Due(noted.forget_at, NOTED_DUE, self._subscription, self._key, identity=noted.identity)

    def _queue(self, aliases: int, *, newest_first: bool) -> Iterator[Pending]:
        low, high = self._queues.get(aliases, (0, 0))
        for place in range(high - 1, low - 1, -1) if newest_first else range(low, high):
            pending = self._table.queued(self._subscription, self._key, aliases, place)
            if pending is not None:
                self._places[pending.sequence] = place
                yield pending

    def _dequeue(self, pending: Pending) -> None:
        aliases, place = pending.aliases, self._place_of(pending)
        low, high = self._queues[aliases]
        self._table.put_queued(self._subscription, self._key, aliases, place, None)
        self._table.drop_due(self._due_of(pending, place))
        self._queued -= 1
        if place == low:
            low = self._next_queued(aliases, low + 1, high)
        elif place == high - 1:
            high = place
        if low >= high:
            del self._queues[aliases]
        else:
            self._queues[aliases] = (low, high)

    def _next_queued(self, aliases: int, low: int, high: int) -> int:
        while low < high and self._table.queued(self._subscription, self._key, aliases, low) is None:
            low += 1
        return low

    def _place_of(self, pending: Pending) -> int:
        place = self._places.get(pending.sequence)
        if place is not None:
            return place
        noted = self._table.noted(self._subscription, self._key, pending.signal.identity)
        if noted is None:
            raise StateError(f'a queued signal of subscription "{self._subscription}", key {self._key} is not noted')
        return noted.index


def arrived_in_head(head: JoinSet | None, arriving: Pending) -> JoinSet | None:
    """The head after the arrival of a signal that waits; None where it does not belong there."""
    if head is None:
        return JoinSet((arriving,), due=arriving.deadline) if _fits_head(arriving.signal) else None
    if len(head.pending) >= HEAD_ENTRIES or not _fits_head(arriving.signal):
        return None
    due = head.due if 0 < head.due <= arriving.deadline else arriving.deadline
    return JoinSet((*head.pending, arriving), head.remembered, head.queues, 0, 0, due)


def fired_in_head(head: JoinSet | None, members: tuple[Pending, ...], clock: int, dedupe_ms: int) -> JoinSet | None:
    """The head after a set of it fired; None where the identities do not fit into it."""
    known = head or _EMPTY
    pending, remembered, due = known.pending, known.remembered, known.due
    if len(remembered) + len(members) > HEAD_ENTRIES:
        return None
    ended = []
    for member in members:
        signal = member.signal
        if len(signal.identity) > HEAD_ENTRY_BYTES:
            return None
        at = signal.recorded_at
        forget_at = (at if at > clock else clock) + dedupe_ms
        if forget_at < due or not due:
            due = forget_at
        ended.append(_remember(signal, forget_at))
    left: tuple[Pending, ...] = ()
    if len(pending) >= len(members):
        taken = [member.sequence for member in members]
        left = tuple([one for one in pending if one.sequence not in taken])
    return JoinSet(left, (*remembered, *ended), _EMPTY.queues, 0, 0, due)


def _fits_head(signal: SignalCopy) -> bool:
    size = len(signal.identity) + len(signal.name) + len(signal.params) + len(signal.payload or b"")
    return size <= HEAD_ENTRY_BYTES


def _remember(signal: SignalCopy, forget_at: int, aliases: int = 0, index: int = 0) -> Remembered:
    return Remembered(
        signal.identity, signal.digest, forget_at, signal.topic, signal.partition, signal.offset, aliases, index
    )


def _sequence(pending: Pending) -> int:
    return pending.sequence
