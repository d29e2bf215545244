"""The check: reads the logs of an app once, topic by topic, and says of each invariant whether it holds.

What needs only the order of a partition is judged while it is read; what belongs to join sets goes into shards
(`signal_router.verify.shards`), which are judged one after the other (`signal_router.verify.judge`). Nothing is ever
said to hold for want of something to look at: what is not there in full is named, and what depends on it is left open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from signal_router.errors import StateError
from signal_router.model import candidates
from signal_router.model.candidates import Candidate
from signal_router.model.log import InputRecord, NextOffset, TopicPartition
from signal_router.testing.reference import (
    CandidateInput,
    DefinitionRecord,
    Definitions,
    Evaluation,
    Limits,
    Position,
    View,
    read_input,
)
from signal_router.testing.reference_compare import DEAD_LETTERS, LINEAGE, TRIGGERS
from signal_router.testing.reference_values import UnreadableError, join_key_hash
from signal_router.verify.bench import Bench, document_of_letter
from signal_router.verify.changelog import PartitionFold, set_of
from signal_router.verify.firings import (
    named_candidate,
    position_of,
    read_document,
    set_of_trigger,
)
from signal_router.verify.judge import judge
from signal_router.verify.logs import Logs
from signal_router.verify.report import Finding, Invariant, Report, Verdict
from signal_router.verify.shards import (
    Bad,
    Entry,
    HeldShards,
    Shards,
    Signal,
    Transit,
    Written,
    sequence_of,
    shard_of,
)
from signal_router.verify.tally import Tally
from signal_router.verify.transactions import Fence, Struck
from signal_router.verify.whole import Whole, at

BY_MATCHING = (Invariant.CONSERVED, Invariant.PARENTS, Invariant.DEAD_LETTERS)
BY_ORDER = (Invariant.COMPLETE, Invariant.SOUND, Invariant.ONE_OUTCOME, Invariant.TABLES)
"""What takes the reference's matching, and what its joining."""

FORMAT = 1
"""The newest format of lineage that is read."""


def check(
    logs: Logs,
    *,
    struck: Struck | None = None,
    shards: Callable[[Definitions], Shards] = HeldShards,
    limits: Limits | None = None,
) -> Report:
    """Judges the logs of an app. STRUCK is part of the report where it is said which faults there were to be.

    `limits`: the most pending signals that the workers allow; None: unknown, and nothing that met one is judged.
    """
    return evaluate_and_check(logs, struck=struck, shards=shards, limits=limits)[0]


def evaluate_and_check(
    logs: Logs,
    *,
    struck: Struck | None = None,
    shards: Callable[[Definitions], Shards] = HeldShards,
    limits: Limits | None = None,
) -> tuple[Report, Evaluation | None]:
    """The same with what the reference evaluation made of the last shard; None where it could make nothing of it."""
    checking = _Check(logs, struck, shards, limits)
    return checking.report(), checking.evaluation


def _unjudged(reason: str, invariants: Iterable[Invariant]) -> Report:
    return Report(tuple(Finding(each, Verdict.UNJUDGED, 0, (reason,)) for each in invariants))


