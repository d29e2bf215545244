"""Metrics as Prometheus reads them: a meter's counts and a worker's state put under the names of the catalogue."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from signal_router.model.log import TopicPartition
from signal_router.model.outcomes import Outcome
from signal_router.observe import metrics
from signal_router.observe.meter import Meter
from signal_router.observe.metrics import Kind, Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_OUTCOMES = frozenset(outcome.value for outcome in Outcome) - {Outcome.PENDING.value, Outcome.FIRED.value}
_process = ProcessCollector(registry=None)


@dataclass(frozen=True, slots=True)
class State:
    """What a worker is at one moment, beside what its meter counted. `oldest` are times: epoch milliseconds."""

    slot: str
    app: str
    version: str
    phase: str
    phases: tuple[str, ...]
    revision: int
    subscriptions: int
    negation_only: int
    assigned: tuple[TopicPartition, ...] = ()
    lag: Mapping[TopicPartition, int] = field(default_factory=dict)
    recycles: Mapping[str, int] = field(default_factory=dict)
    work_seconds: Mapping[str, float] = field(default_factory=dict)
    pending: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, int] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether what is assigned is restored and read from."""
        return self.phase == "running"


def render(meter: Meter, state: State) -> bytes:
    """The text that `/metrics` answers. Costs microseconds per subscription and reason: not for the event loop."""
    return generate_latest(_Collected([*families(meter, state), *_process.collect()]))


def families(meter: Meter, state: State) -> Iterator[Family]:
    """Every metric of the catalogue, in its order."""
    values = _counted(meter) | _standing(meter, state)
    histograms = {metrics.COMMIT_SECONDS: meter.commit_histogram, metrics.TRANSACTION_RECORDS: meter.records_histogram}
    for metric in metrics.CATALOGUE:
        if metric.kind is Kind.HISTOGRAM:
            yield from _without_creation_time(histograms[metric].collect())
        else:
            yield _family(metric, values[metric])


def _without_creation_time(collected: Iterable[Family]) -> Iterator[Family]:
    for family in collected:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        yield family


_Samples = Iterable[tuple[tuple[str, ...], float]]


def _counted(meter: Meter) -> dict[Metric, _Samples]:
    """Samples of the counters that stages count."""
    counts = dict(meter.counts)

    def total(name: str) -> _Samples:
        return [((), sum(count for (each, _, _), count in counts.items() if each == name))]

    def by_subscription(name: str) -> _Samples:
        return [((subscription,), count) for (each, subscription, _), count in counts.items() if each == name]

    return {
        metrics.SIGNALS: total("signals"),
        metrics.UNMATCHED: total("unmatched"),
        metrics.TOMBSTONES: total("tombstones"),
        metrics.WITHOUT_KEY: by_subscription("without_join_key"),
        metrics.CANDIDATES: [((way,), count) for (name, _, way), count in counts.items() if name == "candidates"],
        metrics.TRIGGERS: by_subscription("fired"),
        metrics.WAITED: by_subscription("pending"),
        metrics.OUTCOMES: [
            ((subscription, name, reason), count)
            for (name, subscription, reason), count in counts.items()
            if name in _OUTCOMES
        ],
        metrics.DEAD_LETTERS: [
            ((subscription, reason), count)
            for (name, subscription, reason), count in counts.items()
            if name == "dead_letters"
        ],
    }


def _standing(meter: Meter, state: State) -> dict[Metric, _Samples]:
    """Samples of everything else."""
    now = time.time()
    return {
        metrics.PENDING: _by_name(state.pending),
        metrics.OLDEST_PENDING: [((name,), max(0.0, now - at / 1000)) for name, at in state.oldest.items()],
        metrics.TRANSACTIONS: _single(meter.transactions),
        metrics.FAILED_TRANSACTIONS: _by_name(dict(meter.failures)),
        metrics.PRODUCER_RECYCLES: _by_name(state.recycles),
        metrics.WORK_SECONDS: _by_name(state.work_seconds),
        metrics.ASSIGNED: [(_labels(tp), 1) for tp in state.assigned],
        metrics.READY: [(_labels(tp), state.ready) for tp in state.assigned],
        metrics.LAG: [(_labels(tp), lag) for tp, lag in state.lag.items()],
        metrics.LAST_COMMIT: [
            (_labels(tp), meter.committed_at[tp]) for tp in state.assigned if tp in meter.committed_at
        ],
        metrics.RESTORED_RECORDS: _single(meter.restored_records),
        metrics.RESTORE_SECONDS: _single(meter.restore_seconds),
        metrics.RESTORES: _single(meter.restores),
        metrics.INFO: [((state.slot, state.app, state.version), 1)],
        metrics.PHASE: [((phase,), phase == state.phase) for phase in state.phases],
        metrics.REVISION: _single(state.revision),
        metrics.SUBSCRIPTIONS: _single(state.subscriptions),
        metrics.NEGATION_ONLY: _single(state.negation_only),
    }


def _family(metric: Metric, samples: _Samples) -> Family:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family


def _single(value: float) -> _Samples:
    return [((), value)]


def _by_name(values: Mapping[str, float]) -> _Samples:
    return [((name,), value) for name, value in values.items()]


def _labels(tp: TopicPartition) -> tuple[str, ...]:
    return (tp.topic, str(tp.partition))


class _Collected:
    """What `generate_latest` asks of a registry."""

    def __init__(self, collected: list[Family]) -> None:
        self._collected = collected

    def collect(self) -> list[Family]:
        return self._collected
