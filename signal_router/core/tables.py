"""What the join stage keeps: the entries of one candidates partition, and the table they are read from and written to.

The entries are the changelog's format 1. A set is one small head; what does not fit into it (many pending signals or
remembered identities, or large ones) stands in entries of its own, so that no value grows without bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from signal_router.model.candidates import SignalCopy


class Pending(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A signal that waits for its set.

    `sequence` is its place in the joining order, `aliases` the mask of members it fits.
    """

    sequence: int
    aliases: int
    deadline: int
    signal: SignalCopy


class Remembered(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An identity that must not join again.

    `forget_at` 0: it is still pending, in the queue of `aliases` at `index`.
    """

    identity: str
    digest: bytes
    forget_at: int
    topic: str
    partition: int
    offset: int
    aliases: int = 0
    index: int = 0


class JoinSet(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The head of a set: what is pending or remembered for one (subscription, join key).

    `pending` and `remembered` hold the first few, in joining order; `queues` maps an alias mask to the half-open range
    of indexes of its queued signals (there may be holes); `queued` and `noted` count the entries outside the head.
    `due` is the time at which the set stands in the time index (0 = not there).
    """

    pending: tuple[Pending, ...] = ()
    remembered: tuple[Remembered, ...] = ()
    queues: Mapping[int, tuple[int, int]] = {}
    queued: int = 0
    noted: int = 0
    due: int = 0


class Life(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Which shape of a subscription this partition's sets belong to, and the aliases its masks speak of.

    `dedupe_ms` is the horizon as of the definitions the partition last took, for what ends by itself.
    """

    birth: int
    join_generation: int
    revision: int
    aliases: tuple[str, ...]
    dedupe_ms: int


class Change(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A subscription whose sets must end, as the definitions in force at that decision said.

    `swept` is the last join key that is done with.
    """

    subscription: str
    deleted: bool
    life: Life
    swept: str = ""


class Progress(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where the partition stands: the definitions revision in force, changes still being carried out, and its clock.

    `announced` keeps the largest time announced for each signals partition, −1 where none has been. The partition's
    clock is the smallest of them.
    """

    revision: int = -1
    changes: tuple[Change, ...] = ()
    announced: Mapping[str, int] = {}

    @property
    def clock(self) -> int:
        """The time up to which every input has been read; −1 = not known yet."""
        return min(self.announced.values(), default=-1)


SET_DUE, QUEUED_DUE, NOTED_DUE = 0, 1, 2
"""Kinds of entries of the time index: look at the head of a set, at a queued signal, at an identity noted outside."""


class Due(NamedTuple):
    """An entry of the time index: what to look at once the clock is beyond `at`. `place` is the index in its queue."""

    at: int
    kind: int
    subscription: str
    key: str
    aliases: int = 0
    place: int = 0
    identity: str = ""


class Table(Protocol):
    """The entries of one candidates partition. Reads see every earlier write; nothing is durable before the commit."""

    def join_set(self, subscription: str, key: str) -> JoinSet | None:
        """Reads the head of a set."""

    def put_join_set(self, subscription: str, key: str, value: JoinSet | None) -> None:
        """Writes or (None) deletes the head of a set."""

    def replace_join_set(self, subscription: str, key: str, due: int, value: JoinSet) -> None:
        """Writes the head of a set, and moves its entry of the time index from `due` (0 = none) to `value.due`."""

    def queued(self, subscription: str, key: str, aliases: int, index: int) -> Pending | None:
        """Reads a queued signal."""

    def put_queued(self, subscription: str, key: str, aliases: int, index: int, value: Pending | None) -> None:
        """Writes or deletes a queued signal."""

    def noted(self, subscription: str, key: str, identity: str) -> Remembered | None:
        """Reads an identity noted outside the head."""

    def put_noted(self, subscription: str, key: str, identity: str, value: Remembered | None) -> None:
        """Writes or deletes an identity noted outside the head."""

    def noted_of(self, subscription: str, key: str) -> Iterator[Remembered]:
        """All identities of a set noted outside its head, of pending signals too. Deleting meanwhile is allowed."""

    def pending_count(self, subscription: str) -> int:
        """How many signals are pending here for a subscription; for `""`, in the whole partition."""

    def add_pending(self, subscription: str, by: int) -> None:
        """Changes the counts of a subscription and of the partition."""

    def put_pending_count(self, subscription: str, count: int) -> None:
        """Writes a count; 0 deletes it."""

    def life(self, subscription: str) -> Life | None:
        """Reads which shape of a subscription the sets here belong to."""

    def put_life(self, subscription: str, value: Life | None) -> None:
        """Writes or deletes it."""

    def progress(self) -> Progress:
        """Reads where the partition stands."""

    def put_progress(self, value: Progress) -> None:
        """Writes it."""

    def keys_of(self, subscription: str, after: str = "") -> Iterator[str]:
        """The join keys of a subscription's sets behind a key, in order of their text. Writes meanwhile are allowed."""

    def due(self, before: int) -> Iterator[Due]:
        """The entries of the time index before a time, earliest first; those added meanwhile are left for later.

        Each is to be dropped by the one who takes it: after an iteration to the end they are not given again.
        """

    def put_due(self, due: Due) -> None:
        """Adds an entry to the time index."""

    def drop_due(self, due: Due) -> None:
        """Takes an entry out of the time index."""
