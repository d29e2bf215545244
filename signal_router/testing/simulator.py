"""Random schedules of the real processors and the real commit over Kafka's transactions in memory, one for each seed.

    python -m signal_router.testing.simulator --schedules 50000
    python -m signal_router.testing.simulator --seed 4711 --shrink
    python -m signal_router.testing.simulator --replay schedule.txt

A schedule may crash, stop, double and rebalance workers, expire sessions and transactions, lose and delay answers, hold
markers back, compact topics and set producers' clocks, between any two effects. What stands on the topics afterwards is
compared with the reference evaluation, and whatever is wrong has the name of an invariant.

Exit codes: 0 everything holds, 1 something is broken, 3 cannot be judged, as not everything that was to happen did.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from signal_router.cli.progress import progress_bar
from signal_router.errors import StateError
from signal_router.testing.judge import judge
from signal_router.testing.mutants import MUTANTS, REFUSED, Mutant
from signal_router.testing.schedules import Schedule, schedule_of
from signal_router.testing.shrink import shrink
from signal_router.testing.simulation import Simulation
from signal_router.verify.report import Invariant, Report

CHUNK = 25
"""So many schedules a process takes at a time."""

MUST_HAPPEN = (
    *(f"crash at {effect}" for effect in ("begin", "produce", "changelog", "offsets", "commit", "tables")),
    *(
        "crash at answer to offsets",
        "crash at answer to commit",
        "void at answer to offsets",
        "void at answer to commit",
    ),
    *("assigned", "revoked", "lost", "fenced", "zombie", "grew", "kept", "taken over beside"),
    *("second process", "slot taken", "clean stop", "disk lost", "store too old"),
    *("waited for stable offsets", "waited for the changelog", "waited for definitions", "another slot fenced"),
    *("transaction committed", "transaction aborted", "transaction unknown", "transaction fenced", "time-out"),
    *(
        "compacted: changelog",
        "compacted: lineage",
        "candidates deleted",
        "marker held: changelog",
        "marker held: offsets",
    ),
    *(f"{call}/none" for call in ("init", "begin", "produce", "send_offsets", "commit", "abort")),
    *(f"{call}/done" for call in ("init", "produce", "send_offsets", "commit", "abort")),
    *(f"{call}/held" for call in ("send_offsets", "commit", "abort")),
    *(f"{call}/straggle" for call in ("send_offsets", "commit", "abort")),
    *("released/applied", "released/refused/ProducerFencedError", "joined locally", "sent through the topic"),
    *(f"outcome {outcome}" for outcome in ("fired", "duplicate", "expired", "superseded", "discarded")),
    *("dead letter", "stage full", "over the limit"),
)
"""What a run of many schedules must have seen, or it proves nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one schedule: the report, or what the engine's own check refused; and what happened."""

    report: Report | None
    refusal: str | None
    happened: Counter[str]

    @property
    def broken(self) -> frozenset[Invariant | str]:
        """The invariants that are broken, or (`REFUSED`) that the engine's own check stopped a worker."""
        if self.report is None:
            return frozenset({REFUSED})
        return frozenset(self.report.broken)

    @property
    def violations(self) -> list[str]:
        """What is wrong, with the name of the invariant."""
        return [f"{REFUSED}: {self.refusal}"] if self.report is None else self.report.differences()


def run(schedule: Schedule, mutant: Mutant | None = None) -> Result:
    """Runs one schedule. An error that is not the engine's refusal is a fault of the simulator, and passes through."""
    mutant = mutant or Mutant()
    with mutant.patch():
        simulation = Simulation(schedule.setup, mutant.worker)
        try:
            simulation.run(schedule)
        except StateError as refusal:
            return Result(None, str(refusal), simulation.happened())
    report = judge(simulation)
    return Result(report, None, simulation.happened())


def shrunk(schedule: Schedule, mutant: Mutant | None = None) -> Schedule:
    """The smallest schedule found that breaks one of the things that this one breaks."""
    broken = run(schedule, mutant).broken
    return shrink(schedule, lambda smaller: bool(run(smaller, mutant).broken & broken))


