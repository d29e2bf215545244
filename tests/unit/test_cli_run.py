"""What `run` refuses before it starts, and what it says of itself while it runs."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from signal_router.cli.main import main
from signal_router.cli.run import refuse_taken
from signal_router.cli.throughput import Counts, Rates, line
from signal_router.errors import ConfigurationError
from signal_router.runtime.state_dir import LOCK, claim

NOWHERE = ["--bootstrap", "127.0.0.1:1", "--web-port", "off"]


def run(*arguments: str):
    return CliRunner().invoke(main, ["run", *arguments])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--slot", "a b"], 'slot "a b" cannot be used'),
        (["--slot", "apply"], 'slot "apply" cannot be used'),
        (["--slot", "w", "-X", "acks=1"], 'setting "acks=1" is reserved'),
        (["--slot", "w", "-X", "session.timeout.ms=1"], 'session.timeout.ms "1" is not above'),
        (["--slot", "w", "-X", "acks"], '-X: "acks" is not a setting'),
        (["--slot", "w", "--signals", "^("], 'signals pattern "^(" is no regular expression'),
        (["--slot", "w", "--prefix", "a b"], 'prefix "a b" cannot be part of a topic name'),
    ],
)
def test_a_bad_setting_stops_with_its_name_and_value(tmp_path, options, said):
    answer = run(*options, "--state-dir", str(tmp_path), *NOWHERE)

    assert answer.exit_code == 2
    assert f"error: {said}" in answer.stderr


@pytest.mark.parametrize("port", ["0", "65536", "on", "-1"])
def test_a_web_port_is_a_port_or_off(tmp_path, port):
    answer = run("--slot", "w", "--state-dir", str(tmp_path), "--web-port", port)

    assert answer.exit_code == 2
    assert "neither a port from 1 to 65535" in answer.stderr


def test_a_taken_web_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f'web port {port} on "127.0.0.1"') as refused:
            refuse_taken("127.0.0.1", port)

    assert "--web-port" in (refused.value.hint or "")
    refuse_taken("127.0.0.1", port)


def test_a_host_that_is_not_ours_cannot_be_bound():
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        refuse_taken("192.0.2.1", 6066)


def test_a_state_directory_belongs_to_one_process(tmp_path):
    script = (
        "import sys; from pathlib import Path; from signal_router.runtime.state_dir import claim\n"
        "held = claim(Path(sys.argv[1]), 'w1'); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"

    with pytest.raises(ConfigurationError, match=rf'in use by slot "w1" \(process {holder.pid}\)'):
        claim(tmp_path, "w2")

    holder.kill()
    holder.wait()
    claim(tmp_path, "w2").close()


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="file/state") as refused:
        claim(tmp_path / "file" / "state", "w1")

    assert refused.value.hint == "--state-dir DIR, a directory this user may write to"


def test_a_state_directory_without_room_is_named_with_what_to_do(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a full disk, no file may grow
    try:
        with pytest.raises(ConfigurationError, match=f'state directory "{tmp_path}" cannot be used') as refused:
            claim(tmp_path, "w1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "free space on its disk" in refused.value.hint
    claim(tmp_path, "w1").close()


def test_the_lock_is_not_taken_for_a_table(tmp_path):
    claim(tmp_path, "w1").close()

    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def counts(signals: int = 0, fired: int = 0, dead_letters: int = 0) -> Counts:
    return Counts("running", signals, fired, dead_letters, ())


def test_rates_are_those_since_the_last_look():
    rates = Rates(10.0)

    assert rates.since(counts(100, 10), 12.0) == (50.0, 5.0)
    assert rates.since(counts(100, 12), 13.0) == (0.0, 2.0)


def test_the_line_says_what_waits_and_what_went_wrong():
    assert line(counts(), (1234.5, 0), 7, None) == "running · 1,234 signals/s · 0 triggers/s · 7 signals waiting"
    assert line(counts(dead_letters=2), (0, 0), None, None).endswith("triggers/s · 2 dead letters")


def test_a_broker_that_is_away_is_said_aloud():
    assert "no broker answers for 12 s, waiting for it" in line(counts(), (0, 0), None, 12.3)
