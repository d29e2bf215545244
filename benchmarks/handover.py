"""What the coming and going of a worker costs: how long triggers pause, for partitions that stay and that move.

    python -m benchmarks --only handover-classic,handover-consumer

One worker runs under 500 signals/s; another one joins, leaves in good order, joins again, and is killed. Who wrote a
trigger, and for which candidates partition, stands in the record; what is measured are gaps between them.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, TopicPartition

if TYPE_CHECKING:
    from benchmarks.pipeline import Bench

RATE = 500
SETTLE_S = 4.0
SESSION_S = 12.0
WITHIN_S = 40.0


class Seen(NamedTuple):
    """A trigger as it came: when, for which candidates partition, and by which slot."""

    at: float
    partition: int
    slot: str


@contextmanager
def flowing(bench: Bench) -> Iterator[list[Seen]]:
    """Publishes pairs, and follows their triggers."""
    seen: list[Seen] = []
    stop = threading.Event()
    threads = [
        threading.Thread(target=_publish, args=(bench, stop)),
        threading.Thread(target=_follow, args=(bench, seen, stop)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _publish(bench: Bench, stop: threading.Event) -> None:
    producer, rnd = bench.producer(0), random.Random(1)
    began, key = time.perf_counter(), 0
    while not stop.wait(0.002):
        while 2 * key < (time.perf_counter() - began) * RATE:
            bench._produce(producer, "orders.ready", key, rnd)
            bench._produce(producer, "users.ready", key, rnd)
            key += 1
        producer.poll(0)
    producer.flush()


def _follow(bench: Bench, seen: list[Seen], stop: threading.Event) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bench.connection.bootstrap,
            "group.id": "bench-follow",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
        }
    )
    consumer.assign([TopicPartition(bench.names.triggers, number, 0) for number in range(4)])
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is not None and not message.error():
            slot = dict(message.headers())["sr_txn"].decode().partition("/")[0]
            partition = json.loads(message.value())["order"]["partition"]
            seen.append(Seen(time.perf_counter(), partition, slot))
    consumer.close()


def _serving(seen: list[Seen], since: float) -> dict[int, str]:
    """Who wrote last for each partition."""
    return {each.partition: each.slot for each in seen if each.at >= since}


def _until_served(seen: list[Seen], by: set[str], began: float) -> dict[int, str]:
    """Waits until every partition is served, by these slots and no other, each of them."""
    while time.perf_counter() - began < WITHIN_S:
        serving = _serving(seen, began)
        if len(serving) == 4 and set(serving.values()) == by:
            return serving
        time.sleep(0.02)
    raise SystemExit(f"partitions are served by {_serving(seen, began)}, not by {sorted(by)}")


def _gaps(seen: list[Seen], partitions: set[int], began: float, ended: float) -> list[float]:
    """The longest gap of each partition, in milliseconds."""
    longest = []
    for partition in sorted(partitions):
        times = [each.at for each in seen if each.partition == partition and began - 0.5 <= each.at <= ended]
        longest.append(max((later - earlier for earlier, later in pairwise(times)), default=0.0))
    return [gap * 1000 for gap in longest]


def handover(bench: Bench, protocol: str) -> dict[str, float]:
    """Milliseconds of pause by what happened, for partitions that stayed and that moved."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, flowing(bench) as seen:
        settings = {"protocol": protocol, "dynamic": True}
        with bench.worker(Path(folder) / "one", "local", slot="one", **settings) as one:
            await_ready(one)
            before = _until_served(seen, {"one"}, time.perf_counter())
            time.sleep(SETTLE_S)
            for round_ in ("leave", "kill"):
                began = time.perf_counter()
                with bench.worker(Path(folder) / round_, "local", slot="two", **settings) as two:
                    await_ready(two)
                    after = _until_served(seen, {"one", "two"}, began)
                    time.sleep(SETTLE_S)
                    moved = {number for number in after if after[number] != before[number]}
                    stayed = set(after) - moved
                    if round_ == "leave":
                        ended = time.perf_counter()
                        figures["join_stayed_ms"] = max(_gaps(seen, stayed, began, ended))
                        figures["join_moved_ms"] = max(_gaps(seen, moved, began, ended))
                    began = time.perf_counter()
                    if round_ == "leave":
                        two.terminate()
                    else:
                        two.kill()
                    _until_served(seen, {"one"}, began + (SESSION_S if round_ == "kill" else 0.5))
                    served = max(
                        next(
                            each.at
                            for each in seen
                            if each.at > began and each.partition == number and each.slot == "one"
                        )
                        for number in moved
                    )
                    time.sleep(SETTLE_S)
                    if round_ == "leave":
                        figures["leave_stayed_ms"] = max(_gaps(seen, stayed, began, time.perf_counter()))
                        figures["leave_served_ms"] = (served - began) * 1000
                    else:
                        figures["kill_served_beyond_session_ms"] = (served - began - SESSION_S) * 1000
    return figures


def await_ready(process: object) -> None:
    """Waits until a worker process says that it runs."""
    for line in process.stdout:  # type: ignore[attr-defined]
        if line.strip() == "ready":
            return
    raise SystemExit("the worker ended before it was ready")
