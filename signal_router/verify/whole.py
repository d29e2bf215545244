"""Judging what belongs to no join set: offsets, ends, whole tables, faults, and what nothing matches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from signal_router.errors import BrokerError, ConfigurationError
from signal_router.model.log import TopicPartition
from signal_router.verify.bench import Bench, shown
from signal_router.verify.changelog import LOCAL, PartitionFold
from signal_router.verify.logs import Logs
from signal_router.verify.report import Invariant
from signal_router.verify.tally import Tally
from signal_router.verify.transactions import Struck, aborted_and_redone


@dataclass(frozen=True, slots=True)
class Whole:
    """What was read, once all of it has been. `unread` counts what workers have left, by partition."""

    logs: Logs
    tally: Tally
    folds: Mapping[int, PartitionFold]
    destinations: Sequence[str]
    unread: Counter[TopicPartition]

    def judge_doubtful(self, bench: Bench) -> None:
        """What is named but nothing matches: there is no such record, or it is no such candidate."""
        wanted: dict[TopicPartition, dict[int, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
        for name, place in bench.doubtful.items():
            tp = TopicPartition(name[0].topic, name[0].partition)
            wanted[tp][name[0].offset].append((shown(name), place))
        for tp, by_offset in wanted.items():
            there = set()
            if tp.topic in self.logs.app.inputs and tp.partition in self.logs.partitions(tp.topic):
                there = {each.offset for each in self.logs.read(tp) if each.offset in by_offset}
            for offset, named in sorted(by_offset.items()):
                for what, place in named:
                    if offset not in there:
                        self.tally.breaks(Invariant.PARENTS, f"{what}, {place}: no committed record stands there")
                    elif not self._behind(tp, offset) or not self._moving(tp):
                        self.tally.breaks(Invariant.CONSERVED, f"{what}, {place}, comes from nothing")

    def _moving(self, tp: TopicPartition) -> bool:
        """Whether the group went on while the cut was taken, or may have."""
        committed = self.logs.committed(tp)
        return committed.before != committed.after or self.logs.span(tp).sure < self.logs.span(tp).stable

    def judge_partitions(self, bench: Bench) -> None:
        """Where each table stands, what it counts, and its clock."""
        tally = self.tally
        for number, fold in self.folds.items():
            tp = TopicPartition(self.logs.app.names.candidates, number)
            before, after = self.logs.committed(tp)
            low = 0 if before is None else before.offset
            high = 0 if after is None else after.offset
            tally.examined(Invariant.TABLES)
            if not low <= fold.next_offset <= high:
                text = f"the table of partition {number} was decided up to {fold.next_offset}, but {high} is read next"
                tally.breaks(Invariant.TABLES, text)
            counts = {sub: count for (partition, sub), count in bench.pending_counts.items() if partition == number}
            if counts != fold.counts:
                for name in sorted(
                    name for name in counts.keys() | fold.counts.keys() if counts.get(name) != fold.counts.get(name)
                ):
                    text = f'partition {number} counts {fold.counts.get(name)} pending for "{name}",'
                    tally.breaks(Invariant.TABLES, f"{text} its entries hold {counts.get(name)}")
            standing = None if bench.evaluation is None else bench.evaluation.standings.get(number)
            if standing is None:
                continue
            progress = fold.progress
            found = (progress.revision, dict(progress.announced))
            if found != (standing.revision, dict(standing.announced)):
                text = f"partition {number} stands at {found}, by the reference at"
                tally.breaks(Invariant.TABLES, f"{text} {(standing.revision, dict(standing.announced))}")

    def judge_offsets(self) -> None:
        """No next offset beyond the end, and none that went back."""
        tally, logs = self.tally, self.logs
        for tp in self._partitions(*self.logs.app.inputs, self.logs.app.names.candidates):
            after, end = logs.committed(tp).after, logs.span(tp).end
            tally.examined(Invariant.OFFSETS)
            if after is not None and after.offset > end:
                tally.breaks(Invariant.OFFSETS, f"{at(tp)}: next offset {after.offset} lies beyond the end {end}")
        history = logs.history()
        if history is None:
            tally.lacks("the committed offsets of the past cannot be read", Invariant.OFFSETS)
            return
        reached: dict[TopicPartition, int] = {}
        try:
            for tp, offset in history:
                tally.examined(Invariant.OFFSETS)
                if offset < reached.get(tp, 0):
                    back = f"{at(tp)}: the next offset went back from {reached[tp]} to {offset}"
                    tally.breaks(Invariant.OFFSETS, back)
                reached[tp] = offset
        except (BrokerError, ConfigurationError) as error:  # another group's transaction may hide its end
            tally.lacks(f"the committed offsets of the past cannot be read: {error.message}", Invariant.OFFSETS)

    def judge_ends(self) -> None:
        """No transaction open on an output, and nothing left unread."""
        names, tally, logs = self.logs.app.names, self.tally, self.logs
        outputs = (names.candidates, names.changelog, *self.destinations, names.lineage, names.dead_letters)
        for tp in self._partitions(*outputs):
            span = logs.span(tp)
            tally.examined(Invariant.CLOSED)
            if span.stable < span.begun:
                reason = f"{at(tp)}: a transaction is open from offset {span.stable} on"
                if tp.topic in names.own():
                    tally.breaks(Invariant.CLOSED, reason)
                else:
                    tally.lacks(f"{reason}, and may be somebody else's", Invariant.CLOSED)
        for tp in self._partitions(*self.logs.app.inputs, names.candidates):
            tally.examined(Invariant.CAUGHT_UP)
            if self.unread[tp]:
                tally.breaks(Invariant.CAUGHT_UP, f"{at(tp)}: {self.unread[tp]} records have not been read")

    def judge_stored_tables(self) -> None:
        """What a stopped worker's store holds, entry by entry, where nothing came behind it in the changelog."""
        for stored in self.logs.stored_tables():
            folded: dict[bytes, bytes] = {}
            for record in self.logs.read(TopicPartition(self.logs.app.names.changelog, stored.partition)):
                if record.value is None:
                    folded.pop(record.key or b"", None)
                else:
                    folded[record.key or b""] = record.value
            kept = {key: value for key, value in stored.entries.items() if key[:1] not in LOCAL}
            self.tally.examined(Invariant.TABLES, len(kept))
            for key in sorted(kept.keys() | folded.keys()):
                if kept.get(key) != folded.get(key):
                    text = f"entry {key!r} of partition {stored.partition} in the store of {stored.slot}"
                    self.tally.breaks(Invariant.TABLES, f"{text} is not what the changelog adds up to")

    def judge_struck(self, struck: Struck) -> None:
        """The faults came, and left what they must leave."""
        tally = self.tally
        tally.examined(Invariant.STRUCK, len(struck.expected))
        for text in struck.lacking():
            tally.breaks(Invariant.STRUCK, text)
        if not struck.expected:
            return
        aborted = redone = 0
        for tp in self._partitions(self.logs.app.names.lineage, self.logs.app.names.candidates):
            found = aborted_and_redone(self.logs.read(tp), self.logs.read_uncommitted(tp))
            aborted, redone = aborted + found[0], redone + found[1]
        if not aborted:
            tally.breaks(Invariant.STRUCK, "no record of an aborted transaction stands on the outputs")
        elif not redone:
            tally.breaks(Invariant.STRUCK, "nothing of an aborted transaction was done again")

    def _partitions(self, *topics: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for topic in topics for number in self.logs.partitions(topic)]

    def _behind(self, tp: TopicPartition, offset: int) -> bool:
        """Whether an offset lies behind the cut."""
        committed = self.logs.committed(tp).after
        return committed is not None and offset >= committed.offset


def at(tp: TopicPartition) -> str:
    """A partition in words."""
    return f"{tp.topic}/{tp.partition}"
