"""The two ways in which a trigger is done: at least once by what the handler does, exactly once by what it writes.

At least once: the handler acts on the world, and the offset is committed after it has returned. If the process dies in
between the trigger comes again, with the same idempotency key.

Exactly once: the handler only collects records. They, the parked triggers and the next offsets are written in one
transaction, under the metadata that the group gave with the assignment, so that a consumer that lost its partitions
without knowing it is refused (protocol: `signal_router.kafka.transaction`). Several triggers share a transaction.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.client.connecting import batch_bytes
from signal_router.client.transaction import Transaction
from signal_router.errors import BrokerError, FencedError
from signal_router.kafka.publish import Publisher
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.kafka.transactional_producer import DATA_ERRORS
from signal_router.model.log import AbortableError, LogError, NextOffset, ProducerFencedError, TopicPartition

if TYPE_CHECKING:
    from signal_router.client.parking import Parked, Parking
    from signal_router.client.signal_writer import SignalWriter
    from signal_router.client.trigger import Trigger
    from signal_router.kafka.settings import Connection
    from signal_router.model.log import OutputRecord

COMMIT_EVERY_S = 0.5
TRANSACTION_EVERY_S = 0.1
TRIGGERS_PER_TRANSACTION = 100
BATCH_BYTES = 1_000_000
FENCES = 3
FENCES_WITHIN_S = 60.0

_INITS = 3

_log = logging.getLogger(__name__)


class UndoneError(Exception):
    """A commit did not happen: what it spoke of is handled again.

    `unknown`: it may have happened; the group knows. `blamed`: a record was refused for what it is.
    """

    def __init__(self, why: str, *, unknown: bool = False, blamed: bool = False) -> None:
        super().__init__(why)
        self.unknown = unknown
        self.blamed = blamed


class Mode(ABC):
    """How triggers are handled, parked and committed."""

    by_key = True
    """Whether a trigger that waits holds up its key only, or its partition."""

    handled = 0
    """How many triggers were handled or parked since the last commit."""

    @abstractmethod
    def handle(self, trigger: Trigger) -> None:
        """Calls the handler; raises what it raises."""

    @abstractmethod
    def park(self, parked: Parked) -> None:
        """Keeps what could not be handled. Raises BrokerError where that fails."""

    @abstractmethod
    def due(self, since_s: float) -> bool:
        """Whether to commit now, so long after the last commit."""

    @abstractmethod
    def commit(self, consumer: Consumer, next_offsets: Mapping[TopicPartition, int], metadata: bytes) -> bool:
        """Commits; False where that has to wait. Raises UndoneError."""

    def undo(self) -> None:
        """Forgets what was handled and not committed."""
        self.handled = 0

    @abstractmethod
    def close(self) -> None:
        """Lets its clients go."""


class AtLeastOnce(Mode):
    """The offset follows the handler."""

    def __init__(self, handler: Callable[[Trigger], object], connection: Connection, park_to: Parking) -> None:
        self._handler = handler
        self._connection = connection
        self._park_to = park_to
        self._publisher: Publisher | None = None

    def handle(self, trigger: Trigger) -> None:
        self._handler(trigger)
        self.handled += 1

    def park(self, parked: Parked) -> None:
        if isinstance(self._park_to, str):
            if self._publisher is None:
                self._publisher = Publisher(self._connection)
            self._publisher.publish_now(parked.record(self._park_to))
        else:
            self._park_to(parked)
        self.handled += 1

    def due(self, since_s: float) -> bool:
        return since_s >= COMMIT_EVERY_S

    def commit(self, consumer: Consumer, next_offsets: Mapping[TopicPartition, int], metadata: bytes) -> bool:  # noqa: ARG002
        places = [ClientPartition(tp.topic, tp.partition, offset) for tp, offset in next_offsets.items()]
        try:
            consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            # Nothing is lost by it: the next commit says the same and more, or another consumer begins further back.
            _log.warning("offsets were not committed: %s", error.args[0].str())
            return False
        self.handled = 0
        return True

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.flush()


class ExactlyOnce(Mode):
    """Outputs and offsets in one transaction. `signals` is the topic that its `Transaction.publish` writes to."""

    by_key = False

    def __init__(
        self,
        handler: Callable[[Trigger, Transaction], object],
        connection: Connection,
        transactional_id: str,
        writer: SignalWriter,
        signals: str,
        park_to: Parking,
    ) -> None:
        self._handler = handler
        self._connection = connection
        self._writer = writer
        self._signals = signals
        self._park_to = park_to
        self._records: list[OutputRecord] = []
        self._alone = 0
        self._fences: list[float] = []
        self._batch_bytes = BATCH_BYTES
        self._destinations: set[str] = set()
        self._log = KafkaTransactionLog(
            connection.producer_config({}), transactional_id, batch_bytes=lambda: self._batch_bytes
        )
        self._init()

    def handle(self, trigger: Trigger) -> None:
        transaction = Transaction(self._writer, self._signals, trigger)
        self._handler(trigger, transaction)
        self._records += transaction.records
        self.handled += 1

    def park(self, parked: Parked) -> None:
        if isinstance(self._park_to, str):
            self._records.append(parked.record(self._park_to))
        else:
            self._park_to(parked)
        self.handled += 1

    def due(self, since_s: float) -> bool:
        if self._alone:
            return self.handled > 0
        return self.handled >= TRIGGERS_PER_TRANSACTION or since_s >= TRANSACTION_EVERY_S

    def commit(self, consumer: Consumer, next_offsets: Mapping[TopicPartition, int], metadata: bytes) -> bool:  # noqa: ARG002
        self._look_at_destinations()
        try:
            self._log.begin()
            self._log.produce(self._records)
            self._log.send_offsets({tp: NextOffset(offset) for tp, offset in next_offsets.items()}, metadata)
            self._log.commit()
        except ProducerFencedError as error:
            self._take_back(error)
            raise UndoneError(str(error), unknown=True) from error
        except AbortableError as error:
            raise self._undone(error) from error
        except LogError as error:
            blamed = self._blamed(refused=_refused_at_once(error))
            self._init()
            raise UndoneError(str(error), unknown=True, blamed=blamed) from error
        self._alone = max(self._alone - self.handled, 0)
        self.handled = 0
        self._records = []
        return True

    def undo(self) -> None:
        super().undo()
        self._records = []

    def close(self) -> None:
        self._log.close()

    def _look_at_destinations(self) -> None:
        """Learns what new destinations take: a batch that is too large for its topic fails with all its records."""
        new = {record.topic for record in self._records} - self._destinations
        if not new:
            return
        try:
            self._batch_bytes = batch_bytes(self._connection, new, self._batch_bytes)
        except BrokerError as error:
            _log.warning("destinations are looked at before the next transaction again: %s", error)
        else:
            self._destinations |= new

    def _undone(self, error: AbortableError) -> UndoneError:
        """Aborts."""
        blamed = self._blamed(refused=error.delivery)
        try:
            self._log.abort()
        except LogError:
            self._init()
        return UndoneError(str(error), blamed=blamed)

    def _blamed(self, *, refused: bool) -> bool:
        """Says whether the trigger is to blame that was handled last. Of several nobody knows whose record was refused,
        so each is tried by itself next.
        """
        if refused and self.handled > 1:
            self._alone = self.handled
        return refused and self.handled == 1

    def _take_back(self, fence: ProducerFencedError) -> None:
        """Takes the transactional id again, a few times: the brokers say the same of a transaction that timed out while
        this process stood still as of another process. Two that live fence each other by turns; the one that was fenced
        first has used up its turns first.
        """
        now = time.monotonic()
        self._fences = [at for at in self._fences if now - at < FENCES_WITHIN_S] + [now]
        if len(self._fences) > FENCES:
            raise FencedError(
                f"another process takes the transactional id again and again: {fence}",
                hint="give each process a transactional id of its own",
            ) from fence
        self._init()

    def _init(self) -> None:
        for attempt in range(1, _INITS + 1):
            try:
                self._log.init()
            except LogError as error:
                if attempt == _INITS or isinstance(error, ProducerFencedError):
                    raise BrokerError(
                        f"the transactional id cannot be taken: {error}", hint="are the brokers there?"
                    ) from error
                time.sleep(0.5)
            else:
                return


def _refused_at_once(error: LogError) -> bool:
    """Says whether the client did not even take a record, for what it is; the log then knows no outcome."""
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in DATA_ERRORS
