"""The hot path of a worker without a broker: decode, match, join, encode, tables; per signal and phase.

    python -m benchmarks.path [--signals 100000] [--candidates topic|local] [--profile FILE]

The signals and subscription are those of the throughput benchmark. Times are those of the thread, so that other load
on the machine shows less; what the clients cost comes on top (`python -m benchmarks --only throughput`).
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.pipeline import PAIR, signal_value
from signal_router.core.join import Joiner, Limits
from signal_router.kafka.topics import resolve
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord, NextOffset, OutputRecord, TopicPartition
from signal_router.observe.phases import PhaseClock
from signal_router.runtime.commit import Verdict, commit, run
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.join import CandidatesPartition, JoinProcessor
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.match import MatchProcessor, SignalsPartition
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.settings import Pace
from signal_router.runtime.stage import Stage
from signal_router.state.rocks import RocksStore
from signal_router.state.tables import PartitionTable

PARTITIONS = 4
NOW = 1_770_000_000_000


class KeepingLog:
    """A transactional log that keeps candidates, and of all else the number."""

    def __init__(self, candidates: str) -> None:
        self._candidates = candidates
        self._ends = [0] * PARTITIONS
        self._delivered: dict[TopicPartition, int] = {}
        self.waiting: list[list[InputRecord]] = [[] for _ in range(PARTITIONS)]
        self.written: dict[str, int] = {}

    def init(self) -> None: ...

    def begin(self) -> None:
        self._delivered = {}

    def produce(self, records: Sequence[OutputRecord]) -> None:
        for record in records:
            self.written[record.topic] = self.written.get(record.topic, 0) + 1
            if record.topic == self._candidates:
                number = record.partition
                offset = self._ends[number]
                self._ends[number] += 1
                self.waiting[number].append(InputRecord(offset, NOW, None, record.value, list(record.headers)))
            if record.tracked:
                self._delivered[TopicPartition(record.topic, record.partition)] = 0

    def send_offsets(self, offsets: Mapping[TopicPartition, NextOffset], group_metadata: bytes) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...

    def delivered(self) -> Mapping[TopicPartition, int]:
        return self._delivered

    def close(self) -> None: ...


class Given:
    """A batch."""

    def __init__(self, tp: TopicPartition, records: list[InputRecord]) -> None:
        self.tp, self.records, self.at = tp, records, 0
        self.next_offset = records[-1].offset + 1


class Stages:
    """One worker's stages over four partitions."""

    def __init__(self, state: Path, *, local: bool) -> None:
        names = self.names = resolve("bench-", "signal-router")
        view = DefinitionsView(names.triggers)
        document = read_documents([("pair.yaml", PAIR)]).documents[0]
        first = definition(document, birth=1, join_generation=1, applied_at=0)
        view.take(view.read(InputRecord(0, NOW, definition_key(document.id), encode_definition(first))))
        limits = dict.fromkeys((names.triggers, names.lineage), 1_000_000)
        outputs = Outputs(names, "signal-router", Destinations(limits), all_lineage=False)
        common = {"slot": "w", "candidates_partitions": PARTITIONS}
        self.match = MatchProcessor(names, view, limit_bytes=1 << 20, **common)
        self.join = JoinProcessor(names, view, outputs, all_lineage=False, **common)
        self.local = LocalCandidates(self.join, names.candidates, enabled=local)
        self.log = KeepingLog(names.candidates)
        self.store = RocksStore(state)
        for number in range(PARTITIONS):
            table = PartitionTable(self.store, number)
            self.join.partitions[number] = CandidatesPartition(table, Joiner(table, view, Limits()), 0, 0, "c")
            self.match.partitions[TopicPartition(names.signals, number)] = SignalsPartition("s", 0)
        self.local.begin(dict.fromkeys(range(PARTITIONS), 0))
        self.steps = PhaseClock(time.thread_time)
        self.pace = Pace()
        self.fired = 0
        self.transactions = 0

    def signals(self, number: int, records: list[InputRecord]) -> None:
        batch = Given(TopicPartition(self.names.signals, number), records)
        done = False
        while not done:
            stage = self._stage()
            self.steps("match")
            done = self.match.step(
                batch, stage, now=NOW, max_outputs=self.pace.max_outputs, max_records=self.pace.max_records
            )
            self.steps("join")
            self.local.join(stage, max_outputs=self.pace.max_outputs)
            self._commit(stage)

    def candidates(self) -> None:
        for number in range(PARTITIONS):
            records, self.log.waiting[number] = self.log.waiting[number], []
            if not records:
                continue
            batch = Given(TopicPartition(self.names.candidates, number), records)
            while batch.at < len(records):
                stage = self._stage()
                self.steps("join")
                self.join.step(batch, stage, max_outputs=self.pace.max_outputs, max_records=self.pace.max_records)
                self._commit(stage)

    def _stage(self) -> Stage:
        self.transactions += 1
        stage = Stage(1, f"w/1/{self.transactions}")
        stage.group_metadata = b"m"
        return stage

    def _commit(self, stage: Stage) -> None:
        self.steps("send")
        self.local.send(stage, max_outputs=self.pace.max_outputs)
        steps = commit(stage, self.log, self.names.changelog, lambda offset: b"%d" % offset)
        assert run(steps, self.steps).verdict is Verdict.COMMITTED
        self.steps("count")
        self.fired += sum(count for (name, _, _), count in stage.counts.items() if name == "fired")
        self.local.committed(stage, self.log.delivered())
        self.steps.stop()


def inputs(count: int) -> list[list[InputRecord]]:
    """Pairs, about a thousand apart, on random partitions."""
    rnd = random.Random(1)
    partitions: list[list[InputRecord]] = [[] for _ in range(PARTITIONS)]

    def put(name: str, key: int) -> None:
        records = partitions[rnd.randrange(PARTITIONS)]
        records.append(InputRecord(len(records), NOW - 1000 + key // 50, None, signal_value(name, key), None))

    waiting: list[int] = []
    for key in range(count // 2):
        put("orders.ready", key)
        waiting.append(key)
        if len(waiting) > 1000:
            put("users.ready", waiting.pop(rnd.randrange(len(waiting))))
    for key in waiting:
        put("users.ready", key)
    return partitions


def measure(count: int, *, local: bool, profile: cProfile.Profile | None = None) -> dict[str, float]:
    """Microseconds per signal by phase."""
    given = inputs(count)
    state = Path(tempfile.mkdtemp())
    try:
        stages = Stages(state / "db", local=local)
        gc.collect()
        gc.freeze()
        began = time.thread_time()
        if profile is not None:
            profile.enable()
        for start in range(0, max(map(len, given)), 1000):
            for number, records in enumerate(given):
                if part := records[start : start + 1000]:
                    stages.signals(number, part)
            stages.candidates()
        if profile is not None:
            profile.disable()
        spent = time.thread_time() - began
        assert stages.fired == count // 2, stages.fired
        stages.store.close()
    finally:
        shutil.rmtree(state)
    phases = {name: seconds / count * 1e6 for name, seconds in stages.steps.seconds.items()}
    return {**phases, "total": spent / count * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=100_000)
    parser.add_argument("--candidates", choices=("topic", "local"), default="topic")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", help="writes a profile of one run to a file")
    options = parser.parse_args()
    if options.profile:
        profile = cProfile.Profile()
        measure(options.signals, local=options.candidates == "local", profile=profile)
        profile.dump_stats(options.profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        return
    for _ in range(options.runs):
        phases = measure(options.signals, local=options.candidates == "local")
        print(" · ".join(f"{name} {value:.2f}" for name, value in phases.items()))


if __name__ == "__main__":
    main()
