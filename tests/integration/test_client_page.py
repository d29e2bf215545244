"""The page of the clients, tried as a newcomer would: its programs, as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from harness import read_topics, until

from signal_router.client import Connection
from signal_router.kafka.admin_client import connect
from signal_router.kafka.publish import Publisher
from signal_router.kafka.topics import topic_text
from signal_router.model.log import OutputRecord
from signal_router.model.records import decode_signal

pytestmark = pytest.mark.kafka

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ENDLESS = [text for text in PROGRAMS if "TriggerConsumer(" in text]
WITH_PASSWORDS = [text for text in PROGRAMS if "sasl" in text]
ENDING = [text for text in PROGRAMS if text not in ENDLESS + WITH_PASSWORDS]
# A program names its topics without a prefix; on the broker of the tests each has one.
NAMES = re.compile(r'"(workflows-parked|reports-parked|reports-wanted)"')


@pytest.fixture
def environment(broker: object, prefix: str) -> dict[str, str]:
    names = ("signals", "triggers", "workflows-parked", "reports-parked", "reports-wanted")
    admin = connect(Connection(str(broker)))
    for future in admin.create_topics([NewTopic(f"{prefix}{name}", 2, 1) for name in names]).values():
        future.result(20)
    return os.environ | {"SIGNAL_ROUTER_BOOTSTRAP": str(broker), "SIGNAL_ROUTER_PREFIX": prefix}


def on_the_test_broker(text: str, prefix: str) -> str:
    text = NAMES.sub(lambda found: f'"{prefix}{found[1]}"', text)
    return re.sub(r'(group|transactional_id)="', rf'\1="{prefix}', text)


def test_the_page_has_the_programs_that_are_tried_here() -> None:
    assert (len(ENDING), len(ENDLESS), len(WITH_PASSWORDS)) == (3, 2, 1)
    compile(WITH_PASSWORDS[0], "clients.md", "exec")


@pytest.mark.parametrize("text", ENDING)
def test_programs_that_publish_end_with_their_signals_published(
    text: str, broker: object, prefix: str, environment: dict[str, str]
) -> None:
    subprocess.run([sys.executable, "-c", text], env=environment, check=True, timeout=60)

    found = read_topics(str(broker), connect(Connection(str(broker))), [f"{prefix}signals"], committed=True)
    assert found
    for each in found:
        read = decode_signal(each.value, each.headers, limit_bytes=10_000)
        assert read is not None
        assert (read.name, read.source) == ("warehouse/titles.ready", "wf/titles")


@pytest.mark.parametrize("text", ENDLESS)
def test_programs_that_consume_take_a_trigger_and_end_at_sigterm(
    text: str, broker: object, prefix: str, environment: dict[str, str], tmp_path: Path
) -> None:
    trigger = json.loads(topic_text("examples/trigger.json"))
    with Publisher(Connection(str(broker))) as publisher:
        publisher.publish_now(OutputRecord(f"{prefix}triggers", b"k", json.dumps(trigger).encode()))
    log = tmp_path / "log"

    with log.open("wb") as into:
        program = [sys.executable, "-u", "-c", on_the_test_broker(text, prefix)]
        process = subprocess.Popen(program, env=environment, stdout=into, stderr=into)
    try:
        admin = connect(Connection(str(broker)))
        wanted, signals = f"{prefix}reports-wanted", f"{prefix}signals"
        if "run_exactly_once" in text:
            until(lambda: bool(read_topics(str(broker), admin, [wanted], committed=True)), "the output", within_s=60)
            (signal_,) = read_topics(str(broker), admin, [signals], committed=True)
            assert signal_.document["id"] == f"{trigger['idempotency_key']}/1"
            assert dict(signal_.headers)["sr_caused_by"] == trigger["trigger_id"].encode()
        else:
            said = f"start {trigger['subscription']['id']} {trigger['params']} {trigger['idempotency_key']}"
            until(lambda: said in log.read_text(), "the handler", within_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(10)
