"""Runs the scenarios in turn, round after round with fresh seeds, until the time is up, and says what held.

    python -m prove [--minutes 60] [--seed N] [--only kills,wire,…] [--json FILE] [--folder DIR] [--schedules 50000]
    python -m prove --repeat kills/3/423938500        one round, named by scenario, number and seed

Each scenario is played at least once. Exit code 0: everything holds; 1: something is broken; 2: cannot judge, as a
fault that was to happen did not, or too few of them did. Of a round that is not green everything is kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console

from prove import brokers, clocks, compaction, formats, kills, poison, routers, wire, zombies
from prove.ledger import Ledger, Part, Played, write
from prove.rounds import Brokers, NotJudgedError, Round
from signal_router.verify.report import Verdict

ROOT = Path(__file__).parents[1]
FULL_MINUTES, FULL_SCHEDULES = 60.0, 50_000
SIMULATOR = "signal_router.testing.simulator"


class Scenario(Protocol):
    """A module that plays one; `FAULTS` are what must have happened by the end of a run."""

    FAULTS: tuple[str, ...]

    def play(self, round_: Round) -> None:
        """Plays one round, and judges it."""


SCENARIOS = {
    name: cast("Scenario", module)
    for name, module in {
        "kills": kills,
        "wire": wire,
        "brokers": brokers,
        "zombies": zombies,
        "compaction": compaction,
        "clocks": clocks,
        "routers": routers,
        "poison": poison,
        "formats": formats,
    }.items()
}
CYCLE = (
    "kills", "wire", "zombies", "kills", "brokers", "compaction", "kills", "clocks", "routers", "kills", "poison",
    "formats",
)  # fmt: skip
PARTS = ("simulator", "mutants")
"""What needs no broker, and is called beside the scenarios."""


def main(arguments: list[str] | None = None) -> int:
    """Runs it; returns the exit code."""
    given = _parse(arguments)
    seed = given.seed or random.SystemRandom().randrange(1, 1_000_000_000)
    only = set(given.only.split(",")) if given.only else {*SCENARIOS, *PARTS}
    again = _named(given.repeat)
    only = {again[0]} if again else only
    unknown = only - {*SCENARIOS, *PARTS}
    if unknown:
        print(f"error: no such part: {', '.join(sorted(unknown))}\nhint: {', '.join((*SCENARIOS, *PARTS))}")
        return 2
    folder = Path(given.folder or tempfile.mkdtemp(prefix="signal-router-prove-"))
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"seed {seed} (--seed {seed} draws the same), {given.minutes:g} minutes, logs in {folder}")
    ledger = Ledger(seed, given.minutes, tuple(name for name in SCENARIOS if name in only))
    try:
        with Brokers(folder) as own:
            rounds = [again] if again else _drawn(ledger, given.minutes)
            for name, number, drawn in rounds:
                _play(console, ledger, Round(name, number, drawn, folder / f"{name}-{number + 1}", own))
        for part in PARTS:
            if part in only:
                ledger.parts.append(_part(console, part, seed, given.schedules, given.minutes))
    except KeyboardInterrupt:
        ledger.interrupted = True
    ledger.not_selected = tuple(name for name in (*SCENARIOS, *PARTS) if name not in only)
    wanted = {name: SCENARIOS[name].FAULTS for name in ledger.selected}
    write(console, ledger, wanted, Path(given.json) if given.json else None)
    if ledger.verdict(wanted) is Verdict.HOLDS and not given.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return {Verdict.HOLDS: 0, Verdict.BROKEN: 1, Verdict.UNJUDGED: 2}[ledger.verdict(wanted)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove", description="The long proof on real brokers.")
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES, help="how long to go on (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="draws the same again (default: a fresh one, printed)")
    parser.add_argument("--only", default="", help=f"of {','.join((*SCENARIOS, *PARTS))}")
    parser.add_argument("--repeat", default="", metavar="NAME/NUMBER/SEED", help="plays this one round again")
    parser.add_argument("--json", default="", help="writes the report there, too")
    parser.add_argument("--folder", default="", help="keeps everything there (default: goes if all held)")
    parser.add_argument("--schedules", type=int, default=FULL_SCHEDULES, help="of the simulator (default: 50000)")
    return parser.parse_args(arguments)


def _named(repeat: str) -> tuple[str, int, int] | None:
    """The scenario, number and seed of one round."""
    if not repeat:
        return None
    name, number, seed = repeat.split("/")
    return name, int(number) - 1, int(seed)


def _drawn(ledger: Ledger, minutes: float) -> Iterator[tuple[str, int, int]]:
    """Rounds until the time is up, and each scenario's first whatever the time is."""
    ends = time.monotonic() + minutes * 60
    rng = random.Random(ledger.seed)
    cycle = [name for name in CYCLE if name in ledger.selected]
    for count, name in enumerate(itertools.cycle(cycle)):
        if time.monotonic() > ends and count >= len(cycle):
            return
        yield name, ledger.count(name), rng.randrange(1, 1_000_000_000)


