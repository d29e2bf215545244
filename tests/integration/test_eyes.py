"""What people and programs see: every answer is of a real worker's topics, through the commands as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import NewTopic
from harness import LiveCluster, live_cluster
from jsonschema import Draft202012Validator

from signal_router.cli.main import main
from signal_router.errors import RecordError
from signal_router.kafka.publish import Publisher
from signal_router.kafka.tail import Beginning, End, Last, Read, Since, read_at, scan, tail
from signal_router.kafka.topics import topic_text
from signal_router.model.dead_letters import decode_dead_letter
from signal_router.model.log import OutputRecord, ProducerFencedError, TopicPartition
from signal_router.runtime.replay import AlreadyFiredError, ReplayRefusedError, SignalReplay, TriggerReplay

pytestmark = pytest.mark.kafka

SUBSCRIPTIONS = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: t/pair, contact: "#t"}
spec:
  join: {k: any}
  within: 7d
  members:
    - {alias: a, signal: A, payload: true}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}", from: "{a.source}", deep: "{a.payload.deep}"}}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: t/newest}
spec:
  join: {k: any}
  policy: latest
  within: 7d
  members:
    - {alias: l, signal: L}
    - {alias: m, signal: M}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: t/away}
spec:
  within: 7d
  members: [{alias: g, signal: G, payload: true}]
  trigger: {topic: AWAY}
---
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: t/large}
spec:
  within: 7d
  members: [{alias: big, signal: Big}]
"""
LIMIT = 600
"""The size of signals that the first worker reads."""


def one(name: str, id_: str | None = None, *, payload: object = None, **params: object) -> dict[str, object]:
    found: dict[str, object] = {"name": name, "params": params}
    if id_ is not None:
        found |= {"source": "wf", "id": id_}
    return found if payload is None else found | {"payload": payload}


@dataclass(frozen=True)
class Eyes:
    """A cluster on which a worker has worked, and the program as people call it."""

    cluster: LiveCluster

    @property
    def away(self) -> str:
        return f"{self.cluster.prefix}away"

    def options(self) -> list[str]:
        return ["--bootstrap", self.cluster.bootstrap, "--prefix", self.cluster.prefix]

    def call(self, *words: str, stdin: str | None = None) -> Result:
        """Runs a command; whatever it raises beside its own exit is a failure of the test."""
        return CliRunner().invoke(main, [*words, *self.options()], input=stdin, catch_exceptions=False)

    def text(self, *words: str, code: int = 0) -> str:
        answer = self.call(*words)
        assert answer.exit_code == code, answer.output
        return answer.stdout

    def json(self, *words: str, code: int = 0) -> object:
        return json.loads(self.text(*words, "-o", "json", code=code))

    def lines(self, *words: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text(*words, "-o", "json").splitlines()]

    def letters(self, kind: str) -> list[dict[str, object]]:
        return self.json("dead-letters", "list", "--kind", kind)  # type: ignore[return-value]

    def make_topic(self, name: str) -> None:
        for future in self.cluster.admin.create_topics([NewTopic(name, 1)]).values():
            future.result(10)


def story(cluster: LiveCluster) -> Eyes:
    """Everything that can become of a signal, decided by a worker that has stopped."""
    eyes = Eyes(cluster)
    cluster.apply(SUBSCRIPTIONS.replace("AWAY", eyes.away))
    worker = cluster.worker(signal_bytes=LIMIT).await_running()
    cluster.publish(
        one("A", "a1", k=1, payload={"deep": [1]}),
        one("A", "a2", k=2),
        one("B", "b1", k=1),
        one("A", "a1", k=1, payload={"deep": [1]}),
        one("B", k=3),
        one("L", "l1", k=1),
        one("L", "l2", k=1),
        one("G", "g1", k=1, payload="x"),
        one("G", "g2", k=1),
        one("Unheard", "u1"),
        b"rubbish \xff",
        one("Big", k=1, long="x" * LIMIT),
        partition=0,
    )
    cluster.await_decided()
    worker.stop()
    return eyes


