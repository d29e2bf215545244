"""The consume thread: it owns the group's Consumer completely.

Every Consumer call is made here, because a call from a second thread starves while this one polls. Others post
commands. The loop: run commands · `poll` · `consume` what is already there · take the group metadata · hand over
batches stamped with the assignment number. A hand-off is bounded by records and bytes; `pause()` is never used as
flow control, since it throws prefetched records away. The group's callbacks run inside `poll`.

Two group protocols. With the classic one every change takes all partitions away and gives all anew; with KIP-848
(`incremental`) only what changes hands goes and comes. An assignment number ends whenever something is taken away: then
nothing that was read under it may be committed. What comes in addition leaves the number as it is. The group's metadata
is taken in these callbacks only: between them it may already be that of a later membership, whose loss of partitions
this thread has not heard of, and would not be fenced.

A static member may be fenced without another worker: a broker that stood still finds two requests to join from one
client, and the second fences the first. It shows as a fatal error that comes once, without any callback, and leaves a
consumer that polls in silence for ever. Then another Consumer takes its place, unless another worker has the slot.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from signal_router.errors import BrokerError, ConfigurationError, FencedError, SignalRouterError, StateError
from signal_router.kafka.settings import Setting
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import InputRecord, TopicPartition

_log = logging.getLogger(__name__)

_FENCED = frozenset({KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID})
"""A static member's only fatal error is its fence; `KafkaError.fatal()` may be False for it."""

POLL_S = 0.05
LINGER_S = 0.001
"""How long a small batch waits for more: what one fetch brought arrives within that."""
FULL_S = 0.5
"""How long this thread does not poll where there is no room, since each poll may bring a record: callbacks run inside
it, and the group and its other members wait for them.
"""
GAP_S = 10.0
"""How long an offset that is missing waits for news of the group: twice what brokers have as interval of heartbeats."""
SUCCESSOR_S = 3.0
"""How long a member that was fenced looks for another worker with its slot: that one says so once it took over."""
REJOINS = 3
REJOINS_WITHIN_S = 60.0
"""How often a fenced member joins again. Two workers that do not learn of each other fence each other by turns, so
that the one that was fenced first has used its turns up first and ends, and the other goes on."""


@dataclass(slots=True)
class Fetched:
    """Records of one partition as they came. `next_offset` lies behind the last record, or at the end that was met."""

    tp: TopicPartition
    records: list[InputRecord]
    next_offset: int
    epoch: int
    size: int
    at: int = 0

    def join(self, later: Fetched) -> None:
        """Takes the records of the batch that came next for the same partition and epoch."""
        self.records.extend(later.records)
        self.next_offset = later.next_offset
        self.size += later.size


class Listener(Protocol):
    """Who is told what happens; every call comes from the consume thread."""

    def assigned(self, assignment: int, tps: frozenset[TopicPartition], group_metadata: bytes) -> None:
        """The partitions as they are now. Under a new number: a new assignment, or what is left of the one that ended;
        under the same: more than before. Of what is new nothing is fetched before `ConsumeThread.start_fetching` names
        the offsets.
        """

    def revoked(self, assignment: int, tps: frozenset[TopicPartition]) -> None:
        """The assignment ends, and these of its partitions go, when this returns: finish or void what is on its way."""

    def lost(self, assignment: int) -> None:
        """The assignment ended already: void what is on its way."""

    def fetching(self, assignment: int, epoch: int) -> None:
        """Fetching began anew; only batches stamped with this epoch count from now on."""

    def fetched(self, batches: Sequence[Fetched]) -> None:
        """Batches, in order of each partition."""

    def slot_taken(self) -> SignalRouterError | None:
        """What to end with if another worker is known to have this slot; asked repeatedly after a fence."""

    def rejoining(self, fence: str) -> None:
        """The group fenced this member although no other worker is known to have its slot: it joins once more."""

    def failed(self, error: SignalRouterError) -> None:
        """The thread cannot go on."""


