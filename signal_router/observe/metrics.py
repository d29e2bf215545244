"""The catalogue: every metric a worker shows, with its labels, in one place. `docs/metrics.md` is made from it.

Counters are those of committed transactions since the worker started. No label ever carries a join key, an identity or
any other value of a signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from signal_router.observe import events

PREFIX = "signal_router_"


class Kind(Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it is exposed: counters end in `_total`, units are base units. `buckets` are a histogram's."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}_total", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, Kind.GAUGE, text, labels)


def _histogram(name: str, text: str, *buckets: float) -> Metric:
    return Metric(PREFIX + name, Kind.HISTOGRAM, text, buckets=buckets)


# ---- what came of signals

SIGNALS: Final = _counter("signals", "Signals read and matched.")
UNMATCHED: Final = _counter("unmatched_signals", "Signals that fitted no subscription.")
TOMBSTONES: Final = _counter("tombstones", "Signals records without a value: counted and skipped.")
WITHOUT_KEY: Final = _counter(
    "signals_without_join_key",
    "Signals that fitted a member but lack a join parameter, or have it with another type.",
    "subscription",
)
CANDIDATES: Final = _counter(
    "candidates",
    "Candidates matched, by way: local (joined in the transaction that matched them) or topic (through the candidates"
    " topic).",
    "way",
)
TRIGGERS: Final = _counter("triggers", "Triggers fired.", "subscription")
WAITED: Final = _counter(
    "candidates_waited", "Candidates that did not complete a set and became pending.", "subscription"
)
OUTCOMES: Final = _counter(
    "outcomes",
    "Candidates that ended without a trigger: duplicate (repeat, conflict), expired, superseded, discarded,"
    " undeliverable.",
    "subscription",
    "outcome",
    "reason",
)
DEAD_LETTERS: Final = _counter(
    "dead_letters",
    "Dead letters by machine-readable reason; `subscription` is set where a trigger could not be delivered.",
    "subscription",
    "reason",
)
PENDING: Final = _gauge(
    "pending", "Signals that wait for their set, in this worker's partitions; renewed every 15 s.", "subscription"
)
OLDEST_PENDING: Final = _gauge(
    "oldest_pending_age_seconds",
    "Age of the signal that has waited longest; from a background pass that takes a slice of the tables each second.",
    "subscription",
)

# ---- transactions

TRANSACTIONS: Final = _counter("transactions", "Transactions committed.")
FAILED_TRANSACTIONS: Final = _counter(
    "failed_transactions", "Transactions not known to be committed, by verdict: aborted, unknown, fenced.", "verdict"
)
PRODUCER_RECYCLES: Final = _counter(
    "producer_recycles", "Producers replaced because their connection's past was in doubt, by reason.", "reason"
)
COMMIT_SECONDS: Final = _histogram(
    "commit_seconds",
    "Time from the begin of a transaction until the tables have it.",
    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30,
)  # fmt: skip
TRANSACTION_RECORDS: Final = _histogram(
    "transaction_input_records",
    "Records read (signals and candidates) per transaction.",
    1, 5, 20, 100, 500, 1_000, 2_000, 5_000, 10_000,
)  # fmt: skip
WORK_SECONDS: Final = _counter("work_seconds", "Time spent by step: match, join, and the effects of a commit.", "step")

# ---- partitions

ASSIGNED: Final = _gauge("partition_assigned", "1 for every partition this worker holds.", "topic", "partition")
READY: Final = _gauge(
    "partition_ready", "1 once the partition is restored and read from, 0 while it is taken over.", "topic", "partition"
)
LAG: Final = _gauge(
    "lag_records", "Offsets between the committed one and the end of the log, transaction markers included.",
    "topic", "partition",
)  # fmt: skip
LAST_COMMIT: Final = _gauge(
    "last_commit_timestamp_seconds", "When this worker last committed an offset of the partition.", "topic", "partition"
)
RESTORED_RECORDS: Final = _counter("restored_records", "Changelog records read to restore tables.")
RESTORE_SECONDS: Final = _counter("restore_seconds", "Time spent on taking partitions over, restoring included.")
RESTORES: Final = _counter("restores", "How often partitions were taken over.")

# ---- the process

INFO: Final = _gauge("info", "Always 1: who this worker is.", "slot", "app", "version")
PHASE: Final = _gauge("phase", "1 for the worker's phase: waiting, taking over, running, stopped.", "phase")
REVISION: Final = _gauge("definitions_revision", "Revision of the definitions in force here; workers should agree.")
SUBSCRIPTIONS: Final = _gauge("subscriptions", "Subscriptions in force.")
NEGATION_ONLY: Final = _gauge(
    "negation_only_members",
    "Members that only exclude (`!=`, `not-in`, `exists: false`): each is looked at for every signal of its name.",
)

CATALOGUE: Final[tuple[Metric, ...]] = tuple(each for each in globals().values() if isinstance(each, Metric))
"""All of them, in the order above."""


def documented() -> str:
    """The catalogue as a page of Markdown."""
    lines = [_PAGE.strip(), "", "| name | type | labels | meaning |", "|---|---|---|---|"]
    for metric in CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |")
    return "\n".join([*lines, "", _LINES.strip(), "", events.documented(), ""])


_PAGE = """
# Metrics and log lines

`signal-router run` serves Prometheus metrics at `/metrics` on its web port (`--web-port`, 6066 by default; on loopback
unless `--web-host` says otherwise), besides `/livez`, `/readyz` and a short status as JSON at `/`.

Counters count what committed transactions did, since the worker started: what is aborted and done again counts once.
All metrics are those of one worker; add them up over workers. The process's own (`process_*`) come with them.
No label carries a join key or any other value of a signal.

Worth an alert: `signal_router_lag_records` that grows; `signal_router_dead_letters_total` and
`signal_router_outcomes_total{outcome=~"undeliverable|discarded"}` that rise; `signal_router_partition_ready` that stays
0; `signal_router_oldest_pending_age_seconds` near a subscription's `within`; `signal_router_definitions_revision` that
differs between workers for long.

This page is made from `signal_router/observe/` by `python -m signal_router.observe.metrics`.
"""

_LINES = """
## Log lines

On a terminal log lines are for people, elsewhere each is one JSON object with `timestamp`, `level`, `event`, `logger`
and the fields below; they go to stderr. `-v` adds details and what Kafka's client says. Nothing is logged per record.
"""

if __name__ == "__main__":
    print(documented(), end="")
