"""One round of a scenario: its seed, its brokers and clusters, and the count of what happened in it."""

from __future__ import annotations

import random
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from confluent_kafka import KafkaException
from harness import LiveCluster, Proof, WorkerProcess, live_cluster
from harness_workload import Workload

from signal_router.errors import BrokerError
from signal_router.kafka.embedded import EmbeddedBroker, free_port
from signal_router.kafka.listeners import Listener
from signal_router.kafka.offsets import stable_ends, stable_offsets
from signal_router.model.log import TopicPartition
from signal_router.testing.wire_proxy import WireProxy
from signal_router.verify.report import Report

_T = TypeVar("_T")

MARKERS_WITHIN_S = 45.0
"""Longer than any transaction may be open, with the coordinator's scan."""
QUICK_GROUPS = {"group.consumer.session.timeout.ms": "6000"}
"""As short as brokers allow."""


class NotJudgedError(Exception):
    """A fault that was to happen did not, or the broker itself broke its word: the round says nothing."""


class Brokers:
    """The run's own brokers, started when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = ExitStack()
        self._proxied: tuple[EmbeddedBroker, WireProxy] | None = None
        self._cleaning: EmbeddedBroker | None = None

    def __enter__(self) -> Brokers:
        return self

    def __exit__(self, *_error: object) -> None:
        self._held.close()

    @property
    def plain(self) -> str:
        """The address of a broker that nobody breaks."""
        return self.proxied[0].bootstrap

    @property
    def proxied(self) -> tuple[EmbeddedBroker, WireProxy]:
        """The same broker, and a proxy before another of its listeners."""
        if self._proxied is None:
            proxy = WireProxy()
            self._held.callback(proxy.close)
            with ExitStack() as ports:
                plain, behind = free_port(ports), free_port(ports)
            advertised = f"PLAINTEXT://127.0.0.1:{plain},BEHIND://{proxy.address}"
            broker = EmbeddedBroker(
                self._folder / "broker",
                port=plain,
                listeners=[Listener("BEHIND", "PLAINTEXT", port=behind)],
                settings={**QUICK_GROUPS, "advertised.listeners": advertised},
            )
            self._held.enter_context(broker)
            proxy.start(f"127.0.0.1:{behind}")
            self._proxied = broker, proxy
        return self._proxied

    @property
    def cleaning(self) -> EmbeddedBroker:
        """A broker whose cleaner rests for a moment only."""
        if self._cleaning is None:
            settings = {**QUICK_GROUPS, "log.cleaner.backoff.ms": "200"}
            self._cleaning = self._held.enter_context(EmbeddedBroker(self._folder / "cleaning", settings=settings))
        return self._cleaning

    @contextmanager
    def broken(self) -> Iterator[EmbeddedBroker]:
        """A broker to be broken, which vanishes afterwards."""
        folder = self._folder / f"broken-{uuid.uuid4().hex[:6]}"
        with EmbeddedBroker(folder, settings=QUICK_GROUPS) as broker:
            yield broker
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Round:
    """What a scenario plays with. `number` counts its rounds, so that ways can take turns; `size` shortens it."""

    scenario: str
    number: int
    seed: int
    folder: Path
    brokers: Brokers
    size: float = 1.0
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    reports: list[Report] = field(default_factory=list)
    shared: set[str] = field(default_factory=set)
    """Slots that two live workers had at once."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._prefixes = 0

    # ---- what is drawn

    def few(self, full: int, *, least: int = 1) -> int:
        """So many in a round of this size."""
        return max(least, round(full * self.size))

    def turn(self, ways: Sequence[_T]) -> _T:
        """The way whose turn it is."""
        return ways[self.number % len(ways)]

    def deck(self, kinds: Sequence[_T], length: int) -> list[_T]:
        """So many in random order, each as often as any other."""
        cards: list[_T] = []
        while len(cards) < length:
            fresh = list(kinds)
            self.rng.shuffle(fresh)
            cards += fresh
        return cards[:length]

    # ---- what is played with

    @contextmanager
    def cluster(
        self,
        bootstrap: str,
        *,
        partitions: int = 4,
        candidates: str = "local",
        protocol: str = "classic",
        prefix: str | None = None,
    ) -> Iterator[LiveCluster]:
        """Topics under a prefix of their own, and workers, which go with the round; the topics, too, if it held."""
        self._prefixes += 1
        prefix = prefix or f"{self.scenario}{self.number}-{uuid.uuid4().hex[:6]}-"
        folder = self.folder / f"cluster-{self._prefixes}"
        folder.mkdir(parents=True)
        with live_cluster(
            bootstrap, prefix, folder, partitions=partitions, candidates=candidates, protocol=protocol
        ) as cluster:
            yield cluster
            for worker in cluster.workers:
                if worker.alive:
                    worker.kill()
            for answer in cluster.admin.delete_topics(list(cluster.names.all())).values():
                answer.exception(20)

    def workload(self, cluster: LiveCluster, keys: int = 300) -> Workload:
        """Signals drawn from this round's seed."""
        return Workload(self.rng, cluster.names.signals, cluster.producer, cluster.partitions, keys)

    # ---- what happened

    def fired(self, fault: str, times: int = 1) -> None:
        """Counts a fault that has happened."""
        self.faults[fault] += times

    def await_fired(self, happened: Callable[[], bool], fault: str, *, within_s: float = 30.0) -> None:
        """Waits until a fault has happened, and counts it; the round says nothing if it does not."""
        deadline = time.monotonic() + within_s
        while not happened():
            if time.monotonic() > deadline:
                raise NotJudgedError(f"{fault}: has not happened within {within_s:g} s")
            time.sleep(0.02)
        self.fired(fault)

    def kill(self, worker: WorkerProcess, point: str = "any time") -> None:
        """Kill -9, at this very moment."""
        if not worker.alive:
            raise AssertionError(f"worker {worker.slot} had ended by itself:\n{worker.log[-3000:]}")
        worker.kill()
        self.kills[point] += 1

    def await_struck(self, workers: Sequence[WorkerProcess], point: str, *, within_s: float = 60.0) -> WorkerProcess:
        """Waits until the first of the armed workers has killed itself at the point; takes the others' orders back."""
        deadline = time.monotonic() + within_s
        while all(worker.alive for worker in workers):
            if time.monotonic() > deadline:
                for worker in workers:
                    worker.disarm()
                logs = "\n".join(f"--- {each.slot}: {each.log[-1500:]}" for each in workers)
                raise NotJudgedError(f'no worker has come to "{point}" within {within_s:g} s\n{logs}')
            time.sleep(0.02)
        for worker in workers:
            worker.disarm()
        struck = next(worker for worker in workers if not worker.alive)
        if struck.struck != point:
            raise AssertionError(f'worker {struck.slot} ended, but not at "{point}":\n{struck.log[-3000:]}')
        self.kills[point] += 1
        return struck

    def judge(self, cluster: LiveCluster, *, more_topics: Sequence[str] = (), within_s: float = 180.0) -> Proof:
        """Waits until all is decided, stops the workers, and holds what stands there against the reference."""
        cluster.await_decided(within_s=within_s)
        cluster.stop_workers()
        cluster.shared = self.shared
        proof = cluster.prove(more_topics=more_topics)
        self.reports.append(proof.report)
        self.seen["signals"] += sum(cluster.committed(topic)[number] for topic in cluster.inputs
                                    for number in cluster.ends(topic))  # fmt: skip
        self.seen["triggers"] += len(proof.triggers)
        self.seen["aborted transactions"] += len(cluster.aborted_transactions())
        self.seen["replays"] += replays(cluster)
        if proof.discrepancies:
            raise AssertionError("\n".join(proof.discrepancies[:20]))
        return proof