@pytest.fixture(scope="module")
def eyes(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eyes]:
    """Read only: tests that write have a cluster of their own."""
    prefix = f"t{uuid.uuid4().hex[:10]}-"
    with live_cluster(broker, prefix, tmp_path_factory.mktemp("eyes")) as cluster:
        yield story(cluster)


@pytest.fixture
def own(broker: object, prefix: str, tmp_path: Path) -> Iterator[Eyes]:
    with live_cluster(broker, prefix, tmp_path) as cluster:
        yield story(cluster)


# ---- the public contract


@pytest.mark.parametrize("name", ["definitions", "triggers", "lineage", "dead-letters"])
def test_what_the_program_writes_is_what_the_schemas_say(eyes, name):
    schemas = {"definitions": "definition", "triggers": "trigger", "lineage": "lineage", "dead-letters": "dead-letter"}
    validator = Draft202012Validator(json.loads(topic_text(f"schemas/{schemas[name]}.json")))
    topic = getattr(eyes.cluster.names, name.replace("-", "_"))

    records = eyes.cluster.read(topic)

    problems = [f"{each.key!r}: {error.message}" for each in records for error in validator.iter_errors(each.document)]
    assert records
    assert problems == []


def test_every_kind_of_lineage_and_dead_letter_stood_in_the_schema_check(eyes):
    names = eyes.cluster.names

    assert {each.document["kind"] for each in eyes.cluster.read(names.lineage)} == {"fired", "signal", "view", "input"}
    assert {each.document["kind"] for each in eyes.cluster.read(names.dead_letters)} == {"signal", "trigger"}


# ---- following


def test_signals_are_followed_with_those_that_are_none(eyes):
    records = eyes.lines("signals", "tail", "-e", "--from", "beginning")

    assert [each["position"]["offset"] for each in records] == list(range(12))
    assert records[0]["signal"] == one("A", "a1", k=1, payload={"deep": [1]}) | {"time": None}
    assert records[10]["error"]["reason"] == "not-json"
    assert records[10]["value"] == "cnViYmlzaCD/"


def test_a_tail_of_the_last_counts_what_the_filters_leave(eyes):
    found = eyes.lines("signals", "tail", "-e", "--from", "-2", "--name", "A")

    assert [each["position"]["offset"] for each in found] == [1, 3]
    assert [each["signal"]["name"] for each in eyes.lines("signals", "tail", "-e", "--name", "U*")] == ["Unheard"]


def test_people_get_a_line_for_each(eyes):
    lines = eyes.text("signals", "tail", "-e", "--from", "beginning").splitlines()

    assert lines[0].split("  ")[1:] == ["A", "wf#a1", "k=1", f"{eyes.cluster.names.signals}/0/0"]
    assert "not-json" in lines[10]
    assert len(lines) == 12
    assert "\x1b" not in "".join(lines)


def test_triggers_are_followed(eyes):
    (record,) = eyes.lines("triggers", "tail", "-e", "--from", "beginning", "--subscription", "t/pair")
    (line,) = eyes.text("triggers", "tail", "-e", "--name", "B").splitlines()

    assert record["trigger"]["params"] == {"k": 1, "from": "wf", "deep": [1]}
    assert record["headers"]["ce_subject"] == "t/pair"
    assert record["key"] == '["t/pair",{"k":1}]'
    assert line.split("  ")[1:4] == ["t/pair", "k=1", "deep=[1] from=wf k=1"]
    assert line.endswith("a: wf#a1, b: wf#b1")
    assert eyes.text("triggers", "tail", "-e", "--subscription", "t/none") == ""


