"""Schedules can be written down, replayed and made smaller, and the command says what came of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from click.testing import CliRunner

from signal_router.testing.driver import MemoryWorker
from signal_router.testing.mutants import MUTANTS, Mutant
from signal_router.testing.schedules import Action, Schedule, Setup, schedule_of
from signal_router.testing.shrink import shrink
from signal_router.testing.simulation import Simulation
from signal_router.testing.simulator import MUST_HAPPEN, explain, main, missing, run, shrunk
from signal_router.verify.report import Invariant, Verdict

FORGETS = MUTANTS["de-duplication forgotten after fire"]
TOPICS = ("candidates", "changelog", "triggers", "lineage", "dead_letters")


def topics(schedule: Schedule) -> list[object]:
    simulation = Simulation(schedule.setup)
    simulation.run(schedule)
    plant = simulation.plant
    return [plant.broker.read_all(getattr(plant.names, topic)) for topic in TOPICS]


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_schedule_is_read_back_as_it_was_written(seed):
    schedule = schedule_of(seed)

    assert Schedule.read(schedule.text()) == schedule
    assert schedule_of(seed) == schedule


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_schedule_does_the_same_every_time(seed):
    assert topics(schedule_of(seed)) == topics(Schedule.read(schedule_of(seed).text()))


@pytest.mark.parametrize("seed", range(1, 21))
def test_whatever_is_left_out_the_rest_is_a_schedule(seed):
    schedule, rng = schedule_of(seed), random.Random(seed)
    some = replace(schedule, actions=tuple(action for action in schedule.actions if rng.random() < 0.6))

    assert run(some).violations == []


def test_shrinking_keeps_only_what_is_needed():
    def fails(schedule: Schedule) -> bool:
        whats = [action.what for action in schedule.actions]
        return "rebalance" in whats and "garble" in whats[whats.index("rebalance") :]

    other = [Action(at, "step", ("w1", 3, at)) for at in range(100)]
    needed = [Action(0, "rebalance"), Action(0, "garble")]
    schedule = Schedule(Setup(), (*other[:40], needed[0], *other[40:70], needed[1], *other[70:]))

    smallest = shrink(schedule, fails)

    assert list(smallest.actions) == needed
    assert smallest.setup == Setup(1, 1, 1, local=False)


def test_shrinking_gives_up_in_time():
    tried = []

    def fails(schedule: Schedule) -> bool:
        tried.append(schedule)
        return len(schedule.actions) > 100

    shrink(schedule_of(1), fails, tries=7)

    assert len(tried) == 7


def test_a_failure_is_told_with_its_seed_and_the_smallest_schedule():
    seed = next(seed for seed in range(1, 50) if Invariant.UNIQUE in run(schedule_of(seed), FORGETS).broken)

    smallest = shrunk(schedule_of(seed), FORGETS)
    told = explain(seed, FORGETS)

    assert len(smallest.actions) < 40
    assert told.startswith(f"seed {seed}\n")
    assert told.endswith(smallest.text())
    assert run(Schedule.read(smallest.text()), FORGETS).broken
    assert not run(smallest).broken


def test_what_breaks_the_simulator_itself_is_no_verdict():
    class Broken(MemoryWorker):
        def step(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(schedule_of(1), Mutant(worker=Broken))


def test_without_signals_nothing_is_said_of_triggers():
    report = run(Schedule(Setup(), ())).report

    assert report is not None
    assert report.verdict is Verdict.UNJUDGED
    for invariant in (Invariant.COMPLETE, Invariant.SOUND, Invariant.UNIQUE, Invariant.ORDER):
        assert report[invariant].verdict is Verdict.UNJUDGED


def test_a_schedule_is_judged_by_every_invariant_that_is_not_about_many():
    reports = [run(schedule_of(seed)).report for seed in range(1, 6)]

    for invariant in set(Invariant) - {Invariant.STRUCK}:
        assert any(report is not None and report[invariant].verdict is Verdict.HOLDS for report in reports), invariant


# --- the command


def call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*arguments, "--processes", "1"])
    return done.exit_code, done.output


def test_one_seed_is_run():
    code, output = call("--seed", "1")

    assert code == 0
    assert output.endswith("seed 1: everything holds\n")


def test_a_few_schedules_prove_nothing():
    code, output = call("--schedules", "2")

    assert code == 3
    assert "2 schedules from seed 1: 0 wrong\ncannot judge: never happened: " in output


def test_all_that_must_happen_is_asked_for():
    assert missing(dict.fromkeys(MUST_HAPPEN, 1)) == []
    assert missing({**dict.fromkeys(MUST_HAPPEN, 1), "time-out": 0}) == ["time-out"]


def test_a_wrong_schedule_is_printed_small_and_replayed(tmp_path):
    mutant = ("--mutant", "de-duplication forgotten after fire")

    code, output = call("--schedules", "30", *mutant, "--shrink")
    assert code == 1
    (tmp_path / "schedule.txt").write_text(output.partition(" actions):\n")[2])

    code, output = call("--replay", str(tmp_path / "schedule.txt"), *mutant)
    assert code == 1
    assert any(line.startswith("tables: remembered ") for line in output.splitlines())
    assert call("--replay", str(tmp_path / "schedule.txt"))[0] == 0


def test_a_schedule_is_shown():
    assert call("--seed", "5", "--show") == (0, schedule_of(5).text())


def test_a_bad_record_from_before_the_first_definition_is_held_against_nobody():
    schedule = Schedule(
        Setup(slots=1, signals_partitions=1, subscriptions=()),
        (
            Action(0, "start", ("w1",)),
            Action(1, "poll", ("w1", True, 1)),
            Action(1, "step", ("w1", 30, 1)),
            Action(2, "publish", (0, "no json", 0)),
            Action(3, "step", ("w1", 60, 2)),
            Action(4, "apply", ("pair", "fifo", 0, 1, 1, False)),
            Action(5, "step", ("w1", 200, 3)),
            Action(6, "publish", (0, "no json", 0)),
        ),
    )

    result = run(schedule)

    assert result.happened["dead letter"] == 1  # of the second; the first was read without a view
    assert result.violations == []


def test_signals_from_before_any_definition_leave_nothing_open():
    schedule = Schedule(
        Setup(slots=1, signals_partitions=2, subscriptions=()),
        (
            Action(0, "start", ("w1",)),
            Action(1, "poll", ("w1", True, 1)),
            Action(1, "step", ("w1", 30, 1)),
            Action(2, "publish", (0, '{"name": "A"}', 0)),
            Action(3, "step", ("w1", 60, 2)),
            Action(4, "apply", ("pair", "fifo", 0, 1, 1, False)),
            Action(5, "step", ("w1", 200, 3)),
            Action(6, "publish", (1, '{"name": "A", "params": {"k": 1, "n": 1}}', 0)),
        ),
    )

    report = run(schedule).report

    assert report is not None
    assert report.differences() == []
    assert report[Invariant.CONSERVED].verdict is Verdict.HOLDS
