"""One worker on a real broker, pair join with de-duplication and lineage; beside it the floor, restore and match.

    python -m benchmarks [--signals 200000] [--runs 3] [--json FILE] [--only throughput,floor,latency,…]

Conditions: 4 partitions per topic, lz4, classic protocol, ~230-byte JSON, half of the signals complete a pair. What
ends in `-topic` sends all candidates through their topic. The broker and the load share the machine with the worker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import os
import platform
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks.floor import floor
from benchmarks.handover import await_ready, handover
from benchmarks.match import measure as match
from benchmarks.restore import measure as restore
from signal_router import __version__
from signal_router.kafka.admin_client import connect
from signal_router.kafka.choice import BrokerChoice, choose_broker
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import load_topics, resolve
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.runtime.app import Application
from signal_router.runtime.settings import WorkerSettings

JVM_OPTIONS = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
WARM_UP_S = 40

PAIR = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: bench/pair}
spec:
  join: {ds: date, region: any, k: integer}
  members:
    - {alias: orders, signal: orders.ready}
    - {alias: users, signal: users.ready}
  trigger: {params: {ds: "{join.ds}", k: "{join.k}", rows: "{orders.params.rows}"}}
"""


def signal_value(name: str, key: int) -> bytes:
    """One signal of about 230 bytes."""
    return json.dumps(
        {
            "name": name,
            "id": f"{name}-{key}",
            "source": f"wf/producer-{key % 100}/run-{key}/step-3",
            "params": {"ds": "2026-11-22", "region": key % 7, "k": key, "rows": key * 3, "owner": f"team-{key % 50}"},
            "time": "2026-11-22T10:00:00Z",
        },
        separators=(",", ":"),
    ).encode()


