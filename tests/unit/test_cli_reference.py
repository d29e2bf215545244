"""The command line's page is written from the commands, and current."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _script():
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "scripts" / "cli_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_page_is_what_the_commands_say_now():
    script = _script()

    assert script.PAGE.read_text() == script.reference(), "run .venv/bin/python scripts/cli_reference.py"


def test_every_option_of_every_command_has_help():
    lines = [line for line in _script().reference().splitlines() if line.startswith("| `")]

    assert len(lines) > 40
    assert [line for line in lines if line.endswith("|  |")] == []
