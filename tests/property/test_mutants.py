"""A worker without a rule breaks the invariant that speaks of it, within a few schedules."""

from __future__ import annotations

import pytest
from test_commit_schedules import SEED

from signal_router.testing.mutants import MUTANTS
from signal_router.testing.schedules import schedule_of
from signal_router.testing.simulator import run

SCHEDULES = 1_500
"""A mutant that outlives so many is alive."""


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_worker_without_a_rule_is_found_out(name: str) -> None:
    mutant = MUTANTS[name]
    for tried, seed in enumerate(range(SEED, SEED + SCHEDULES), 1):
        result = run(schedule_of(seed), mutant)
        if result.broken.intersection(mutant.breaks):
            print(f"{name}: dead after {tried} schedules, by seed {seed}: {result.violations[0][:200]}")
            return
    raise AssertionError(f"{name} lives: {SCHEDULES} schedules from seed {SEED} never broke: {mutant.broken}")