class Bench:
    """One fresh set of topics on a broker."""

    def __init__(self, bootstrap: str) -> None:
        self.connection = Connection(bootstrap, f"bench{time.time_ns() // 1_000_000}-")
        self.names = resolve(self.connection.prefix, self.connection.app)
        self.admin = connect(self.connection)
        apply_topics(
            self.admin,
            wanted_topics(load_topics(), prefix=self.connection.prefix, app=self.connection.app, partitions=4),
        )
        document = read_documents([("pair.yaml", PAIR)]).documents[0]
        producer = self.producer()
        first = definition(document, birth=1, join_generation=1, applied_at=0)
        producer.produce(self.names.definitions, key=definition_key(document.id), value=encode_definition(first))
        producer.flush()

    def producer(self, linger_ms: int = 5) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.connection.bootstrap,
                "linger.ms": linger_ms,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
            }
        )

    def load(self, pairs: int) -> None:
        rnd = random.Random(1)
        producer = self.producer()
        waiting: list[int] = []
        for key in range(pairs):
            self._produce(producer, "orders.ready", key, rnd)
            waiting.append(key)
            if len(waiting) > 1000:
                self._produce(producer, "users.ready", waiting.pop(rnd.randrange(len(waiting))), rnd)
        for key in waiting:
            self._produce(producer, "users.ready", key, rnd)
        producer.flush()

    def _produce(self, producer: Producer, name: str, key: int, rnd: random.Random) -> None:
        while True:
            try:
                producer.produce(self.names.signals, signal_value(name, key), partition=rnd.randrange(4))
            except BufferError:
                producer.poll(0.1)
            else:
                return

    @contextmanager
    def worker(self, state: Path, candidates: str, total: int | None = None, **extra: object):
        request = json.dumps(
            {
                "bootstrap": self.connection.bootstrap,
                "prefix": self.connection.prefix,
                "state": str(state),
                "candidates": candidates,
                "total": total,
                **extra,
            }
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pipeline", "--worker", request], stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def triggers(self) -> tuple[int, int]:
        """(triggers, different trigger ids) in the read_committed log."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.connection.bootstrap,
                "group.id": "bench-count",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition(self.names.triggers, p, 0) for p in range(4)])
        ids: list[str] = []
        ends = 0
        while ends < 4:
            for message in consumer.consume(5000, 0.5):
                if message.error():
                    ends += 1
                else:
                    ids.append(json.loads(message.value())["trigger_id"])
        consumer.close()
        return len(ids), len(set(ids))


async def run_worker(request: dict) -> None:
    """The measured process."""
    connection = Connection(request["bootstrap"], request["prefix"])
    settings = WorkerSettings(
        connection,
        request.get("slot", "bench-0"),
        Path(request["state"]),
        local_candidates=request["candidates"] == "local",
        static_membership=False if request.get("dynamic") else None,
        group_protocol=request.get("protocol", "classic"),
    )
    app = Application(settings)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, app.stop)
    marks: dict[str, float] = {}
    watching: list[asyncio.Task] = []
    if request["total"]:

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.02)
                done = app.meter.total("fired")
                if done and "first" not in marks:
                    marks["first"], marks["first_done"] = time.perf_counter(), done
                if done >= request["total"]:
                    marks["last"] = time.perf_counter()
                    app.stop()
                    return

        watching.append(loop.create_task(watch()))
    ready = loop.create_task(_ready(app))
    profile = None
    if request.get("profile"):
        profile = cProfile.Profile()
        profile.enable()
    error = await app.run()
    if profile is not None:
        profile.disable()
        profile.dump_stats(request["profile"])
    if error is not None:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    worker = app.worker
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "started": ready.result() if ready.done() else None,
                "last": marks.get("last"),
                "local": app.meter.counts["candidates", "", "local"],
                "signals": app.meter.total("signals"),
                "fired": app.meter.total("fired"),
                "transactions": app.meter.transactions,
                "records": app.meter.records,
                "steps": dict(worker.steps.seconds),
                "effects": dict(worker.effects.seconds),
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_mb": _peak_mb(),
                "recycles": sum(getattr(worker._log, "recycles", {}).values()),
                "failures": dict(app.meter.failures),
            }
        ),
        flush=True,
    )


def _peak_mb() -> float:
    """The most memory this process held. `ru_maxrss` would count what its parent held when it was forked."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


async def _ready(app: Application) -> float:
    while not hasattr(app, "worker") or app.worker.phase.value != "running":
        await asyncio.sleep(0.005)
    print("ready", flush=True)
    return time.perf_counter()


def throughput(
    bootstrap: str, candidates: str, signals: int = 200_000, profile: str | None = None, broker_pid: int = -1
) -> dict:
    """Preloaded signals to committed triggers. `broker_pid` is the broker's process, if it is here."""
    bench = Bench(bootstrap)
    bench.load(signals // 2)
    broker_before = processor_seconds(broker_pid)
    with (
        tempfile.TemporaryDirectory() as state,
        bench.worker(Path(state), candidates, signals // 2, profile=profile) as process,
    ):
        out, _ = process.communicate(timeout=600)
    found = json.loads(out.splitlines()[-1])
    if "error" in found:
        raise SystemExit(found["error"])
    seconds = found["last"] - found["started"]
    broker_spent = processor_seconds(broker_pid) - broker_before
    written, different = bench.triggers()
    return {
        "signals_per_s": signals / seconds,
        "cpu_us_per_signal": found["cpu_s"] / signals * 1e6,
        "broker_cpu_us_per_signal": broker_spent / signals * 1e6,
        "peak_mb": found["peak_mb"],
        "transactions": found["transactions"],
        "local_share": found["local"] / signals,
        "recycles": found["recycles"],
        "missing": signals // 2 - different,
        "twice": written - different,
        "us_per_signal": {
            name: value / signals * 1e6 for name, value in {**found["steps"], **found["effects"]}.items()
        },
    }


def two_workers(bootstrap: str, signals: int = 200_000) -> dict:
    """Preloaded signals to committed triggers, by one worker and by two that share the partitions."""
    found = {}
    for count in (1, 2):
        bench = Bench(bootstrap)
        slots = [f"bench-{number}" for number in range(count)]
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            workers = [
                stack.enter_context(bench.worker(Path(folder) / slot, "local", slot=slot, dynamic=True))
                for slot in slots
            ]
            for worker in workers:
                await_ready(worker)
            time.sleep(3)  # each has its share
            for worker in workers:
                worker.send_signal(signal.SIGSTOP)
            bench.load(signals // 2)
            began = time.perf_counter()
            for worker in workers:
                worker.send_signal(signal.SIGCONT)
            seen = _await_triggers(bench, signals // 2)
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            told = [json.loads(worker.communicate(timeout=60)[0].splitlines()[-1]) for worker in workers]
        found[count] = {
            "signals_per_s": signals / (seen - began),
            "local_share": sum(each["local"] for each in told) / signals,
        }
    return {
        "one_signals_per_s": found[1]["signals_per_s"],
        "two_signals_per_s": found[2]["signals_per_s"],
        "two_to_one": found[2]["signals_per_s"] / found[1]["signals_per_s"],
        "local_share_of_two": found[2]["local_share"],
    }


def _await_triggers(bench: Bench, count: int) -> float:
    """When the last of so many triggers was there to read."""
    tps = [TopicPartition(bench.names.triggers, number, 0) for number in range(4)]
    consumer = Consumer(
        {
            "bootstrap.servers": bench.connection.bootstrap,
            "group.id": "bench-await",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.assign(tps)
    left = count
    while left:
        left -= sum(message.error() is None for message in consumer.consume(5_000, 0.5))
    consumer.close()
    return time.perf_counter()


def latency(bootstrap: str, candidates: str, rate: int = 500, seconds: int = 20) -> dict:
    """From producing the second signal of a pair to a read_committed consumer that has the trigger, at a fixed rate."""
    bench = Bench(bootstrap)
    with tempfile.TemporaryDirectory() as state, bench.worker(Path(state), candidates) as process:
        await_ready(process)
        seen: dict[int, float] = {}
        stop = threading.Event()
        reader = threading.Thread(target=_read_triggers, args=(bench, seen, stop))
        reader.start()
        time.sleep(1.5)
        sent = _produce_at(bench, rate, seconds)
        time.sleep(1.5)
        stop.set()
        reader.join()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        found = json.loads(out.splitlines()[-1])
    warm = min(sent.values()) + 2
    times = sorted((seen[key] - at) * 1000 for key, at in sent.items() if key in seen and at > warm)

    def quantile(q: float) -> float:
        return times[min(len(times) - 1, int(q * len(times)))]

    return {
        "rate": rate,
        "pairs": len(times),
        "missing": sum(key not in seen for key in sent),
        "p50_ms": quantile(0.5),
        "p90_ms": quantile(0.9),
        "p99_ms": quantile(0.99),
        "max_ms": times[-1],
        "transactions_per_s": found["transactions"] / (seconds + 3),
        "local_share": found["local"] / max(found["signals"], 1),
        "cpu_s": found["cpu_s"],
        "recycles": found["recycles"],
    }


def _read_triggers(bench: Bench, seen: dict[int, float], stop: threading.Event) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bench.connection.bootstrap,
            "group.id": "bench-read",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
        }
    )
    consumer.assign([TopicPartition(bench.names.triggers, p, 0) for p in range(4)])
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is not None and not message.error():
            now = time.perf_counter()
            seen.setdefault(json.loads(message.value())["params"]["k"], now)
    consumer.close()


def _produce_at(bench: Bench, rate: int, seconds: int) -> dict[int, float]:
    producer, rnd = bench.producer(0), random.Random(1)
    sent: dict[int, float] = {}
    waiting: list[int] = []
    began, count, key = time.perf_counter(), 0, 0
    while (now := time.perf_counter()) - began < seconds:
        while count < (now - began) * rate:
            count += 1
            if waiting and (rnd.random() < 0.5 or len(waiting) > 200):
                old = waiting.pop(rnd.randrange(len(waiting)))
                sent[old] = time.perf_counter()
                bench._produce(producer, "users.ready", old, rnd)
            else:
                waiting.append(key)
                bench._produce(producer, "orders.ready", key, rnd)
                key += 1
        producer.poll(0)
        time.sleep(0.001)
    producer.flush()
    return sent


def restart(bootstrap: str, candidates: str) -> dict:
    """kill -9 under load to the first new trigger, same slot and state directory."""
    bench = Bench(bootstrap)
    with tempfile.TemporaryDirectory() as state:
        seen: dict[int, float] = {}
        stop = threading.Event()
        reader = threading.Thread(target=_read_triggers, args=(bench, seen, stop))
        with bench.worker(Path(state), candidates) as process:
            await_ready(process)
            reader.start()
            feed = threading.Thread(target=_produce_at, args=(bench, 500, 14))
            feed.start()
            time.sleep(5)
            process.kill()
            process.wait()
            killed = time.perf_counter()
        time.sleep(0.3)
        before = len(seen)
        with bench.worker(Path(state), candidates) as process:
            while len(seen) == before and time.perf_counter() - killed < 60:
                time.sleep(0.005)
            found = time.perf_counter() - killed
            feed.join()
        stop.set()
        reader.join()
    return {"kill_to_first_trigger_s": found}


def transaction_floor(bootstrap: str) -> dict:
    """What the transactions of `latency` would cost if nothing were decided."""
    bench = Bench(bootstrap)
    names = bench.names
    outputs = [names.candidates, names.triggers, names.lineage, names.changelog]
    return floor(bootstrap, outputs, names.signals, 4)


def match_growth() -> dict:
    """Signals matched per second in the core, by the number of subscriptions of which one matches."""
    found = {size: match("values", size, 100_000) for size in (1_000, 100_000)}
    rates = {size: float(each["signals_per_s"]["median"]) for size, each in found.items()}
    return {
        "signals_per_s_of_1000": rates[1_000],
        "signals_per_s_of_100000": rates[100_000],
        "time_ratio": rates[1_000] / rates[100_000],
    }


def long_lived_broker() -> BrokerChoice:
    """The broker that tests use, with the compiler of a JVM that lives long: theirs starts sooner and is slower."""
    choice = choose_broker()
    if choice.kind == "embedded":
        choice.broker = EmbeddedBroker(jvm_options=JVM_OPTIONS)
    return choice


def processor_ticks() -> list[int]:
    """What the machine's processors did since its start: user, nice, system, idle, …, the eighth is stolen time."""
    stat = Path("/proc/stat")
    return [int(each) for each in stat.read_text().split("\n", 1)[0].split()[1:9]] if stat.exists() else []


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used; 0 where it is not on this machine."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def stolen_percent(before: list[int], after: list[int]) -> float:
    """How much of the processors other machines on the same host took: above some 5 % a figure says little."""
    spent = [later - earlier for earlier, later in zip(before, after, strict=True)]
    return 100 * spent[7] / sum(spent) if len(spent) == 8 and sum(spent) else 0.0


def _spread(values: list[float]) -> str:
    return f"{min(values):,.1f} / {statistics.median(values):,.1f} / {max(values):,.1f}"


def main() -> None:
    """Runs the benchmark and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--entries", type=int, default=1_000_000, help="of the restore")
    parser.add_argument("--only", help="some of the measures, with commas between them")
    parser.add_argument("--bootstrap", default=os.environ.get("SIGNAL_ROUTER_BOOTSTRAP"))
    parser.add_argument("--profile")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(run_worker(json.loads(options.worker)))
        return
    if options.bootstrap:
        os.environ["SIGNAL_ROUTER_BOOTSTRAP"] = options.bootstrap

    def load(candidates: str, broker: BrokerChoice) -> dict:
        pid = broker.broker.pid if isinstance(broker.broker, EmbeddedBroker) else -1
        return throughput(broker.bootstrap, candidates, options.signals, options.profile, pid)

    measures = {
        "throughput": lambda broker: load("local", broker),
        "throughput-topic": lambda broker: load("topic", broker),
        "floor": lambda broker: transaction_floor(broker.bootstrap),
        "latency": lambda broker: latency(broker.bootstrap, "local"),
        "latency-topic": lambda broker: latency(broker.bootstrap, "topic"),
        "restart": lambda broker: restart(broker.bootstrap, "local"),
        "restore": lambda broker: {"entries_per_s": restore(broker.bootstrap, options.entries, 1)[0]},
        "match": lambda _broker: match_growth(),
        "workers": lambda broker: two_workers(broker.bootstrap, options.signals),
        "handover-classic": lambda broker: handover(Bench(broker.bootstrap), "classic"),
        "handover-consumer": lambda broker: handover(Bench(broker.bootstrap), "consumer"),
    }
    names = options.only.split(",") if options.only else list(measures)
    unknown = sorted(set(names) - set(measures))
    if unknown:
        parser.error(f"--only knows {', '.join(measures)}, not {', '.join(unknown)}")
    console = Console()
    results: dict[str, list[dict]] = {}
    with long_lived_broker() as broker:
        console.print(f"broker: {broker.reason}")
        if broker.kind == "embedded" and set(names) - {"match"}:
            console.print(f"warming it up for {WARM_UP_S} s: until then its compiler takes most of one processor")
            latency(broker.bootstrap, "topic", seconds=WARM_UP_S)
        # In turns: what else the machine does then falls on all of them.
        for _ in range(options.runs):
            for name in names:
                before = processor_ticks()
                found = measures[name](broker)
                found["stolen_percent"] = stolen_percent(before, processor_ticks())
                results.setdefault(name, []).append(found)
                shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in found.items()}
                console.print({name: shown})
    table = Table("what", "min / median / max", title=f"signal-router {__version__}, {platform.platform()}")
    for name, runs in results.items():
        for key in runs[0]:
            if key == "us_per_signal":
                for phase in runs[0][key]:
                    table.add_row(
                        f"{name}: µs per signal, {phase}", _spread([run[key].get(phase, 0.0) for run in runs])
                    )
            else:
                table.add_row(f"{name}: {key}", _spread([float(run[key]) for run in runs]))
    console.print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
