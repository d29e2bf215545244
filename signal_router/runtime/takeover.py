"""Taking partitions over: what must be true before their first record is read.

    1  stable committed offsets: they wait for open transactions
    2  the changelog's read_uncommitted end, asked for after 1, so that it lies behind every transaction seen there
    3  replay from the stored changelog position, or from the start where there is none that can be trusted
    4  check the position record against the committed offset, the topic and its partition count

Where an open transaction hides any of that for a second it is a dead worker's, and is ended (`former_owners`).

Runs outside the group's callbacks, with clients of its own, and is interrupted when the assignment ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from confluent_kafka.admin import AdminClient

from signal_router.errors import StateError
from signal_router.kafka.offsets import (
    STUCK_S,
    TopicDescription,
    describe,
    end_offsets,
    stable_ends,
    stable_offsets,
    start_offsets,
)
from signal_router.kafka.restore import restore
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import TopicNames
from signal_router.model.log import NextOffset, TopicPartition
from signal_router.runtime.match import SignalsPartition
from signal_router.runtime.positions import (
    LocalPosition,
    TablePosition,
    decode_local,
    decode_position,
    encode_local,
)
from signal_router.runtime.roster import InputStart, Roster, now_ms
from signal_router.state.keys import LOCAL_POSITION, POSITION, partition_prefix
from signal_router.state.restore import local_key
from signal_router.state.store import Store

STABLE_WITHIN_S = 25.0
"""An open transaction ends within its time-out and the coordinator's scan."""
TRUSTED_FOR_MS = 12 * 3600 * 1000
"""Half of the changelog's `delete.retention.ms`: an older store may have missed tombstones that are gone."""

_WITH_TIMES = frozenset(b"SQI")
"""Kinds of entries that stand in the time index."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JoinStart:
    """Where a candidates partition goes on."""

    next_offset: int
    sequence: int


@dataclass(slots=True)
class Takeover:
    """What was found: where each partition goes on, and what has to be written before its first record
    (`new_inputs`). `ends`: of every candidates partition, those that were kept too, where it ends, open transactions
    included, after the committed offsets of what was taken over were stable.
    """

    signals: dict[TopicPartition, SignalsPartition] = field(default_factory=dict)
    joins: dict[int, JoinStart] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    new_inputs: dict[TopicPartition, InputStart] = field(default_factory=dict)
    revision: int = -1
    restored: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """What takeovers need to know of the cluster and of this app on it."""

    connection: Connection
    admin: AdminClient
    names: TopicNames
    group: str
    cluster_id: str
    candidates: TopicDescription
    changelog: TopicDescription

    def local_position(self, changelog_offset: int) -> bytes:
        """The local position's value for a changelog offset."""
        app = f"{self.connection.prefix}{self.connection.app}"
        return encode_local(LocalPosition(changelog_offset, self.cluster_id, app, self.changelog.id, now_ms()))


def take_over(
    cluster: Cluster,
    store: Store,
    roster: Roster,
    tps: Iterable[TopicPartition],
    interrupted: threading.Event,
    stuck: Callable[[], None],
    kept: Iterable[int] = (),
) -> Takeover:
    """Finds where partitions go on and restores their tables; `stuck` is called where an open transaction hides that
    for a second, and may be called again. `kept` are the candidates partitions that run meanwhile.

    Raises `InterruptedError`; `StateError` where going on would skip or repeat records; `BrokerError`.
    """
    began = time.monotonic()
    tps = sorted(tps)
    while True:
        committed = _stable_offsets(cluster, tps, interrupted, stuck)
        try:
            found = _take_over_at(cluster, store, roster, tps, committed, interrupted, stuck, tuple(kept))
        except StateError:
            # An assignment may have ended without our knowledge: who has the partitions now goes on while we look, and
            # what we read does not fit together. Then the offsets have moved, and the group will soon say the rest.
            if _stable_offsets(cluster, tps, interrupted, stuck) == committed:
                raise
            continue
        found.seconds = time.monotonic() - began
        return found


def _stable_offsets(
    cluster: Cluster, tps: list[TopicPartition], interrupted: threading.Event, stuck: Callable[[], None]
) -> dict[TopicPartition, NextOffset | None]:
    if interrupted.is_set():
        raise InterruptedError
    return stable_offsets(
        cluster.connection,
        cluster.group,
        tps,
        deadline_s=STABLE_WITHIN_S,
        interrupted=interrupted,
        stuck=stuck,
    )


