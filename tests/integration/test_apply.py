"""`apply` and `subscriptions` on a real broker: all or nothing, one at a time, and live on the workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from harness import PAIR

from signal_router.cli.main import main
from signal_router.errors import FencedError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import load_topics
from signal_router.model.documents import read_documents
from signal_router.runtime.apply import Publication, plan
from signal_router.runtime.standing import read_standings

pytestmark = pytest.mark.kafka

RESHAPED = PAIR.replace("{k: any}", "{k: integer}")
EACH = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/each}
spec: {members: [{alias: a, signal: A}]}
"""


@pytest.fixture
def connection(broker, prefix) -> Connection:
    return Connection(broker.bootstrap, prefix)


@pytest.fixture
def admin(connection) -> AdminClient:
    admin = connect(connection, timeout_s=20)
    apply_topics(admin, wanted_topics(load_topics(), prefix=connection.prefix, app=connection.app))
    return admin


@pytest.fixture
def run(connection) -> Callable[..., Result]:
    """Runs a command under this test's prefix."""

    def call(*arguments: str, stdin: str | None = None) -> Result:
        where = ["--bootstrap", connection.bootstrap, "--prefix", connection.prefix]
        return CliRunner().invoke(main, [*arguments, *where], input=stdin)

    return call


@pytest.fixture
def worker(connection, admin, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A worker that runs what is in force."""
    command = [sys.executable, "-m", "signal_router", "run", "--slot", "w1", "--state-dir", str(tmp_path / "w1")]
    where = ["--bootstrap", connection.bootstrap, "--prefix", connection.prefix, "--web-port", "off"]
    process = subprocess.Popen([*command, *where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], what: str, *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.1)


def publish(connection: Connection, *names: str) -> None:
    producer = Producer(connection.producer_config({}))
    for name in names:
        value = {"name": name, "source": "s", "id": f"{name}{time.monotonic_ns()}", "params": {"k": 1}}
        producer.produce(f"{connection.prefix}signals", json.dumps(value).encode())
    assert producer.flush(10) == 0


def workers(run: Callable[..., Result]) -> list[dict[str, object]]:
    return json.loads(run("workers", "list", "-o", "json").stdout)


def applied(answer: Result) -> dict[str, object]:
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


# ---- without workers


def test_a_cluster_without_topics_says_what_to_do(run):
    answer = run("apply", "-f", "-", stdin=PAIR)

    assert answer.exit_code == 2
    assert "does not exist" in answer.stderr
    assert "hint: signal-router topics apply" in answer.stderr


def test_a_problem_in_one_document_applies_none(run, connection, admin):
    answer = run("apply", "-f", "-", stdin=f"{EACH}---{PAIR.replace('any', 'anything')}")

    assert answer.exit_code == 2
    assert "error: <stdin>:" in answer.stderr
    assert read_standings(connection, admin).by_id == {}


def test_documents_are_applied_then_unchanged_then_edited(run, admin):
    first = applied(run("apply", "-f", "-", "-o", "json", stdin=f"{EACH}---{PAIR}"))
    second = applied(run("apply", "-f", "-", "-o", "json", stdin=f"{EACH}---{RESHAPED}"))

    assert [each["change"] for each in first["subscriptions"]] == ["created", "created"]
    assert [(each["change"], each["join_generation"]) for each in second["subscriptions"]] == [
        ("unchanged", 1),
        ("edited", 2),
    ]
    assert first["revision"] == 1
    assert second["revision"] > 1


def test_a_dry_run_changes_nothing(run, connection, admin):
    answer = run("apply", "-f", "-", "--dry-run", stdin=PAIR)

    assert (answer.exit_code, answer.stdout.splitlines()[-1]) == (0, "dry run: nothing was changed")
    assert read_standings(connection, admin).by_id == {}


def test_a_deleted_id_begins_another_life(run, admin):
    applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))

    deleted = run("subscriptions", "delete", "team/pair", "--yes")
    again = applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))

    assert (deleted.exit_code, deleted.stdout.splitlines()[0]) == (0, "team/pair: deleted")
    assert [(each["change"], each["birth"]) for each in again["subscriptions"]] == [("created", 2)]


def test_a_delete_wants_to_be_confirmed(run, connection, admin):
    applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))

    answer = run("subscriptions", "delete", "team/pair")

    assert answer.exit_code == 2
    assert "hint: signal-router subscriptions delete team/pair --yes" in answer.stderr
    assert len(read_standings(connection, admin).in_force()) == 1


def test_what_is_in_force_is_listed_and_shown_as_it_can_be_applied(run, admin):
    applied(run("apply", "-f", "-", "-o", "json", stdin=f"{EACH}---{PAIR}"))

    listed = json.loads(run("subscriptions", "list", "--signal", "B", "-o", "json").stdout)
    shown = run("subscriptions", "show", "team/pair").stdout
    again = applied(run("apply", "-f", "-", "-o", "json", stdin=shown))

    assert [each["subscription"] for each in listed] == ["team/pair"]
    assert "# birth: 1" in shown
    assert [each["change"] for each in again["subscriptions"]] == ["unchanged"]


def test_a_subscription_in_force_is_tested_by_its_id(run, admin):
    applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))

    answer = run("subscriptions", "test", "team/pair", "--signal", "-", stdin='{"name": "A", "params": {"k": 7}}')

    assert answer.exit_code == 0
    assert 'candidate for join key {"k":7}' in answer.stdout


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("missing", 'topic "missing" does not exist'),
        ("{prefix}lineage", "is one of signal-router's own or an input"),
        ("{prefix}signals", "is one of signal-router's own or an input"),
        ("{prefix}narrow", "has max.message.bytes 1000"),
    ],
)
def test_a_destination_that_cannot_be_written_is_refused_by_name(run, connection, admin, topic, said):
    admin.create_topics([NewTopic(f"{connection.prefix}narrow", 1, config={"max.message.bytes": "1000"})])
    narrow = ConfigResource(ResourceType.TOPIC, f"{connection.prefix}narrow")
    until(lambda: admin.describe_configs([narrow])[narrow].exception() is None, "the narrow topic")
    named = topic.format(prefix=connection.prefix)

    text = PAIR.replace("trigger: {", f"trigger: {{topic: {named}, ")
    answer = run("apply", "-f", "-", stdin=f"{EACH}---{text}")

    assert answer.exit_code == 2
    assert f'error: subscription "team/pair": topic "{named}"' in answer.stderr
    assert said in answer.stderr
    assert read_standings(connection, admin).by_id == {}


def test_the_app_s_own_triggers_may_be_named_in_full(run, connection, admin):
    text = PAIR.replace("trigger: {", f"trigger: {{topic: {connection.prefix}triggers, ")

    (told,) = applied(run("apply", "-f", "-", "-o", "json", stdin=text))["subscriptions"]

    assert told["topic"] == f"{connection.prefix}triggers"


def test_of_two_that_apply_at_once_the_later_one_goes_on(connection, admin):
    documents = read_documents([("pair.yaml", PAIR)]).documents
    earlier = Publication(connection, admin)
    later = Publication(connection, admin)

    with pytest.raises(FencedError, match="nothing of this one was applied"):
        earlier.publish(plan(documents, earlier.standings, now=1))
    revision = later.publish(plan(documents, later.standings, now=2))

    standings = read_standings(connection, admin)
    assert [(each.revision, each.definition.applied_at) for each in standings.in_force()] == [(revision, 2)]
    earlier.close()
    later.close()


def test_no_worker_has_run_yet(run, admin):
    assert "no worker has run yet" in run("workers", "list").stdout


# ---- with a worker


def test_an_edit_that_ends_what_is_pending_wants_to_be_told_so(run, connection, worker):
    applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))
    publish(connection, "A", "A", "A", "B")
    until(
        lambda: "ends 2 pending" in run("apply", "-f", "-", "--dry-run", stdin=RESHAPED).stdout, "two pending signals"
    )

    refused = run("apply", "-f", "-", stdin=RESHAPED)
    kept = applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR.replace("spec:", "spec:\n  within: 6d")))
    ended = applied(run("apply", "-f", "-", "--discard-pending", "-o", "json", stdin=RESHAPED))

    assert refused.exit_code == 2
    assert 'this would end 2 pending signals of subscription "team/pair"' in refused.stderr
    assert [each["ends_pending"] for each in kept["subscriptions"]] == [0]
    assert [each["ends_pending"] for each in ended["subscriptions"]] == [2]
    assert ended["workers"] == {"have": ["w1"], "waiting": {}}
    until(lambda: "ends" not in run("apply", "-f", "-", "--dry-run", stdin=PAIR).stdout, "what was pending has ended")


def test_a_delete_that_ends_what_is_pending_wants_to_be_told_so(run, connection, worker):
    applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))
    publish(connection, "A")
    until(lambda: "ends 1 pending" in run("apply", "-f", "-", "--dry-run", stdin=RESHAPED).stdout, "a pending signal")
    answer = run("subscriptions", "delete", "team/pair", "--yes")
    forced = run("subscriptions", "delete", "team/pair", "--yes", "--discard-pending")

    assert answer.exit_code == 2
    assert 'this would end 1 pending signals of subscription "team/pair"' in answer.stderr
    assert forced.exit_code == 0
    assert "team/pair: deleted, ends 1 pending signals" in forced.stdout


def test_apply_names_a_worker_alive_that_does_not_have_it(run, connection, worker):
    until(lambda: any(each["state"] == "alive" for each in workers(run)), "a worker alive")
    worker.send_signal(signal.SIGSTOP)

    answer = run("apply", "-f", "-", "--timeout", "1", stdin=PAIR)
    worker.send_signal(signal.SIGCONT)
    again = run("apply", "-f", "-", stdin=PAIR)

    assert answer.exit_code == 1
    assert "warning: worker w1 still has revision -1, not 0" in answer.stderr
    assert (again.exit_code, again.stdout.splitlines()) == (0, ["team/pair: unchanged", "in force on 1 worker: w1"])


def test_workers_are_listed_with_what_they_hold_and_how_far_they_are_behind(run, connection, worker):
    applied(run("apply", "-f", "-", "-o", "json", stdin=PAIR))
    publish(connection, *["A"] * 20)
    until(lambda: [each["slot"] for each in workers(run)] == ["w1"] and workers(run)[0]["lag"] == 0, "lag 0")
    (running,) = workers(run)

    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    publish(connection, "A", "A", "A")
    left, nobody = workers(run)

    assert running["state"] == "alive"
    assert running["partitions"][f"{connection.prefix}signals"] == [0, 1, 2, 3]
    assert left["state"] == "left"
    assert (nobody["state"], nobody["lag"]) == ("no worker", 3)


def test_files_are_read_from_a_folder(run, admin, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(PAIR)
    (tmp_path / "b.yaml").write_text(EACH)

    told = applied(run("apply", "-f", str(tmp_path), "-o", "json"))

    assert [each["subscription"] for each in told["subscriptions"]] == ["team/pair", "team/each"]