def replays(cluster: LiveCluster) -> int:
    """How many facts stand in lineage that an aborted transaction had said before."""
    committed = cluster.read(cluster.names.lineage)
    places = {(each.partition, each.offset) for each in committed}
    facts = {each.key for each in committed}
    aborted = {
        each.key
        for each in cluster.read(cluster.names.lineage, committed=False)
        if each.key and each.transaction and (each.partition, each.offset) not in places
    }
    return len(aborted & facts)


def await_leaders(cluster: LiveCluster, *, within_s: float = 60.0) -> None:
    """Waits until a broker that has come back leads every partition again; asks by a client that began after that."""
    deadline = time.monotonic() + within_s
    while True:
        cluster.renew_admin()
        try:
            for topic in cluster.names.all():
                cluster.ends(topic)
        except (BrokerError, KafkaException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def await_markers(cluster: LiveCluster) -> None:
    """Waits while transactions hide something from workers, which is not for long: each ends by its time-out.

    Kafka 4.4.0 alone may complete a transaction without having written its markers: at its restart, or when it goes on
    after it stood still. Nobody gets past such a one; then the round says nothing about workers.
    """
    names = cluster.names
    deadline = time.monotonic() + MARKERS_WITHIN_S
    read = (*cluster.inputs, names.candidates)
    tps = [TopicPartition(topic, number) for topic in read for number in cluster.ends(topic)]
    try:
        stable_offsets(cluster.connection, cluster.group, tps, deadline_s=MARKERS_WITHIN_S)
    except BrokerError as error:
        raise NotJudgedError(f"the broker lost the markers of a transaction: {error.message}") from error
    first: dict[TopicPartition, int] | None = None
    while True:
        ends = {
            TopicPartition(topic, number): end
            for topic in (names.candidates, names.changelog)
            for number, end in cluster.ends(topic).items()
        }
        stable = stable_ends(cluster.admin, ends)
        first = first or stable
        stuck = sorted(tp for tp, end in ends.items() if stable[tp] < end and stable[tp] == first[tp])
        if not stuck:
            return
        if time.monotonic() > deadline:
            raise NotJudgedError(f"the broker lost the markers of a transaction: {stuck} stand still")
        time.sleep(0.2)