def explain(seed: int, mutant: Mutant | None = None) -> str:
    """What is wrong with a seed, and the smallest sequence of actions found that is still wrong."""
    smallest = shrunk(schedule_of(seed), mutant)
    lines = [*run(schedule_of(seed), mutant).violations[:5], f"smallest found ({len(smallest.actions)} actions):"]
    return "\n".join([f"seed {seed}", *lines, smallest.text()])


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of several seeds; `failed` are the wrong ones with what is wrong."""

    schedules: int
    happened: Counter[str]
    failed: tuple[tuple[int, tuple[str, ...]], ...]


def run_seeds(seeds: Iterable[int], mutant: str | None = None) -> Tally:
    """Runs the schedules of some seeds."""
    happened: Counter[str] = Counter()
    failed = []
    count = 0
    for seed in seeds:
        result = run(schedule_of(seed), None if mutant is None else MUTANTS[mutant])
        happened += result.happened
        count += 1
        if result.violations:
            failed.append((seed, tuple(result.violations[:5])))
    return Tally(count, happened, tuple(failed))


def missing(happened: Mapping[str, int]) -> list[str]:
    """What never happened of all that must, to prove anything."""
    return [what for what in MUST_HAPPEN if not happened[what]]


def _tallies(first: int, count: int, mutant: str | None, processes: int) -> Iterator[Tally]:
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    if processes == 1 or len(chunks) == 1:
        yield from (run_seeds(chunk, mutant) for chunk in chunks)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_seeds, chunks, [mutant] * len(chunks))


@click.command(help=__doc__.partition("\n\n")[0] if __doc__ else None)
@click.option("--seed", default=1, show_default=True, help="The first seed.")
@click.option("--schedules", default=1, show_default=True, type=click.IntRange(1), help="How many seeds from there on.")
@click.option("--mutant", type=click.Choice(sorted(MUTANTS)), help="Leaves a rule out; this must end red.")
@click.option("--shrink", "shrinking", is_flag=True, help="Looks for the smallest schedule that is still wrong.")
@click.option("--show", is_flag=True, help="Prints the schedule of the first seed, and runs nothing.")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Runs a printed schedule.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1))
def main(
    *, seed: int, schedules: int, mutant: str | None, shrinking: bool, show: bool, replay: Path | None, processes: int
) -> None:
    """Runs schedules and says what came of them."""
    if show:
        click.echo(schedule_of(seed).text(), nl=False)
        return
    if replay is not None:
        sys.exit(_one(Schedule.read(replay.read_text()), f"{replay}", mutant, shrinking=shrinking))
    if schedules == 1:
        sys.exit(_one(schedule_of(seed), f"seed {seed}", mutant, shrinking=shrinking))
    sys.exit(_many(seed, schedules, mutant, processes, shrinking=shrinking))


def _one(schedule: Schedule, name: str, mutant: str | None, *, shrinking: bool) -> int:
    leaving = None if mutant is None else MUTANTS[mutant]
    result = run(schedule, leaving)
    _print_counts(result.happened)
    for violation in result.violations:
        click.echo(violation)
    if not result.violations:
        click.echo(f"{name}: everything holds")
        return 0
    if shrinking:
        click.echo(shrunk(schedule, leaving).text(), nl=False)
    return 1


def _many(first: int, count: int, mutant: str | None, processes: int, *, shrinking: bool) -> int:
    happened: Counter[str] = Counter()
    done = 0
    failed: list[tuple[int, tuple[str, ...]]] = []
    with progress_bar("schedules") as tell:
        for tally in _tallies(first, count, mutant, processes):
            done += tally.schedules
            happened += tally.happened
            failed += tally.failed
            tell(done, count)
    _print_counts(happened)
    for seed, violations in failed[:10]:
        click.echo(f"seed {seed}: {violations[0]}")
    click.echo(f"{done:,} schedules from seed {first}: {len(failed):,} wrong")
    if failed:
        if shrinking:
            click.echo(explain(failed[0][0], None if mutant is None else MUTANTS[mutant]), nl=False)
        return 1
    never = missing(happened)
    if never:
        click.echo(f"cannot judge: never happened: {', '.join(never)}")
        click.echo("hint: more --schedules")
        return 3
    return 0


def _print_counts(happened: Counter[str]) -> None:
    for what, count in sorted(happened.items()):
        click.echo(f"{count:>10,}  {what}")


if __name__ == "__main__":
    main()
