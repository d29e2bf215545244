"""The seam between ordering and acting: what a worker needs of a transactional log.

Two things stand behind it: `signal_router.kafka.transaction` (a broker) and `signal_router.testing.memory_log` (Kafka's
transaction semantics in memory). One contract suite runs against both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from signal_router.errors import SignalRouterError


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class InputRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as read: `timestamp` is the record's, in epoch milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None = None


class OutputRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to write. `partition` −1 leaves the choice to the partitioner (murmur2 of the key, as Java's
    default).

    The offset of a record with `tracked` is reported by `TransactionLog.delivered` after the commit; at most one
    tracked record per partition and transaction (the last one counts).
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()
    tracked: bool = False


class NextOffset(NamedTuple):
    """The offset to read next, and the metadata string stored with it."""

    offset: int
    metadata: str = ""


class LogError(SignalRouterError):
    """Base of what a transactional log raises; callers act on the class, never on a code."""


class AbortableError(LogError):
    """The transaction must be aborted; the producer is good for another one (after a failed delivery it is recycled
    first).

    `delivery` is True when the failure is tied to the data (a delivery report failed, a record was refused),
    `membership` when the group refused the generation or the member that the offsets came with.
    """

    def __init__(self, message: str, *, delivery: bool = False, membership: bool = False) -> None:
        super().__init__(message)
        self.delivery = delivery
        self.membership = membership


class UnknownOutcomeError(LogError):
    """Fatal or unknown: the outcome of the transaction must be read from the log. New producer, `init`, reload."""


class ProducerFencedError(LogError):
    """Another producer took this transactional id (or the coordinator timed the transaction out). New producer or
    exit.
    """


class TransactionLog(Protocol):
    """One slot's transactional producer. All calls may block and are made from one thread at a time.

    Retriable errors are retried inside, under the settings' deadlines; the calls raise only the three errors above.
    """

    def init(self) -> None:
        """Takes the transactional id: aborts the predecessor's open transaction and fences it. Replaces a broken
        producer.
        """

    def begin(self) -> None:
        """Begins a transaction; first recycles the producer if the last one ended on an uncertain path (KIP-890 part
        2).
        """

    def produce(self, records: Sequence[OutputRecord]) -> None:
        """Adds records to the open transaction, in order."""

    def send_offsets(self, offsets: Mapping[TopicPartition, NextOffset], group_metadata: bytes) -> None:
        """Adds next offsets (each ≥ 0) under the given group metadata; the broker checks generation and member."""

    def commit(self) -> None:
        """Commits; returns only when the outcome is known to be a commit."""

    def abort(self) -> None:
        """Aborts the open transaction, if there is one."""

    def delivered(self) -> Mapping[TopicPartition, int]:
        """Returns the offsets of the last committed transaction's tracked records."""

    def close(self) -> None:
        """Gives the producer up without committing; blocks briefly at most. Idempotent."""
