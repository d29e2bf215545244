"""Page one, tried as a newcomer would: its commands, one by one, as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.kafka

README = (Path(__file__).parents[2] / "README.md").read_text()
OWN = README[README.index("## Your own") : README.index("## Consuming triggers")]
BLOCKS = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", OWN, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.replace("\\\n", " ").splitlines()]


def test_the_commands_of_page_one_lead_to_a_trigger_and_to_the_reasons(
    broker: object, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "decision-model.yaml").write_text(next(block for kind, block in BLOCKS if kind == "yaml"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": path,
        "SIGNAL_ROUTER_BOOTSTRAP": str(broker),
        "SIGNAL_ROUTER_PREFIX": prefix,
        "SIGNAL_ROUTER_WEB_PORT": "off",
    }
    said, workers = {}, []
    try:
        for command in COMMANDS:
            if command == "signal-router broker":
                continue  # the tests have one
            if command.startswith("signal-router run "):
                workers.append(start(command, tmp_path, environment))
                continue
            said[command] = until_said(adapted(command), tmp_path, environment, wanted(command))
    finally:
        for worker in workers:
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait(60)

    assert len(said) >= 10
    assert len(workers) == 1
    assert 'found "1500" (string), which is never compared with a number' in said[COMMANDS[-1]]


def adapted(command: str) -> str:
    """What a person does besides: saying yes, and ending what follows a topic."""
    if command == "signal-router topics apply":
        return f"{command} --yes"
    return f"{command} --no-follow" if " tail " in command else command


def wanted(command: str) -> str:
    """What the page leads one to expect of a command."""
    expected = {
        " validate ": "content-ml/decision-model: valid",
        " apply -f ": "content-ml/decision-model: created",
        "triggers tail": "4e7c4ae4-b5e9-51f4-bfc0-9f658877f574",
        "lineage show trigger": "warehouse/titles.ready",
        "lineage show signal": "repeat of ",
        "joins list": "plays (1 of 2)",
    }
    return next((text for part, text in expected.items() if part in command), "")


def until_said(command: str, folder: Path, environment: dict[str, str], text: str) -> str:
    """Runs a command until it says something: people look again, too. A fault (exit code 2) is one at once."""
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        output = done.stdout + done.stderr
        assert done.returncode in (0, 1), f"{command}\n{output}"
        if text in output:
            return output
        assert time.monotonic() < deadline, f"{command}\n{output}"


def start(command: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(
            command, shell=True, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
