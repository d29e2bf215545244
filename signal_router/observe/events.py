"""The fixed list of log lines a worker writes, each with its fields. A test holds the code to it.

ERROR is for loss, unavailability and broken invariants only; what mends itself is a WARNING; none is per record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of line: its level, its fields, and what it means for an operator."""

    level: str
    fields: tuple[str, ...]
    meaning: str


LINES: Final[Mapping[str, Line]] = {
    "throughput": Line(
        "info",
        ("phase", "signals_per_s", "triggers_per_s", "transactions", "commit_ms", "waiting", "dead_letters"),
        "Every ten seconds where no terminal shows it: what was committed since the last line.",
    ),
    "took partitions over": Line(
        "info",
        ("partitions", "restored", "seconds"),
        "The worker goes on with these; `restored` counts changelog records.",
    ),
    "not taken over yet": Line(
        "warning", ("error", "partitions"), "These are tried again after a second; the others run on meanwhile."
    ),
    "signals topics changed": Line("info", ("topics",), "A pattern matches other topics than before."),
    "topic differs from its file": Line("warning", ("advice",), "`signal-router topics diff` shows all differences."),
    "brokers look older than Kafka 4.3": Line(
        "warning",
        ("advice",),
        "They do not have the settings of KIP-848 groups that came with it. Older ones refuse what a worker commits for"
        " partitions that stay when others come and go; after 30 s of that the worker ends.",
    ),
    "candidates go through their topic": Line(
        "info",
        ("partitions",),
        "What is on its way there was not read within 2 s after a take-over; until it is, nothing is joined locally.",
    ),
    "fenced a former owner": Line(
        "info",
        ("slot", "partitions"),
        "An open transaction of the slot hid these partitions for a second: its worker is dead, and it was aborted.",
    ),
    "fenced by another worker": Line(
        "warning",
        ("by", "partitions"),
        "The worker `by` takes these partitions over, found them hidden by an open transaction, and took this worker"
        " for dead. Its transaction is aborted; it replaces its producer, reads where the log stands, and goes on.",
    ),
    "former owner not fenced; its open transaction is waited for": Line(
        "warning", ("slot", "error"), "The same, but it could not be done; it ends with its time-out."
    ),
    "what dead workers hide is not known": Line(
        "info", ("error",), "The broker did not answer after a take-over; open transactions end by their time-out."
    ),
    "assignment lost": Line("warning", ("assignment",), "The group gave the partitions away; open work is void."),
    "fenced by the group, joining it again": Line(
        "warning",
        ("error",),
        "The group shut this member out, and no other worker has its slot: a broker stood still for longer than the"
        " session time-out. At the fourth time within a minute the worker ends.",
    ),
    "revoke deadline passed: open work is void": Line(
        "warning",
        ("assignment",),
        "A commit took too long while partitions were given back; it is done again elsewhere.",
    ),
    "transaction not committed": Line(
        "warning", ("verdict", "transaction", "error"), "Its records are read again; nothing of it counts."
    ),
    "waiting to go on": Line("warning", ("attempt", "error"), "Taking partitions over failed and is tried again."),
    "will be tried again": Line("warning", ("error",), "A look at the cluster failed."),
    "table rebuilt from the changelog": Line(
        "warning", ("partition", "reason", "changelog_end"), "The local copy could not be trusted: costs time only."
    ),
    "local tables cannot be opened and are rebuilt from the changelog": Line(
        "warning", ("error",), "The state directory is damaged or foreign: costs time only."
    ),
    "stopped as a static member: its partitions wait for this slot": Line(
        "info",
        ("at_most_s", "partitions"),
        "Nobody works on these until the slot comes back, or the session time-out has passed. With"
        " `--membership dynamic` they go to other workers at once.",
    ),
    "the last transaction did not end in time; its outcome is read at the next start": Line(
        "warning", (), "The worker stopped without knowing the outcome."
    ),
    "the consume thread did not end in time": Line("warning", (), "The group notices by the session time-out."),
    "pending signals cannot be counted": Line("warning", ("error",), "The gauges of what is pending stand still."),
    "lag is not known": Line("debug", ("error",), "The broker did not answer; asked again soon."),
    "worker failed": Line("error", (), "A fault of the program; the worker stops, and a traceback follows."),
}


def documented() -> str:
    """The list as a table of Markdown."""
    rows = ["| line | level | fields | meaning |", "|---|---|---|---|"]
    for name, line in LINES.items():
        fields = ", ".join(f"`{field}`" for field in line.fields)
        rows.append(f"| {name} | {line.level} | {fields} | {line.meaning} |")
    return "\n".join(rows)
