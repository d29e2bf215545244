"""How the demo looks: at most 80 columns, a bar and a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

WIDTH = 80
_LABEL = 10
_SECONDS = 8


class Screen:
    """Tells the story on stdout."""

    def __init__(self) -> None:
        console = Console(highlight=False, emoji=False)
        width = min(WIDTH, console.width) if console.is_terminal else WIDTH
        self.console = Console(highlight=False, emoji=False, width=width)

    def headline(self, text: str) -> None:
        """The first line."""
        self.console.print()
        self.console.print(Text(text, style="bold"))
        self.console.print()

    def say(self, label: str, text: str, seconds: float | None = None) -> None:
        """One step of the story: what it is about, what happened, how long it took."""
        lines = Text.from_markup(text).wrap(
            self.console, self.console.width - _LABEL - (0 if seconds is None else _SECONDS)
        )
        for number, line in enumerate(lines):
            shown = Text(f"{label if number == 0 else '':<{_LABEL}}", style="bold cyan").append_text(line)
            if seconds is not None and number == len(lines) - 1:
                gap = self.console.width - shown.cell_len
                shown.append(f"{seconds:.1f} s".rjust(gap), style="dim")
            shown.rstrip()
            self.console.print(shown)

    @contextmanager
    def step(self, label: str, doing: str, done: Callable[[], str]) -> Iterator[None]:
        """A step that takes a while: a spinner meanwhile, one line when it ends well."""
        began = time.monotonic()
        with self.console.status(Text(f"{label}: {doing}", style="dim")):
            yield
        self.say(label, done(), time.monotonic() - began)

    @contextmanager
    def bar(self, total: int) -> Iterator[Callable[[], None]]:
        """A bar below everything said meanwhile; gives a function that advances it by one, from any thread."""
        columns = (
            TextColumn(" " * (_LABEL - 1)), BarColumn(bar_width=36), MofNCompleteColumn(), TextColumn("records sent"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task("", total=total)
            yield lambda: progress.advance(task)

    def count(self, rows: Iterable[tuple[str, int, str, bool | None]]) -> None:
        """The count: what, how many, where it was counted; green or red where it can be wrong."""
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        for what, number, where, good in rows:
            style = "" if good is None else "bold green" if good else "bold red"
            table.add_row(what, Text(f"{number:,}", style=style), where)
        self.console.print(Padding(table, (1, 0, 1, 2), expand=False))

    def tree(self, title: str, branches: Sequence[tuple[str, Sequence[str]]]) -> None:
        """A tree of two levels."""
        tree = Tree(Text.from_markup(title), guide_style="dim")
        for text, leaves in branches:
            branch = tree.add(Text.from_markup(text))
            for leaf in leaves:
                branch.add(Text.from_markup(leaf))
        self.console.print(Padding(tree, (0, 0, 1, 2), expand=False))

    def verdict(self, text: str, *, good: bool) -> None:
        """The last word, green or red."""
        colour = "green" if good else "red"
        self.console.print(Panel(Text(text, style=f"bold {colour}"), border_style=colour, padding=(0, 1)))

    def commands(self, title: str, lines: Iterable[tuple[str, str]]) -> None:
        """What to type next: commands, each with what it is for."""
        self.console.print()
        self.console.print(title)
        for command, purpose in lines:
            if purpose:
                self.console.print(Text(f"  # {purpose}", style="dim"))
            self.console.print(Text(f"  {command}", style="bold"), soft_wrap=True)
        self.console.print()
