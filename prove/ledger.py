"""What a run did and found, and what of it was too little to say that anything holds."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import confluent_kafka
from rich.console import Console
from rich.table import Table

from prove.judge import together
from prove.kills import POINTS
from signal_router import __version__
from signal_router.kafka.jars import KAFKA_VERSION
from signal_router.verify.report import Invariant, Report, Verdict, finding

KILLS_PER_HOUR = 200
TRACES = ("signals", "triggers")
"""Without these nothing was at stake."""

Wanted = Mapping[str, Iterable[str]]
"""By scenario, the faults that must have happened."""


@dataclass(frozen=True, slots=True)
class Played:
    """One round: what happened in it, and what the topics said."""

    scenario: str
    number: int
    seed: int
    seconds: float
    verdict: Verdict
    details: str
    faults: Mapping[str, int]
    kills: Mapping[str, int]
    seen: Mapping[str, int]
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What was called beside the scenarios."""

    name: str
    verdict: Verdict
    seconds: float
    said: str
    tried: bool = True


@dataclass
class Ledger:
    """All of a run."""

    seed: int
    minutes: float
    selected: tuple[str, ...]
    rounds: list[Played] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    not_selected: tuple[str, ...] = ()
    interrupted: bool = False

    def count(self, scenario: str) -> int:
        """Rounds of a scenario until now."""
        return sum(each.scenario == scenario for each in self.rounds)

    @property
    def faults(self) -> Mapping[str, Counter[str]]:
        """By scenario, how often each fault happened."""
        found: dict[str, Counter[str]] = {name: Counter() for name in self.selected}
        for each in self.rounds:
            found[each.scenario].update(each.faults)
        return found

    @property
    def kills(self) -> Counter[str]:
        """By the point at which a worker died."""
        return _sum(each.kills for each in self.rounds)

    @property
    def seen(self) -> Counter[str]:
        """What the topics showed."""
        return _sum(each.seen for each in self.rounds)

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(each.seconds for each in self.rounds) + sum(each.seconds for each in self.parts)

    def missing(self, wanted: Wanted) -> list[str]:
        """Why this run cannot judge; empty if it can."""
        found = [f"{scenario}: {fault} never happened" for scenario, faults in wanted.items()
                 for fault in faults if not self.faults[scenario][fault]]  # fmt: skip
        if "kills" in self.selected:
            found += [f"nobody was killed at {point}" for point in POINTS if not self.kills[point]]
            least = round(KILLS_PER_HOUR * self.minutes / 60)
            if self.kills.total() < least:
                found.append(f"{self.kills.total()} kills, {least} are asked for in {self.minutes:g} minutes")
            aborted, struck = self.seen["aborted transactions"], self.kills["commit"]
            if aborted < struck:  # whoever dies in front of its commit has sent everything
                found.append(f"{aborted} aborted transactions, where {struck} workers died in front of a commit")
            if not self.seen["replays"]:
                found.append("no replays were seen")
        found += [f"no {trace} were seen" for trace in TRACES if not self.seen[trace]]
        for scenario in self.selected:
            if not any(each.scenario == scenario and each.verdict is Verdict.HOLDS for each in self.rounds):
                found.append(f"no round of {scenario} was green")
        if self.interrupted:
            found.append("it was interrupted")
        return found

    def report(self, wanted: Wanted) -> Report:
        """Every invariant that was looked at, over all rounds."""
        summed = together(report for each in self.rounds for report in each.reports)
        struck = finding(
            Invariant.STRUCK,
            (),
            examined=sum(counter.total() for counter in self.faults.values()) + self.kills.total(),
            unjudged=self.missing(wanted),
        )
        return Report((*summed, struck))

    def verdict(self, wanted: Wanted) -> Verdict:
        """Of the whole run. Rounds that could not be judged are told, and do not spoil those that could."""
        verdicts = {*(each.verdict for each in self.rounds), *(each.verdict for each in self.parts)}
        if Verdict.BROKEN in verdicts:
            return Verdict.BROKEN
        if any(each.tried and each.verdict is Verdict.UNJUDGED for each in self.parts):
            return Verdict.UNJUDGED
        return self.report(wanted).verdict

    def not_tried(self) -> list[str]:
        """What somebody might think was tried."""
        return [
            *(f"{name}: not selected" for name in self.not_selected),
            *(f"{part.name}: {part.said}" for part in self.parts if not part.tried),
            *(
                f"{each.scenario}, round {each.number + 1} (seed {each.seed}): {each.details.splitlines()[0]}"
                for each in self.rounds
                if each.verdict is Verdict.UNJUDGED
            ),
            *(
                f"invariant {each.value}: not looked at here"
                for each in Invariant
                if each is not Invariant.STRUCK and not _looked_at(self.rounds, each)
            ),
            "several brokers, and leaders that move",
            "power loss of an unreplicated broker",
        ]


