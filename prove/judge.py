"""What the rounds of a run say together, invariant by invariant."""

from __future__ import annotations

from collections.abc import Iterable

from signal_router.verify.report import Finding, Invariant, Report, Verdict, finding


def together(reports: Iterable[Report]) -> Report:
    """Adds up what several rounds say: one that is broken breaks it."""
    found: dict[Invariant, list[Finding]] = {}
    for each in (single for one in reports for single in one):
        found.setdefault(each.invariant, []).append(each)
    return Report(tuple(_sum(found[name]) for name in Invariant if name in found))


def _sum(findings: list[Finding]) -> Finding:
    examined = sum(each.examined for each in findings)
    broken = [detail for each in findings if each.verdict is Verdict.BROKEN for detail in each.details]
    unjudged = [detail for each in findings if each.verdict is Verdict.UNJUDGED for detail in each.details]
    # What one round had nothing of, others may have had.
    return finding(findings[0].invariant, broken, examined=examined, unjudged=() if examined else unjudged)
