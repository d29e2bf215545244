"""What a worker counts. The numbers are those of committed transactions: a count is taken when its stage is durable."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from prometheus_client import Histogram

from signal_router.model.log import NextOffset, TopicPartition
from signal_router.observe import metrics


class CommittedStage(Protocol):
    """What a meter reads of a stage."""

    records: int

    @property
    def counts(self) -> Mapping[tuple[str, str, str], int]: ...

    @property
    def next_offsets(self) -> Mapping[TopicPartition, NextOffset]:
        """The offsets that were committed."""


class Meter:
    """Counts of one worker since it started. Written on the event loop; reading copies is safe from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By (name, subscription, reason); see `Stage.count`."""
        self.records = 0
        self.transactions = 0
        self.commit_seconds = 0.0
        self.failures: Counter[str] = Counter()
        self.restored_records = 0
        self.restore_seconds = 0.0
        self.restores = 0
        self.committed_at: dict[TopicPartition, float] = {}
        self.commit_histogram = _histogram(metrics.COMMIT_SECONDS)
        self.records_histogram = _histogram(metrics.TRANSACTION_RECORDS)

    def committed(self, stage: CommittedStage, seconds: float) -> None:
        """A stage became durable; `seconds` is what the commit took."""
        self.counts.update(stage.counts)
        self.records += stage.records
        self.transactions += 1
        self.commit_seconds += seconds
        self.commit_histogram.observe(seconds)
        self.records_histogram.observe(stage.records)
        self.committed_at.update(dict.fromkeys(stage.next_offsets, time.time()))

    def failed(self, verdict: str) -> None:
        """A transaction did not become durable."""
        self.failures[verdict] += 1

    def restored(self, records: int, seconds: float) -> None:
        """Tables were restored."""
        self.restored_records += records
        self.restore_seconds += seconds
        self.restores += 1

    def total(self, name: str) -> int:
        """A count over all subscriptions and reasons."""
        return sum(count for (each, _, _), count in self.counts.items() if each == name)


def _histogram(metric: metrics.Metric) -> Histogram:
    return Histogram(metric.name, metric.help, buckets=metric.buckets, registry=None)
