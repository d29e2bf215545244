"""What a check of the logs says: of each invariant whether it holds, is broken, or cannot be judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Invariant(Enum):
    """What must be true of the topics, whatever happened to the workers. `value` names it, `meaning` states it."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Invariant:
        member = object.__new__(cls)
        member._value_ = name
        member.meaning = meaning
        return member

    COMPLETE = "complete", "every trigger that the reference evaluation gives stands on its topic"
    SOUND = "sound", "no trigger stands there that the reference evaluation does not give, and each says what it should"
    UNIQUE = "unique", "no trigger stands there twice, and none again under its id within the horizon"
    ONE_OUTCOME = "one outcome", "every candidate ends at most once, and as the reference evaluation says"
    CONSERVED = (
        "conserved",
        "every candidate is in transit, pending, or has an outcome; none comes from nothing",
    )
    LINEAGE = "lineage", "triggers and their lineage stand one to one, under the same transaction"
    PARENTS = "parents", "every signal that a trigger or an outcome names is a committed record of an input"
    OFFSETS = "offsets", "committed offsets never went back, and none is beyond the end of its partition"
    ORDER = "order", "the order of joining extends the order of every signals partition"
    TABLES = (
        "tables",
        "the tables are what the changelog adds up to and the reference evaluation has then",
    )
    FENCED = "fenced", "nothing of an earlier life stands behind something of a later one of its slot"
    CLOSED = "closed", "no transaction is open"
    CAUGHT_UP = "caught up", "everything that was there when the check began has been read"
    DEAD_LETTERS = "dead letters", "what cannot be read or delivered is one dead letter, and nothing else is one"
    STRUCK = "struck", "the faults that were to happen did, and left the traces they must leave"


class Verdict(Enum):
    """HOLDS: everything examined agrees. BROKEN: something does not. UNJUDGED: what it takes to say so is not there."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNJUDGED = "cannot judge"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one invariant. `examined` counts what was looked at; `details` are the first violations, or what
    is missing to judge; `more` counts those that were left out of it.
    """

    invariant: Invariant
    verdict: Verdict
    examined: int = 0
    details: tuple[str, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of `Invariant`."""

    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, invariant: Invariant) -> Finding:
        return next(each for each in self.findings if each.invariant is invariant)

    @property
    def broken(self) -> tuple[Invariant, ...]:
        """The invariants that are broken."""
        return tuple(each.invariant for each in self.findings if each.verdict is Verdict.BROKEN)

    @property
    def verdict(self) -> Verdict:
        """BROKEN if one is; UNJUDGED if one cannot be judged; HOLDS only if all hold."""
        verdicts = {each.verdict for each in self.findings}
        for verdict in (Verdict.BROKEN, Verdict.UNJUDGED):
            if verdict in verdicts:
                return verdict
        return Verdict.HOLDS if verdicts else Verdict.UNJUDGED

    def violations(self) -> list[str]:
        """Every violation, with the name of its invariant."""
        return [
            f"{each.invariant.value}: {detail}"
            for each in self.findings
            if each.verdict is Verdict.BROKEN
            for detail in each.details
        ]

    def differences(self) -> list[str]:
        """Every violation, and every reason why something cannot be judged but that nothing of its kind happened."""
        open_ends = [
            f"{each.invariant.value}: cannot judge: {detail}"
            for each in self.findings
            if each.verdict is Verdict.UNJUDGED
            for detail in each.details
            if detail != NOTHING
        ]
        return [*self.violations(), *open_ends]

    def as_json(self) -> list[Mapping[str, object]]:
        """One object per finding: {invariant, meaning, verdict, examined, details, more}."""
        return [
            {
                "invariant": each.invariant.value,
                "meaning": each.invariant.meaning,
                "verdict": each.verdict.value,
                "examined": each.examined,
                "details": list(each.details),
                "more": each.more,
            }
            for each in self.findings
        ]


NOTHING = "there is nothing to judge it by"
SHOWN = 20
"""So many details of one invariant are kept."""


def finding(invariant: Invariant, violations: Iterable[str], *, examined: int, unjudged: Iterable[str] = ()) -> Finding:
    """Judges: a violation breaks, whatever is missing beside it; something missing, or nothing to look at, leaves it
    unjudged.
    """
    details, more = _first(violations)
    if details:
        return Finding(invariant, Verdict.BROKEN, examined, details, more)
    missing, more = _first(unjudged)
    if missing:
        return Finding(invariant, Verdict.UNJUDGED, examined, missing, more)
    if not examined:
        return Finding(invariant, Verdict.UNJUDGED, 0, (NOTHING,))
    return Finding(invariant, Verdict.HOLDS, examined)


def _first(details: Iterable[str]) -> tuple[tuple[str, ...], int]:
    kept: list[str] = []
    more = 0
    for detail in details:
        if len(kept) < SHOWN:
            kept.append(detail)
        else:
            more += 1
    return tuple(kept), more
