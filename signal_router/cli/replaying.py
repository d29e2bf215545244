"""Replaying a selection of dead letters: each once, in the order they came, with what became of each."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signal_router.cli.aligned import aligned_rows
from signal_router.cli.progress import progress_bar
from signal_router.errors import RecordError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.publish import Publisher
from signal_router.kafka.tail import Beginning, Read, Since, scan
from signal_router.kafka.topics import resolve
from signal_router.model.dead_letters import DeadLetter, Kind, decode_dead_letter
from signal_router.model.log import TopicPartition
from signal_router.runtime.replay import (
    AlreadyFiredError,
    ReplayRefusedError,
    SignalReplay,
    TriggerReplay,
    refuse_kind,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka.admin import AdminClient

    from signal_router.cli.output import Output
    from signal_router.kafka.settings import Connection
    from signal_router.runtime.pending_sets import Progress

EXIT_REFUSED = 1
_COLUMNS = ("key", "kind", "result", "destination", "detail")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: by their keys, or by kind, reason and time (epoch milliseconds)."""

    keys: frozenset[str] | None = None
    kind: str | None = None
    reason: str | None = None
    since: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether anything is left out."""
        return any(each is not None for each in (self.keys, self.kind, self.reason))

    def takes(self, letter: DeadLetter, key: str = "") -> bool:
        """Whether a dead letter is selected."""
        return (
            (self.keys is None or key in self.keys)
            and (self.kind is None or letter.kind.value == self.kind)
            and (self.reason is None or letter.reason == self.reason)
        )


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Where a selected dead letter stands, and what it stands for: the same for its earlier and later copies."""

    tp: TopicPartition
    offset: int
    timestamp: int
    trigger_id: str | None


def replay_all(connection: Connection, selection: Selection, *, dry_run: bool, force: bool, output: Output) -> int:
    """Replays a selection and says what became of each; returns how many were refused, or not found."""
    admin = connect(connection)
    names = resolve(connection.prefix, connection.app)
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(connection))
        signals = SignalReplay(connection, admin, publisher, force=force)
        with progress_bar("reading dead letters") as tell:
            chosen, missing = _choose(connection, admin, names.dead_letters, selection, signals, tell)
        ids = frozenset(each.trigger_id for each in chosen.values() if each.trigger_id is not None)
        triggers = stack.enter_context(closing(TriggerReplay(connection, admin, names, ids)))
        if ids and not dry_run:
            triggers.begin()
        with progress_bar("replaying") as tell:
            for read in _letters(connection, admin, names.dead_letters, chosen):
                rows.append(_replayed(read, signals, triggers, dry_run=dry_run))
                tell(len(rows), len(chosen))
    rows += [_result(key, None, "refused", None, "there is no dead letter with this key") for key in sorted(missing)]
    aligned_rows(output, _COLUMNS, rows, empty="no dead letters to replay")
    return sum(row["result"] == "refused" for row in rows)


def _choose(
    connection: Connection,
    admin: AdminClient,
    topic: str,
    selection: Selection,
    signals: SignalReplay,
    tell: Progress,
) -> tuple[dict[str, _Chosen], set[str]]:
    """Finds the selected ones, the latest of those that stand for the same; and the keys that were not found."""
    chosen: dict[str, _Chosen] = {}
    found: set[str] = set()
    start = Beginning() if selection.since is None else Since(selection.since)
    for read in scan(connection, admin, [topic], since=start, progress=tell):
        letter = _letter(read)
        key = _key(read)
        if letter is None or not selection.takes(letter, key):
            continue
        found.add(key)
        name = _stands_for(letter, key, signals)
        before = chosen.get(name)
        if before is None or before.timestamp <= read.record.timestamp:
            trigger_id = letter.trigger_id if isinstance(letter.trigger_id, str) else None
            chosen[name] = _Chosen(read.tp, read.record.offset, read.record.timestamp, trigger_id)
    return chosen, set(selection.keys or ()) - found


def _stands_for(letter: DeadLetter, key: str, signals: SignalReplay) -> str:
    if letter.kind is Kind.SIGNAL:
        try:
            return f"signal {signals.identity(letter)}"
        except ReplayRefusedError:
            pass  # said when it is its turn
    return f"{letter.kind.value} {key}"


def _letters(connection: Connection, admin: AdminClient, topic: str, chosen: dict[str, _Chosen]) -> Iterator[Read]:
    """Reads the chosen ones again, so that their values need not be held."""
    places = {(each.tp, each.offset) for each in chosen.values()}
    if places:
        since = min(each.timestamp for each in chosen.values())
        for read in scan(connection, admin, [topic], since=Since(since)):
            if (read.tp, read.record.offset) in places:
                yield read


def _replayed(read: Read, signals: SignalReplay, triggers: TriggerReplay, *, dry_run: bool) -> dict[str, object]:
    key, letter = _key(read), _letter(read)
    if letter is None:
        return _result(key, None, "refused", None, "it is no dead letter any more")
    try:
        refuse_kind(letter)
        way = triggers if letter.kind is Kind.TRIGGER else signals
        if dry_run:
            return _result(key, letter, "would be replayed", way.check(letter), "")
        sent = way.send(letter)
    except AlreadyFiredError as error:
        return _result(key, letter, "already written", None, error.message)
    except ReplayRefusedError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return _result(key, letter, "refused", None, f"{error.message}{hint}")
    at = sent.position
    return _result(key, letter, "replayed", sent.destination, f"at {at.topic}/{at.partition}/{at.offset}" if at else "")


def _result(
    key: str, letter: DeadLetter | None, result: str, destination: str | None, detail: str
) -> dict[str, object]:
    kind = None if letter is None else letter.kind.value
    return {"key": key, "kind": kind, "result": result, "destination": destination, "detail": detail}


def _letter(read: Read) -> DeadLetter | None:
    try:
        return decode_dead_letter(read.record.value or b"")
    except RecordError:
        return None


def _key(read: Read) -> str:
    return (read.record.key or b"").decode("utf-8", "replace")
