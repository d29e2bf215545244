"""How long the join takes, without Kafka: pairs with de-duplication, in memory and on disk, spread and on one hot key.

    python benchmarks/join.py [--candidates 100000] [--profile NAME]

Each run decides, encodes the changelog's records and writes the store, 5,000 candidates to a stage as a worker under
load does. Times are those of the thread, so that other load on the machine shows less.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from signal_router.core.join import Fired, Joiner, Limits
from signal_router.model.candidates import Candidate, Mark, SignalCopy
from signal_router.model.subscriptions import JoinParameter, JoinType, Member, Policy, Subscription
from signal_router.model.templates import parse_template
from signal_router.state.rocks import RocksStore
from signal_router.state.store import MemoryStore, Store
from signal_router.state.tables import PartitionTable

STAGE = 5_000
DAY_MS = 86_400_000
NOW = 1_770_000_000_000


class OneSubscription:
    """The definitions of a benchmark: a pair."""

    def __init__(self) -> None:
        join = (JoinParameter("ds", JoinType.ANY, "ds"),)
        self.subscription = Subscription(
            id="content-ml/decision-model",
            birth=1,
            join_generation=1,
            revision=0,
            version="sha256:0",
            contact=None,
            members=tuple(Member(alias, f"{alias}.ready", (), join, False) for alias in ("titles", "plays")),
            join_names=("ds",),
            policy=Policy.FIFO,
            within_ms=7 * DAY_MS,
            dedupe_ms=14 * DAY_MS,
            topic="triggers",
            template=parse_template({}),
        )
        self.revision = 0

    def find(self, _subscription: str) -> Subscription:
        return self.subscription

    def changed_since(self, _revision: int) -> Iterable[str]:
        return ()


def candidate(key: str, alias: int, number: int) -> Candidate:
    name = ("titles.ready", "plays.ready")[alias]
    identity = f'["{name}","wf/daily","run-{number:09d}"]'
    params = b'{"country":"US","ds":"2026-03-10","rows":123456,"run":"2026-03-10T06:00:00Z"}'
    signal = SignalCopy(
        identity,
        name,
        "wf/daily",
        f"run-{number:09d}",
        params,
        None,
        None,
        NOW + number,
        "signals",
        0,
        number,
        b"0123456789abcdef",
    )
    return Candidate("content-ml/decision-model", 1, 1, 0, key, 1 << alias, signal)


def spread(count: int) -> Iterator[Candidate]:
    """Every key gets both signals, 1,000 apart; one in ten is repeated."""
    for number in range(count):
        pair, alias = number // 2_000 * 1_000 + number % 1_000, number // 1_000 % 2
        repeated = number % 10 == 9 and number > 0
        yield candidate(f'{{"ds":"key-{pair - repeated}"}}', alias, number - repeated)


def hot(count: int) -> Iterator[Candidate]:
    """One key: both sides in turn, so that each second signal completes a set."""
    for number in range(count):
        yield candidate('{"ds":"hot"}', number % 2, number)


def one_sided(count: int) -> Iterator[Candidate]:
    """One key: only one side."""
    for number in range(count):
        yield candidate('{"ds":"hot"}', 0, number)


def other_side(count: int) -> Iterator[Candidate]:
    """One key: the other side, each completing a set."""
    for number in range(count):
        yield candidate('{"ds":"hot"}', 1, 10_000_000 + number)


class Worker:
    """Takes candidates stage by stage."""

    def __init__(self, store: Store) -> None:
        self.table = PartitionTable(store, 1)
        self.joiner = Joiner(self.table, OneSubscription(), Limits(per_key=10_000_000))
        self.sequence = 0
        self.fired = 0

    def take(self, given: Iterable[Candidate]) -> None:
        given = iter(given)
        while stage := list(islice(given, STAGE)):
            for each in stage:
                self.table.savepoint()
                self.sequence += 1
                for decision in self.joiner.candidate(self.sequence, each):
                    self.fired += isinstance(decision, Fired)
            self.commit()

    def expire(self) -> None:
        """Moves the clock far, and does the work in stages."""
        self.joiner.mark(Mark("w", {"signals/0": NOW + 60 * DAY_MS}, ("signals/0",)))
        work = self.joiner.work()
        while list(islice(work, STAGE)):
            self.commit()
            work = self.joiner.work()

    def commit(self) -> None:
        self.table.apply([*self.table.staged(), *self.table.staged_locally()])


def measured(name: str, count: int, task: Callable[[], None], profile: str | None) -> None:
    gc.collect()
    gc.freeze()
    profiler = cProfile.Profile() if profile is not None and profile in name else None
    begun = time.thread_time()
    if profiler is None:
        task()
    else:
        profiler.runcall(task)
    seconds = time.thread_time() - begun
    print(f"{name:48s} {seconds / count * 1e6:8.2f} µs each {count / seconds:12,.0f} per second")
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(22)


def run(kind: str, store: Callable[[], Store], count: int, profile: str | None) -> None:
    spread_worker = Worker(store())
    given = list(spread(count))
    measured(f"{kind}: pairs, spread keys", count, lambda: spread_worker.take(given), profile)
    hot_worker = Worker(store())
    given = list(hot(count))
    measured(f"{kind}: pairs, one hot key", count, lambda: hot_worker.take(given), profile)
    deep = Worker(store())
    given = list(one_sided(count))
    measured(f"{kind}: {count:,} come to wait on one key", count, lambda: deep.take(given), profile)
    others = list(other_side(count // 2))
    measured(f"{kind}: {count // 2:,} complete sets there", count // 2, lambda: deep.take(others), profile)
    left = deep.table.pending_count("")
    measured(f"{kind}: {left:,} expire and {count:,} are forgotten", left + count, deep.expire, profile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--profile", help="profile the runs with this in their name")
    arguments = parser.parse_args()
    gc.disable()
    run("memory", MemoryStore, arguments.candidates, arguments.profile)
    root = Path(tempfile.mkdtemp())
    try:
        numbers = iter(range(100))
        run("disk", lambda: RocksStore(root / str(next(numbers))), arguments.candidates, arguments.profile)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
