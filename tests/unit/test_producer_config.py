import pytest

from signal_router.errors import ConfigurationError
from signal_router.kafka.transaction import KafkaTransactionLog, producer_config


def test_operators_settings_stand_above_defaults_and_below_what_must_be():
    config = producer_config(
        {"bootstrap.servers": "kafka:9092", "linger.ms": 1, "debug": "all", "transactional.id": "theirs"},
        "signal-router-slot-1",
    )

    assert config["bootstrap.servers"] == "kafka:9092"
    assert config["linger.ms"] == 1
    assert config["compression.type"] == "lz4"
    assert config["transactional.id"] == "signal-router-slot-1"
    assert config["debug"] == "broker"
    assert config["partitioner"] == "murmur2_random"


@pytest.mark.parametrize("timeout_ms", [1_000, 10_000, 60_000])
def test_a_record_is_given_up_before_its_transaction(timeout_ms):
    config = producer_config({}, "slot", transaction_timeout_ms=timeout_ms)

    assert config["message.timeout.ms"] < config["transaction.timeout.ms"] == timeout_ms


def test_a_setting_the_client_does_not_know_is_the_operators_error():
    log = KafkaTransactionLog({"bootstrap.servers": "127.0.0.1:1", "no.such.setting": 1}, "slot")

    with pytest.raises(ConfigurationError, match=r"no\.such\.setting"):
        log.init()
