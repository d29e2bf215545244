"""One partition's log in memory: records that wait for their transaction, control markers, the last stable offset,
cleaning.

What readers can see follows Kafka: a record is appended at once and belongs to its producer's open *run*; the marker
that ends the run takes an offset of its own and decides about all its records; read_committed stops at the first
record of the oldest open run (the last stable offset) and steps over markers and aborted records without returning
them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from signal_router.errors import BrokerError
from signal_router.model.log import InputRecord

Headers = tuple[tuple[str, bytes], ...]


class Isolation(StrEnum):
    """What a reader sees of transactions that are open or aborted."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


class OffsetOutOfRangeError(BrokerError):
    """A reader asked for an offset below the log's start or beyond its end (`auto.offset.reset=error`)."""


class Producer(NamedTuple):
    """A producer id and epoch as `MemoryBroker.init_producer` gave them; every later request is checked against the
    present epoch.
    """

    transactional_id: str
    producer_id: int
    epoch: int


@dataclass(slots=True, eq=False)
class Run:
    """The records of one transaction in one partition, from its first record to its marker. `committed` is None
    while open.
    """

    transactional_id: str
    epoch: int
    first_offset: int
    committed: bool | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One offset of a log as a checker wants it: a record or a marker, and what became of its transaction."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    marker: Literal["commit", "abort"] | None = None
    run: Run | None = None

    @property
    def visible(self) -> bool:
        """Says whether read_committed may ever return it (an open run may still commit)."""
        return self.marker is None and (self.run is None or self.run.committed is not False)


class PartitionLog:
    """One partition. Offsets are given once: cleaning leaves gaps and renumbers nothing."""

    def __init__(self) -> None:
        self.start_offset = 0
        self._end = 0
        self._entries: list[LogEntry] = []
        self._offsets: list[int] = []
        self._open: dict[int, Run] = {}
        self._horizons: dict[int, int] = {}

    def end_offset(self, isolation: Isolation) -> int:
        """Returns the high watermark, or for read_committed the last stable offset."""
        if isolation is Isolation.READ_UNCOMMITTED or not self._open:
            return self._end
        return max(self.start_offset, min(run.first_offset for run in self._open.values()))

    def append(
        self,
        *,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        producer: Producer | None = None,
    ) -> int:
        """Appends a record and returns its offset; a `producer` makes it wait
        for a marker.
        """
        run = None
        if producer is not None:
            run = self._open.get(producer.producer_id)
            if run is None:
                run = self._open[producer.producer_id] = Run(producer.transactional_id, producer.epoch, self._end)
        return self._put(LogEntry(self._end, timestamp, key, value, headers, None, run))

    def has_open(self, producer_id: int) -> bool:
        """Says whether the producer has an open run here."""
        return producer_id in self._open

    def end_run(self, producer_id: int, *, commit: bool, timestamp: int) -> int:
        """Writes the producer's control marker, also where it wrote no record, and returns the marker's offset."""
        run = self._open.pop(producer_id, None)
        if run is not None:
            run.committed = commit
        return self._put(LogEntry(self._end, timestamp, None, None, (), "commit" if commit else "abort", run))

    def read(self, from_offset: int, isolation: Isolation, max_records: int) -> tuple[list[InputRecord], int, bool]:
        """Returns records, the next offset to read (markers and aborted records stepped over), and whether that is
        the end.

        Raises:
            OffsetOutOfRangeError: `from_offset` lies outside the log.
        """
        if not self.start_offset <= from_offset <= self._end:
            raise OffsetOutOfRangeError(
                f"offset {from_offset} is outside the log, which is [{self.start_offset}, {self._end})"
            )
        limit = self.end_offset(isolation)
        committed_only = isolation is Isolation.READ_COMMITTED
        records: list[InputRecord] = []
        next_offset = max(limit, from_offset)
        for index in range(bisect_left(self._offsets, from_offset), len(self._entries)):
            entry = self._entries[index]
            if entry.offset >= limit:
                break
            if entry.marker is None and (entry.visible or not committed_only):
                if len(records) == max_records:
                    next_offset = entry.offset
                    break
                records.append(
                    InputRecord(entry.offset, entry.timestamp, entry.key, entry.value, entry.headers or None)
                )
        return records, next_offset, next_offset >= limit

    def entries(self) -> tuple[LogEntry, ...]:
        """Returns everything that is stored, markers and aborted records too."""
        return tuple(self._entries)

    def delete_before(self, offset: int) -> None:
        """Moves the log's start up to `offset` (DeleteRecords, retention); −1 means the end. Never moves it down."""
        target = self._end if offset == -1 else offset
        if target > self._end:
            raise OffsetOutOfRangeError(f"offset {offset} is beyond the log's end {self._end}")
        self.start_offset = max(self.start_offset, target)
        self._keep(lambda entry: entry.offset >= self.start_offset)

    def truncate(self, end: int) -> None:
        """Cuts the log at `end`: what an unclean leader election or a lost disk does. Offsets at and beyond it are
        given again.
        """
        self._end = min(self._end, end)
        self.start_offset = min(self.start_offset, self._end)
        self._keep(lambda entry: entry.offset < self._end)
        self._open = {producer: run for producer, run in self._open.items() if run.first_offset < self._end}

    def compact(self, *, tail: int, drop_tombstones: bool | int, now: int = 0) -> None:
        """Keeps the last value per key below the cleanable point: the last stable offset, less `tail` records kept
        as they are.

        Tombstones and markers stay, or go at once, or (`drop_tombstones` is a time) that many milliseconds after they
        were cleaned for the first time, as `delete.retention.ms` has it.
        """
        cleanable = min(self.end_offset(Isolation.READ_COMMITTED), max(self._end - tail, self.start_offset))
        last: dict[bytes, int] = {}
        for entry in self._entries:
            if entry.offset < cleanable and entry.visible and entry.key is not None:
                last[entry.key] = entry.offset

        def dropped(entry: LogEntry) -> bool:
            if isinstance(drop_tombstones, bool):
                return drop_tombstones
            return self._horizons.setdefault(entry.offset, now + drop_tombstones) <= now

        def keep(entry: LogEntry) -> bool:
            if entry.offset >= cleanable:
                return True
            if entry.marker is not None:
                return not dropped(entry)
            if not entry.visible or entry.key is None or last[entry.key] != entry.offset:
                return False
            return entry.value is not None or not dropped(entry)

        self._keep(keep)

    def _put(self, entry: LogEntry) -> int:
        self._entries.append(entry)
        self._offsets.append(entry.offset)
        self._end = entry.offset + 1
        return entry.offset

    def _keep(self, wanted: Callable[[LogEntry], bool]) -> None:
        self._entries = [entry for entry in self._entries if wanted(entry)]
        self._offsets = [entry.offset for entry in self._entries]
