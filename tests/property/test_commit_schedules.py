"""Workers in memory under random schedules: crashes between any two effects, rebalances, lost and late answers."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from signal_router.testing.schedules import schedule_of
from signal_router.testing.simulator import explain, missing, run

SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "1"))
SCHEDULES = int(os.environ.get("SIGNAL_ROUTER_SCHEDULES", "250"))
PARTS = 8
"""Each of `SCHEDULES` schedules, so that several processes share the work."""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_schedule_gives_what_the_reference_gives(part: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(SEED + part * SCHEDULES, SEED + (part + 1) * SCHEDULES):
        result = run(schedule_of(seed))
        assert not result.violations, explain(seed)
        happened += result.happened

    print(dict(sorted(happened.items())))
    assert not missing(happened)
