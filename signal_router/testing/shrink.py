"""Makes a failing schedule smaller: leaves actions out, then simplifies what is left, as long as it fails.

Delta debugging (Zeller and Hildebrandt, 2002) over the list of actions: first halves are left out, then quarters, down
to single ones. It works because an action that is left out leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from signal_router.testing.schedules import Action, Schedule

TRIES = 600
"""So many schedules are tried at most: some 20 s."""


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], *, tries: int = TRIES) -> Schedule:
    """Returns the smallest schedule found that still fails; `fails` must hold for the given one."""
    budget = _Budget(fails, tries)
    while True:
        before = schedule
        schedule = _with_fewer_actions(schedule, budget)
        schedule = _simpler(schedule, budget)
        if schedule == before or not budget.left:
            return schedule


class _Budget:
    """Counts what is tried."""

    def __init__(self, fails: Callable[[Schedule], bool], tries: int) -> None:
        self._fails = fails
        self.left = tries

    def fails(self, schedule: Schedule) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return self._fails(schedule)


def _with_fewer_actions(schedule: Schedule, budget: _Budget) -> Schedule:
    size = max(1, len(schedule.actions) // 2)
    while True:
        start = 0
        while start < len(schedule.actions):
            fewer = replace(schedule, actions=schedule.actions[:start] + schedule.actions[start + size :])
            if budget.fails(fewer):
                schedule = fewer
            else:
                start += size
        if size == 1:
            return schedule
        size //= 2


def _simpler(schedule: Schedule, budget: _Budget) -> Schedule:
    while True:
        simplified = next((each for each in _simplifications(schedule) if budget.fails(each)), None)
        if simplified is None:
            return schedule
        schedule = simplified


def _simplifications(schedule: Schedule) -> Iterator[Schedule]:
    setup = schedule.setup
    if setup.slots > 1:
        yield replace(schedule, setup=replace(setup, slots=setup.slots - 1))
    if setup.signals_partitions > 1:
        yield replace(schedule, setup=replace(setup, signals_partitions=setup.signals_partitions - 1))
    if setup.candidates_partitions > 1:
        yield replace(schedule, setup=replace(setup, candidates_partitions=setup.candidates_partitions - 1))
    for left_out in setup.subscriptions if len(setup.subscriptions) > 1 else ():
        rest = tuple(name for name in setup.subscriptions if name != left_out)
        yield replace(schedule, setup=replace(setup, subscriptions=rest))
    if setup.local:
        yield replace(schedule, setup=replace(setup, local=False))
    for place, action in enumerate(schedule.actions):
        for fewer in _fewer_effects(action):
            yield replace(schedule, actions=(*schedule.actions[:place], fewer, *schedule.actions[place + 1 :]))


def _fewer_effects(action: Action) -> Iterator[Action]:
    if action.what in {"step", "haunt"}:
        slot, count, seed = action.args
        if isinstance(count, int) and count > 1:
            yield action._replace(args=(slot, count // 2, seed))
            yield action._replace(args=(slot, count - 1, seed))