def _take_over_at(
    cluster: Cluster,
    store: Store,
    roster: Roster,
    tps: list[TopicPartition],
    committed: Mapping[TopicPartition, NextOffset | None],
    interrupted: threading.Event,
    stuck: Callable[[], None],
    kept: tuple[int, ...],
) -> Takeover:
    names = cluster.names
    topics = describe(cluster.admin, {tp.topic for tp in tps})
    refuse_re_created(roster, {name: topic.id for name, topic in topics.items()})
    kept_tps = [TopicPartition(names.candidates, number) for number in kept]
    starts, ends = start_offsets(cluster.admin, tps), end_offsets(cluster.admin, [*tps, *kept_tps])
    found = Takeover(ends={tp.partition: end for tp, end in ends.items() if tp.topic == names.candidates})
    resolved: dict[TopicPartition, NextOffset] = {}
    for tp in tps:
        if tp.topic not in topics:
            raise StateError(f'topic "{tp.topic}" is gone', hint="signal-router topics diff")
        resolved[tp] = _next_offset(tp, committed[tp], starts[tp], ends[tp], topics[tp.topic].id, roster, found)
        found.revision = max(found.revision, _revision(resolved[tp].metadata))
    for tp in tps:
        if tp.topic != names.candidates:
            found.signals[tp] = SignalsPartition(
                topics[tp.topic].id, resolved[tp].offset, _revision(resolved[tp].metadata)
            )
    mine = [tp.partition for tp in tps if tp.topic == names.candidates]
    if mine:
        _restore_tables(cluster, store, mine, found, interrupted, stuck)
        for partition in mine:
            tp = TopicPartition(names.candidates, partition)
            fresh = committed[tp] is None
            position = _position(store, partition)
            if _fault(cluster, position, resolved[tp].offset, fresh=fresh):
                # The store may be damaged in a way that only shows here; the changelog decides.
                _wipe(store, partition)
                _restore_tables(cluster, store, [partition], found, interrupted, stuck)
                position = _position(store, partition)
                fault = _fault(cluster, position, resolved[tp].offset, fresh=fresh)
                if fault:
                    raise StateError(
                        f'candidates partition {partition} of "{names.candidates}": {fault}',
                        hint="was a topic re-created? see the operations guide; going on would lose or repeat triggers",
                    )
            found.joins[partition] = JoinStart(resolved[tp].offset, 0 if position is None else position.sequence)
    return found


def uncover(
    cluster: Cluster, partitions: Iterable[int], interrupted: threading.Event, stuck: Callable[[], None]
) -> None:
    """Sees to it that a dead worker hides nothing for long that the take-over itself did not have to read: candidates
    of these partitions, and lineage, which has a record of nearly every transaction. Blocks for a second where
    something is hidden. Raises `BrokerError`.
    """
    names = cluster.names
    tps = [TopicPartition(names.candidates, number) for number in partitions]
    for topic, description in describe(cluster.admin, [names.lineage]).items():
        tps += [TopicPartition(topic, number) for number in range(description.partitions)]
    hidden = end_offsets(cluster.admin, tps)
    until = time.monotonic() + STUCK_S
    while hidden and not interrupted.is_set():
        found = stable_ends(cluster.admin, hidden)
        hidden = {tp: end for tp, end in hidden.items() if found[tp] < end}
        if hidden and time.monotonic() > until:
            stuck()
            return
        if hidden:
            interrupted.wait(0.05)


def _next_offset(
    tp: TopicPartition,
    committed: NextOffset | None,
    start: int,
    end: int,
    topic_id: str,
    roster: Roster,
    found: Takeover,
) -> NextOffset:
    known = roster.inputs.get(tp)
    where = f'topic "{tp.topic}" partition {tp.partition}'
    if committed is None:
        if known is not None:
            raise StateError(
                f"the committed offset of {where} is gone, although it was read since offset {known.offset}",
                hint="it expired (offsets.retention.minutes) or was deleted; set it with the broker's tools",
            )
        found.new_inputs[tp] = InputStart(topic_id, start, now_ms())
        return NextOffset(start)
    if committed.offset < start:
        raise StateError(
            f"{where}: records {committed.offset} to {start - 1} were deleted before they were read",
            hint="raise the topic's retention; to go on without them set the group's offset with the broker's tools",
        )
    if committed.offset > end:
        raise StateError(
            f"{where} ends at {end}, but {committed.offset} was to be read next",
            hint="was the topic re-created or truncated?",
        )
    return committed


