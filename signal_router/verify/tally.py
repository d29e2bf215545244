"""Violations and what is missing, by invariant: so many of each are kept as a report shows, the rest are counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from signal_router.testing.reference import Violation
from signal_router.verify.report import SHOWN, Finding, Invariant, finding


class Tally:
    """What a check has found so far.

    `gaps` maps the role of a topic that is not there in full to the reason: what is absent from it breaks nothing.
    """

    def __init__(self) -> None:
        self._violations: dict[Invariant, list[str]] = defaultdict(list)
        self._more: Counter[Invariant] = Counter()
        self._missing: dict[Invariant, dict[str, None]] = defaultdict(dict)
        self._examined: Counter[Invariant] = Counter()
        self.gaps: dict[str, str] = {}

    def breaks(self, invariant: Invariant, text: str, absent: str | None = None) -> None:
        """Notes a violation, unless it says that something is absent from a topic that is not there in full."""
        if absent in self.gaps:
            return
        kept = self._violations[invariant]
        if len(kept) < SHOWN:
            kept.append(text)
        else:
            self._more[invariant] += 1

    def take(self, violations: Iterable[Violation]) -> None:
        """Notes violations."""
        for each in violations:
            self.breaks(each.invariant, each.text, each.absent)

    def examined(self, invariant: Invariant, count: int = 1) -> None:
        """Counts what was looked at."""
        self._examined[invariant] += count

    def lacks(self, reason: str, *invariants: Invariant) -> None:
        """Notes what is missing to judge invariants."""
        for invariant in invariants:
            self._missing[invariant][reason] = None

    def finding(self, invariant: Invariant) -> Finding:
        """The verdict on one invariant."""
        found = finding(
            invariant,
            self._violations[invariant],
            examined=self._examined[invariant],
            unjudged=self._missing[invariant],
        )
        return replace(found, more=found.more + self._more[invariant])
