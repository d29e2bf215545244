"""Apache Kafka's jars: a pinned list with SHA-256, a cache filled once, every file checked before each use.

The resolver library only warns about a bad checksum, so `kafka-jars.txt` next to this module decides what may run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from signal_router.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

KAFKA_VERSION = "4.4.0"
JARS_VARIABLE = "SIGNAL_ROUTER_KAFKA_JARS"

_PARALLEL_DOWNLOADS = 6
_OFFLINE_HINT = f"set {JARS_VARIABLE} to a folder that holds the jars listed in kafka-jars.txt"


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar: its coordinate and the only content it may have."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """The file's name as its publisher gives it."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def coordinate(self) -> str:
        """group:artifact:version."""
        return f"{self.group}:{self.artifact}:{self.version}"

    def intact(self, path: Path) -> bool:
        """Says whether the file at `path` exists and has exactly the pinned content."""
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


@cache
def pinned_jars() -> tuple[Jar, ...]:
    """Reads the committed list of jars and checksums."""
    text = resources.files("signal_router.kafka").joinpath("kafka-jars.txt").read_text(encoding="utf-8")
    jars = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return tuple(jars)


def cache_dir() -> Path:
    """Names the folder where the jars are kept between runs (`XDG_CACHE_HOME`, else `~/.cache`)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "signal-router" / f"kafka-{KAFKA_VERSION}"


def kafka_jars(
    *,
    jars: Sequence[Jar] | None = None,
    folder: Path | None = None,
    fetch: Callable[[Jar, Path], Path] | None = None,
) -> tuple[Path, ...]:
    """Returns the paths of all pinned jars, fetching into the cache what is missing or damaged.

    With `SIGNAL_ROUTER_KAFKA_JARS` set nothing is fetched. Blocks while fetching (44 MB the first time); several
    processes may call it at once: one fetches, the others wait. `fetch(jar, scratch folder)` returns the path of the
    file it brought.

    Raises:
        BrokerError: a jar cannot be fetched, or differs from its checksum after a second try.
    """
    wanted = pinned_jars() if jars is None else tuple(jars)
    if offline := os.environ.get(JARS_VARIABLE):
        return _given(wanted, Path(offline))
    folder = folder or cache_dir()
    if not _missing(wanted, folder):
        return tuple(folder / jar.filename for jar in wanted)
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder / ".lock"):
        missing = _missing(wanted, folder)  # another process may have fetched them while this one waited
        if missing:
            _fetch_all(missing, folder, fetch)
    return tuple(folder / jar.filename for jar in wanted)


def _missing(jars: Sequence[Jar], folder: Path) -> list[Jar]:
    with ThreadPoolExecutor(2) as pool:
        intact = list(pool.map(lambda jar: jar.intact(folder / jar.filename), jars))
    return [jar for jar, good in zip(jars, intact, strict=True) if not good]


def _given(jars: Sequence[Jar], folder: Path) -> tuple[Path, ...]:
    for jar in _missing(jars, folder):
        path = folder / jar.filename
        fault = "differs from its pinned SHA-256" if path.exists() else "is missing"
        raise BrokerError(
            f'jar "{path}" {fault} ({JARS_VARIABLE}="{folder}")',
            hint=f"put {jar.coordinate} there, or unset {JARS_VARIABLE} to have the jars fetched",
        )
    return tuple(folder / jar.filename for jar in jars)


def _fetch_all(missing: Sequence[Jar], folder: Path, fetch: Callable[[Jar, Path], Path] | None) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    try:
        with _progress(missing) as bar, ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            bring = fetch or _Resolver(bar).fetch
            for _ in pool.map(lambda jar: _fetch_one(jar, folder, scratch, bring), missing):
                bar.jar_done()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch_one(jar: Jar, folder: Path, scratch: Path, fetch: Callable[[Jar, Path], Path]) -> None:
    """Brings one jar and renames it into the cache only when it is intact; a damaged one is fetched once more."""
    for attempt in (1, 2):
        try:
            path = fetch(jar, scratch / f"{jar.filename}-{attempt}")
        except Exception as error:  # the resolver raises whatever its HTTP client raises
            reason = str(error) or type(error).__name__
            raise BrokerError(f'jar "{jar.coordinate}" cannot be fetched: {reason}', hint=_OFFLINE_HINT) from error
        if jar.intact(path):
            path.replace(folder / jar.filename)
            return
    raise BrokerError(
        f'jar "{jar.coordinate}" differs from its pinned SHA-256 "{jar.sha256}", fetched twice',
        hint=f"something on the way changes it; {_OFFLINE_HINT}",
    )


class _Bar:
    """One line of progress on a terminal; nothing where stderr is a file (one line was printed before)."""

    def __init__(self, advance_bytes: Callable[[int], None], advance_jar: Callable[[], None]) -> None:
        self.advance_bytes = advance_bytes
        self.jar_done = advance_jar


@contextmanager
def _progress(missing: Sequence[Jar]) -> Iterator[_Bar]:
    title = f"fetching Apache Kafka {KAFKA_VERSION} ({len(missing)} jars, once)"
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
        yield _Bar(lambda _size: None, lambda: None)
        return
    from rich.console import Console  # noqa: PLC0415  only a terminal pays for rich
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    # The sizes are not known beforehand, so the bar counts jars and a column beside it the megabytes.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[mb]:.1f} MB"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=len(missing), mb=0.0)
        lock = threading.Lock()
        fetched = [0]

        def advance(size: int) -> None:
            with lock:
                fetched[0] += size
                progress.update(task, mb=fetched[0] / 1e6)

        yield _Bar(advance, lambda: progress.advance(task))


class _Resolver:
    """Brings a jar with the resolver library (its own default repository, its own retries)."""

    def __init__(self, bar: _Bar) -> None:
        self._bar = bar

    def fetch(self, jar: Jar, scratch: Path) -> Path:
        try:
            from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  belongs to the extra `embedded`
        except ImportError:
            raise BrokerError(
                "the embedded broker needs the package jgo", hint='pip install "signal-router[embedded]"'
            ) from None

        def report(_name: str, _size: int) -> AbstractContextManager[Callable[[int], None]]:
            return nullcontext(self._bar.advance_bytes)

        context = MavenContext(resolver=PythonResolver(progress_callback=report), repo_cache=scratch, local_repos=[])
        path: Path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        return path


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another process that is fetching Apache Kafka", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