def test_lineage_is_followed(eyes):
    def outcomes(*options: str) -> list[object]:
        records = eyes.lines("lineage", "tail", "-e", "--from", "beginning", *options)
        return sorted(each["lineage"].get("outcome", each["lineage"]["kind"]) for each in records)

    assert outcomes("--outcome", "duplicate") == ["duplicate"]
    assert outcomes("--subscription", "t/newest") == ["superseded"]
    assert outcomes("--kind", "trigger") == ["fired"]
    assert set(outcomes("--kind", "view")) == {"view"}
    assert "duplicate/repeat  t/pair  k=1  A wf#a1" in eyes.text("lineage", "tail", "-e", "--name", "A")


# ---- lineage


def fired(eyes: Eyes) -> dict[str, object]:
    (record,) = eyes.lines("triggers", "tail", "-e", "--subscription", "t/pair")
    return record["trigger"]  # type: ignore[return-value]


def test_a_trigger_is_answered_by_its_signals_and_runs(eyes):
    trigger_id = str(fired(eyes)["trigger_id"])

    shown = eyes.json("lineage", "show", "trigger", trigger_id)
    text = eyes.text("lineage", "show", "trigger", trigger_id[:8])

    assert [(each["alias"], each["source"], each["id"]) for each in shown["signals"]] == [
        ("a", "wf", "a1"),
        ("b", "wf", "b1"),
    ]
    assert "payload" not in shown["signals"][0]
    assert trigger_id in text
    assert [line.split()[:4] for line in text.splitlines()[-2:]] == [["a", "A", "wf", "a1"], ["b", "B", "wf", "b1"]]


def test_an_undeliverable_trigger_is_answered_by_its_reason(eyes):
    key = str(eyes.letters("trigger")[0]["key"])

    text = eyes.text("lineage", "show", "trigger", key)

    assert "not delivered" in text
    assert f"dead-letters show {key}" in text


def test_an_unknown_trigger_ends_with_1(eyes):
    answer = eyes.call("lineage", "show", "trigger", "0" * 8)

    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "no trigger 00000000" in answer.stderr


def test_a_signal_is_answered_by_all_it_caused(eyes):
    signals = eyes.cluster.names.signals

    found = eyes.json("lineage", "show", "signal", "A", "wf", "a1")

    outcomes = [(each["outcome"], each["position"]["offset"], each["why"]) for each in found["outcomes"]]
    # They stand in order of time, and the set may have been completed before or after the repeat came.
    assert sorted(outcomes, key=lambda each: each[1]) == [
        ("fired", 0, f"trigger {fired(eyes)['trigger_id']}"),
        ("duplicate", 3, f"repeat of {signals}/0/0"),
    ]
    assert found["signal"]["params"] == {"k": 1}


def test_a_signal_that_waits_is_answered_by_what_for(eyes):
    (found,) = eyes.json("lineage", "show", "signal", "A", "wf", "a2")["outcomes"]

    assert (found["outcome"], found["subscription"], found["join_key"]) == ("pending", "t/pair", {"k": 2})
    assert found["waits_for"] == [{"alias": "b", "signal": "B"}]
    assert f"waits for b (B) until {found['deadline']}" in eyes.text("lineage", "show", "signal", "A", "wf", "a2")


def test_a_signal_without_an_id_is_answered_by_its_position(eyes):
    (found,) = eyes.json("lineage", "show", "signal", "--position", f"{eyes.cluster.names.signals}/0/4")["outcomes"]

    assert (found["outcome"], found["join_key"]) == ("pending", {"k": 3})


def test_a_position_tells_what_the_signal_did_to_others(eyes):
    signals = eyes.cluster.names.signals

    found = eyes.json("lineage", "show", "signal", "--position", f"{signals}/0/6")

    assert [each["outcome"] for each in found["outcomes"]] == ["pending"]
    assert [(each["outcome"], each["why"]) for each in found["affected"]] == [("superseded", f"newer by {signals}/0/6")]


