"""What a worker counts, how it is shown, and what stands in the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from signal_router.core.tables import JoinSet, Pending
from signal_router.model.candidates import SignalCopy
from signal_router.model.log import NextOffset, TopicPartition
from signal_router.observe import metrics
from signal_router.observe.exposition import State, families, render
from signal_router.observe.meter import Meter
from signal_router.observe.phases import PhaseClock
from signal_router.runtime.pending_sweep import PendingFound, sweep
from signal_router.runtime.stage import Stage
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable

SIGNALS = TopicPartition("signals", 0)
CANDIDATES = TopicPartition("app-candidates", 0)
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def state(**changes: object) -> State:
    given: dict[str, object] = {
        "slot": "w1",
        "app": "app",
        "version": "1",
        "phase": "running",
        "phases": ("waiting", "running"),
        "revision": 41,
        "subscriptions": 2,
        "negation_only": 1,
        "assigned": (CANDIDATES, SIGNALS),
        "lag": {SIGNALS: 7},
        "recycles": {"a connection was lost": 2},
        "work_seconds": {"match": 0.5},
        "pending": {"t/a": 3},
        "oldest": {"t/a": 1_000},
    }
    return State(**(given | changes))  # type: ignore[arg-type]


def committed(meter: Meter, *counts: tuple[str, str, str], records: int = 1) -> None:
    stage = Stage(1, "w1/1/1")
    stage.records = records
    stage.next_offsets[SIGNALS] = NextOffset(5)
    for name, subscription, reason in counts:
        stage.count(name, subscription, reason)
    meter.committed(stage, 0.03)


def samples(meter: Meter, shown: State) -> dict[tuple[str, ...], float]:
    """Every sample by name and label values, as a scrape reads them."""
    text = render(meter, shown).decode()
    return {
        (
            sample.name.removeprefix(metrics.PREFIX),
            *(sample.labels[label] for label in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_a_committed_stage_did_is_counted():
    meter = Meter()

    committed(meter, ("signals", "", ""), ("fired", "t/a", ""), ("duplicate", "t/a", "conflict"), ("unmatched", "", ""))
    committed(meter, ("signals", "", ""), ("dead_letters", "", "not-json"), records=9)

    shown = samples(meter, state())
    assert shown["signals_total",] == 2
    assert shown["unmatched_signals_total",] == 1
    assert shown["triggers_total", "t/a"] == 1
    assert shown["outcomes_total", "duplicate", "conflict", "t/a"] == 1
    assert shown["dead_letters_total", "not-json", ""] == 1
    assert shown["transactions_total",] == 2
    assert shown["commit_seconds_count",] == 2
    assert shown["commit_seconds_bucket", "0.02"] == 0
    assert shown["commit_seconds_bucket", "0.05"] == 2
    assert shown["transaction_input_records_bucket", "5.0"] == 1


def test_what_is_not_committed_counts_as_its_verdict_only():
    meter = Meter()

    meter.failed("aborted")
    meter.failed("aborted")

    shown = samples(meter, state())
    assert shown["failed_transactions_total", "aborted"] == 2
    assert shown["transactions_total",] == 0


def test_a_partition_is_ready_once_the_worker_runs():
    taking, running = samples(Meter(), state(phase="waiting")), samples(Meter(), state())

    assert taking["partition_ready", "0", "signals"] == 0
    assert running["partition_ready", "0", "signals"] == 1
    assert taking["partition_assigned", "0", "signals"] == running["partition_assigned", "0", "signals"] == 1
    assert taking["phase", "waiting"] == 1
    assert taking["phase", "running"] == 0


def test_the_state_of_the_worker_is_shown_beside_its_counts():
    shown = samples(Meter(), state())

    assert shown["lag_records", "0", "signals"] == 7
    assert shown["pending", "t/a"] == 3
    assert shown["oldest_pending_age_seconds", "t/a"] > 1_000_000
    assert shown["producer_recycles_total", "a connection was lost"] == 2
    assert shown["work_seconds_total", "match"] == 0.5
    assert shown["definitions_revision",] == 41
    assert shown["negation_only_members",] == 1
    assert shown["info", "app", "w1", "1"] == 1


def test_the_time_of_a_partitions_last_commit_is_shown_while_it_is_ours():
    meter = Meter()
    committed(meter)

    assert samples(meter, state())["last_commit_timestamp_seconds", "0", "signals"] > 1_600_000_000
    assert ("last_commit_timestamp_seconds", "0", "signals") not in samples(meter, state(assigned=()))


def test_exactly_the_catalogue_is_exposed():
    exposed = [family.name + ("_total" if family.type == "counter" else "") for family in families(Meter(), state())]

    assert exposed == [metric.name for metric in metrics.CATALOGUE]
    assert len(set(exposed)) == len(exposed)


@pytest.mark.parametrize("metric", metrics.CATALOGUE, ids=lambda metric: metric.name)
def test_names_and_labels_keep_the_rules(metric: metrics.Metric):
    assert metric.name.startswith("signal_router_")
    assert metric.name.endswith("_total") == (metric.kind is metrics.Kind.COUNTER)
    assert bool(metric.buckets) == (metric.kind is metrics.Kind.HISTOGRAM)
    # Each has a bounded number of values, none of which comes from a signal.
    bounded = {"subscription", "outcome", "reason", "verdict", "step", "topic", "partition", "phase", "way"}
    assert set(metric.labels) <= bounded | {"slot", "app", "version"}


def test_the_page_on_metrics_is_that_of_the_catalogue():
    assert PAGE.read_text() == metrics.documented(), "python -m signal_router.observe.metrics > docs/metrics.md"


# ---- what is pending


def pending(recorded_at: int) -> Pending:
    signal = SignalCopy('["s","x","1"]', "s", "x", "1", b"{}", None, None, recorded_at, "t", 0, 7, b"d")
    return Pending(3, 0b1, recorded_at + 100, signal)


def fill(
    store: MemoryStore, partition: int, subscription: str, *, heads: dict[str, int], queued: dict[str, int]
) -> None:
    table = PartitionTable(store, partition)
    for key, recorded_at in heads.items():
        table.put_join_set(subscription, key, JoinSet((pending(recorded_at),)))
    for key, recorded_at in queued.items():
        table.put_join_set(subscription, key, JoinSet(queued=1))
        table.put_queued(subscription, key, 1, 0, pending(recorded_at))
    table.put_pending_count(subscription, len(heads) + len(queued))
    table.put_pending_count("", len(heads) + len(queued))
    table.apply(table.staged())


def last(found: list[PendingFound | None]) -> PendingFound:
    assert found[-1] is not None
    assert all(each is None for each in found[:-1])
    return found[-1]


def test_a_sweep_finds_how_much_is_pending_and_the_oldest_of_it():
    store = MemoryStore()
    fill(store, 0, "t/a", heads={"k1": 50, "k2": 70}, queued={"k3": 40})
    fill(store, 1, "t/a", heads={"k4": 60}, queued={})
    fill(store, 1, "t/b", heads={}, queued={"k": 9})

    found = last(list(sweep(store, [0, 1])))

    assert found.counts == {"t/a": 4, "t/b": 1}
    assert found.oldest == {"t/a": 40, "t/b": 9}


def test_a_sweep_leaves_the_tables_of_others_alone():
    store = MemoryStore()
    fill(store, 0, "t/a", heads={"k": 50}, queued={})
    fill(store, 1, "t/b", heads={"k": 60}, queued={})

    assert last(list(sweep(store, [1]))).counts == {"t/b": 1}


def test_a_sweep_comes_back_after_each_slice_and_still_finds_everything():
    store = MemoryStore()
    fill(store, 0, "t/a", heads={f"k{number:04}": 1_000 - number for number in range(600)}, queued={})

    found = list(sweep(store, [0], slice_s=0.0))

    assert len(found) > 5
    assert last(found).oldest == {"t/a": 401}


def test_a_subscription_without_pending_signals_has_no_oldest_one():
    store = MemoryStore()
    fill(store, 0, "t/a", heads={"k": 50}, queued={})
    table = PartitionTable(store, 0)
    table.put_pending_count("t/a", 0)
    table.apply(table.staged())

    assert last(list(sweep(store, [0]))).oldest == {}


# ---- time by phase


def test_a_phase_ends_where_the_next_begins():
    times = iter([10.0, 13.0, 14.0])
    clock = PhaseClock(lambda: next(times))

    clock("match")
    clock("join")
    clock.stop()

    assert clock.seconds == {"match": 3.0, "join": 1.0}