def _play(console: Console, ledger: Ledger, round_: Round) -> None:
    round_.folder.mkdir(parents=True)
    with console.status(f"{round_.scenario}, round {round_.number + 1}, seed {round_.seed}"):
        played = play_one(round_)
    ledger.rounds.append(played)
    console.print(_line(played))
    if played.verdict is Verdict.HOLDS:
        shutil.rmtree(round_.folder, ignore_errors=True)


def play_one(round_: Round) -> Played:
    """Plays one round, whatever comes of it."""
    began = time.monotonic()
    verdict, details = Verdict.HOLDS, ""
    try:
        SCENARIOS[round_.scenario].play(round_)
    except NotJudgedError as error:
        verdict, details = Verdict.UNJUDGED, str(error)
    except Exception:  # whatever goes wrong in a round, it is not green, and others go on
        verdict, details = Verdict.BROKEN, traceback.format_exc()
    if verdict is not Verdict.HOLDS:
        (round_.folder / "why.txt").write_text(details)
    return Played(
        round_.scenario,
        round_.number,
        round_.seed,
        time.monotonic() - began,
        verdict,
        details,
        round_.faults,
        round_.kills,
        round_.seen,
        tuple(round_.reports),
    )


def _line(played: Played) -> str:
    what = f"{sum(played.faults.values())} faults, {sum(played.kills.values())} kills"
    seen = ", ".join(f"{count:,} {name}" for name, count in played.seen.items() if ":" not in name)
    line = f"{played.verdict.value:>12}  {played.scenario} {played.number + 1} (seed {played.seed}): {what}, {seen}"
    line += f", {played.seconds:.0f} s"
    if not played.details:
        return line
    why = played.details.strip().splitlines()[-1][:300]
    return f"{line}\n{'':>14}{why}\n{'':>14}--repeat {played.scenario}/{played.number + 1}/{played.seed}"


def _part(console: Console, part: str, seed: int, schedules: int, minutes: float) -> Part:
    """Calls what needs no broker; one that is not there yet was not tried."""
    command = _simulator(seed, schedules, minutes) if part == "simulator" else _mutants()
    if command is None:
        return Part(part, Verdict.UNJUDGED, 0.0, "not there", tried=False)
    began = time.monotonic()
    with console.status(f"{part}: {' '.join(command[1:])}"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    verdict = Verdict.HOLDS if done.returncode == 0 else Verdict.BROKEN
    said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
    console.print(f"{verdict.value:>12}  {part}: {' '.join(command[1:])}, {time.monotonic() - began:.0f} s")
    return Part(part, verdict, time.monotonic() - began, said)


def _simulator(seed: int, schedules: int, minutes: float) -> list[str] | None:
    if importlib.util.find_spec(SIMULATOR) is None:
        return None
    fewer = max(1, round(schedules * min(minutes / FULL_MINUTES, 1.0)))
    return [sys.executable, "-m", SIMULATOR, "--schedules", str(fewer), "--seed", str(seed)]


def _mutants() -> list[str] | None:
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_mutants*.py"))
    return [sys.executable, "-m", "pytest", "-q", "-n", "0", *tests] if tests else None
