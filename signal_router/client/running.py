"""The loop of a consumer: fetch, handle, commit, in one thread.

As the handler runs in the thread that polls, no handler is in hand while partitions change hands: the group's callbacks
run inside `poll`. Before they go what was handled is committed; after they were lost nothing of them is.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.client.lanes import Item, Lanes
from signal_router.client.modes import UndoneError
from signal_router.client.parking import Park, Parked
from signal_router.client.trigger import Trigger, decode_trigger
from signal_router.errors import BrokerError, ConfigurationError, RecordError, SignalRouterError
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import TopicPartition
from signal_router.model.signals import Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signal_router.client.modes import Mode
    from signal_router.client.retries import Retries
    from signal_router.kafka.settings import Setting

Start = Literal["earliest", "latest"]

POLL_S = 0.2
"""How long a stop takes to be noticed when nothing comes."""
IDLE_S = 0.01
"""How long a commit waits for more to come."""
PASSED_OVER_S = 5.0
"""How long what was passed over may stay uncommitted while records keep coming."""
WAITING_PER_PARTITION = 1_000
"""How many records of a partition are held while one before them is tried again; then it is not fetched any further."""
ASKED_WITHIN_S = 30.0

_DENIED = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED})
_REST_S = 0.2
_LONGEST_REST_S = 5.0

_log = logging.getLogger(__name__)


class _Work(NamedTuple):
    """A record, and the trigger that it is, or why it is none or has been given up."""

    record: Message
    trigger: Trigger | None
    given_up: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a consumer reads: `subscriptions` empty means all that stand on the topics."""

    topics: tuple[str, ...]
    subscriptions: frozenset[str]
    start: Start
    group: str


