"""The transaction coordinator in memory: who holds a transactional id, what its open transaction touches, when
markers go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from signal_router.model.log import ProducerFencedError, TopicPartition, UnknownOutcomeError
from signal_router.testing.memory_partition import Producer

MarkerWriter = Callable[[TopicPartition, int, bool], None]
"""Writes one marker: partition, producer id, and whether it is a commit."""


@dataclass(slots=True, eq=False)
class _Transaction:
    """A transactional id at its coordinator. `unwritten` are partitions whose marker is decided but not yet written."""

    producer_id: int
    epoch: int
    timeout_ms: int
    partitions: dict[TopicPartition, None] = field(default_factory=dict)
    started_at: int = 0
    outcome: bool = False
    unwritten: list[TopicPartition] = field(default_factory=list)


class TransactionCoordinator:
    """Epochs, open transactions and their markers. Markers of partitions in `delayed` wait for `write_markers`."""

    def __init__(self, clock: Callable[[], int], write_marker: MarkerWriter) -> None:
        self.delayed: set[TopicPartition] = set()
        self.expired = 0
        self._clock = clock
        self._write_marker = write_marker
        self._transactions: dict[str, _Transaction] = {}

    def open_transactions(self) -> Mapping[str, Sequence[TopicPartition]]:
        """Returns the partitions that are open or wait for their marker, by transactional id."""
        held = {name: [*each.partitions, *each.unwritten] for name, each in self._transactions.items()}
        return {name: partitions for name, partitions in held.items() if partitions}

    def names(self, producer_ids: Iterable[int]) -> tuple[str, ...]:
        """Returns the transactional ids of producers, sorted."""
        wanted = set(producer_ids)
        return tuple(sorted(name for name, each in self._transactions.items() if each.producer_id in wanted))

    def forget_topic(self, topic: str) -> None:
        """Takes a deleted topic's partitions out of every transaction."""
        for transaction in self._transactions.values():
            for tp in [tp for tp in transaction.partitions if tp.topic == topic]:
                del transaction.partitions[tp]
            transaction.unwritten = [tp for tp in transaction.unwritten if tp.topic != topic]

    def init(self, transactional_id: str, timeout_ms: int) -> Producer:
        """Gives the id's next epoch, after ending what the predecessor left open."""
        self.expire()
        transaction = self._transactions.get(transactional_id)
        if transaction is None:
            producer_id = len(self._transactions) + 1
            transaction = self._transactions[transactional_id] = _Transaction(producer_id, 0, timeout_ms)
        else:
            self._await_markers(transaction)
            transaction.epoch += 1
            if transaction.partitions:
                self._end(transaction, commit=False)
                self._await_markers(transaction)
        transaction.timeout_ms = timeout_ms
        return Producer(transactional_id, transaction.producer_id, transaction.epoch)

    def check(self, producer: Producer, holds: TopicPartition | None = None) -> bool:
        """Says whether the producer's open transaction holds the partition.

        Raises:
            ProducerFencedError: a newer epoch exists.
        """
        return holds in self._current(producer).partitions

    def add(self, producer: Producer, tp: TopicPartition) -> None:
        """Adds a partition to the producer's transaction; the first one begins it."""
        transaction = self._current(producer)
        self._await_markers(transaction)
        if not transaction.partitions:
            transaction.started_at = self._clock()
        transaction.partitions[tp] = None

    def end(self, producer: Producer, *, commit: bool) -> None:
        """Ends the producer's transaction; a second time the same way is fine.

        Raises:
            ProducerFencedError: a newer epoch exists.
            UnknownOutcomeError: nothing is open, and what was ended last ended the other way.
        """
        transaction = self._current(producer)
        if transaction.partitions:
            self._await_markers(transaction)
            self._end(transaction, commit=commit)
        elif transaction.outcome is not commit:
            raise UnknownOutcomeError(f'INVALID_TXN_STATE: "{producer.transactional_id}" has nothing open to end')

    def expire(self) -> None:
        """Aborts and fences every transaction that has been open for its time-out or longer."""
        now = self._clock()
        for transaction in self._transactions.values():
            if transaction.partitions and now - transaction.started_at >= transaction.timeout_ms:
                transaction.epoch += 1
                self.expired += 1
                self._end(transaction, commit=False)

    def write_markers(self, tp: TopicPartition | None) -> int:
        """Writes what is held back (for one partition) and returns how many markers that were."""
        if tp is None:
            self.delayed.clear()
        else:
            self.delayed.discard(tp)
        return sum(self._write(transaction, tp) for transaction in self._transactions.values())

    def _current(self, producer: Producer) -> _Transaction:
        self.expire()
        transaction = self._transactions[producer.transactional_id]
        if producer.epoch != transaction.epoch:
            raise ProducerFencedError(
                f'INVALID_PRODUCER_EPOCH: transactional id "{producer.transactional_id}" is at epoch '
                f"{transaction.epoch}, this producer has {producer.epoch}"
            )
        return transaction

    def _end(self, transaction: _Transaction, *, commit: bool) -> None:
        transaction.outcome = commit
        transaction.unwritten += transaction.partitions
        transaction.partitions.clear()
        for tp in list(transaction.unwritten):
            if tp not in self.delayed:
                self._write(transaction, tp)

    def _write(self, transaction: _Transaction, tp: TopicPartition | None) -> int:
        due = [each for each in transaction.unwritten if tp is None or each == tp]
        for each in due:
            transaction.unwritten.remove(each)
            self._write_marker(each, transaction.producer_id, transaction.outcome)
        return len(due)

    def _await_markers(self, transaction: _Transaction) -> None:
        """Stands for a client that is told CONCURRENT_TRANSACTIONS and tries again until the markers are written."""
        self._write(transaction, None)
