"""Rows in columns that are never folded: ids and positions are meant to be copied, whatever the width of a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from signal_router.cli.tailing import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from signal_router.cli.output import Output


def aligned_rows(
    output: Output, columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, empty: str = "nothing"
) -> None:
    """Prints rows below each other, long lines left to the terminal; for programs one JSON array, as `Output.rows`."""
    if output.for_programs:
        output.rows(columns, rows)
        return
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    if not cells:
        output.say(empty)
        return
    heads = [column.replace("_", " ") for column in columns]
    widths = [max(len(row[place]) for row in [heads, *cells]) for place in range(len(columns))]
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    head = _line(heads, widths)
    output.say(click.style(head, bold=True) if bold else head)
    for row in cells:
        output.say(_line(row, widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return printable(str(value))
