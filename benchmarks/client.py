"""How fast programs publish signals and take triggers through the SDK, on a real broker.

    python -m benchmarks.client [--signals 400000] [--triggers 50000] [--runs 3] [--json FILE]

    json, cloudevents   one thread publishes signals of about 190 bytes of JSON, until the broker has acknowledged all
    bare                the same bytes by the bare client, idempotent and with the same settings, no callback: what is
                        left of the machine when nothing is written, checked or told
    transactions        blocks of 1,000 signals, one transaction each
    single              one signal after the other, each waited for: its latency
    at least once       a handler that does nothing, per trigger; exactly once: one that writes one record per trigger

Load, broker and program share the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from benchmarks.pipeline import WARM_UP_S, long_lived_broker, processor_ticks, stolen_percent
from signal_router.client import Connection, SignalProducer, Transaction, Trigger, TriggerConsumer
from signal_router.client.producer import DEFAULTS
from signal_router.kafka.admin_client import connect
from signal_router.kafka.topics import topic_text

PARTITIONS = 4
BLOCK = 1_000


def topic(bootstrap: str, name: str) -> str:
    made = f"{name}-{time.time_ns()}"
    admin = connect(Connection(bootstrap))
    for future in admin.create_topics([NewTopic(made, PARTITIONS, 1)]).values():
        future.result(20)
    return made


def said(number: int) -> dict[str, object]:
    return {"ds": "2026-11-22", "region": number % 7, "k": number, "rows": number * 3, "owner": f"team-{number % 50}"}


def published(bootstrap: str, count: int, form: str) -> dict[str, float]:
    params = [said(number) for number in range(count)]
    with SignalProducer(bootstrap, topic=topic(bootstrap, "bench"), source="wf/bench", form=form) as signals:  # type: ignore[arg-type]
        signals.publish("orders.ready").result()
        cpu, began = time.thread_time(), time.perf_counter()
        for each in params:
            signals.publish("orders.ready", params=each)
        signals.flush()
        took = time.perf_counter() - began
        return {"per_s": count / took, "thread_us": (time.thread_time() - cpu) / count * 1e6}


def bare(bootstrap: str, count: int, _: str = "") -> dict[str, float]:
    into = topic(bootstrap, "bench")
    values = [
        json.dumps(
            {
                "name": "orders.ready",
                "source": "wf/bench",
                "id": f"335bed6f8d0b347e95957e75-{number}",
                "params": said(number),
            },
            separators=(",", ":"),
        ).encode()
        for number in range(count)
    ]
    producer = Producer(
        {**DEFAULTS, "bootstrap.servers": bootstrap, "enable.idempotence": True, "batch.size": 1_000_000}
    )
    producer.list_topics(into)
    cpu, began = time.thread_time(), time.perf_counter()
    for value in values:
        while True:
            try:
                producer.produce(into, value)
            except BufferError:
                producer.poll(0.05)
            else:
                break
    producer.flush()
    took = time.perf_counter() - began
    return {"per_s": count / took, "thread_us": (time.thread_time() - cpu) / count * 1e6}


def transactions(bootstrap: str, count: int, _: str = "") -> dict[str, float]:
    into = topic(bootstrap, "bench")
    blocks = max(count // BLOCK // 4, 1)
    with SignalProducer(bootstrap, topic=into, source="wf/bench", transactional_id=into) as signals:
        began = time.perf_counter()
        for _block in range(blocks):
            with signals.when_done() as done:
                for number in range(BLOCK):
                    done.publish("orders.ready", params=said(number))
        took = time.perf_counter() - began
    return {"per_s": blocks * BLOCK / took, "blocks_per_s": blocks / took}


def single(bootstrap: str, _count: int, _: str = "") -> dict[str, float]:
    times = []
    overrides = {"linger.ms": "0"}
    connection = Connection(bootstrap, overrides=overrides)
    with SignalProducer(connection, topic=topic(bootstrap, "bench"), source="wf/bench") as signals:
        for number in range(1_000):
            began = time.perf_counter()
            signals.publish("orders.ready", params=said(number)).result()
            times.append((time.perf_counter() - began) * 1000)
    times = sorted(times[100:])
    return {
        "per_s": 1000 / statistics.mean(times),
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[len(times) * 99 // 100],
    }


def triggers(bootstrap: str, count: int, mode: str) -> dict[str, float]:
    into, parked, outputs = (topic(bootstrap, name) for name in ("triggers", "parked", "outputs"))
    value = json.dumps(json.loads(topic_text("examples/trigger.json"))).encode()
    producer = Producer({**DEFAULTS, "bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number in range(count):
        producer.produce(into, value, str(number))
        producer.poll(0)
    producer.flush()
    consumer = TriggerConsumer(bootstrap, topics=into, group=into, park_to=parked)
    handled = 0
    first = [0.0]

    def count_it() -> None:
        nonlocal handled
        handled += 1
        if handled == 1:
            first[0] = time.perf_counter()
        if handled == count:
            consumer.stop()

    def handle(_trigger: Trigger) -> None:
        count_it()

    def write(trigger: Trigger, transaction: Transaction) -> None:
        transaction.produce(outputs, trigger.idempotency_key, key=trigger.trigger_id)
        count_it()

    if mode == "exactly once":
        run: Callable[[], None] = lambda: consumer.run_exactly_once(write, transactional_id=into)  # noqa: E731
    else:
        run = lambda: consumer.run(handle)  # noqa: E731
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return {"per_s": count / (time.perf_counter() - first[0])}  # to the last commit, and out of the group


def main() -> None:
    parser = argparse.ArgumentParser(description="The SDK on a real broker.")
    parser.add_argument("--signals", type=int, default=400_000)
    parser.add_argument("--triggers", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    measured = [
        ("bare", bare, options.signals, ""),
        ("json", published, options.signals, "json"),
        ("cloudevents", published, options.signals, "cloudevents"),
        ("transactions", transactions, options.signals, ""),
        ("single", single, 0, ""),
        ("at least once", triggers, options.triggers, "at least once"),
        ("exactly once", triggers, options.triggers // 5, "exactly once"),
    ]
    figures: dict[str, list[dict[str, float]]] = {name: [] for name, *_ in measured}
    choice = long_lived_broker()
    choice.start()
    try:
        print(f"broker: {choice.kind}; warming up", flush=True)
        deadline = time.monotonic() + WARM_UP_S
        while time.monotonic() < deadline:
            bare(choice.bootstrap, 50_000)
        before = processor_ticks()
        for _run in range(options.runs):
            for name, measure, count, how in measured:
                figures[name].append(measure(choice.bootstrap, count, how))
        stolen = stolen_percent(before, processor_ticks())
    finally:
        choice.stop()
    for name, runs in figures.items():
        for what in runs[0]:
            values = [run[what] for run in runs]
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"{name:14} {what:13} {low:>11,.1f} / {middle:>11,.1f} / {high:>11,.1f}")
    print(f"stolen {stolen:.1f} %, Python {sys.version.split()[0]}")
    if options.json:
        options.json.write_text(json.dumps({"stolen_percent": stolen, "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
