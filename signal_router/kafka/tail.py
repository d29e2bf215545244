"""Reading topics for people and tools: committed records only, from a place they name, to the end or for ever.

What lies behind the reader is given in the order of time, as far as it fits into memory; what comes live is given as it
comes. Nothing is committed and no group is joined.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from signal_router.errors import BrokerError, ConfigurationError
from signal_router.kafka.follow import input_record, reader_settings
from signal_router.kafka.offsets import REQUEST_S, describe, end_offsets, start_offsets
from signal_router.model.log import InputRecord, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from signal_router.kafka.settings import Connection

SORTED_RECORDS = 20_000
"""How many records behind the reader are held to be put into the order of time."""
SILENT_S = 30.0
"""How long a finite reading waits for a broker, or for the end of somebody's open transaction."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Beginning:
    """From the first record there is."""


@dataclass(frozen=True, slots=True)
class End:
    """From what comes next."""


@dataclass(frozen=True, slots=True)
class Last:
    """From the last `count` records, of all partitions together."""

    count: int


@dataclass(frozen=True, slots=True)
class Since:
    """From the first records of a time, epoch milliseconds."""

    at: int


Start = Beginning | End | Last | Since


class Read(NamedTuple):
    """A record and where it stands."""

    tp: TopicPartition
    record: InputRecord