class Run:
    """One run of a consumer, from joining its group to leaving it."""

    def __init__(self, settings: Mapping[str, Setting], wanted: Wanted, mode: Mode, retries: Retries) -> None:
        self._wanted = wanted
        self._mode = mode
        self._retries = retries
        self._lanes: Lanes[_Work] = Lanes()
        self._paused: set[TopicPartition] = set()
        self._blame: dict[tuple[TopicPartition, int], tuple[int, str]] = {}
        self._last: Item[_Work] | None = None
        self._metadata = b""
        self._committed_at = time.monotonic()
        self._rest_until = 0.0
        self._refused_until = 0.0
        self._undone = 0
        self._failure: SignalRouterError | None = None
        try:
            self._consumer = Consumer(dict(settings))
        except KafkaException as error:
            raise ConfigurationError(f"kafka client settings are refused: {error.args[0].str()}") from error

    def run(self, stopping: threading.Event) -> None:
        """Runs until it is told to stop or cannot go on; what is in hand is finished first.

        Raises:
            SignalRouterError: why it cannot go on.
        """
        consumer = self._consumer
        try:
            consumer.subscribe(
                list(self._wanted.topics),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            while not stopping.is_set():
                self._step()
        except SignalRouterError as error:
            self._failure = self._failure or error
        finally:
            consumer.close()  # what was handled is committed when the partitions go, unless something failed
            self._mode.close()
        self._raise_failure()

    def _step(self) -> None:
        now = time.monotonic()
        item = self._lanes.take(now) if now >= self._rest_until else None
        if item is not None:
            self._attempt(item)
        since_s = time.monotonic() - self._committed_at
        if since_s >= PASSED_OVER_S or (self._mode.handled and self._mode.due(since_s)):
            self._commit()
        self._resume()
        if self._poll(0 if item is not None else self._patience(now)) or item is not None:
            return
        self._commit()

    def _patience(self, now: float) -> float:
        """How long to wait for a record."""
        if self._mode.handled:
            return IDLE_S
        due = self._lanes.next_at()
        wait = POLL_S if due is None else min(max(due - now, 0.0), POLL_S)
        return max(wait, min(self._rest_until - now, POLL_S))

    # --- records

    def _poll(self, timeout_s: float) -> bool:
        record = self._consumer.poll(timeout_s)
        self._raise_failure()
        if record is None:
            return False
        if (error := record.error()) is not None:
            self._say(error, record)
        else:
            self._receive(record)
        return True

    def _receive(self, record: Message) -> None:
        place = _place(record)
        tp = TopicPartition(place.topic, place.partition)
        key = record.key()
        headers = record.headers()
        trigger, given_up = None, None
        try:
            trigger = decode_trigger(_bytes(record.value()), _headers(headers), place)
        except RecordError as error:
            given_up = ("unreadable", error.message)
        else:
            if self._wanted.subscriptions and trigger.subscription.id not in self._wanted.subscriptions:
                self._lanes.pass_over(tp, place.offset)
                return
        failures, why = self._blame.get((tp, place.offset), (0, ""))
        if failures >= self._retries.attempts:
            given_up = ("failed", why)
        lane = _bytes(key) if self._mode.by_key else None
        item = self._lanes.add(tp, place.offset, lane, _Work(record, trigger, given_up))
        if item is not None:
            item.failures = failures
        if tp not in self._paused and self._lanes.waiting(tp) >= WAITING_PER_PARTITION:
            self._consumer.pause([ClientPartition(tp.topic, tp.partition)])
            self._paused.add(tp)

    def _resume(self) -> None:
        for tp in [tp for tp in self._paused if self._lanes.waiting(tp) <= WAITING_PER_PARTITION // 2]:
            self._paused.discard(tp)
            self._consumer.resume([ClientPartition(tp.topic, tp.partition)])

    def _attempt(self, item: Item[_Work]) -> None:
        work = item.work
        if work.given_up is not None or work.trigger is None:
            self._park(item, *(work.given_up or ("unreadable", "")))
            return
        try:
            self._mode.handle(work.trigger)
        except Park as decision:
            item.failures += 1
            self._park(item, "refused", str(decision))
        except Exception as error:
            self._failed(item, error)
        else:
            self._last = item
            self._lanes.finish(item)

    def _failed(self, item: Item[_Work], error: Exception) -> None:
        item.failures += 1
        why = f"{type(error).__name__}: {error}"
        if item.failures >= self._retries.attempts:
            self._park(item, "failed", why)
            return
        self._blame[item.tp, item.offset] = (item.failures, why)
        pause_s = self._retries.pause_s(item.failures)
        _log.warning("trigger at %s: attempt %d failed, again in %.1f s: %s", _where(item), item.failures, pause_s, why)
        self._lanes.again(item, time.monotonic() + pause_s)

    def _park(self, item: Item[_Work], reason: str, why: str) -> None:
        self._last = item
        record = item.work.record
        parked = Parked(
            position=_place(record),
            key=_bytes(record.key()),
            value=_bytes(record.value()),
            headers=tuple(_headers(record.headers())),
            reason=reason,
            error=why,
            attempts=item.failures,
            group=self._wanted.group,
            trigger=item.work.trigger,
        )
        _log.error("trigger at %s is parked (%s) after %d attempts: %s", _where(item), reason, item.failures, why)
        try:
            self._mode.park(parked)
        except SignalRouterError:
            raise
        except Exception as error:
            raise SignalRouterError(
                f"trigger at {_where(item)} cannot be parked: {type(error).__name__}: {error}",
                hint="nothing is skipped: mend what park_to= does, then start again",
            ) from error
        self._lanes.finish(item)

    # --- offsets

    def _commit(self) -> None:
        next_offsets = self._lanes.next_offsets()
        now = time.monotonic()
        if not next_offsets or now < self._refused_until:
            return
        self._committed_at = now
        try:
            committed = self._mode.commit(self._consumer, next_offsets, self._metadata)
        except UndoneError as undone:
            self._rewind(undone)
            return
        if committed:
            self._undone = 0
            self._lanes.known(next_offsets)
            self._blame = {
                (tp, offset): what for (tp, offset), what in self._blame.items() if offset >= next_offsets.get(tp, 0)
            }
        else:
            self._refused_until = now + _REST_S

    def _rewind(self, undone: UndoneError) -> None:
        """Goes back to what the group has, and rests for a moment."""
        _log.warning("what was not committed is handled again: %s", undone)
        if undone.blamed and self._last is not None:
            self._take_blame(self._last, str(undone))
        self._undone += 1
        self._rest_until = time.monotonic() + min(_REST_S * 2 ** min(self._undone - 1, 10), _LONGEST_REST_S)
        self._mode.undo()
        places = self._lanes.resume_at()
        if undone.unknown:
            places |= self._asked(list(places))
        for tp, (next_offset, known) in places.items():
            self._lanes.begin(tp, next_offset, known=known)
            try:
                self._consumer.seek(ClientPartition(tp.topic, tp.partition, next_offset))
            except KafkaException as error:
                self._not_read_again(tp, error.args[0].str())
        self._read_on()

    def _not_read_again(self, tp: TopicPartition, why: str) -> None:
        """Takes nothing more from a partition: the client goes on behind what has to be handled again."""
        self._lanes.drop([tp])
        if tp in {TopicPartition(each.topic, each.partition) for each in self._consumer.assignment()}:
            raise BrokerError(
                f"{tp.topic}/{tp.partition} cannot be read again: {why}", hint="nothing is skipped: start again"
            )
        _log.info("partition %s/%d is not read again: %s", tp.topic, tp.partition, why)  # its callback is on its way

    def _take_blame(self, item: Item[_Work], why: str) -> None:
        failures, _ = self._blame.get((item.tp, item.offset), (0, ""))
        if item.work.given_up is not None and failures >= self._retries.attempts * 2:
            raise BrokerError(f"trigger at {_where(item)} cannot even be parked: {why}", hint="look at park_to=")
        self._blame[item.tp, item.offset] = (failures + 1, why)

    def _asked(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, bool]]:
        """What the group has, once no transaction is pending any more."""
        try:
            found = self._consumer.committed([ClientPartition(*tp) for tp in tps], ASKED_WITHIN_S)
        except KafkaException as error:
            raise BrokerError(f"committed offsets cannot be read: {error.args[0].str()}") from error
        return _in_group(found)

    # --- the group

    def _on_assign(self, consumer: Consumer, places: list[ClientPartition]) -> None:
        try:
            self._metadata = _fencing(consumer.consumer_group_metadata()) if places else b""
            known = self._asked([TopicPartition(each.topic, each.partition) for each in places]) if places else {}
            for each in places:
                tp = TopicPartition(each.topic, each.partition)
                next_offset, has = known.get(tp) or (self._start(each), False)
                self._lanes.begin(tp, next_offset, known=has)
        except SignalRouterError as error:
            self._failure = error
            return
        self._read_on()
        consumer.assign([ClientPartition(*tp, next_offset) for tp, (next_offset, _) in self._lanes.resume_at().items()])

    def _start(self, place: ClientPartition) -> int:
        """Where a partition begins of which the group has no offset."""
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=ASKED_WITHIN_S)
        except KafkaException as error:
            raise BrokerError(f"{place.topic}/{place.partition} cannot be read: {error.args[0].str()}") from error
        return high if self._wanted.start == "latest" else low

    def _on_revoke(self, _consumer: Consumer, places: list[ClientPartition]) -> None:
        next_offsets = self._lanes.next_offsets()
        try:
            if next_offsets and self._failure is None:
                self._mode.commit(self._consumer, next_offsets, self._metadata)
        except UndoneError as undone:
            _log.warning("what was not committed is handled by another consumer: %s", undone)
        except SignalRouterError as error:
            self._failure = error
        self._leave(places)

    def _on_lost(self, _consumer: Consumer, places: list[ClientPartition]) -> None:
        _log.warning("partitions were lost: another consumer handles again what was not committed")
        self._leave(places)

    def _leave(self, places: list[ClientPartition]) -> None:
        self._mode.undo()
        gone = {TopicPartition(each.topic, each.partition) for each in places}
        self._lanes.drop(gone)
        self._blame = {(tp, offset): what for (tp, offset), what in self._blame.items() if tp not in gone}
        self._read_on()
        self._last = None

    def _read_on(self) -> None:
        """Takes back every pause: the client keeps one for as long as it lives, whoever has the partition meanwhile."""
        if self._paused:
            self._consumer.resume([ClientPartition(*tp) for tp in self._paused])
            self._paused.clear()

    def _say(self, error: KafkaError, record: Message) -> None:
        if error.code() in _DENIED:
            raise ConfigurationError(error.str(), hint=f'grant READ on the topics and on group "{self._wanted.group}"')
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise BrokerError(
                f'group "{self._wanted.group}" wants to go on at {record.topic()}/{record.partition()}, where records '
                f"are gone: {error.str()}",
                hint="triggers were deleted before they were read; set the group's offsets once you know which",
            )
        if error.fatal():
            raise BrokerError(f'group "{self._wanted.group}": {error.str()}')
        _log.warning("the client says: %s", error.str())

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _fencing(metadata: object) -> bytes:
    """Gives the metadata of an assignment; the brokers would take offsets under one that names nobody from anybody."""
    if not isinstance(metadata, bytes) or not GroupMetadata.decode(metadata).fences:
        raise BrokerError(f"the group gave partitions, but no membership: {metadata!r}")
    return metadata


def _in_group(found: list[ClientPartition]) -> dict[TopicPartition, tuple[int, bool]]:
    """The offsets that a group has. What could not be asked is not taken for none: its consumer would begin anew."""
    for each in found:
        if each.error is not None:
            raise BrokerError(
                f"the committed offset of {each.topic}/{each.partition} cannot be read: {each.error.str()}",
                hint="nothing is skipped: start again once the group can be asked",
            )
    return {TopicPartition(each.topic, each.partition): (each.offset, True) for each in found if each.offset >= 0}


def _place(record: Message) -> Position:
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    if topic is None or partition is None or offset is None:
        raise BrokerError("a record has no place")
    return Position(topic, partition, offset)


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


def _headers(headers: object) -> list[tuple[str, bytes | None]]:
    return list(headers) if isinstance(headers, list) else []


def _where(item: Item[_Work]) -> str:
    return f"{item.tp.topic}/{item.tp.partition}/{item.offset}"
