"""Definition files as commands take them: files, folders, or `-` for stdin; every problem on a line of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from signal_router.errors import ConfigurationError, DefinitionError, Problem
from signal_router.model.documents import Reading, read_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")


def files_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `-f FILE…`; its function takes `files: tuple[str, ...]`."""
    return click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        required=True,
        metavar="FILE",
        help="A file, a folder with all its YAML and JSON files, or - for stdin; repeatable.",
    )(command)


def read_files(names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Reads the files as (name, content), those of a folder in order of their paths, hidden ones left out.

    Raises `ConfigurationError` for a name that cannot be read, and a folder without definition files.
    """
    found: list[tuple[str, bytes]] = []
    for name in names:
        if name == STDIN:
            found.append(("<stdin>", sys.stdin.buffer.read()))
            continue
        path = Path(name)
        paths = _inside(path) if path.is_dir() else [path]
        try:
            found += [(str(each), each.read_bytes()) for each in paths]
        except OSError as error:
            raise ConfigurationError(f'file "{error.filename}" cannot be read: {error.strerror}') from error
    return list(dict(found).items())


def _inside(folder: Path) -> list[Path]:
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise ConfigurationError(
            f'folder "{folder}" holds no definition files', hint=f"they end in {' '.join(SUFFIXES)}"
        )
    return paths


def load(names: Sequence[str]) -> Reading:
    """Reads definition files and says their warnings on stderr.

    With problems: says every one on stderr and ends the command with exit code 2.
    """
    try:
        reading = read_documents(read_files(names))
    except DefinitionError as error:
        say_problems("error", error.problems)
        raise click.exceptions.Exit(2) from None
    say_problems("warning", reading.warnings)
    return reading


def say_problems(kind: str, problems: Iterable[Problem]) -> None:
    """Says problems on stderr, one per line: `error: file:line: field: message (hint)`."""
    for problem in problems:
        click.echo(f"{kind}: {problem}", err=True)


def as_row(problem: Problem) -> dict[str, object]:
    """A problem for programs."""
    return {
        "file": problem.file,
        "line": problem.line or None,
        "field": problem.field or None,
        "message": problem.message,
        "hint": problem.hint,
    }
