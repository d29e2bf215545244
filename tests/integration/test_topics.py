"""`signal-router topics` on a real broker: it says what differs, mends what it may, and tears no set apart."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from signal_router.errors import ConfigurationError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, check_topics, diff_topics, wanted_topics
from signal_router.kafka.topics import load_topics, resolve, topics_folder

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kafka


@pytest.fixture
def admin(broker) -> AdminClient:
    return connect(Connection(broker.bootstrap), timeout_s=20)


@pytest.fixture
def topics(broker, prefix):
    """Runs `signal-router topics …` under this test's prefix."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "signal_router", "topics", *arguments]
        where = ["--bootstrap", broker.bootstrap, "--prefix", prefix]
        return subprocess.run(
            [*command, *where], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )

    return run


@pytest.fixture
def wanted(prefix):
    return wanted_topics(load_topics(), prefix=prefix, app="signal-router")


def _until(condition: Callable[[], bool]) -> None:
    """Waits for the broker to show what its controller has accepted."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def _setting(admin: AdminClient, topic: str, key: str) -> str | None:
    (answer,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return answer.result()[key].value


def _set(admin: AdminClient, topic: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result()
    _until(lambda: _setting(admin, topic, key) == value)


def _grow(admin: AdminClient, topic: str, partitions: int) -> None:
    for answer in admin.create_partitions([NewPartitions(topic, partitions)]).values():
        answer.result()
    _until(lambda: _partitions(admin, topic) == partitions)


def _partitions(admin: AdminClient, topic: str) -> int:
    return len(admin.list_topics(topic, timeout=10).topics[topic].partitions)


def test_diff_differs_apply_makes_it_the_same_and_apply_again_changes_nothing(topics, admin, wanted):
    before = topics("diff", "-o", "json")
    assert before.returncode == 1
    assert {row["topic"] for row in json.loads(before.stdout)} == {topic.name for topic in wanted}

    applied = topics("apply", "--yes")
    assert applied.returncode == 0, applied.stderr

    after = topics("diff")
    assert after.returncode == 0, after.stdout
    assert "as their files say" in after.stdout
    assert "nothing to change" in topics("apply").stdout
    assert check_topics(admin, wanted) == []


def test_apply_without_a_terminal_wants_yes_and_changes_nothing(topics, admin, wanted):
    answer = topics("apply")

    assert answer.returncode == 2
    assert "hint: signal-router topics apply --yes" in answer.stderr
    assert len(diff_topics(admin, wanted)) == len(wanted)


def test_a_changed_setting_is_shown_and_put_back(topics, admin, wanted, prefix):
    apply_topics(admin, wanted)
    _set(admin, f"{prefix}lineage", "retention.ms", "1000")

    shown = json.loads(topics("diff", "-o", "json").stdout)
    topics("apply", "--yes")

    assert shown == [{"topic": f"{prefix}lineage", "setting": "retention.ms", "wanted": "34560000000", "found": "1000"}]
    assert diff_topics(admin, wanted) == []


def test_partitions_are_added_to_public_topics(admin, prefix, tmp_path):
    apply_topics(admin, wanted_topics(load_topics(), prefix=prefix, app="signal-router"))
    folder = tmp_path / "topics"
    shutil.copytree(Path(str(topics_folder())), folder)
    file = folder / "signals.yaml"
    file.write_text(file.read_text().replace("partitions: 4", "partitions: 6"))

    applied = apply_topics(admin, wanted_topics(load_topics(folder), prefix=prefix, app="signal-router"))

    assert [str(each.topic) for each in applied] == [f"{prefix}signals"]
    assert _partitions(admin, f"{prefix}signals") == 6


@pytest.mark.parametrize("role", ["candidates", "join-sets-changelog"])
def test_partitions_of_candidates_and_changelog_are_never_changed(topics, admin, wanted, prefix, role):
    apply_topics(admin, wanted)
    topic = next(each.name for each in wanted if each.role == role)
    _set(admin, f"{prefix}lineage", "retention.ms", "1000")
    _grow(admin, topic, 6)

    for arguments in (("apply", "--yes"), ("apply", "--yes", "--partitions", "8")):
        answer = topics(*arguments)

        assert answer.returncode == 2
        assert "new --prefix" in answer.stderr
        assert "drain" in answer.stderr

    assert _partitions(admin, topic) == 6
    # Nothing else was mended either: what cannot be done as a whole is not begun.
    assert any(each.setting == "retention.ms" for each in diff_topics(admin, wanted))


def test_start_refuses_candidates_and_changelog_of_unequal_counts(admin, wanted, prefix):
    apply_topics(admin, wanted)
    _grow(admin, resolve(prefix, "signal-router").changelog, 6)

    with pytest.raises(ConfigurationError, match=r"4 partitions.* 6") as caught:
        check_topics(admin, wanted)

    assert caught.value.hint == "signal-router topics diff"


@pytest.mark.parametrize(
    ("role", "key", "value"),
    [
        ("candidates", "retention.ms", "60000"),
        ("candidates", "cleanup.policy", "compact"),
        ("candidates", "max.message.bytes", "1000"),
        ("join-sets-changelog", "cleanup.policy", "compact,delete"),
        ("definitions", "cleanup.policy", "delete"),
    ],
)
def test_start_names_topic_setting_and_value_that_the_guarantees_need(admin, wanted, role, key, value):
    apply_topics(admin, wanted)
    topic = next(each.name for each in wanted if each.role == role)
    _set(admin, topic, key, value)

    with pytest.raises(ConfigurationError) as caught:
        check_topics(admin, wanted)

    assert f'"{topic}"' in caught.value.message
    assert f'{key} "{value}"' in caught.value.message
    assert caught.value.hint == "signal-router topics diff"


def test_start_accepts_the_operator_s_retention_and_larger_records_and_says_what_is_advised(admin, wanted, prefix):
    apply_topics(admin, wanted)
    _set(admin, f"{prefix}lineage", "retention.ms", "1000000")
    _set(admin, f"{prefix}dead-letters", "max.message.bytes", "5000000")
    _set(admin, f"{prefix}signals", "message.timestamp.type", "CreateTime")

    (advice,) = check_topics(admin, wanted)

    assert f"{prefix}signals" in advice
    assert "CreateTime" in advice


def test_start_accepts_another_partition_count_from_the_beginning(admin, prefix):
    apply_topics(admin, wanted_topics(load_topics(), prefix=prefix, app="signal-router", partitions=2))

    assert check_topics(admin, wanted_topics(load_topics(), prefix=prefix, app="signal-router")) == []


def test_start_names_a_missing_topic(admin, wanted):
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        check_topics(admin, wanted)

    assert caught.value.hint == "signal-router topics apply"


def test_start_refuses_definitions_in_several_partitions(admin, wanted, prefix):
    compacted = NewTopic(f"{prefix}definitions", 3, config={"cleanup.policy": "compact"})
    for answer in admin.create_topics([compacted]).values():
        answer.result()
    apply_topics(admin, [each for each in wanted if each.role != "definitions"])

    with pytest.raises(ConfigurationError, match=r'definitions" has partitions "3"'):
        check_topics(admin, wanted)