def test_a_position_of_no_signal_is_answered_by_its_dead_letter(eyes):
    where = f"{eyes.cluster.names.signals}/0/10"

    text = eyes.text("lineage", "show", "signal", "--position", where)

    assert "dead letter" in text
    assert "not-json: record is not UTF-8" in text
    assert f"dead-letters show {where}" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Unheard", "wf", "u1"), "subscriptions test"),
        (("--position", "SIGNALS/0/9"), "matched no subscription"),
        (("--position", "SIGNALS/0/999"), "gone, or not there yet"),
        (("--position", "SIGNALS/99/0"), "no partition 99"),
    ],
)
def test_where_nothing_is_known_the_answer_says_why_and_ends_with_1(eyes, words, said):
    words = [word.replace("SIGNALS", eyes.cluster.names.signals) for word in words]

    assert said in eyes.text("lineage", "show", "signal", *words, code=1)


@pytest.mark.parametrize(
    "words", [(), ("A",), ("A", "wf"), ("--position", "x"), ("A", "wf", "1", "--position", "t/0/1")]
)
def test_a_signal_must_be_named(eyes, words):
    assert eyes.call("lineage", "show", "signal", *words).exit_code == 2


# ---- what is pending


def test_joins_lists_what_waits_for_what_oldest_first(eyes):
    found = eyes.json("joins", "list")

    assert [(each["subscription"], each["join_key"], each["has"], each["waits_for"]) for each in found] == [
        ("t/pair", {"k": 2}, ["a"], [{"alias": "b", "signal": "B"}]),
        ("t/pair", {"k": 3}, ["b"], [{"alias": "a", "signal": "A"}]),
        ("t/newest", {"k": 1}, ["l"], [{"alias": "m", "signal": "M"}]),
    ]
    assert [each["id"] for each in found[2]["signals"]] == ["l2"]


def test_joins_are_told_by_subscription_and_age(eyes):
    assert len(eyes.json("joins", "list", "--subscription", "t/newest")) == 1
    assert eyes.json("joins", "list", "--older-than", "1d") == []
    assert eyes.text("joins", "list", "--older-than", "1d") == "nothing is pending\n"
    assert "the 1 oldest of 3 sets" in eyes.text("joins", "list", "--limit", "1")
    assert "a (1 of 2)  b (B)" in eyes.text("joins", "list", "--subscription", "t/pair")


def test_a_prefix_without_topics_is_named(eyes):
    answer = CliRunner().invoke(main, ["joins", "list", "--bootstrap", eyes.cluster.bootstrap, "--prefix", "nowhere-"])

    assert answer.exit_code == 2
    assert 'error: topic "nowhere-signal-router-join-sets-changelog" does not exist' in answer.stderr


# ---- dead letters


def test_dead_letters_are_listed_and_shown(eyes):
    signals = eyes.cluster.names.signals
    listed = eyes.json("dead-letters", "list")

    assert sorted((each["kind"], each["reason"]) for each in listed) == [
        ("signal", "not-json"),
        ("signal", "too-large"),
        ("trigger", "destination"),
        ("trigger", "destination"),
    ]
    assert [each["key"] for each in eyes.json("dead-letters", "list", "--reason", "not-json")] == [f"{signals}/0/10"]
    assert eyes.json("dead-letters", "list", "--since", "2100-01-01") == []
    assert "the latest 1 of 4" in eyes.text("dead-letters", "list", "--limit", "1")
    assert r"rubbish \xff" in eyes.text("dead-letters", "show", f"{signals}/0/10")
    shown = eyes.json("dead-letters", "show", f"{signals}/0/11")
    assert json.loads(shown["record"]["value"])["name"] == "Big"
    assert eyes.call("dead-letters", "show", "nothing/0/0").exit_code == 1


def test_a_signal_that_would_become_the_same_dead_letter_is_refused(eyes):
    key = f"{eyes.cluster.names.signals}/0/10"
    before = eyes.cluster.ends(eyes.cluster.names.signals)

    answer = eyes.call("dead-letters", "replay", key)

    assert answer.exit_code == 1
    assert "it would become the same dead letter again" in answer.stdout
    assert eyes.cluster.ends(eyes.cluster.names.signals) == before


