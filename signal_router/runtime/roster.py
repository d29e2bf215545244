"""The workers topic: who is alive with which definitions, since when each input partition is read, and whose open
transactions were ended by whom.

Keys: a slot, `input/<topic>/<partition>`, or `takeover/<slot>`; a slot has no slash. Values: JSON, format 1. Keys of
other kinds belong to newer programs and are passed over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, unquote

import msgspec

from signal_router.errors import NewerFormatError, StateError
from signal_router.model.log import InputRecord, OutputRecord, TopicPartition

FORMAT = 1
ALIVE_MS = 30_000
"""A worker that has not written for three of its intervals is not waited for."""


class WorkerRecord(msgspec.Struct, frozen=True):
    """What a worker says of itself. `at`: its wall clock, epoch ms; `left`: it has stopped in good order; `life`: drawn
    at its start, so that two that began at once under one slot are told apart.
    """

    slot: str
    incarnation: int
    version: str
    address: str
    definitions_revision: int
    partitions: dict[str, list[int]]
    at: int
    left: bool = False
    life: str = ""
    format: int = FORMAT

    @property
    def age(self) -> tuple[int, str]:
        """Of two workers with one slot the greater one goes on."""
        return self.incarnation, self.life


class InputStart(msgspec.Struct, frozen=True):
    """Since when an input partition is read: a committed offset that is missing later has expired."""

    topic_id: str
    offset: int
    started_at: int
    format: int = FORMAT


class TakeoverRecord(msgspec.Struct, frozen=True):
    """That slot `by` ends the open transaction of `slot`, which hides these partitions from it. Written before."""

    slot: str
    by: str
    partitions: dict[str, list[int]]
    at: int
    format: int = FORMAT


class _Numbered(msgspec.Struct, frozen=True):
    """What a record of any format has."""

    format: int


_Value = TypeVar("_Value", WorkerRecord, InputStart, TakeoverRecord)


@dataclass(slots=True)
class Roster:
    """The workers topic, folded. `takeovers`: the latest of each slot that was fenced."""

    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    inputs: dict[TopicPartition, InputStart] = field(default_factory=dict)
    takeovers: dict[str, TakeoverRecord] = field(default_factory=dict)

    def take(self, records: Sequence[InputRecord]) -> None:
        """Takes the next records. Raises `NewerFormatError`; `StateError` for one that cannot be read."""
        for record in records:
            self._take(record)

    def alive(self, now: int) -> list[WorkerRecord]:
        """The workers that have written lately and have not left, in order of slots."""
        return [
            worker
            for _, worker in sorted(self.workers.items())
            if not worker.left and now - worker.at <= ALIVE_MS and any(worker.partitions.values())
        ]

    def _take(self, record: InputRecord) -> None:
        key = (record.key or b"").decode(errors="replace")
        if record.value is None:
            return
        kind, slash, rest = key.partition("/")
        if not slash:
            self._take_worker(key, _read(key, record.value, WorkerRecord))
        elif kind == "input":
            topic, _, partition = rest.rpartition("/")
            if not partition.isdecimal():
                raise StateError(f'workers record "{key}" cannot be read: it names no partition')
            self.inputs[TopicPartition(unquote(topic), int(partition))] = _read(key, record.value, InputStart)
        elif kind == "takeover":
            self.takeovers[rest] = _read(key, record.value, TakeoverRecord)

    def _take_worker(self, slot: str, worker: WorkerRecord) -> None:
        known = self.workers.get(slot)
        if known is None or known.age <= worker.age:
            self.workers[slot] = worker  # else an older life wrote once more, and must not hide the newer one


def _read(key: str, value: bytes, kind: type[_Value]) -> _Value:
    try:
        number = msgspec.json.decode(value, type=_Numbered).format
        if number <= FORMAT:
            return msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise StateError(f'workers record "{key}" cannot be read: {error}') from error
    raise NewerFormatError(
        f'workers record "{key}" is of format {number}, this program reads up to {FORMAT}',
        hint="run the newer program version, or use a new --prefix",
    )


def worker_output(topic: str, worker: WorkerRecord, headers: tuple[tuple[str, bytes], ...]) -> OutputRecord:
    """The record in which a worker says how it is."""
    return OutputRecord(topic, worker.slot.encode(), msgspec.json.encode(worker), headers=headers)


def input_output(
    topic: str, tp: TopicPartition, start: InputStart, headers: tuple[tuple[str, bytes], ...]
) -> OutputRecord:
    """The record that says since when an input partition is read."""
    key = f"input/{quote(tp.topic, safe='')}/{tp.partition}".encode()
    return OutputRecord(topic, key, msgspec.json.encode(start), headers=headers)


def takeover_output(topic: str, takeover: TakeoverRecord) -> OutputRecord:
    """The record that says whose open transaction is ended by whom."""
    return OutputRecord(topic, f"takeover/{takeover.slot}".encode(), msgspec.json.encode(takeover))


def partitions_by_topic(tps: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Groups partitions by topic, both in order."""
    grouped: dict[str, list[int]] = {}
    for tp in sorted(tps):
        grouped.setdefault(tp.topic, []).append(tp.partition)
    return grouped


def now_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return int(time.time() * 1000)


def lagging(workers: Iterable[WorkerRecord], revision: int) -> Mapping[str, int]:
    """The slots that have not seen a definitions revision yet, with the one they have."""
    return {worker.slot: worker.definitions_revision for worker in workers if worker.definitions_revision < revision}
