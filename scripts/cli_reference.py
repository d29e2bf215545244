#!/usr/bin/env python3
"""Writes docs/cli.md from the commands themselves; a test fails when it is not current."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.main import NOUNS, main

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

_HEAD = """# Command line

Written from the program by `scripts/cli_reference.py`; `--help` behind any command says the same.

Every command that prints rows or records takes `-o json`: stdout then holds one JSON document, or one per line where a
command follows a topic; everything else goes to stderr. Exit codes: 0 done; 1 done, but the answer is no (topics
differ, a signal does not match, a worker does not have a definition yet); 2 an error, said as `error:` and `hint:` on
stderr; 130 interrupted.
"""

_METAVARS = {"integer range": "N", "float range": "N", "directory": "DIR"}
_CONNECTION = "Options of every command that asks the cluster"


def reference() -> str:
    """The page's text."""
    parts = [_HEAD, f"## {_CONNECTION}\n\n{_table(_connection_options())}"]
    context = click.Context(main, info_name="signal-router")
    for noun in main.list_commands(context):
        command = main.get_command(context, noun)
        if command is not None:
            parts += _command(command, f"signal-router {noun}", NOUNS[noun])
    return "\n".join(parts)


def _command(command: click.Command, path: str, summary: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    if isinstance(command, click.Group):
        yield f"## {path}\n\n{summary}\n"
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            if subcommand is not None:
                yield _section(subcommand, f"{path} {name}", "###")
    else:
        yield _section(command, path, "##")


def _section(command: click.Command, path: str, heading: str) -> str:
    shared = {option.name for option in _connection_options()}
    options = [each for each in command.params if isinstance(each, click.Option) and each.name not in shared]
    asks = any(each.name in shared for each in command.params)
    words = [argument.make_metavar(click.Context(command)) for argument in command.params if _is_argument(argument)]
    usage = " ".join([path, *words, "[OPTIONS]"])
    parts = [f"{heading} {path}\n", f"```text\n{usage}\n```\n", f"{inspect.cleandoc(command.help or '')}\n"]
    if options:
        parts.append(_table(options))
    if asks:
        anchor = _CONNECTION.lower().replace(" ", "-")
        parts.append(f"And the [connection's options](#{anchor}).\n")
    return "\n".join(parts)


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def _connection_options() -> list[click.Option]:
    @click.command()
    @connection_options
    def asks(connection: object) -> None: ...

    return [each for each in asks.params if isinstance(each, click.Option)]


def _table(options: list[click.Option]) -> str:
    rows = ["| option | default | |", "|---|---|---|"]
    rows += [f"| {_names(each)} | {_default(each)} | {_cell(each.help or '')} |" for each in options]
    return "\n".join(rows) + "\n"


def _names(option: click.Option) -> str:
    if option.is_flag:
        return ", ".join(f"`{name}`" for name in option.opts)
    if isinstance(option.type, click.Choice):
        value = "\\|".join(map(str, option.type.choices))
    else:
        value = _cell(option.metavar or _METAVARS.get(option.type.name, option.type.name.upper()))
    return ", ".join(f"`{name}`" for name in option.opts) + f" `{value}`"


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    if option.is_flag or option.multiple or option.default in {None, ""} or not _given(option):
        return ""
    return f"`{option.default}`"


def _given(option: click.Option) -> bool:
    return isinstance(option.default, str | int | float)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
