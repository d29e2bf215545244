"""The workers topic: who is alive with which definitions, and since when each input partition is read.

Keys: a slot, or `input/<topic>/<partition>`. Values: JSON, format 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import msgspec

from signal_router.errors import StateError
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


@dataclass(slots=True)
class Roster:
    """The workers topic, folded."""

    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    inputs: dict[TopicPartition, InputStart] = field(default_factory=dict)

    def take(self, records: Sequence[InputRecord]) -> None:
        """Takes the next records. Raises `StateError` for one of a newer format."""
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
        is_input = key.startswith("input/")
        if record.value is None:
            return
        try:
            _check_format(key, msgspec.json.decode(record.value, type=_Formatted).format)
            if is_input:
                topic, partition = key.removeprefix("input/").rsplit("/", 1)
                tp = TopicPartition(unquote(topic), int(partition))
                self.inputs[tp] = msgspec.json.decode(record.value, type=InputStart)
                return
            worker = msgspec.json.decode(record.value, type=WorkerRecord)
        except (msgspec.DecodeError, ValueError) as error:
            raise StateError(f'workers record "{key}" cannot be read: {error}') from error
        known = self.workers.get(key)
        if known is None or known.age <= worker.age:
            self.workers[key] = worker  # else an older life wrote once more, and must not hide the newer one


class _Formatted(msgspec.Struct):
    """What every format has."""

    format: int = FORMAT


def _check_format(key: str, found: int) -> None:
    if found > FORMAT:
        raise StateError(
            f'workers record "{key}" is of format {found}, this program reads up to {FORMAT}',
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
