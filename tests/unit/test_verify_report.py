"""What a report says when something is broken, or cannot be judged."""

from __future__ import annotations

from signal_router.verify.report import SHOWN, Finding, Invariant, Report, Verdict, finding


def test_a_violation_breaks_whatever_is_missing_beside_it() -> None:
    found = finding(Invariant.UNIQUE, ["twice"], examined=3, unjudged=["a gap"])

    assert (found.verdict, found.details) == (Verdict.BROKEN, ("twice",))


def test_what_cannot_be_looked_at_does_not_hold() -> None:
    assert finding(Invariant.UNIQUE, [], examined=3, unjudged=["a gap"]).verdict is Verdict.UNJUDGED
    assert finding(Invariant.UNIQUE, [], examined=0).verdict is Verdict.UNJUDGED
    assert Report(()).verdict is Verdict.UNJUDGED


def test_only_the_first_violations_are_kept_and_the_rest_counted() -> None:
    found = finding(Invariant.SOUND, map(str, range(SHOWN + 5)), examined=30)

    assert (len(found.details), found.more) == (SHOWN, 5)


def test_a_report_holds_only_if_all_of_it_does() -> None:
    holds, broken = Finding(Invariant.SOUND, Verdict.HOLDS, 1), Finding(Invariant.UNIQUE, Verdict.BROKEN, 1, ("a",))
    unjudged = Finding(Invariant.ORDER, Verdict.UNJUDGED)

    assert Report((holds,)).verdict is Verdict.HOLDS
    assert Report((holds, unjudged)).verdict is Verdict.UNJUDGED
    assert Report((holds, unjudged, broken)).verdict is Verdict.BROKEN
    assert Report((holds, unjudged, broken)).broken == (Invariant.UNIQUE,)
    assert Report((holds, broken)).violations() == ["unique: a"]
    assert Report((broken,)).as_json()[0]["meaning"] == Invariant.UNIQUE.meaning
