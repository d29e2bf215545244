"""`signal-router workers`: who runs, with which definitions and partitions, and how far behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.kafka.admin_client import connect
from signal_router.kafka.settings import Connection
from signal_router.model.log import TopicPartition
from signal_router.model.times import rfc3339
from signal_router.runtime.await_workers import read_roster
from signal_router.runtime.backlog import backlog
from signal_router.runtime.roster import ALIVE_MS, now_ms, partitions_by_topic
from signal_router.runtime.standing import read_standings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from signal_router.runtime.roster import TakeoverRecord, WorkerRecord

FENCED_LATELY_MS = 24 * 3600 * 1000
"""How long `workers list` tells people that a worker was fenced."""

_COLUMNS = ("slot", "state", "incarnation", "version", "address", "definitions", "partitions", "lag")


@click.group()
def cli() -> None:
    """Lists workers and what they hold."""


@cli.command("list")
@connection_options
@output_option
def list_(connection: Connection, output: Output) -> None:
    """Lists the workers with what they last said, and how many signals and candidates wait in their partitions (lag).

    A row without a slot stands for partitions that no worker alive holds. Lag 0 on every row: all that was published is
    decided. "fenced": another worker found its partitions hidden by an open transaction of this one, took it for dead,
    and ended that within the last day.
    """
    admin = connect(connection)
    roster = read_roster(connection, admin)
    revision = read_standings(connection, admin).revision
    now = now_ms()
    held = {
        slot: _partitions(worker)
        for slot, worker in roster.workers.items()
        if not worker.left and now - worker.at <= ALIVE_MS
    }
    behind = backlog(connection, admin, {*roster.inputs}.union(*held.values()))
    rows = [
        _told(worker, now, revision)
        | _fenced(worker, roster.takeovers.get(slot), now, output)
        | _holding(held.get(slot, frozenset()), behind, output)
        for slot, worker in sorted(roster.workers.items())
    ]
    if nobody := frozenset(behind).difference(*held.values()):
        rows.append({"slot": None, "state": "no worker"} | _holding(nobody, behind, output))
    output.rows(_COLUMNS, rows, empty="no worker has run yet: signal-router run --slot NAME --state-dir DIR")


def _told(worker: WorkerRecord, now: int, revision: int) -> dict[str, object]:
    definitions: object = worker.definitions_revision
    if not worker.left and worker.definitions_revision < revision:
        definitions = f"{worker.definitions_revision} of {revision}"
    return {
        "slot": worker.slot,
        "state": _state(worker, now),
        "incarnation": worker.incarnation,
        "version": worker.version,
        "address": worker.address,
        "definitions": definitions,
        "last_heard": rfc3339(worker.at),
    }


def _state(worker: WorkerRecord, now: int) -> str:
    silent_ms = now - worker.at
    if worker.left:
        return "left"
    if silent_ms <= ALIVE_MS:
        return "alive"
    return f"silent for {_age(silent_ms // 1000)}"


def _fenced(worker: WorkerRecord, takeover: TakeoverRecord | None, now: int, output: Output) -> dict[str, object]:
    """By whom and when a worker was fenced last: for people a part of its state, where it was lately."""
    if output.for_programs:
        fenced = takeover and {"by": takeover.by, "at": rfc3339(takeover.at), "partitions": takeover.partitions}
        return {"fenced": fenced}
    if takeover is None or now - takeover.at > FENCED_LATELY_MS:
        return {}
    ago = _age(max(now - takeover.at, 0) // 1000)
    return {"state": f"{_state(worker, now)}, fenced by {takeover.by} {ago} ago"}


def _age(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _partitions(worker: WorkerRecord) -> frozenset[TopicPartition]:
    return frozenset(
        TopicPartition(topic, number) for topic, numbers in worker.partitions.items() for number in numbers
    )


def _holding(
    held: frozenset[TopicPartition], behind: Mapping[TopicPartition, int], output: Output
) -> dict[str, object]:
    """A row's partitions and lag: for programs by topic and partition, for people as ranges and a sum."""
    by_topic = partitions_by_topic(held)
    if output.for_programs:
        lags = [
            {"topic": tp.topic, "partition": tp.partition, "lag": behind[tp]} for tp in sorted(held) if tp in behind
        ]
        return {"partitions": by_topic, "lag": sum(behind[tp] for tp in held), "lags": lags}
    text = ", ".join(f"{topic} {_ranges(numbers)}" for topic, numbers in by_topic.items())
    return {"partitions": text, "lag": sum(behind[tp] for tp in held) if held else None}


def _ranges(numbers: Iterable[int]) -> str:
    """Writes ascending numbers as ranges: 0-3+5."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return "+".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
