"""A stage: all that one transaction will make durable, and whether it still may.

    OPEN ──► SENDING ──► DONE          the two processors fill it, the commit sends it
      └────────┴──────► VOID          its assignment ended: it must leave no trace

A stage belongs to one assignment number. `void` is called by whoever learns that the assignment ended (in another
thread), the commit asks `start_sending` before it names offsets: both under one lock, so that no offset is sent for a
partition that was given back before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from threading import Lock

from signal_router.model.candidates import Candidate
from signal_router.model.log import NextOffset, OutputRecord, TopicPartition
from signal_router.state.tables import PartitionTable


class StageState(Enum):
    """Where a stage is in its life; see the module."""

    OPEN = "open"
    SENDING = "sending"
    DONE = "done"
    VOID = "void"


class Stage:
    """What a batch of input records wants to do."""

    def __init__(self, assignment: int, transaction: str) -> None:
        """`transaction` (slot/incarnation/number) goes into every output's `sr_txn` header."""
        self.assignment = assignment
        self.transaction = transaction
        self.headers: tuple[tuple[str, bytes], ...] = (("sr_txn", transaction.encode()),)
        self.outputs: list[OutputRecord] = []
        self.next_offsets: dict[TopicPartition, NextOffset] = {}
        self.tables: dict[int, PartitionTable] = {}
        self.positions: dict[int, bytes] = {}
        self.writes: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self.group_metadata: bytes | None = None
        self.records = 0
        self.candidates: dict[int, list[Candidate]] = {}
        """What was matched and is neither joined nor an output yet, by candidates partition, in order."""
        self.sent: set[int] = set()
        """The candidates partitions that candidates were sent to."""
        self._held = 0
        self._counted: list[tuple[str, str, str]] = []
        self._lock = Lock()
        self._state = StageState.OPEN

    def emit(self, record: OutputRecord) -> None:
        """Adds an output."""
        self.outputs.append(record)

    def hold(self, partition: int, candidate: Candidate) -> None:
        """Adds a candidate; see `runtime.local` for what becomes of it."""
        held = self.candidates.get(partition)
        if held is None:
            held = self.candidates[partition] = []
        held.append(candidate)
        self._held += 1

    def release(self, partition: int, count: int) -> None:
        """Takes the first candidates held for a partition out."""
        held = self.candidates[partition]
        if count == len(held):
            del self.candidates[partition]
        else:
            del held[:count]
        self._held -= count

    @property
    def size(self) -> int:
        """How many outputs there are, or will be at least."""
        return len(self.outputs) + self._held

    def count(self, name: str, subscription: str = "", reason: str = "", *, count: int = 1) -> None:
        """Counts something that becomes true with the commit."""
        if count == 1:
            self._counted.append((name, subscription, reason))
        else:
            self._counted.extend([(name, subscription, reason)] * count)

    @property
    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """What was counted, by (name, subscription, reason)."""
        return Counter(self._counted)

    def savepoint(self) -> tuple[int, int]:
        """Marks a point to which `rollback` can return."""
        return len(self.outputs), len(self._counted)

    def rollback(self, savepoint: tuple[int, int]) -> None:
        """Drops the outputs and counts since a savepoint."""
        outputs, counted = savepoint
        del self.outputs[outputs:], self._counted[counted:]

    @property
    def empty(self) -> bool:
        """Whether a commit would change nothing."""
        return not self.outputs and not self.next_offsets and not self.tables and not self.candidates

    @property
    def state(self) -> StageState:
        """Where the stage is in its life."""
        return self._state

    def start_sending(self) -> bool:
        """Enters SENDING; False if the stage is void."""
        with self._lock:
            if self._state is not StageState.OPEN:
                return False
            self._state = StageState.SENDING
            return True

    def finish(self) -> bool:
        """Enters DONE; False if the stage became void while it was sent, so that its outcome must be read from the
        log.
        """
        with self._lock:
            if self._state is not StageState.SENDING:
                return False
            self._state = StageState.DONE
            return True

    def void(self) -> None:
        """Takes the right to commit away. Idempotent; has no effect on a stage that is done."""
        with self._lock:
            if self._state is not StageState.DONE:
                self._state = StageState.VOID
