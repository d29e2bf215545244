"""How fast signals are matched in the core, as subscriptions grow: one process, no broker, no decoding.

    python benchmarks/match.py [--sizes 1000,10000,100000] [--signals 200000] [--json FILE]

Workloads (each signal matches about as many subscriptions at every size, so that growth shows the cost of those that do
not match):

    values    two `=` and a range; distinct values grow with the subscriptions, half the signals go to a few of them
    skewed    one of 25 countries in a list of 50, and `=` on a title: the countries alone would be long lists
    shared    the same `=` in all subscriptions, a narrow range tells them apart
    ranges    a narrow two-sided range only
    prefixes  a prefix only
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable

from signal_router.core.index import MatchIndex
from signal_router.model.documents import compile_subscription, read_document
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import Subscription

ROUNDS = 5
NAMES = 20
COUNTRIES = [f"C{number:02}" for number in range(50)]
MATCHES = 3  # subscriptions per distinct value: what a signal that hits something matches


def subscription(number: int, match: dict[str, object], join: dict[str, str]) -> Subscription:
    return compile_subscription(
        read_document(
            {
                "apiVersion": "signal-router/v1",
                "kind": "Subscription",
                "metadata": {"id": f"bench/s{number:07}"},
                "spec": {
                    "join": join,
                    "members": [
                        {"alias": "a", "signal": f"warehouse/table{number % NAMES}.ready", "match": match},
                        {"alias": "b", "signal": "warehouse/other.ready", "match": match},
                    ],
                },
            }
        )
    )


def values(number: int, _: int) -> dict[str, object]:
    return {"title": f"t{number // (NAMES * MATCHES)}", "kind": "daily", "rows": {">": 100}}


def skewed(number: int, _: int) -> dict[str, object]:
    return {"country": {"in": COUNTRIES[:25]}, "title": f"t{number // (NAMES * MATCHES)}"}


def shared(number: int, _: int) -> dict[str, object]:
    low = number // (NAMES * MATCHES) * 10
    return {"kind": "daily", "rows": {">=": low, "<": low + 10}}


def ranges(number: int, _: int) -> dict[str, object]:
    low = number // (NAMES * MATCHES) * 10
    return {"rows": {">=": low, "<": low + 10}}


def prefixes(number: int, _: int) -> dict[str, object]:
    return {"title": {"prefix": f"t{number // (NAMES * MATCHES):06}/"}}


WORKLOADS: dict[str, Callable[[int, int], dict[str, object]]] = {
    "values": values,
    "skewed": skewed,
    "shared": shared,
    "ranges": ranges,
    "prefixes": prefixes,
}


def signals(workload: str, size: int, count: int) -> list[Signal]:
    chance = random.Random(size)
    distinct = max(1, size // (NAMES * MATCHES))
    made = []
    for _ in range(count):
        value = chance.randrange(distinct)
        if workload == "values" and chance.random() < 0.5:
            value = int(distinct ** chance.random())  # half of the traffic goes to a few titles
        title = f"t{value:06}/x" if workload == "prefixes" else f"t{value}"
        rows = value * 10 + chance.randrange(10) if workload in ("shared", "ranges") else 1000
        name = f"warehouse/table{chance.randrange(NAMES)}.ready"
        day = f"2026-03-{chance.randrange(1, 29):02}"
        params = {"ds": day, "country": chance.choice(COUNTRIES), "title": title, "kind": "daily", "rows": rows}
        made.append(Signal(name, "wf/plays", "run-7", params, None, None, {"source": "wf/plays", "id": "run-7"}))
    return made


def measure(workload: str, size: int, count: int) -> dict[str, object]:
    made = [subscription(n, WORKLOADS[workload](n, size), {"ds": "date", "country": "string"}) for n in range(size)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.collect()
    gc.disable()
    index = MatchIndex()
    started = time.perf_counter()
    for each in made:
        index.add(each)
    build_s = time.perf_counter() - started
    gc.enable()
    taken = signals(workload, size, count)
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    index.match(taken[0])
    first_s = time.perf_counter() - started
    edit_ms = edits(index, made, taken)
    rounds = [one_round(index, taken) for _ in range(ROUNDS)]
    stats = index.stats()
    gc.unfreeze()
    return {
        "workload": workload,
        "subscriptions": size,
        "signals_per_s": {
            "min": round(count / max(rounds)),
            "median": round(count / statistics.median(rounds)),
            "max": round(count / min(rounds)),
        },
        "us_per_signal": round(statistics.median(rounds) / count * 1e6, 2),
        "visited_per_signal": round(stats.visited / stats.signals, 2),
        "matches_per_signal": round(stats.matched / stats.signals, 2),
        "adds_per_s": round(size / build_s),
        "first_match_ms": round(first_s * 1e3, 2),
        "slowest_edit_and_match_ms": round(edit_ms, 2),
        "grown_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
    }


def edits(index: MatchIndex, made: list[Subscription], taken: list[Signal]) -> float:
    """The slowest of 200 replacements, each with the match after it, in milliseconds."""
    slowest = 0.0
    for each in random.Random(1).choices(made, k=200):
        started = time.perf_counter()
        index.add(each)
        index.match(taken[0])
        slowest = max(slowest, time.perf_counter() - started)
    return slowest * 1e3


def one_round(index: MatchIndex, taken: list[Signal]) -> float:
    match = index.match
    started = time.process_time()  # other load on the machine is not what is measured
    for signal in taken:
        match(signal)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Matching in the core, as subscriptions grow.")
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--signals", type=int, default=100_000)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    figures = []
    print(f"{'workload':9} {'subs':>8} {'signals/s':>10} {'us':>6} {'growth':>6} {'visited':>8} {'matches':>8} "
          f"{'adds/s':>8} {'edit ms':>8} {'MB':>5}")  # fmt: skip
    for workload in options.workloads.split(","):
        first = 0.0
        for size in map(int, options.sizes.split(",")):
            figure = measure(workload, size, options.signals)
            figures.append(figure)
            first = first or float(str(figure["us_per_signal"]))
            growth = float(str(figure["us_per_signal"])) / first
            rate = figure["signals_per_s"]["median"]  # type: ignore[index]
            print(
                f"{workload:9} {size:8} {rate:10} {figure['us_per_signal']:6} {growth:6.2f} "
                f"{figure['visited_per_signal']:8} {figure['matches_per_signal']:8} {figure['adds_per_s']:8} "
                f"{figure['slowest_edit_and_match_ms']:8} {figure['grown_mb']:5}",
                flush=True,
            )
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"python": sys.version.split()[0], "rounds": ROUNDS, "figures": figures}, file, indent=2)


if __name__ == "__main__":
    main()