def _looked_at(rounds: Iterable[Played], invariant: Invariant) -> bool:
    return any(each.invariant is invariant for one in rounds for report in one.reports for each in report)


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return found


def as_json(ledger: Ledger, wanted: Wanted) -> dict[str, object]:
    """The report for programs."""
    return {
        "format": 1,
        "verdict": ledger.verdict(wanted).value,
        "seed": ledger.seed,
        "versions": {
            "signal-router": __version__,
            "kafka": KAFKA_VERSION,
            "confluent-kafka": confluent_kafka.__version__,
            "librdkafka": confluent_kafka.libversion()[0],
            "python": platform.python_version(),
        },
        "minutes": ledger.minutes,
        "seconds": round(ledger.seconds, 1),
        "faults": {scenario: dict(sorted(counts.items())) for scenario, counts in ledger.faults.items()},
        "kills": {"total": ledger.kills.total(), **ledger.kills},
        "seen": dict(ledger.seen),
        "invariants": ledger.report(wanted).as_json(),
        "rounds": [
            {
                "scenario": each.scenario,
                "number": each.number + 1,
                "seed": each.seed,
                "seconds": round(each.seconds, 1),
                "verdict": each.verdict.value,
                "details": each.details,
                "faults": dict(each.faults),
                "kills": dict(each.kills),
                "seen": dict(each.seen),
            }
            for each in ledger.rounds
        ],
        "parts": [
            {
                "name": each.name,
                "tried": each.tried,
                "verdict": each.verdict.value,
                "seconds": round(each.seconds, 1),
                "said": each.said,
            }
            for each in ledger.parts
        ],
        "not tried": ledger.not_tried(),
    }


def write(console: Console, ledger: Ledger, wanted: Wanted, file: Path | None) -> None:
    """The report for people, and for programs where a file is given."""
    faults = Table("scenario", "rounds", "fault", "happened", title="Faults", title_justify="left")
    for scenario, counts in ledger.faults.items():
        for number, (fault, count) in enumerate(sorted(counts.items())):
            first = number == 0
            faults.add_row(scenario if first else "", str(ledger.count(scenario)) if first else "", fault, f"{count:,}")
    kills = Table("killed at", "workers", title=f"{ledger.kills.total()} kills", title_justify="left")
    for point, count in ledger.kills.most_common():
        kills.add_row(point, str(count))
    invariants = Table("invariant", "verdict", "examined", "", title="Invariants", title_justify="left")
    for found in ledger.report(wanted):
        details = "; ".join(found.details[:5]) + (f"; {found.more} more" if found.more else "")
        invariants.add_row(found.invariant.value, found.verdict.value, f"{found.examined:,}", details)
    for table in (faults, kills, invariants):
        console.print(table)
    console.print("\n".join(["seen:", *(f"  {count:,} {name}" for name, count in ledger.seen.items())]))
    console.print("\n".join(["not tried:", *(f"  {each}" for each in ledger.not_tried())]))
    broken = [each for each in ledger.rounds if each.verdict is Verdict.BROKEN]
    for each in broken:
        console.print(f"\nbroken: {each.scenario}, round {each.number + 1}, seed {each.seed}\n{each.details[-3000:]}")
    console.print(f"\n{ledger.verdict(wanted).value} (seed {ledger.seed})")
    if file is not None:
        file.write_text(json.dumps(as_json(ledger, wanted), indent=1) + "\n")