def test_a_dry_run_writes_nothing(eyes):
    before = {topic: eyes.cluster.ends(topic) for topic in eyes.cluster.names.all()}

    rows = eyes.json("dead-letters", "replay", "--all", "--dry-run", code=1)

    results = sorted((each["kind"], each["result"]) for each in rows)
    assert results == [
        ("signal", "refused"),
        ("signal", "would be replayed"),
        ("trigger", "refused"),
        ("trigger", "refused"),
    ]
    assert {topic: eyes.cluster.ends(topic) for topic in eyes.cluster.names.all()} == before


def test_triggers_are_replayed_once_their_topic_exists_and_only_once(own):
    names = own.cluster.names
    (first, second) = sorted(str(each["key"]) for each in own.letters("trigger"))
    refused = own.json("dead-letters", "replay", first, code=1)
    own.make_topic(own.away)

    replayed = own.json("dead-letters", "replay", first)
    again = own.json("dead-letters", "replay", "--all", "--kind", "trigger")

    assert "does not exist" in refused[0]["detail"]
    assert [(each["key"], each["result"]) for each in replayed] == [(first, "replayed")]
    assert sorted((each["key"], each["result"]) for each in again) == [(first, "already written"), (second, "replayed")]
    written = own.cluster.read(own.away)
    assert sorted(each.document["trigger_id"] for each in written) == [first, second]
    headers = dict(written[0].headers)
    assert headers["ce_subject"] == b"t/away"
    assert headers["sr_txn"].startswith(b"replay/")
    lineage = {each.key: each for each in own.cluster.read(names.lineage)}
    for each in written:
        kept = lineage[f"trigger/{each.document['trigger_id']}".encode()]
        assert kept.transaction == each.transaction
        assert "payload" not in kept.document["signals"][0]
    assert "replayed since" in own.text("lineage", "show", "signal", "G", "wf", "g1")


def test_of_two_replays_at_once_one_is_fenced(own):
    own.make_topic(own.away)
    cluster = own.cluster
    letters = [
        letter
        for each in cluster.read(cluster.names.dead_letters)
        if (letter := decode_dead_letter(each.value or b"")).kind.value == "trigger"
    ]
    ids = frozenset(str(each.trigger_id) for each in letters)
    earlier, later = (TriggerReplay(cluster.connection, cluster.admin, cluster.names, ids) for _ in range(2))
    earlier.begin()
    earlier.check(letters[0])
    later.begin()

    later.send(letters[0])
    with pytest.raises(ProducerFencedError):
        earlier.send(letters[0])
    with pytest.raises(AlreadyFiredError):
        later.send(letters[0])

    assert len(cluster.read(own.away)) == 1
    earlier.close()
    later.close()


def test_a_signal_without_an_id_keeps_its_identity_however_often_it_is_replayed(own):
    cluster, names = own.cluster, own.cluster.names
    key = f"{names.signals}/0/11"
    identity = {"position": [cluster.topic_id(names.signals), 0, 11]}
    cluster.worker(signal_bytes=LIMIT).await_running()
    own.json("dead-letters", "replay", key)
    cluster.await_decided()  # it became a dead letter once more
    cluster.stop_workers()

    rows = own.json("dead-letters", "replay", "--all", "--reason", "too-large")
    own.json("dead-letters", "replay", key)
    cluster.worker().await_running()
    cluster.await_decided()
    cluster.stop_workers()

    assert [each["result"] for each in rows] == ["replayed"], "both dead letters stand for one signal"
    replays = [dict(each.headers)["sr_replay_of"] for each in cluster.read(names.signals) if each.headers]
    assert list(map(json.loads, replays)) == [identity] * 3
    (trigger,) = (each for each in cluster.read(names.triggers) if b"t/large" in (each.key or b""))
    assert json.loads(trigger.key or b"[]")[-1] == ["Big", None, identity]
    ended = [each.document for each in cluster.read(names.lineage) if each.document.get("name") == "Big"]
    assert sorted(str(each["reason"]) for each in ended) == ["completed", "repeat"]