class Reader:
    """Reads partitions from given offsets. A context manager; one thread.

    A partition has ended once its last stable offset, or its target, was met; `ended` says that of all.
    """

    def __init__(
        self,
        connection: Connection,
        starts: Mapping[TopicPartition, int],
        *,
        targets: Mapping[TopicPartition, int] | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """`targets` are read up to, whatever hides them; `say` is told when no broker answers."""
        self.reached = dict(starts)
        self._targets = targets
        self._left = {tp for tp, start in starts.items() if targets is None or start < targets[tp]}
        self._say = say
        self._down = False
        self._connection = connection
        settings = reader_settings(connection, f"{connection.prefix}{connection.app}-read")
        self._consumer = Consumer(settings | {"queued.min.messages": 100_000, "error_cb": self._client_error})
        self._consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, at) for tp, at in starts.items()])

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def ended(self) -> bool:
        """Whether the end of every partition has been met."""
        return not self._left

    def read(self, timeout_s: float = 0.05, *, most: int = 5_000) -> list[Read]:
        """Waits for records and returns them, in order of each partition; nothing when none came in time.

        Raises `ConfigurationError` where reading is not permitted, `BrokerError` for what does not pass by itself.
        """
        found: list[Read] = []
        messages: list[Any] = self._consumer.consume(most, timeout_s)
        for message in messages:
            error = message.error()
            tp = TopicPartition(message.topic(), message.partition())
            if error is None:
                record = input_record(message)
                found.append(Read(tp, record))
                self.reached[tp] = record.offset + 1
                self._down = False
            elif error.code() == KafkaError._PARTITION_EOF:
                self.reached[tp] = max(self.reached[tp], message.offset())
                if self._targets is None or message.offset() >= self._targets[tp]:
                    self._left.discard(tp)
            else:
                _raise_lasting(error)
        return found

    def to_end(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Iterator[list[Read]]:
        """Reads until the end of every partition was met; `progress` is told (offsets done, offsets in all).

        Raises `BrokerError` when nothing has come for `SILENT_S`.
        """
        starts = dict(self.reached)
        total = 0 if self._targets is None else sum(self._targets[tp] - start for tp, start in starts.items())
        heard_at = time.monotonic()
        while not self.ended:
            before = len(self._left)
            found = self.read()
            if found or len(self._left) < before:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENT_S:
                raise self._silent()
            if found:
                yield found
            progress(sum(self.reached[tp] - start for tp, start in starts.items()), total)

    def _silent(self) -> BrokerError:
        if self._down:
            return BrokerError(f'no broker answers at "{self._connection.bootstrap}"', hint="signal-router broker")
        topics = ", ".join(sorted({f'"{tp.topic}"' for tp in self._left}))
        return BrokerError(
            f"an open transaction hides the end of {topics}",
            hint="it ends with its transaction time-out; try again then",
        )

    def _client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._down:
            self._down = True
            self._say(f'no broker answers at "{self._connection.bootstrap}", waiting for it')


def partitions_of(admin: AdminClient, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of topics. Raises `ConfigurationError` for one that does not exist."""
    wanted = list(dict.fromkeys(topics))
    found = describe(admin, wanted)
    for topic in wanted:
        if topic not in found:
            raise ConfigurationError(
                f'topic "{topic}" does not exist', hint="check --prefix and --app, or: signal-router topics apply"
            )
    return [TopicPartition(topic, number) for topic in wanted for number in range(found[topic].partitions)]


def scan(
    connection: Connection,
    admin: AdminClient,
    topics: Sequence[str],
    *,
    since: Start = Beginning(),
    stable: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Read]:
    """Reads what topics hold now, partition by partition in order. Holds one batch in memory.

    With `stable` it waits for transactions that were open when it began; without, it ends before them.
    """
    tps = partitions_of(admin, topics)
    starts = offsets_of(admin, tps, since)
    ends = end_offsets(admin, tps)
    with Reader(connection, starts, targets=ends if stable else None) as reader:
        total = sum(max(0, ends[tp] - start) for tp, start in starts.items())
        for batch in reader.to_end(lambda done, _total: progress(done, total)):
            yield from batch


def read_at(connection: Connection, admin: AdminClient, tp: TopicPartition, offset: int) -> InputRecord | None:
    """Reads one record; None where it is gone, not there yet, or no record but a marker or a part of an abort."""
    first, end = start_offsets(admin, [tp])[tp], end_offsets(admin, [tp])[tp]
    if not first <= offset < end:
        return None
    with Reader(connection, {tp: offset}) as reader:
        for batch in reader.to_end():
            return batch[0].record if batch[0].record.offset == offset else None
    return None


def offsets_of(admin: AdminClient, tps: Sequence[TopicPartition], start: Start) -> dict[TopicPartition, int]:
    """The offsets to begin at; for `Last` the beginning."""
    match start:
        case Beginning() | Last():
            return start_offsets(admin, tps)
        case End():
            return end_offsets(admin, tps)
        case Since(at):
            return _offsets_since(admin, tps, at)


def tail(
    connection: Connection,
    admin: AdminClient,
    topics: Sequence[str],
    start: Start,
    decode: Callable[[Read], _T | None],
    *,
    follow: bool,
    say: Callable[[str], None],
) -> Iterator[_T]:
    """Gives what `decode` makes of each record (None = leave it out), for ever or (`follow` False) up to the end.

    `Last` counts what `decode` gave. `say` is told when no broker answers while following.
    """
    tps = partitions_of(admin, topics)
    if isinstance(start, Last):
        held, reader = _last(connection, admin, tps, start.count, decode, say)
    else:
        held, reader = [], Reader(connection, offsets_of(admin, tps, start), say=say)
    with reader:
        yield from held
        if not isinstance(start, Last):
            yield from _sorted_by_time(reader, decode)
        while follow:
            for read in reader.read():
                decoded = decode(read)
                if decoded is not None:
                    yield decoded


def _sorted_by_time(reader: Reader, decode: Callable[[Read], _T | None]) -> Iterator[_T]:
    held: list[Read] = []
    for batch in reader.to_end():
        held += batch
        if len(held) >= SORTED_RECORDS:
            yield from _decoded(held, decode)
            held = []
    yield from _decoded(held, decode)


def _decoded(held: list[Read], decode: Callable[[Read], _T | None]) -> Iterator[_T]:
    held.sort(key=_by_time)
    return (decoded for read in held if (decoded := decode(read)) is not None)


def _by_time(read: Read) -> int:
    return read.record.timestamp


def _last(
    connection: Connection,
    admin: AdminClient,
    tps: Sequence[TopicPartition],
    count: int,
    decode: Callable[[Read], _T | None],
    say: Callable[[str], None],
) -> tuple[list[_T], Reader]:
    """Finds the last records by looking further and further back; the reader goes on behind them."""
    first, ends = start_offsets(admin, tps), end_offsets(admin, tps)
    span = 2 * count + 16  # markers and aborted records have offsets, too
    while True:
        starts = {tp: max(first[tp], ends[tp] - span) for tp in tps}
        reader = Reader(connection, starts, say=say)
        kept: dict[TopicPartition, deque[tuple[int, _T]]] = {tp: deque(maxlen=count) for tp in tps}
        oldest: dict[TopicPartition, int] = {}
        for batch in reader.to_end():
            for read in batch:
                oldest.setdefault(read.tp, read.record.timestamp)
                if (decoded := decode(read)) is not None:
                    kept[read.tp].append((read.record.timestamp, decoded))
        held = sorted((each for one in kept.values() for each in one), key=lambda each: each[0])
        held = held[max(0, len(held) - count) :]
        cutoff = held[0][0] if len(held) == count else -1  # what is older than this is not among the last
        if all(starts[tp] == first[tp] or (tp in oldest and oldest[tp] < cutoff) for tp in tps):
            return [decoded for _, decoded in held], reader
        reader.__exit__(None, None, None)
        span *= 8


def _offsets_since(admin: AdminClient, tps: Sequence[TopicPartition], at: int) -> dict[TopicPartition, int]:
    spec = OffsetSpec.for_timestamp(at)
    wanted = {KafkaTopicPartition(tp.topic, tp.partition): spec for tp in tps}
    ends = end_offsets(admin, tps)
    try:
        futures = admin.list_offsets(wanted, request_timeout=REQUEST_S)
        found = {
            TopicPartition(tp.topic, tp.partition): future.result(REQUEST_S + 1).offset
            for tp, future in futures.items()
        }
    except KafkaException as error:
        raise BrokerError(f"offsets cannot be looked up by time: {error.args[0].str()}") from error
    return {tp: offset if offset >= 0 else ends[tp] for tp, offset in found.items()}


def _raise_lasting(error: Any) -> None:  # noqa: ANN401  the client's type says less than it has
    if error.code() in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}:
        raise ConfigurationError(f"no permission to read: {error.str()}", hint="grant READ on the topics of the app")
    if error.fatal() or error.code() == KafkaError.OFFSET_OUT_OF_RANGE:
        raise BrokerError(f"topics cannot be read: {error.str()}")
