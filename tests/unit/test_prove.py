"""A run of the long proof says that something holds only where what was to happen did."""

from __future__ import annotations

from collections import Counter

import pytest

from prove.kills import POINTS
from prove.ledger import Ledger, Played, as_json
from prove.run import CYCLE, SCENARIOS, main
from signal_router.verify.report import Invariant, Report, Verdict, finding

WANTED = {"kills": ("empty disk", "kept disk")}


def played(verdict: Verdict = Verdict.HOLDS, **changes: object) -> Played:
    given: dict[str, object] = {
        "faults": Counter({"empty disk": 3, "kept disk": 2}),
        "kills": Counter(dict.fromkeys(POINTS, 20)),
        "seen": Counter({"signals": 9, "triggers": 4, "aborted transactions": 20, "replays": 1}),
        "reports": (Report((finding(Invariant.COMPLETE, (), examined=4),)),),
        **changes,
    }
    return Played("kills", 0, 1, 1.0, verdict, "" if verdict is Verdict.HOLDS else "why", **given)  # type: ignore[arg-type]


def ledger(*rounds: Played) -> Ledger:
    return Ledger(1, 60, ("kills",), list(rounds))


def test_a_run_in_which_everything_happened_holds() -> None:
    run = ledger(played())

    assert run.verdict(WANTED) is Verdict.HOLDS
    assert run.report(WANTED)[Invariant.COMPLETE].examined == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"faults": Counter({"empty disk": 3})}, "kept disk never happened"),
        ({"kills": Counter(dict.fromkeys(POINTS, 1))}, "200 are asked for"),
        ({"kills": Counter({point: 20 for point in POINTS if point != "abort"})}, "nobody was killed at abort"),
        ({"seen": Counter({"signals": 9, "triggers": 4, "replays": 1})}, "0 aborted transactions"),
        ({"seen": Counter({"signals": 9, "triggers": 4, "aborted transactions": 20})}, "no replays were seen"),
    ],
)
def test_a_run_in_which_something_did_not_happen_cannot_judge(changes: dict[str, object], said: str) -> None:
    run = ledger(played(**changes))

    assert run.verdict(WANTED) is Verdict.UNJUDGED
    assert any(said in each for each in run.missing(WANTED))
    assert any(said in each for each in run.report(WANTED)[Invariant.STRUCK].details)


def test_a_run_without_rounds_cannot_judge() -> None:
    assert ledger().verdict(WANTED) is Verdict.UNJUDGED


def test_a_run_that_was_interrupted_cannot_judge() -> None:
    run = ledger(played())
    run.interrupted = True

    assert run.verdict(WANTED) is Verdict.UNJUDGED


def test_one_broken_round_breaks_the_run() -> None:
    assert ledger(played(), played(Verdict.BROKEN)).verdict(WANTED) is Verdict.BROKEN


def test_a_round_that_could_not_be_judged_is_told_and_spoils_no_other() -> None:
    run = ledger(played(), played(Verdict.UNJUDGED))

    assert run.verdict(WANTED) is Verdict.HOLDS
    assert any("round 1" in each and "why" in each for each in run.not_tried())


def test_rounds_of_which_none_could_be_judged_cannot_judge() -> None:
    assert ledger(played(Verdict.UNJUDGED)).verdict(WANTED) is Verdict.UNJUDGED


def test_the_report_for_programs_says_what_was_asked_for() -> None:
    told = as_json(ledger(played()), WANTED)

    assert {"seed", "versions", "faults", "kills", "invariants", "not tried", "verdict", "seconds"} <= told.keys()
    assert told["faults"] == {"kills": {"empty disk": 3, "kept disk": 2}}


def test_every_scenario_is_played_and_says_what_must_happen() -> None:
    assert set(CYCLE) == set(SCENARIOS)
    assert all(scenario.FAULTS for scenario in SCENARIOS.values())


def test_a_part_that_does_not_exist_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "kills,nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().out