def test_a_cut_dead_letter_is_read_again_where_its_record_stands(broker, prefix, tmp_path):
    with live_cluster(broker, prefix, tmp_path) as cluster:
        own = Eyes(cluster)
        cluster.apply(SUBSCRIPTIONS.replace("AWAY", own.away))
        worker = cluster.worker(signal_bytes=LIMIT).await_running()
        cluster.publish(one("Big", k=1, long="y" * 100_000), partition=0)
        cluster.await_decided()
        worker.stop()
        (letter,) = own.letters("signal")

        (row,) = own.json("dead-letters", "replay", str(letter["key"]))

        assert row["result"] == "replayed"
        values = [each.value for each in cluster.read(cluster.names.signals)]
        assert len(values) == 2
        assert values[0] == values[1]
        letter_of_it = decode_dead_letter(cluster.read(cluster.names.dead_letters)[0].value or b"")
        with Publisher(cluster.connection) as publisher:
            replay = SignalReplay(cluster.connection, cluster.admin, publisher, force=False)
            with pytest.raises(ReplayRefusedError, match="the record is gone"):
                replay.check(msgspec.structs.replace(letter_of_it, sha256="0" * 64))


# ---- publishing


def test_signals_are_published_from_a_file_from_a_pipe_and_from_options(eyes, broker, prefix, tmp_path):
    with live_cluster(broker, prefix, tmp_path, partitions=1) as cluster:
        mine = Eyes(cluster)
        file = tmp_path / "signals.json"
        file.write_text('[{"name": "A", "source": "s", "id": "1"},\n {"name": "B"}]')
        topic = cluster.names.signals

        from_file = mine.call("signals", "publish", "-f", str(file), "-o", "json", "--key", "k")
        from_pipe = mine.call("signals", "publish", "-f", "-", stdin='{"name": "C"}\nrubbish\n{"name": "D"}\n')
        from_options = mine.text("signals", "publish", "--name", "E", "--param", "k=1", "--header", "h=v")

        published = [json.loads(line) for line in from_file.stdout.splitlines()]
        assert published == [
            {"position": {"topic": topic, "partition": 0, "offset": 0}, "identity": ["A", "s", "1"]},
            {
                "position": {"topic": topic, "partition": 0, "offset": 1},
                "identity": ["B", None, {"position": [cluster.topic_id(topic), 0, 1]}],
            },
        ]
        assert from_pipe.exit_code == 2
        assert from_pipe.stdout.startswith(f"{topic}/0/2  C")
        assert "stdin:2: record is not JSON" in from_pipe.stderr
        assert from_options.startswith(f"{topic}/0/3  E")
        records = cluster.read(topic)
        assert [each.key for each in records] == [b"k", b"k", None, None]
        assert records[0].value == b'{"name": "A", "source": "s", "id": "1"}'
        assert records[3].headers == (("h", b"v"),)


def test_a_missing_topic_is_named(eyes):
    answer = eyes.call("signals", "publish", "--name", "A", "--topic", "nowhere")

    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[0] == 'error: topic "nowhere" does not exist'


# ---- as processes


def command(eyes: Eyes, *words: str) -> list[str]:
    return [sys.executable, "-m", "signal_router", *words, *eyes.options()]


def test_a_tail_follows_until_ctrl_c(broker, prefix, tmp_path):
    with live_cluster(broker, prefix, tmp_path) as cluster:
        words = command(Eyes(cluster), "signals", "tail", "--from", "beginning")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                for name in ("A", "B"):
                    cluster.publish({"name": name})
                    assert process.stdout.readline().split()[1] == name
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130
                assert process.stdout.read() == ""
                assert process.stderr.read() == ""
            finally:
                process.kill()


