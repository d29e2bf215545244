"""How long a handler may take, and the session that depends on it."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer

from signal_router.client import ConfigurationError, Connection, TriggerConsumer


def consumer(within_s: float, **overrides: str) -> TriggerConsumer:
    settings = {name.replace("_", "."): value for name, value in overrides.items()}
    connection = Connection("127.0.0.1:1", overrides=settings)
    return TriggerConsumer(connection, group="g", park_to=print, topics="triggers", handler_within_s=within_s)


@pytest.mark.parametrize(
    ("within_s", "overrides", "session_ms"),
    [
        (300, {}, 45_000),
        (45, {}, 45_000),
        (20, {}, 20_000),
        (6, {}, 6_000),
        (20, {"session_timeout_ms": "10000"}, "10000"),
        (2, {"session_timeout_ms": "2000", "heartbeat_interval_ms": "500"}, "2000"),
    ],
)
def test_the_client_takes_the_session_that_follows_from_the_handlers_time(within_s, overrides, session_ms):
    settings = consumer(within_s, **overrides)._settings()

    Consumer(settings).close()
    assert settings["session.timeout.ms"] == session_ms


@pytest.mark.parametrize(
    ("within_s", "overrides"), [(5.9, {}), (0, {}), (-1, {}), (20, {"session_timeout_ms": "30000"})]
)
def test_a_time_that_is_shorter_than_the_session_is_refused_by_name(within_s, overrides):
    with pytest.raises(ConfigurationError, match="handler_within_s is"):
        consumer(within_s, **overrides)
