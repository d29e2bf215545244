"""The operator's librdkafka settings pass through, except those the guarantees need."""

from __future__ import annotations

import pytest

from signal_router.errors import ConfigurationError
from signal_router.kafka.settings import RESERVED, Connection, load_overrides


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_reserved_settings_are_refused_by_name_with_the_reason(key):
    with pytest.raises(ConfigurationError) as caught:
        load_overrides([f"{key}=x"])

    assert f'"{key}=x"' in caught.value.message
    assert RESERVED[key] in caught.value.message


def test_range_may_be_spelt_out():
    assert load_overrides(["partition.assignment.strategy=range"])


def test_the_option_wins_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("# ours\n\nlinger.ms=1\nfetch.min.bytes = 2\nclient.id=file\n")

    found = load_overrides(
        ["client.id=option"],
        file=file,
        environment={"SIGNAL_ROUTER_KAFKA_FETCH_MIN_BYTES": "3", "SIGNAL_ROUTER_KAFKA_CLIENT_ID": "environment"},
    )

    assert found == {"linger.ms": "1", "fetch.min.bytes": "3", "client.id": "option"}


def test_variables_that_are_no_client_settings_are_left_alone():
    names = ("SIGNAL_ROUTER_KAFKA_JARS", "SIGNAL_ROUTER_KAFKA_CONFIG", "SIGNAL_ROUTER_BOOTSTRAP")

    assert load_overrides([], environment=dict.fromkeys(names, "x")) == {}


def test_reserved_settings_are_refused_from_file_and_environment_too(tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("acks=1\n")

    with pytest.raises(ConfigurationError, match="acks=1"):
        load_overrides([], file=file)
    with pytest.raises(ConfigurationError, match="acks=1"):
        load_overrides([], environment={"SIGNAL_ROUTER_KAFKA_ACKS": "1"})


@pytest.mark.parametrize("text", ["linger.ms", "=5", " = "])
def test_what_is_no_setting_is_refused(text):
    with pytest.raises(ConfigurationError, match="is not a setting"):
        load_overrides([text])


def test_a_line_that_is_no_setting_is_named_by_file_and_number(tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("linger.ms=1\nnonsense\n")

    with pytest.raises(ConfigurationError, match=r"kafka\.properties:2"):
        load_overrides([], file=file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_overrides([], file=tmp_path / "nowhere")


def test_ours_stand_above_the_operator_s_and_those_above_defaults():
    connection = Connection(bootstrap="b:1", overrides={"linger.ms": "7", "client.id": "theirs"})

    config = connection.producer_config({"client.id": "ours"}, defaults={"linger.ms": 5, "batch.size": 9})

    assert config == {
        "bootstrap.servers": "b:1",
        "client.id": "ours",
        "linger.ms": "7",
        "batch.size": 9,
    }


def test_each_kind_of_client_gets_only_its_own_settings():
    overrides = {"fetch.min.bytes": "1", "linger.ms": "2", "security.protocol": "SSL"}
    connection = Connection(overrides=overrides)

    always = {"bootstrap.servers", "security.protocol"}
    assert set(connection.consumer_config({})) == always | {"fetch.min.bytes"}
    assert set(connection.producer_config({})) == always | {"linger.ms"}
    assert set(connection.admin_config()) == always | {"log_level"}


def test_secrets_stand_neither_in_repr_nor_in_the_description():
    connection = Connection(overrides={"sasl.password": "s3cret", "sasl.username": "anna"})

    assert "s3cret" not in repr(connection)
    assert connection.described() == {"sasl.password": "***", "sasl.username": "anna"}


@pytest.mark.parametrize("wrong", [{"prefix": "a b"}, {"app": ""}, {"app": "x/y"}, {"bootstrap": " "}])
def test_names_that_cannot_be_part_of_a_topic_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Connection(**wrong)
