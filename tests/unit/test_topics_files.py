"""The topic files are complete, strict, and their examples are what their schemas say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.errors import ConfigurationError
from signal_router.kafka.topic_changes import Difference, apply_topics, refuse_unsafe, wanted_topics
from signal_router.kafka.topics import load_topics, resolve, topic_text, topics_folder

EXAMPLES = [
    pytest.param(file.about.schema, example, id=example) for file in load_topics() for example in file.about.examples
]


def _validate(schema: str, value: object) -> None:
    document = json.loads(topic_text(schema))
    jsonschema.Draft202012Validator(document, format_checker=jsonschema.FormatChecker()).validate(value)


def _copy_of_the_files(tmp_path: Path) -> Path:
    folder = tmp_path / "topics"
    shutil.copytree(Path(str(topics_folder())), folder)
    return folder


@pytest.mark.parametrize(("schema", "example"), EXAMPLES)
def test_examples_are_what_their_schema_says(schema, example):
    _validate(schema, json.loads(topic_text(example)))


@pytest.mark.parametrize("schema", sorted({file.about.schema for file in load_topics() if file.about.schema}))
def test_schemas_are_json_schemas_that_refuse_something(schema):
    document = json.loads(topic_text(schema))

    jsonschema.Draft202012Validator.check_schema(document)

    with pytest.raises(jsonschema.ValidationError):
        _validate(schema, {"no": "such thing"})


def test_every_public_topic_has_a_schema_and_examples_and_every_file_is_named():
    files = load_topics()

    named = {path for file in files for path in (file.about.schema, *file.about.examples) if path}
    there = {f"{kind}/{path.name}" for kind in ("schemas", "examples") for path in (topics_folder() / kind).iterdir()}

    assert named == there
    assert all(file.about.schema and file.about.examples for file in files if file.about.access == "public")
    assert not any(file.about.schema for file in files if file.about.access == "internal")


@pytest.mark.parametrize(
    "wrong",
    [
        {"params": {}},
        {"name": ""},
        {"name": "n", "id": "1"},
        {"name": "n", "params": {"nested": {}}},
        {"name": "n", "time": "yesterday"},
        {"name": "n", "source": 7},
    ],
)
def test_what_becomes_a_dead_letter_is_no_signal_by_the_schema(wrong):
    with pytest.raises(jsonschema.ValidationError):
        _validate("schemas/signal.json", wrong)


def test_names_follow_prefix_and_app():
    names = resolve("test-", "router")

    assert names.signals == "test-signals"
    assert names.definitions == "test-definitions"
    assert names.candidates == "test-router-candidates"
    assert names.changelog == "test-router-join-sets-changelog"
    assert names.workers == "test-router-workers"
    assert names.triggers == "test-triggers"
    assert names.lineage == "test-lineage"
    assert names.dead_letters == "test-dead-letters"
    assert resolve("", "signal-router").candidates == "signal-router-candidates"


def test_two_prefixes_share_no_topic():
    assert not set(resolve("a-", "x").all()) & set(resolve("b-", "x").all())


def test_signals_are_the_only_topic_that_is_not_our_own():
    names = resolve("", "signal-router")

    assert set(names.all()) - names.own() == {names.signals}


@given(st.text(alphabet="ab.-_ /é\n", max_size=8))
def test_a_name_is_either_legal_on_kafka_or_refused(prefix):
    legal = all(character in "ab.-_" for character in prefix)

    if legal:
        assert resolve(prefix, "app").signals == f"{prefix}signals"
    else:
        with pytest.raises(ConfigurationError):
            resolve(prefix, "app")


def test_a_name_too_long_is_refused():
    with pytest.raises(ConfigurationError, match="not allowed by Kafka"):
        resolve("p" * 240, "app")


def test_candidates_and_changelog_have_as_many_partitions_as_each_other():
    by_role = {file.role: file for file in load_topics()}

    assert by_role["candidates"].partitions == by_role["join-sets-changelog"].partitions
    assert by_role["definitions"].partitions == 1
    assert by_role["candidates"].config["retention.ms"] == "-1"


def test_an_unknown_field_is_refused_with_the_file_s_name(tmp_path):
    folder = _copy_of_the_files(tmp_path)
    file = folder / "signals.yaml"
    file.write_text(file.read_text().replace("replicas:", "replica:"))

    with pytest.raises(ConfigurationError, match=r"signals\.yaml.*replica"):
        load_topics(folder)


def test_a_missing_file_is_named(tmp_path):
    folder = _copy_of_the_files(tmp_path)
    (folder / "lineage.yaml").unlink()

    with pytest.raises(ConfigurationError, match="lineage"):
        load_topics(folder)


def test_broken_yaml_is_refused_with_the_file_s_name(tmp_path):
    folder = _copy_of_the_files(tmp_path)
    (folder / "workers.yaml").write_text("a: [")

    with pytest.raises(ConfigurationError, match=r"workers\.yaml"):
        load_topics(folder)


def test_a_required_setting_must_stand_in_the_file(tmp_path):
    folder = _copy_of_the_files(tmp_path)
    file = folder / "candidates.yaml"
    file.write_text(file.read_text().replace("    retention.bytes: -1\n", ""))

    with pytest.raises(ConfigurationError, match=r"retention\.bytes"):
        load_topics(folder)


def test_another_partition_count_leaves_topics_of_one_partition_alone():
    wanted = {
        topic.role: topic.file.partitions for topic in wanted_topics(load_topics(), prefix="", app="a", partitions=12)
    }

    assert wanted["signals"] == wanted["candidates"] == wanted["join-sets-changelog"] == 12
    assert wanted["definitions"] == wanted["workers"] == 1


@pytest.mark.parametrize("role", ["candidates", "join-sets-changelog", "definitions", "workers"])
def test_a_fixed_partition_count_asks_for_a_new_prefix_and_says_how_to_drain(role):
    wanted = wanted_topics(load_topics(), prefix="", app="a")
    topic = next(each for each in wanted if each.role == role)

    with pytest.raises(ConfigurationError, match=topic.name) as caught:
        refuse_unsafe([Difference(topic.name, role, "partitions", "8", "4")], wanted)

    assert "new --prefix" in caught.value.hint
    assert "lag 0" in caught.value.hint


def test_public_partitions_may_grow_but_not_shrink():
    wanted = wanted_topics(load_topics(), prefix="", app="a")

    refuse_unsafe([Difference("signals", "signals", "partitions", "8", "4")], wanted)

    with pytest.raises(ConfigurationError, match="cannot take partitions away"):
        refuse_unsafe([Difference("signals", "signals", "partitions", "4", "8")], wanted)


def test_files_with_unequal_candidates_and_changelog_are_not_applied(tmp_path):
    folder = _copy_of_the_files(tmp_path)
    file = folder / "join-sets-changelog.yaml"
    file.write_text(file.read_text().replace("partitions: 4", "partitions: 6"))

    with pytest.raises(ConfigurationError, match=r"4 partitions.* 6"):
        apply_topics(None, wanted_topics(load_topics(folder), prefix="", app="a"))  # refused before it asks anybody
