"""What commands print: tables for people, JSON for programs; every command takes `-o table|json`.

With `-o json` stdout holds one JSON document, or one per line where a command follows a topic; prose and errors go to
stderr. NO_COLOR is honoured; a pipe gets no colours and no cut-off columns.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console

Format = Literal["table", "json"]

Command = TypeVar("Command", bound="Callable[..., Any]")

_WIDE = 10_000  # a pipe has no width: nothing is wrapped or cut


class Output:
    """Prints rows, single records and streams in the chosen format; `console` is made when first used."""

    def __init__(self, chosen: Format) -> None:
        self.format = chosen
        self._console: Console | None = None

    @property
    def for_programs(self) -> bool:
        """Whether a program reads the output."""
        return self.format == "json"

    @property
    def console(self) -> Console:
        """Stdout for people."""
        if self._console is None:
            self._console = _console(stderr=False)
        return self._console

    def rows(self, columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, empty: str = "nothing") -> None:
        """Prints rows as a table with these columns (`empty` if there are none), or as one JSON array of objects."""
        if self.for_programs:
            click.echo(_json(list(rows)))
            return
        from rich.table import Table  # noqa: PLC0415  only tables pay for it

        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_plain(row.get(column)) for column in columns))
        if table.row_count:
            self.console.print(table, markup=False)
        else:
            self.say(empty)

    def record(self, record: Mapping[str, object]) -> None:
        """Prints one record: a line per field, or one JSON object."""
        if self.for_programs:
            click.echo(_json(record))
            return
        width = max(map(len, record), default=0)
        for name, value in record.items():
            self.say(f"{name.replace('_', ' '):<{width}}  {_plain(value)}")

    def stream(self, line: Callable[[Mapping[str, object]], str]) -> Callable[[Mapping[str, object]], None]:
        """Returns a function that prints one record at once: `line(record)`, or one line of JSON for programs."""

        def emit(record: Mapping[str, object]) -> None:
            click.echo(_json(record, indent=None) if self.for_programs else line(record))
            sys.stdout.flush()

        return emit

    def say(self, text: str) -> None:
        """Prints prose: to stdout for people, to stderr where a program reads stdout."""
        click.echo(text, err=self.for_programs)


def output_option(command: Command) -> Command:
    """Gives a command `-o/--output`; its function takes `output: Output`."""

    def chosen(_context: click.Context, _parameter: click.Parameter, value: Format) -> Output:
        return Output(value)

    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        callback=chosen,
        help="A table for people or JSON for programs.",
    )(command)


def print_error(message: str, hint: str | None = None) -> None:
    """Prints an error to stderr as `error: …`, and `hint: …` where there is one."""
    click.echo(f"{click.style('error', fg='red') if _coloured() else 'error'}: {message}", err=True)
    if hint is not None:
        click.echo(f"hint: {hint}", err=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console  # noqa: PLC0415  --help and JSON do without

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def _coloured() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _plain(value: object) -> str:  # noqa: PLR0911  one line per type
    """A value in a table's cell."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat(sep=" ", timespec="milliseconds")
        case list() | tuple() if not any(isinstance(each, dict | list) for each in value):
            return ", ".join(_plain(each) for each in value)
        case dict() | list() | tuple():
            return json.dumps(value, ensure_ascii=False, default=_rendered)
        case _:
            return str(value)


def _json(value: object, *, indent: int | None = 2) -> str:
    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, default=_rendered)


def _rendered(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case set() | frozenset():
            return sorted(value, key=str)
        case bytes():
            return value.decode("utf-8", "replace")
        case _:
            return str(value)