def refuse_re_created(roster: Roster, topic_ids: Mapping[str, str]) -> None:
    """Raises `StateError` for a topic that is another one than when its partitions were first read."""
    for tp, known in sorted(roster.inputs.items()):
        topic_id = topic_ids.get(tp.topic, known.topic_id)
        if topic_id != known.topic_id:
            raise StateError(
                f'topic "{tp.topic}" was re-created: its id was {known.topic_id} and is {topic_id} now',
                hint="use a new --prefix or --app, or restore the old topic",
            )


def _revision(metadata: str) -> int:
    """The definitions revision in an offset's metadata `<slot> <revision>`."""
    last = metadata.rpartition(" ")[2]
    return int(last) if last.lstrip("-").isdigit() else -1


def _restore_tables(
    cluster: Cluster,
    store: Store,
    partitions: list[int],
    found: Takeover,
    interrupted: threading.Event,
    stuck: Callable[[], None],
) -> None:
    changelog = cluster.names.changelog
    tps = [TopicPartition(changelog, partition) for partition in partitions]
    ends = {tp.partition: offset for tp, offset in end_offsets(cluster.admin, tps).items()}
    starts: dict[int, int] = {}
    for partition in partitions:
        stored = _stored_position(cluster, store, partition, ends[partition])
        if stored is None:
            _wipe(store, partition)
        starts[partition] = stored or 0

    def apply(partition: int, records: list[tuple[bytes, bytes | None]], behind: int) -> None:
        store.load(_entries(cluster, partition, records, behind))

    found.restored += restore(cluster.connection, changelog, starts, ends, apply, interrupted=interrupted, stuck=stuck)
    if interrupted.is_set():
        raise InterruptedError


def _entries(
    cluster: Cluster, partition: int, records: list[tuple[bytes, bytes | None]], behind: int
) -> dict[bytes, bytes | None]:
    prefix = partition_prefix(partition)
    entries: dict[bytes, bytes | None] = {}
    for key, value in records:
        entries[prefix + key] = value
        if value is not None and key[0] in _WITH_TIMES:
            local = local_key(key, value)
            if local is not None:
                entries[prefix + local] = b""
    entries[prefix + LOCAL_POSITION] = cluster.local_position(behind)
    return entries


def _stored_position(cluster: Cluster, store: Store, partition: int, end: int) -> int | None:
    """Where the stored copy of a table stands in the changelog; None if it cannot be trusted."""
    raw = store.get(partition_prefix(partition) + LOCAL_POSITION)
    if raw is None:
        return None
    local = decode_local(raw)
    reason = _distrust(cluster, local, end)
    if reason is None and local is not None:
        return local.changelog_offset
    _log.warning("table rebuilt from the changelog", partition=partition, reason=reason, changelog_end=end)
    return None


def _distrust(cluster: Cluster, local: LocalPosition | None, end: int) -> str | None:
    if local is None:
        return "its position cannot be read"
    if local.cluster != cluster.cluster_id or local.app != f"{cluster.connection.prefix}{cluster.connection.app}":
        return "it belongs to another app or cluster"
    if local.topic_id != cluster.changelog.id:
        return "the changelog was re-created"
    if local.changelog_offset > end:
        return "it is ahead of the changelog"
    if now_ms() - local.written_at > TRUSTED_FOR_MS:
        return "it is too old"
    return None


def _wipe(store: Store, partition: int) -> None:
    store.delete_range(partition_prefix(partition), partition_prefix(partition + 1))


def _position(store: Store, partition: int) -> TablePosition | None:
    raw = store.get(partition_prefix(partition) + POSITION)
    return None if raw is None else decode_position(raw)


def _fault(cluster: Cluster, position: TablePosition | None, next_offset: int, *, fresh: bool) -> str | None:
    """What contradicts going on; None if nothing does."""
    if position is None:
        return None if fresh else "the changelog holds no position, although offsets are committed"
    if position.topic_id != cluster.candidates.id:
        return "the candidates topic was re-created"
    if position.partitions != cluster.candidates.partitions:
        return f"it had {position.partitions} partitions and has {cluster.candidates.partitions} now"
    if fresh:
        return "the changelog holds a position, but no offset is committed"
    if position.next_offset != next_offset:
        return f"the table was decided up to {position.next_offset}, but {next_offset} is to be read next"
    return None