def test_a_tail_waits_for_a_broker_that_goes_away_and_says_so(own_broker, prefix, tmp_path):
    with live_cluster(own_broker.bootstrap, prefix, tmp_path, partitions=1) as cluster:
        words = command(Eyes(cluster), "signals", "tail", "--from", "beginning")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                cluster.publish({"name": "A"})
                assert process.stdout.readline().split()[1] == "A"
                own_broker.kill()
                said = process.stderr.readline()
                own_broker.start()
                cluster.publish({"name": "B"})
                assert process.stdout.readline().split()[1] == "B"
            finally:
                process.kill()

    assert said == f'no broker answers at "{own_broker.bootstrap}", waiting for it\n'


def test_a_reader_that_leaves_ends_the_command_without_a_word(eyes):
    words = command(eyes, "signals", "tail", "-e", "--from", "beginning")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            os.close(os.dup(process.stdout.fileno()))
            process.stdout.close()
            process.wait(30)
            assert process.stderr.read() == b""
        finally:
            process.kill()


# ---- reading topics


def filled(cluster: LiveCluster, times: Sequence[tuple[int, int]]) -> None:
    """Writes records (partition, timestamp) whose values are their places in the sequence."""
    for place, (partition, at) in enumerate(times):
        cluster.producer.produce(cluster.names.triggers, str(place).encode(), partition=partition, timestamp=at)
        assert cluster.producer.flush(20) == 0


def test_tails_give_records_of_all_partitions_in_the_order_of_time(broker, prefix, tmp_path):
    base = 1_773_000_000_000
    times = [(0, base + 10), (0, base + 40), (1, base + 20), (1, base + 30), (2, base + 50), (0, base + 60)]
    in_order = [0, 2, 3, 1, 4, 5]
    with live_cluster(broker, prefix, tmp_path) as cluster:
        filled(cluster, times)
        topics = [cluster.names.triggers]

        def tailed(start, wanted=lambda _place: True):
            def decode(read: Read) -> int | None:
                place = int(read.record.value or b"")
                return place if wanted(place) else None

            connection, admin = cluster.connection, cluster.admin
            return list(tail(connection, admin, topics, start, decode, follow=False, say=pytest.fail))

        assert tailed(Beginning()) == in_order
        assert tailed(End()) == []
        assert tailed(Since(base + 30)) == [3, 1, 4, 5]
        for count in range(1, 9):
            assert tailed(Last(count)) == in_order[-count:]
        assert tailed(Last(2), lambda place: place % 2 == 0) == [2, 4]


def test_the_last_records_are_found_behind_many_that_are_none(broker, prefix, tmp_path):
    with live_cluster(broker, prefix, tmp_path, partitions=1) as cluster:
        filled(cluster, [(0, 1_773_000_000_000)] * 100)
        connection, admin, topics = cluster.connection, cluster.admin, [cluster.names.triggers]

        def decode(read: Read) -> int | None:
            return read.record.offset if read.record.offset in {3, 50} else None

        found = list(tail(connection, admin, topics, Last(2), decode, follow=False, say=pytest.fail))

        assert found == [3, 50]


def test_one_record_is_read_where_it_stands(eyes):
    cluster = eyes.cluster
    tp = TopicPartition(cluster.names.signals, 0)

    found = read_at(cluster.connection, cluster.admin, tp, 10)

    assert found is not None
    assert found.value == b"rubbish \xff"
    assert read_at(cluster.connection, cluster.admin, tp, 999) is None
    assert len(list(scan(cluster.connection, cluster.admin, [cluster.names.signals]))) == 12


def test_published_records_are_reported_with_their_place(broker, prefix, tmp_path):
    with live_cluster(broker, prefix, tmp_path, partitions=1) as cluster:
        found: list[int] = []
        with Publisher(cluster.connection) as publisher:
            for place in range(50):
                record = OutputRecord(cluster.names.signals, None, str(place).encode())
                publisher.publish(record, lambda sent: found.append(sent.offset))

        assert found == list(range(50))
        with pytest.raises(RecordError):
            decode_dead_letter(b"{}")