class _Check:
    def __init__(
        self,
        logs: Logs,
        struck: Struck | None,
        shards: Callable[[Definitions], Shards],
        limits: Limits | None,
    ) -> None:
        self._logs = logs
        self._app = logs.app
        self._names = logs.app.names
        self._struck = struck
        self._make_shards = shards
        self._limits = limits
        self._tally = Tally()
        self._definitions = Definitions(())
        self._folds: dict[int, PartitionFold] = {}
        self._views: dict[tuple[str, int], list[View]] = defaultdict(list)
        self._revisions: dict[int, None] = {}
        self._matched = self._ordered = True
        self._limited = False
        self._steady_times = True
        self._first_views: dict[tuple[str, int], int] = {}
        self._unread: Counter[TopicPartition] = Counter()
        self.evaluation: Evaluation | None = None

    def report(self) -> Report:
        kept = [each for each in Invariant if each is not Invariant.STRUCK or self._struck is not None]
        absent = self._absent()
        if absent is not None:
            return _unjudged(absent, kept)
        try:
            self._read_definitions()
            self._read_changelog()
            self._read_candidates()
            self._read_lineage()
            self._read_inputs()
            self._read_signals()
            self._read_triggers()
            self._read_dead_letters()
            self._judge_shards()
        except StateError as error:
            self._tally.lacks(f"a record cannot be read: {error.message}", *Invariant)
        whole = self._whole()
        whole.judge_offsets()
        whole.judge_ends()
        whole.judge_stored_tables()
        if self._struck is not None:
            whole.judge_struck(self._struck)
        return Report(tuple(self._tally.finding(each) for each in kept))

    # ---- is there anything

    def _absent(self) -> str | None:
        names, logs = self._names, self._logs
        own = (names.definitions, names.candidates, names.changelog, names.triggers, names.lineage, names.dead_letters)
        missing = [topic for topic in (*own, *self._app.inputs) if not logs.partitions(topic)]
        if missing:
            return f'topic "{missing[0]}" does not exist: are prefix and app those of the workers?'
        if all(logs.committed(tp).after is None for tp in self._partitions(*self._app.inputs)):
            return f'group "{self._app.group}" has read nothing: are prefix and app those of the workers?'
        return None

    def _partitions(self, *topics: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for topic in topics for number in self._logs.partitions(topic)]

    @property
    def _destinations(self) -> list[str]:
        """The triggers topic, and those that any document has named and that can be one."""
        named = {document.topic for document in self._definitions.documents() if document.topic is not None}
        return [self._names.triggers, *sorted(named - self._names.own() - set(self._app.inputs))]

    # ---- reading

    def _read_definitions(self) -> None:
        records: list[DefinitionRecord] = []
        for tp in self._partitions(self._names.definitions):
            if self._logs.span(tp).start > 0:
                self._no_matching(f'documents of "{tp.topic}" below offset {self._logs.span(tp).start} are gone')
            records += [DefinitionRecord(each.offset, each.value) for each in self._logs.read(tp)]
        self._definitions = Definitions(records)
        self._documents = {each.revision for each in records}
        self._shards = self._make_shards(self._definitions)

    def _read_changelog(self) -> None:
        for tp in self._partitions(self._names.changelog):
            fold = self._folds[tp.partition] = PartitionFold()
            fence = Fence(self._app.shared)
            self._look_at(tp, LINEAGE, Invariant.TABLES, Invariant.CONSERVED)
            for record in self._logs.read(tp):
                self._fenced(fence, tp, record)
                key = record.key or b""
                name = set_of(key)
                if name is None:
                    fold.take(key, record.value)
                else:
                    shard = self._shard(name[0], join_key_hash(name[1])) if self._shards.count > 1 else 0
                    self._shards.put(shard, Entry(tp.partition, key, record.value))

    def _read_candidates(self) -> None:
        for tp in self._partitions(self._names.candidates):
            fence, begun = Fence(self._app.shared), self._logs.span(tp).begun
            fold = self._folds.get(tp.partition) or PartitionFold()
            for record in self._logs.read(tp):
                self._fenced(fence, tp, record)
                if record.offset < fold.next_offset:
                    continue
                try:
                    candidate = candidates.decode(record.value or b"")
                except msgspec.DecodeError as error:
                    raise StateError(f'record {record.offset} of "{tp.topic}": {error}') from error
                if isinstance(candidate, Candidate):
                    signal, key_hash = candidate.signal, join_key_hash(candidate.key)
                    place = (signal.topic, signal.partition, signal.offset)
                    shard = self._shard(candidate.subscription, key_hash)
                    self._shards.put(shard, Transit(place, candidate.subscription, key_hash))
                    if record.offset < begun:
                        self._unread[tp] += 1

    def _read_lineage(self) -> None:
        for tp in self._partitions(self._names.lineage):
            span, fence = self._logs.span(tp), Fence(self._app.shared)
            gap = self._look_at(tp, LINEAGE, Invariant.LINEAGE)
            if gap is not None:
                self._no_matching(gap)
            for record in self._logs.read(tp):
                self._fenced(fence, tp, record)
                if record.value is not None:
                    self._take_lineage(tp, record, late=record.offset >= span.sure)

    def _take_lineage(self, tp: TopicPartition, record: InputRecord, *, late: bool) -> None:
        key = record.key or b""
        kind = key[: key.find(b"/") + 1]
        if kind in (b"trigger/", b"signal/"):
            self._limited = self._limited or b'"reason":"limit"' in (record.value or b"")
            written = _written("lineage", tp, record, late=late)
            self._shards.put(self._shard_of_lineage(kind, key, record.value), written)
            return
        if kind not in (b"view/", b"input/"):
            return
        document = read_document(record.value)
        if document is None or document.get("format", 1) != FORMAT:
            said = "nothing that can be read" if document is None else f"format {document.get('format')}"
            raise StateError(f"lineage {key.decode(errors='replace')} has {said}, this program reads format {FORMAT}")
        match document:
            case {
                "kind": "view",
                "topic": str(topic),
                "partition": int(number),
                "offset": int(at),
                "revision": int(of),
            }:
                self._views[topic, number].append(View(at, of))
                self._revisions[of] = None
                if topic not in (*self._app.inputs, self._names.candidates):
                    self._no_matching(f'signals of topic "{topic}" were read, too, and it was not named')
            case {"kind": "input", "partition": int(number), "sequence": int(sequence), "input": dict(given)}:
                self._shards.add_input(number, tp.partition, {**given, "sequence": sequence})
            case _:
                self._tally.breaks(Invariant.LINEAGE, f"lineage {key!r} cannot be read")

    def _shard_of_lineage(self, kind: bytes, key: bytes, value: bytes | None) -> int | None:
        if self._shards.count == 1:
            return 0
        if kind == b"signal/":
            name = named_candidate(key)
            return 0 if name is None else self._shard(*name[1:])
        document = read_document(value) or {}
        if document.get("join_key") == {}:
            return None  # the signal may have to tell it
        return self._shard_of_trigger(document)

    def _shard_of_trigger(self, document: Mapping[str, object]) -> int:
        if self._shards.count == 1:
            return 0
        its_set = set_of_trigger(dict(document), self._logs.topic_id, self._shards.replayed)
        return 0 if its_set is None else self._shard(*its_set)

    def _shard(self, subscription: str, key_hash: str) -> int:
        count = self._shards.count
        return 0 if count == 1 else shard_of(subscription, key_hash, count)

    def _read_inputs(self) -> None:
        """The order of joining: judged whole, and taken up to where each table stands."""
        wanted = {number: fold.sequence for number, fold in self._folds.items() if fold.sequence}
        there = set(self._shards.input_partitions())
        if not there and wanted:
            self._no_order("no decision inputs stand in lineage; run all workers with --lineage all from the start")
            self._tally.lacks(
                "no decision inputs stand in lineage; run all workers with --lineage all from the start",
                Invariant.ORDER,
            )
        for number in sorted(there | wanted.keys()):
            given = self._shards.inputs_in_order(number) if number in there else iter(())
            self._take_inputs(number, given, wanted.get(number, 0), report=bool(there))

    def _take_inputs(self, number: int, inputs: Iterator[Mapping[str, object]], until: int, *, report: bool) -> None:
        tally, reached = self._tally, defaultdict[tuple[str, int], int](int)
        next_sequence, before = 0, None
        for raw in inputs:
            sequence = sequence_of(raw)
            if before is not None and sequence == sequence_of(before):
                if raw != before:
                    tally.breaks(Invariant.ORDER, f"candidates partition {number}: two inputs have number {sequence}")
                continue
            if before is not None and sequence < sequence_of(before):
                text = f"candidates partition {number}: sequence {sequence} follows {sequence_of(before)}"
                tally.breaks(Invariant.ORDER, text)
            before = raw
            if sequence >= until:
                continue  # behind the cut
            if sequence != next_sequence:
                self._hole(number, next_sequence, sequence)
            next_sequence = sequence + 1
            try:
                given = read_input(raw)  # type: ignore[arg-type]
            except (UnreadableError, KeyError, TypeError) as error:
                raise StateError(f"input/{number}/{sequence} cannot be read: {error}") from error
            tally.examined(Invariant.ORDER)
            if isinstance(given, CandidateInput):
                position = given.position
                lane = (position.topic, position.partition)
                if position.offset < reached[lane]:
                    where = f'{"/".join(map(str, position))} for "{given.subscription}"'
                    tally.breaks(
                        Invariant.ORDER,
                        f"candidates partition {number}, sequence {sequence} ({where}) comes after offset"
                        f" {reached[lane]} of its signals partition",
                    )
                reached[lane] = max(position.offset, reached[lane])
                self._revisions[given.revision] = None
            self._shards.take_input(number, given)
        if next_sequence < until and report:
            self._hole(number, next_sequence, until)

    def _hole(self, number: int, first: int, behind: int) -> None:
        reason = f"decision inputs {first} to {behind - 1} of candidates partition {number} are not in lineage"
        if self._app.all_lineage and LINEAGE not in self._tally.gaps:
            self._tally.breaks(Invariant.ORDER, reason)
            return
        self._no_order(reason)
        self._tally.lacks(reason, Invariant.ORDER)

    def _read_signals(self) -> None:
        gone = sorted(self._revisions.keys() - self._documents - {-1})
        if gone:
            self._no_matching(f'document {gone[0]} is gone from "{self._names.definitions}"')
        for tp in self._partitions(*self._app.inputs):
            self._read_signals_of(tp)

    def _read_signals_of(self, tp: TopicPartition) -> None:
        logs, tally = self._logs, self._tally
        span, committed = logs.span(tp), logs.committed(tp)
        until = 0 if committed.after is None else committed.after.offset
        views = sorted(set(self._views.get((tp.topic, tp.partition), ())))
        begun = [view.from_offset for view in views]
        self._first_views[tp.topic, tp.partition] = begun[0] if begun else until
        if span.start > 0 and (not begun or span.start > begun[0]) and until > (begun[0] if begun else 0):
            self._no_matching(f'signals below offset {span.start} of "{tp.topic}" partition {tp.partition} are gone')
        topic_id, latest = logs.topic_id(tp.topic), -1
        for record in logs.read(tp):
            if record.offset >= until:
                if record.offset < span.begun:
                    self._unread[tp] += 1
                continue
            place = bisect_right(begun, record.offset) - 1
            if place < 0:
                if committed.before is not None and not begun and not _without_definitions(committed.after):
                    where = f'"{tp.topic}" partition {tp.partition}'
                    why = "none was in force, or that lineage is gone"
                    self._no_matching(f"lineage does not say under which definitions {where} was read: {why}")
                continue
            self._steady_times = self._steady_times and record.timestamp >= latest
            latest = max(record.timestamp, latest)
            # Of several views from one offset the newest counts.
            signal = Signal(
                tp.topic,
                tp.partition,
                record.offset,
                record.timestamp,
                record.value,
                tuple(record.headers or ()),
                topic_id,
                views[place].revision,
            )
            tally.examined(Invariant.DEAD_LETTERS)
            bad = self._shards.signal(signal, self._app.value_limit_bytes)
            if bad is not None:
                self._shards.put(
                    self._shard("", _place(bad.position)), Bad((tp.topic, tp.partition, record.offset), bad.problem)
                )
        if tally.gaps.get(LINEAGE) is None and span.start > until > 0:
            tally.breaks(Invariant.OFFSETS, f"{at(tp)}: next offset {until} lies below the log's start {span.start}")

    def _read_triggers(self) -> None:
        for written in self._shards.waiting():
            self._shards.put(self._shard_of_trigger(read_document(written.value) or {}), written)
        for tp in self._partitions(*self._destinations):
            span, fence = self._logs.span(tp), Fence(self._app.shared)
            self._look_at(tp, TRIGGERS, Invariant.COMPLETE, Invariant.UNIQUE, Invariant.LINEAGE)
            for record in self._logs.read(tp):
                document = read_document(record.value) or {}
                if tp.topic != self._names.triggers and not self._ours(document):
                    continue
                self._fenced(fence, tp, record)
                written = _written("trigger", tp, record, late=record.offset >= span.sure)
                self._shards.put(self._shard_of_trigger(document), written)

    def _ours(self, document: Mapping[str, object]) -> bool:
        """Whether a record of a topic that others may write to, too, is a trigger of this app."""
        match document:
            case {"subscription": {"id": str(subscription)}, "signals": [dict(first), *_]}:
                at = position_of(first.get("position"))
                return at is not None and at.topic in self._app.inputs and subscription in self._definitions.ids()
        return False

    def _read_dead_letters(self) -> None:
        definitions: Counter[int] = Counter()
        for tp in self._partitions(self._names.dead_letters):
            span, fence = self._logs.span(tp), Fence(self._app.shared)
            self._look_at(tp, DEAD_LETTERS, Invariant.DEAD_LETTERS)
            for record in self._logs.read(tp):
                self._fenced(fence, tp, record)
                letter = read_document(record.value) or {}
                at = position_of(letter.get("position"))
                if letter.get("kind") == "definition" and at is not None:
                    definitions[at.offset] += 1
                    continue
                if letter.get("kind") == "signal" and at is not None and self._without_view(at):
                    continue
                written = _written("letter", tp, record, late=record.offset >= span.sure)
                if not (written.late and at is not None and self._behind(at.topic, at.partition, at.offset)):
                    self._shards.put(self._shard_of_letter(written, letter), written)
        self._judge_definition_letters(definitions)

    def _without_view(self, at: Position) -> bool:
        """Whether a record stands before any that was read with definitions. Lineage does not say whether it was read,
        so its dead letter is neither asked for nor held against anybody.
        """
        return at.offset < self._first_views.get((at.topic, at.partition), 0)

    def _behind(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a position lies behind the cut."""
        committed = self._logs.committed(TopicPartition(topic, partition)).after
        return committed is not None and offset >= committed.offset

    def _shard_of_letter(self, written: Written, letter: Mapping[str, object]) -> int:
        if letter.get("kind") != "trigger":
            return self._shard("", (written.key or b"").decode(errors="replace"))
        return self._shard_of_trigger(document_of_letter(written) or {})

    def _judge_definition_letters(self, letters: Counter[int]) -> None:
        if not self._matched:
            return
        ignored = set(self._definitions.ignored)
        seen = self._folds[0].progress.revision if 0 in self._folds else -1
        for revision in sorted(ignored | letters.keys()):
            wanted = 1 if revision in ignored else 0
            found = letters[revision]
            if found != wanted and (found or revision <= seen):
                text = f"dead letters of document {revision}: {found} found, {wanted} expected"
                self._tally.breaks(Invariant.DEAD_LETTERS, text, DEAD_LETTERS if found < wanted else None)

    def _fenced(self, fence: Fence, tp: TopicPartition, record: InputRecord) -> None:
        self._tally.examined(Invariant.FENCED)
        wrong = fence.take(record.headers)
        if wrong is not None:
            self._tally.breaks(Invariant.FENCED, f"{at(tp)}/{record.offset}: {wrong}")

    # ---- what is missing

    def _look_at(self, tp: TopicPartition, role: str, *invariants: Invariant) -> str | None:
        """Says what of an output partition cannot be seen: what is gone from its start, what is hidden at its end."""
        span = self._logs.span(tp)
        if span.start > 0:
            reason = f'records below offset {span.start} of "{tp.topic}" partition {tp.partition} are gone'
        elif span.stable < span.begun:
            reason = f'an open transaction hides the end of "{tp.topic}" partition {tp.partition}'
        else:
            return None
        self._tally.gaps.setdefault(role, reason)
        self._tally.lacks(reason, *invariants)
        return reason

    def _no_matching(self, reason: str) -> None:
        self._matched = False
        self._tally.lacks(reason, *BY_MATCHING, *BY_ORDER)

    def _no_order(self, reason: str) -> None:
        self._ordered = False
        self._tally.lacks(reason, *BY_ORDER)

    # ---- judging

    def _judge_shards(self) -> None:
        if self._limited and (self._limits is None or self._shards.count > 1):
            self._no_order("candidates ended by a limit, and which of them must cannot be told from a part of the sets")
        read_before = {}
        for tp in self._partitions(*self._app.inputs):
            before = self._logs.committed(tp).before
            read_before[tp.topic, tp.partition] = 0 if before is None else before.offset
        bench = Bench(
            app=self._app,
            tally=self._tally,
            definitions=self._definitions,
            folds=self._folds,
            topic_id=self._logs.topic_id,
            replayed=self._shards.replayed,
            read_before=read_before,
            matched=self._matched,
            ordered=self._ordered,
            steady_times=self._steady_times,
            whole=self._shards.count == 1,
            absent=frozenset(topic for topic in self._destinations if not self._logs.partitions(topic)),
            limits=self._limits or Limits(),
        )
        for shard in self._shards.shards():
            judge(shard, bench)
            del shard  # or it would stay while the next one is loaded
        self.evaluation = bench.evaluation
        whole = self._whole()
        whole.judge_doubtful(bench)
        whole.judge_partitions(bench)

    def _whole(self) -> Whole:
        return Whole(self._logs, self._tally, self._folds, self._destinations, self._unread)


def _without_definitions(at: NextOffset | None) -> bool:
    """Whether a signals partition was read up to there before any definition was in force: its offset says so."""
    return at is not None and at.metadata.endswith(" -1")


def _written(role: str, tp: TopicPartition, record: InputRecord, *, late: bool) -> Written:
    return Written(role, tp.topic, record.key, record.value, tuple(record.headers or ()), late)


def _place(position: tuple[str, int, int]) -> str:
    return "/".join(map(str, position))