class ConsumeThread:
    """Runs one group consumer in a thread of its own. `incremental`: in a KIP-848 group. `session_hint` says which
    session time-outs the brokers allow, once they refused one.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        listener: Listener,
        *,
        slot: str,
        incremental: bool = False,
        session_hint: Callable[[], str] = lambda: "",
        max_records: int = 5_000,
        max_pending_records: int = 20_000,
        max_pending_bytes: int = 64 << 20,
    ) -> None:
        self._settings = dict(settings)
        self._listener = listener
        self._slot = slot
        self._incremental = incremental
        self._session_hint = session_hint
        self._max_records = max_records
        self._max_pending_records = max_pending_records
        self._max_pending_bytes = max_pending_bytes
        self._topics: list[str] = []
        self._rejoined_at: deque[float] = deque()
        self._commands: queue.SimpleQueue[Callable[[Consumer], None]] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._pending_records = 0
        self._pending_bytes = 0
        self._stopping = threading.Event()
        self._assignment = 0
        self._begun = False
        self._tps: frozenset[TopicPartition] = frozenset()
        self._placed: list[KafkaTopicPartition] = []
        self._metadata = b""
        self._epoch = 0
        self._gap: tuple[float, StateError] | None = None
        self._turned_at = self._polled_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="consume", daemon=True)

    def start(self, topics: Sequence[str]) -> None:
        """Starts the thread and joins the group."""
        self._commands.put(lambda consumer: self._subscribe(consumer, topics))
        self._thread.start()

    def subscribe(self, topics: Sequence[str]) -> None:
        """Changes the topics; the group rebalances."""
        self._commands.put(lambda consumer: self._subscribe(consumer, topics))

    def start_fetching(self, assignment: int, offsets: Mapping[TopicPartition, int]) -> None:
        """Fetches the partitions of an assignment from these offsets; nothing fetched before is handed over any more.

        Ignored if the assignment has ended meanwhile. Batches carry the epoch that `fetching` tells.
        """
        places = [KafkaTopicPartition(tp.topic, tp.partition, offset) for tp, offset in offsets.items()]
        self._commands.put(lambda consumer: self._place(consumer, assignment, places))

    def stop_fetching(self, assignment: int) -> None:
        """Stops fetching without leaving the group, for a reload."""
        self._commands.put(lambda consumer: self._place(consumer, assignment, []))

    def taken(self, batch: Fetched) -> None:
        """Gives the room of a batch back; one of an earlier epoch takes none any more."""
        with self._room:
            if batch.epoch != self._epoch:
                return
            self._pending_records -= len(batch.records)
            self._pending_bytes -= batch.size
            self._room.notify()

    @property
    def pending_records(self) -> int:
        """How many records are waiting to be taken."""
        return self._pending_records

    @property
    def silent_s(self) -> float:
        """Seconds since the loop began its present turn."""
        return time.monotonic() - self._turned_at

    def stop(self, deadline_s: float) -> bool:
        """Leaves the group and ends the thread; False if it did not end in time."""
        self._stopping.set()
        with self._room:
            self._room.notify()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    # ---- inside the thread

    def _run(self) -> None:
        while self._live():
            pass

    def _live(self) -> bool:
        """One consumer's life. True: the group fenced it, and another one is to follow."""
        try:
            consumer = Consumer(self._settings, logger=_log)
        except KafkaException as error:
            self._listener.failed(ConfigurationError(f"the group consumer cannot be made: {error}"))
            return False
        try:
            if self._topics:
                self._subscribe(consumer, self._topics)
            while not self._stopping.is_set():
                self._turn(consumer)
        except Exception as error:  # a consume thread that dies must end the process
            return self._goes_on(error)
        finally:
            consumer.close()
        return False

    def _goes_on(self, error: Exception) -> bool:
        """Whether another consumer may follow one that failed; else the listener hears of the failure."""
        # Only a static member is fenced by a fatal error; under KIP-848 there are none.
        fence = None if self._incremental else _fence(error)
        if fence is None:
            self._listener.failed(_explained(error))
            return False
        self._lose()
        taken = self._successor()
        if self._stopping.is_set():
            return False
        if taken is None and self._may_rejoin():
            self._listener.rejoining(fence)
            return True
        hint = "every worker needs a --slot of its own"
        self._listener.failed(
            taken or FencedError(f'slot "{self._slot}" was taken by another worker: {fence}', hint=hint)
        )
        return False

    def _successor(self) -> SignalRouterError | None:
        """Gives the other worker with this slot some time to show itself."""
        until = time.monotonic() + SUCCESSOR_S
        while True:
            self._turned_at = time.monotonic()
            taken = self._listener.slot_taken()
            if taken is not None or self._turned_at > until or self._stopping.wait(POLL_S):
                return taken

    def _may_rejoin(self) -> bool:
        now = time.monotonic()
        while self._rejoined_at and now - self._rejoined_at[0] > REJOINS_WITHIN_S:
            self._rejoined_at.popleft()
        if len(self._rejoined_at) >= REJOINS:
            return False
        self._rejoined_at.append(now)
        return True

    def _turn(self, consumer: Consumer) -> None:
        self._turned_at = time.monotonic()
        if self._gap is not None and self._turned_at > self._gap[0]:
            raise self._gap[1]
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                break
            command(consumer)
        room = self._has_room()
        if not room:
            with self._room:
                self._room.wait(0.02)
            room = self._has_room()
            if not room and time.monotonic() - self._polled_at < FULL_S:
                return
        self._polled_at = time.monotonic()
        first = consumer.poll(POLL_S if room else 0)
        if first is None:
            return
        messages = [first, *consumer.consume(self._max_records - 1, 0)] if room else [first]
        if room and len(messages) < 64:
            time.sleep(LINGER_S)
            messages.extend(consumer.consume(self._max_records - 1, 0))
        self._hand_over(messages)

    def _has_room(self) -> bool:
        return self._pending_records < self._max_pending_records and self._pending_bytes < self._max_pending_bytes

    def _hand_over(self, messages: list[Any]) -> None:
        batches = self._sorted(messages)
        if not batches:
            return
        with self._room:
            for batch in batches:
                self._pending_records += len(batch.records)
                self._pending_bytes += batch.size
        self._listener.fetched(batches)

    def _sorted(self, messages: list[Any]) -> list[Fetched]:
        """One batch per partition. Looked up once in a row, as what was fetched comes partition by partition."""
        by_tp: dict[tuple[str, int], Fetched] = {}
        topic, partition = "", -1
        batch: Fetched | None = None
        for message in messages:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._on_error(error, message)
                continue
            if batch is None or message.partition() != partition or message.topic() != topic:
                topic, partition = message.topic(), message.partition()
                batch = by_tp.get((topic, partition))
                if batch is None:
                    tp = TopicPartition(topic, partition)
                    batch = by_tp[tp] = Fetched(tp, [], 0, self._epoch, 0)
            offset = message.offset()
            if error is not None:
                batch.next_offset = offset
                continue
            value = message.value()
            batch.records.append(InputRecord(offset, message.timestamp()[1], message.key(), value, message.headers()))
            batch.next_offset = offset + 1
            if value is not None:
                batch.size += len(value)
        return list(by_tp.values())

    def _on_error(self, error: KafkaError, message: Message) -> None:
        if self._incremental and "ConsumerGroupHeartbeat" in error.str() and "not supported" in error.str():
            raise ConfigurationError(
                f'the brokers do not know group protocol "consumer": {error.str()}',
                hint="--group-protocol classic; or brokers from 4.3 that have it switched on",
            )
        if error.code() == KafkaError.INVALID_SESSION_TIMEOUT:
            raise ConfigurationError(
                f'session.timeout.ms "{self._settings.get("session.timeout.ms")}" is refused by the brokers',
                hint=self._session_hint(),
            )
        if error.fatal() or error.code() in _FENCED:
            raise KafkaException(error)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._met_gap(message.topic() or "", message.partition() or 0, error.str())
            return
        if error.code() in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}:
            raise ConfigurationError(f"no permission to read: {error.str()}", hint="grant READ on topics and group")
        # Everything else passes: the client retries by itself, and lag shows what it costs.

    def _met_gap(self, topic: str, partition: int, why: str) -> None:
        """Notes what is missing of a partition that is fetched. A worker that stood still may not know yet that others
        read on and deleted what they had read; it is told within the time between two heartbeats, and fetches anew.
        """
        fetched = any((place.topic, place.partition) == (topic, partition) for place in self._placed)
        if self._gap is None and fetched:
            error = StateError(
                f'topic "{topic}" partition {partition} does not have the offset to read next: {why}',
                hint="records were deleted before they were read, or the topic was re-created;"
                " see the operations guide on retention gaps",
            )
            self._gap = time.monotonic() + GAP_S, error

    def _subscribe(self, consumer: Consumer, topics: Sequence[str]) -> None:
        self._topics = list(topics)
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _on_assign(self, consumer: Consumer, places: list[KafkaTopicPartition]) -> None:
        grows = self._begun
        if not grows:
            self._assignment += 1
            self._begin_epoch()
        # Accepts the partitions without fetching anything.
        (consumer.incremental_assign if self._incremental else consumer.assign)([])
        metadata = consumer.consumer_group_metadata()
        if not GroupMetadata.decode(metadata).fences:
            # The session ended before this callback came; the callback of its loss is on its way.
            _log.warning("assignment without a membership ignored")
            return
        self._begun, self._metadata = self._incremental, metadata
        self._tps = (self._tps if grows else frozenset()) | _tps(places)
        self._listener.assigned(self._assignment, self._tps, metadata)

    def _on_revoke(self, consumer: Consumer, places: list[KafkaTopicPartition]) -> None:
        ended, gone = self._assignment, _tps(places) if self._incremental else self._tps
        self._assignment += 1
        self._begin_epoch()
        self._listener.revoked(ended, gone)
        self._tps -= gone
        placed, self._placed = self._placed, []
        if not self._incremental:
            consumer.unassign()
            return
        # What stays is placed anew under the next number, and until then nobody would take what is fetched.
        consumer.incremental_unassign(placed)
        if self._begun:
            # For partitions that were kept the metadata from before is good; of those that went nothing is left.
            self._listener.assigned(self._assignment, self._tps, self._metadata)

    def _on_lost(self, consumer: Consumer, _places: list[KafkaTopicPartition]) -> None:
        placed = self._placed
        self._lose()
        if self._incremental:
            consumer.incremental_unassign(placed)
        else:
            consumer.unassign()

    def _lose(self) -> None:
        assignment = self._assignment
        self._assignment += 1
        self._begin_epoch()
        self._begun, self._tps, self._placed = False, frozenset(), []
        self._listener.lost(assignment)

    def _place(self, consumer: Consumer, assignment: int, places: list[KafkaTopicPartition]) -> None:
        if assignment != self._assignment:
            return
        self._begin_epoch()
        if self._incremental:
            consumer.incremental_unassign(self._placed)
            consumer.incremental_assign(places)
        else:
            consumer.assign(places)
        self._placed = places
        self._listener.fetching(assignment, self._epoch)

    def _begin_epoch(self) -> None:
        """Makes void what was handed over so far. It may wait for long behind a take-over, and must not keep this
        thread from polling, since only a poll can end the take-over.
        """
        self._gap = None  # what is missing still is met again
        with self._room:
            self._epoch += 1
            self._pending_records = self._pending_bytes = 0


def _tp(place: KafkaTopicPartition) -> TopicPartition:
    return TopicPartition(place.topic, place.partition)


def _tps(places: Sequence[KafkaTopicPartition]) -> frozenset[TopicPartition]:
    return frozenset(map(_tp, places))


def _fence(error: Exception) -> str | None:
    """How the group says that another member has this one's instance id; None for any other failure."""
    if not isinstance(error, KafkaException):
        return None
    cause: KafkaError = error.args[0]
    text = cause.str()
    return text if cause.code() in _FENCED or "instance" in text.lower() else None


def _explained(error: Exception) -> SignalRouterError:
    if isinstance(error, SignalRouterError):
        return error
    if isinstance(error, KafkaException):
        return BrokerError(f"the group consumer failed: {error.args[0].str()}")
    return StateError(f"the consume thread failed: {error!r}")
