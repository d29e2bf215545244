"""The commit: the one place where a stage becomes durable.

    1  decode, match, join against staged writes over the tables      done before: nothing is written yet
    2  check every output against its destination                    done before, in `outputs`
    3  begin the transaction (the log first replaces its producer where the last one ended on an uncertain path)
    4  produce candidates, marks, triggers, lineage, dead letters
    5  produce the changelog, and last in every touched partition its position record
    6  void? otherwise send the next offsets, under the stage's own group metadata
    7  void? otherwise commit
    8  known good and still not void: write the tables, positions last

`commit` yields its effects one by one and does nothing by itself: whoever drives it may stop between any two of them,
which is what a crash does. It knows no thread, no clock and no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from functools import partial

from signal_router.errors import StateError
from signal_router.model.log import (
    AbortableError,
    LogError,
    OutputRecord,
    ProducerFencedError,
    TopicPartition,
    TransactionLog,
)
from signal_router.runtime.stage import Stage
from signal_router.state.keys import LOCAL_POSITION, POSITION


class Verdict(Enum):
    """What became of a stage.

    COMMITTED: durable, and the tables have it. ABORTED: nothing of it is; read again from the committed offsets.
    UNKNOWN: the log must be asked (new producer, restore, seek). FENCED: as UNKNOWN, and another producer took the
    transactional id.
    """

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict, and the error behind it where there was one."""

    verdict: Verdict
    error: LogError | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing to do, with a name for tests and timings."""

    name: str
    run: Callable[[], object]


Commit = Generator[Effect, None, Result]


def commit(stage: Stage, log: TransactionLog, changelog: str, local_position: Callable[[int], bytes]) -> Commit:  # noqa: PLR0911 - one way out per verdict
    """Makes a stage durable, effect by effect.

    `changelog` names the changelog topic; `local_position` gives the local position's value for the changelog offset
    behind a table's position record. Errors of the log thrown in at an effect decide the verdict; any other error
    passes through.
    """
    try:
        yield Effect("begin", log.begin)
        yield Effect("produce", partial(log.produce, stage.outputs))
        yield Effect("changelog", partial(_produce_changelog, stage, log, changelog))
        if not stage.start_sending():
            return (yield from _abort(log, None))
        if stage.next_offsets:
            if stage.group_metadata is None:
                raise StateError("a stage without group metadata would not be fenced")
            yield Effect("offsets", partial(log.send_offsets, stage.next_offsets, stage.group_metadata))
        if _void(stage):
            return (yield from _abort(log, None))
        yield Effect("commit", log.commit)
    except AbortableError as error:
        return (yield from _abort(log, error))
    except ProducerFencedError as error:
        return Result(Verdict.FENCED, error)
    except LogError as error:
        return Result(Verdict.UNKNOWN, error)
    if not stage.finish():
        return Result(Verdict.UNKNOWN)
    yield Effect("tables", partial(_write_tables, stage, log, changelog, local_position))
    return Result(Verdict.COMMITTED)


def run(steps: Commit, observe: Callable[[str], object] = lambda _name: None) -> Result:
    """Drives a commit to its end; `observe` is told the name of each effect before it runs."""
    try:
        effect = next(steps)
        while True:
            observe(effect.name)
            try:
                effect.run()
            except LogError as error:
                effect = steps.throw(error)
            else:
                effect = next(steps)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _void(stage: Stage) -> bool:
    return stage.state.value == "void"


def _abort(log: TransactionLog, error: AbortableError | None) -> Commit:
    try:
        yield Effect("abort", log.abort)
    except ProducerFencedError as fenced:
        return Result(Verdict.FENCED, fenced)
    except LogError as failed:
        return Result(Verdict.UNKNOWN, failed)
    return Result(Verdict.ABORTED, error)


def _produce_changelog(stage: Stage, log: TransactionLog, changelog: str) -> None:
    records: list[OutputRecord] = []
    for number, table in stage.tables.items():
        writes = stage.writes[number] = table.staged()
        records.extend([OutputRecord(changelog, key, value, number) for key, value in writes])
        records.append(OutputRecord(changelog, POSITION, stage.positions[number], number, stage.headers, tracked=True))
    log.produce(records)


def _write_tables(stage: Stage, log: TransactionLog, changelog: str, local_position: Callable[[int], bytes]) -> None:
    delivered = log.delivered()
    for number, table in stage.tables.items():
        offset = delivered[TopicPartition(changelog, number)]
        writes = [*stage.writes[number], *table.staged_locally()]
        writes.append((POSITION, stage.positions[number]))
        writes.append((LOCAL_POSITION, local_position(offset + 1)))
        table.apply(writes)
