"""What a worker counts. The numbers are those of committed transactions: a count is taken when its stage is durable."""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class CommittedStage(Protocol):
    """What a meter reads of a stage."""

    records: int
    output_bytes: int
    counts: dict[tuple[str, str, str], int]


class Meter:
    """Counts of one worker since it started."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.records = 0
        self.transactions = 0
        self.commit_seconds = 0.0
        self.failures: Counter[str] = Counter()
        self.restored_records = 0
        self.restore_seconds = 0.0

    def committed(self, stage: CommittedStage, seconds: float) -> None:
        """A stage became durable; `seconds` is what the commit took."""
        self.counts.update(stage.counts)
        self.records += stage.records
        self.transactions += 1
        self.commit_seconds += seconds

    def failed(self, verdict: str) -> None:
        """A transaction did not become durable."""
        self.failures[verdict] += 1

    def restored(self, records: int, seconds: float) -> None:
        """Tables were restored."""
        self.restored_records += records
        self.restore_seconds += seconds

    def total(self, name: str) -> int:
        """A count over all subscriptions and reasons."""
        return sum(count for (each, _, _), count in self.counts.items() if each == name)
