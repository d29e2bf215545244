"""The logs of an app on a cluster, taken while its workers may go on; see `signal_router.verify.logs` for the order.

Only reads: no group is joined, nothing is committed or written. The candidates topic and the changelog are read at once
and kept on disk, since workers delete from the one and compaction takes from the other; the rest is read when it is
asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from confluent_kafka.admin import AdminClient

from signal_router.errors import BrokerError, StateError
from signal_router.kafka.offsets import (
    TopicDescription,
    committed_offsets,
    describe,
    end_offsets,
    stable_ends,
    stable_offsets,
    start_offsets,
)
from signal_router.kafka.settings import Connection
from signal_router.kafka.tail import Reader, scan
from signal_router.kafka.topics import TopicNames, resolve
from signal_router.model import candidates
from signal_router.model.candidates import Candidate
from signal_router.model.log import InputRecord, NextOffset, TopicPartition
from signal_router.runtime.roster import Roster
from signal_router.state.keys import POSITION
from signal_router.testing.reference import DefinitionRecord, Definitions
from signal_router.verify.consumer_offsets import TOPIC as OFFSETS
from signal_router.verify.consumer_offsets import committed_offset, partition_of_group
from signal_router.verify.logs import NEVER, App, NextOffsets, Span, StoredTable
from signal_router.verify.spool import Spool

POLL_S = 0.2
STILL_S = 1.0
"""After so long without a step it is looked at what is left to read: markers are nothing."""
STABLE_WITHIN_S = 30.0
"""Longer than a transaction may be open."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(InputRecord).decode

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class ClusterLogs:
    """The logs of an app on a cluster at a cut. Use `take_logs`."""

    app: App
    connection: Connection
    admin: AdminClient
    spool: Spool
    topics: dict[str, TopicDescription]
    progress: Progress
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    begun: dict[TopicPartition, int] = field(default_factory=dict)
    sure: dict[TopicPartition, int] = field(default_factory=dict)
    stable: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    targets: dict[TopicPartition, int] = field(default_factory=dict)
    next_offsets: dict[TopicPartition, NextOffsets] = field(default_factory=dict)
    kept: dict[TopicPartition, int] = field(default_factory=dict)
    done: int = 0

    def partitions(self, topic: str) -> Sequence[int]:
        """The partitions of a topic."""
        return range(self.topics[topic].partitions) if topic in self.topics else ()

    def topic_id(self, topic: str) -> str:
        """The UUID of a topic."""
        return self.topics[topic].id if topic in self.topics else ""

    def span(self, tp: TopicPartition) -> Span:
        """How far a partition goes."""
        return Span(self.starts[tp], self.begun[tp], self.sure[tp], self.stable[tp], self.ends[tp])

    def read(self, tp: TopicPartition) -> Iterable[InputRecord]:
        """The committed records in order."""
        if tp in self.kept:
            return self._kept(tp)
        return self._stream(tp, self.starts[tp], self.targets[tp])

    def read_uncommitted(self, tp: TopicPartition) -> Iterable[InputRecord]:
        """The committed records: what was aborted on a user's cluster proves nothing."""
        return self.read(tp)

    def committed(self, tp: TopicPartition) -> NextOffsets:
        """The group's next offset."""
        return self.next_offsets.get(tp, NEVER)

    def history(self) -> Iterable[tuple[TopicPartition, int]] | None:
        """Every next offset that the group committed and the broker still has; None where that may not be read."""
        found = describe(self.admin, [OFFSETS]) if self._may_read_offsets() else {}
        if OFFSETS not in found:
            return None
        tp = TopicPartition(OFFSETS, partition_of_group(self.app.group, found[OFFSETS].partitions))
        start, end = start_offsets(self.admin, [tp])[tp], end_offsets(self.admin, [tp])[tp]
        records = self._stream(tp, start, end)
        return (each for record in records if (each := committed_offset(record.key, record.value, self.app.group)))

    def stored_tables(self) -> Sequence[StoredTable]:
        """None are at hand."""
        return ()

    def _may_read_offsets(self) -> bool:
        try:
            return OFFSETS in describe(self.admin, [OFFSETS])
        except BrokerError:
            return False

    def _stream(self, tp: TopicPartition, start: int, target: int) -> Iterator[InputRecord]:
        if start >= target:
            return
        with Reader(self.connection, {tp: start}, targets={tp: target}) as reader:
            for batch in reader.to_end():
                for read in batch:
                    if read.record.offset < target:
                        yield read.record
                self._tell(len(batch))
        first = start_offsets(self.admin, [tp])[tp]
        if first > start:
            raise StateError(f'records below offset {first} of "{tp.topic}" partition {tp.partition} went meanwhile')

    def _tell(self, count: int) -> None:
        self.done += count
        self.progress(min(self.done, self.total), self.total)

    @property
    def total(self) -> int:
        """How many offsets there are to read, markers included."""
        return sum(max(0, end - self.starts[tp]) for tp, end in self.begun.items())

    # ---- taking

    def keep(self, tps: Sequence[TopicPartition], starts: dict[TopicPartition, int], *, until: bytes | None) -> None:
        """Reads partitions to their ends as of now, and keeps the records; those behind the last with the key `until`
        are left out, so that no transaction is torn.
        """
        targets = self.visible(end_offsets(self.admin, tps))
        counts = dict.fromkeys(tps, 0)
        self.kept |= dict.fromkeys(tps, 0)
        with Reader(self.connection, starts, targets=targets) as reader:
            for batch in reader.to_end():
                for tp, record in batch:
                    counts[tp] += 1
                    self.spool.append(_file(tp), _encode(record))
                    if until is None or record.key == until:
                        self.kept[tp] = counts[tp]
                self._tell(len(batch))

    def _kept(self, tp: TopicPartition) -> Iterator[InputRecord]:
        for _, frame in zip(range(self.kept[tp]), self.spool.frames(_file(tp)), strict=False):
            yield _decode(frame)

    def visible(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """How far can be read: behind an open transaction that does not end nothing can be seen."""
        hidden = self.hidden
        return {tp: min(end, self.stable[tp]) if tp in hidden else end for tp, end in ends.items()}

    @property
    def hidden(self) -> set[TopicPartition]:
        """The partitions in which a transaction has been open for longer than one may."""
        return {tp for tp, begun in self.begun.items() if self.stable.get(tp, begun) < begun}


def take_logs(
    connection: Connection,
    admin: AdminClient,
    spool: Spool,
    *,
    inputs: Sequence[str] = (),
    value_limit_bytes: int,
    within_s: float,
    before: Callable[[int], None] = lambda _records: None,
    say: Callable[[str], None] = lambda _text: None,
) -> ClusterLogs:
    """Waits until the workers have read what is there now, at most `within_s`, then takes the logs.

    `inputs`: the signals topics; where none is given those that the workers say they read. `before` is told how many
    records there are before any is read, and may refuse.
    """
    names = resolve(connection.prefix, connection.app)
    roster = _roster(connection, admin, names)
    read = sorted({tp.topic for tp in roster.inputs if tp.topic != names.candidates})
    chosen = tuple(inputs or read or (names.signals,))
    app = App(connection.app, f"{connection.prefix}{connection.app}", names, chosen, value_limit_bytes)
    own = (names.definitions, names.candidates, names.changelog, names.lineage, names.dead_letters)
    topics = describe(admin, [*chosen, *own, names.triggers])
    for tp, start in roster.inputs.items():
        if tp.topic in topics and start.topic_id != topics[tp.topic].id:
            raise StateError(
                f'topic "{tp.topic}" was created anew after the workers had begun to read it',
                hint="what they made of the topic before cannot be checked any more; a new --prefix begins anew",
            )
    if names.definitions in topics:
        topics |= describe(admin, _destinations(connection, admin, names))
    logs = ClusterLogs(app, connection, admin, spool, topics, lambda done, total: say(f"{done:,} of {total:,} read"))
    every = [TopicPartition(topic, number) for topic in topics for number in range(topics[topic].partitions)]
    logs.starts, logs.begun = start_offsets(admin, every), end_offsets(admin, every)
    logs.stable = logs.ends = logs.sure = logs.targets = logs.begun
    before(logs.total)
    if all(topic in topics for topic in (*own, *chosen)):
        _take(logs, every, within_s, say)
    return logs


def _take(logs: ClusterLogs, every: list[TopicPartition], within_s: float, say: Callable[[str], None]) -> None:
    names, admin = logs.app.names, logs.admin
    read = [tp for tp in every if tp.topic in (*logs.app.inputs, names.candidates)]
    outputs = [tp for tp in every if tp.topic not in (*logs.app.inputs, names.definitions)]
    _await_read(logs, read, within_s, say)
    logs.stable = _await_closed(logs, outputs, say)
    before = _stable(logs, read)
    logs.sure = {**logs.begun, **stable_ends(admin, outputs)}
    own = [tp for tp in every if tp.topic == names.candidates]
    logs.keep(own, {tp: max(logs.starts[tp], _offset(before[tp])) for tp in own}, until=None)
    changelog = [tp for tp in every if tp.topic == names.changelog]
    logs.keep(changelog, {tp: logs.starts[tp] for tp in changelog}, until=POSITION)
    after = _stable(logs, read)
    logs.next_offsets = {tp: NextOffsets(before[tp], after[tp]) for tp in read}
    logs.ends = end_offsets(admin, every)
    logs.targets = logs.visible(logs.ends)
    signals = [tp for tp in read if tp.topic != names.candidates]
    for tp, stable in stable_ends(admin, signals).items():  # a producer's transaction may hide the rest
        logs.targets[tp] = max(min(logs.begun[tp], stable), _offset(after[tp]))


def _offset(at: NextOffset | None) -> int:
    return 0 if at is None else at.offset


def _stable(logs: ClusterLogs, tps: Sequence[TopicPartition]) -> dict[TopicPartition, NextOffset | None]:
    if logs.hidden:
        return committed_offsets(logs.connection, logs.app.group, tps)
    return stable_offsets(logs.connection, logs.app.group, tps, deadline_s=STABLE_WITHIN_S)


def _await_read(logs: ClusterLogs, tps: Sequence[TopicPartition], within_s: float, say: Callable[[str], None]) -> None:
    until, known, moved_at = time.monotonic() + within_s, None, time.monotonic()
    while True:
        committed = committed_offsets(logs.connection, logs.app.group, tps)
        behind = {tp: _offset(at) for tp, at in committed.items() if _offset(at) < logs.begun[tp]}
        if not behind or all(at is None for at in committed.values()):
            return
        now = time.monotonic()
        if committed != known:
            known, moved_at = committed, now
        elif now - moved_at > STILL_S or now > until:
            if not _left(logs, behind):
                return
            moved_at = now
        if now > until:
            return
        say(f"{sum(logs.begun[tp] - at for tp, at in behind.items())} offsets left to read")
        time.sleep(POLL_S)


def _left(logs: ClusterLogs, behind: dict[TopicPartition, int]) -> bool:
    """Whether any record is left to read that is more than a mark."""
    starts = {tp: max(at, logs.starts[tp]) for tp, at in behind.items()}
    with Reader(logs.connection, starts) as reader:
        for batch in reader.to_end():
            for tp, record in batch:
                if record.offset < logs.begun[tp] and (
                    tp.topic != logs.app.names.candidates or _is_candidate(record.value)
                ):
                    return True
    return False


def _is_candidate(value: bytes | None) -> bool:
    try:
        return isinstance(candidates.decode(value or b""), Candidate)
    except msgspec.DecodeError:
        return True


def _await_closed(
    logs: ClusterLogs, tps: Sequence[TopicPartition], say: Callable[[str], None]
) -> dict[TopicPartition, int]:
    """Waits for the transactions that were open when the check began, as long as one may be open."""
    until = time.monotonic() + STABLE_WITHIN_S
    while True:
        stable = {**logs.begun, **stable_ends(logs.admin, tps)}
        if all(stable[tp] >= logs.begun[tp] for tp in tps) or time.monotonic() > until:
            return stable
        say("a transaction is open")
        time.sleep(POLL_S)


def _roster(connection: Connection, admin: AdminClient, names: TopicNames) -> Roster:
    """What the workers of the app have said; nothing where their topic is not there."""
    roster = Roster()
    if names.workers in describe(admin, [names.workers]):
        roster.take([read.record for read in scan(connection, admin, [names.workers])])
    return roster


def _destinations(connection: Connection, admin: AdminClient, names: TopicNames) -> list[str]:
    records = [
        DefinitionRecord(read.record.offset, read.record.value) for read in scan(connection, admin, [names.definitions])
    ]
    return sorted({each.topic for each in Definitions(records).documents() if each.topic is not None})


def _file(tp: TopicPartition) -> str:
    return f"kept-{tp.topic}-{tp.partition}"
