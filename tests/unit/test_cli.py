"""The command line's base: nouns load when called, faults are two lines and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner

from signal_router.cli.connection import connection_options
from signal_router.cli.main import NOUNS, LazyNouns, main
from signal_router.cli.output import Output, output_option
from signal_router.errors import ConfigurationError

ROWS = [{"name": "a", "at": datetime(2026, 3, 10, tzinfo=UTC), "aliases": ["x", "y"]}, {"name": "b", "aliases": []}]


@click.command()
@output_option
def rows(output: Output) -> None:
    output.rows(("name", "at", "aliases"), ROWS)


@click.command()
@connection_options
def where(connection) -> None:
    click.echo(f"{connection.bootstrap} {connection.prefix} {connection.app} {connection.overrides}")


def test_help_lists_only_nouns_that_exist_and_loads_none_of_them():
    script = (
        "import sys, runpy\n"
        "sys.argv = ['signal-router', '--help']\n"
        "try: runpy.run_module('signal_router', run_name='__main__')\n"
        "except SystemExit: pass"
    )
    script += "\nprint([name for name in sys.modules if name in ('faust', 'rich', 'confluent_kafka', 'pydantic')])"

    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert "topics" in answer.stdout
    assert answer.stdout.rstrip().endswith("[]")


def test_every_noun_that_exists_exports_its_command():
    context = click.Context(main)

    commands = {noun: main.get_command(context, noun) for noun in main.list_commands(context)}

    assert {"broker", "topics"} <= set(commands) <= set(NOUNS)
    assert all(isinstance(command, click.Command) for command in commands.values())


def test_an_unknown_noun_is_a_usage_error():
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2


def test_a_fault_is_an_error_line_a_hint_line_and_exit_code_2():
    group = LazyNouns()

    @group.command()
    def fails() -> None:
        raise ConfigurationError('topic "x" is missing', hint="signal-router topics apply")

    group.get_command = lambda _context, name: group.commands.get(name)
    answer = CliRunner().invoke(group, ["fails"])

    assert answer.exit_code == 2
    assert answer.stderr == 'error: topic "x" is missing\nhint: signal-router topics apply\n'
    assert answer.stdout == ""


def test_ctrl_c_ends_without_a_traceback():
    group = LazyNouns()

    @group.command()
    def waits() -> None:
        raise KeyboardInterrupt

    group.get_command = lambda _context, name: group.commands.get(name)
    answer = CliRunner().invoke(group, ["waits"])

    assert (answer.exit_code, answer.output) == (130, "")


def test_rows_are_one_json_array_for_programs():
    answer = CliRunner().invoke(rows, ["-o", "json"])

    assert json.loads(answer.stdout) == [
        {"name": "a", "at": "2026-03-10T00:00:00Z", "aliases": ["x", "y"]},
        {"name": "b", "aliases": []},
    ]


def test_rows_are_a_table_for_people():
    lines = CliRunner().invoke(rows).stdout.splitlines()

    assert lines[0].split() == ["name", "at", "aliases"]
    assert "2026-03-10 00:00:00.000+00:00" in lines[1]
    assert "x, y" in lines[1]
    assert "\x1b" not in "".join(lines)


def test_an_array_is_valid_even_when_nothing_is_there(capsys):
    Output("json").rows(("name",), [])
    Output("table").rows(("name",), [], empty="no joins pending")

    assert capsys.readouterr().out == "[]\nno joins pending\n"


def test_a_stream_is_a_line_of_json_per_record(capsys):
    emit = Output("json").stream(lambda record: f"never {record}")

    emit({"name": "ü"})
    emit({"name": "b"})

    assert capsys.readouterr().out == '{"name":"ü"}\n{"name":"b"}\n'


def test_prose_does_not_disturb_what_programs_read(capsys):
    Output("json").say("waiting")

    assert capsys.readouterr() == ("", "waiting\n")


def test_connection_comes_from_options_and_environment():
    environment = {"SIGNAL_ROUTER_BOOTSTRAP": "b:1", "SIGNAL_ROUTER_KAFKA_CLIENT_ID": "me"}

    answer = CliRunner().invoke(where, ["--prefix", "p-", "-X", "linger.ms=3"], env=environment)

    assert answer.stdout == "b:1 p- signal-router {'client.id': 'me', 'linger.ms': '3'}\n"


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_noun_has_a_line_of_help_that_is_a_sentence(noun):
    assert NOUNS[noun].endswith(".")
