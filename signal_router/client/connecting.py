"""How a program of ours reaches the cluster, and what it is told at once where it cannot do what it is there for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from signal_router.errors import BrokerError, ConfigurationError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.destinations import verify_destinations
from signal_router.kafka.settings import DEFAULT_APP, DEFAULT_BOOTSTRAP, Connection, load_overrides

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka.admin import AdminClient

HEADROOM_BYTES = 1_024
"""What a batch of one record has around the key, the value and the headers, generously."""


def connection_from_environment() -> Connection:
    """Reads `SIGNAL_ROUTER_BOOTSTRAP`, `_PREFIX`, `_APP`, `_KAFKA_CONFIG` and `_KAFKA_<KEY>`, as the command line
    does.
    """
    file = os.environ.get("SIGNAL_ROUTER_KAFKA_CONFIG")
    return Connection(
        bootstrap=os.environ.get("SIGNAL_ROUTER_BOOTSTRAP", DEFAULT_BOOTSTRAP),
        prefix=os.environ.get("SIGNAL_ROUTER_PREFIX", ""),
        app=os.environ.get("SIGNAL_ROUTER_APP", DEFAULT_APP),
        overrides=load_overrides((), file=Path(file) if file else None, environment=os.environ),
    )


def connection_of(connection: Connection | str | None, prefix: str | None) -> Connection:
    """Gives the connection that a program means: one of its own, a bootstrap string, or the environment's."""
    if isinstance(connection, Connection):
        if prefix is not None:
            raise ConfigurationError("a prefix stands beside a connection, which has its own", hint="leave prefix out")
        return connection
    if connection is None and prefix is None:
        return connection_from_environment()
    return Connection(connection or DEFAULT_BOOTSTRAP, prefix or "")


def writable(connection: Connection, topic: str) -> int:
    """Returns the largest batch of a topic that may be written.

    Raises:
        BrokerError: no broker answers.
        ConfigurationError: the topic is missing, denied, or takes too little.
    """
    limits, refused = verify_destinations(connect(connection), [topic], frozenset())
    if topic in refused:
        raise ConfigurationError(refused[topic], hint=_hint(refused[topic], topic, "WRITE"))
    return limits[topic]


def batch_bytes(connection: Connection, topics: Iterable[str], at_most: int) -> int:
    """The largest batch that all these topics take; one that is refused is no limit, and fails when written to.

    Raises:
        BrokerError: no broker answers.
    """
    limits, _ = verify_destinations(connect(connection), topics, frozenset())
    return min([at_most, *(limit - HEADROOM_BYTES for limit in limits.values())])


def require_topics(admin: AdminClient, topics: Iterable[str]) -> None:
    """Raises ConfigurationError for the first topic that is not there, or may not be read by these credentials."""
    from confluent_kafka import KafkaException, TopicCollection  # noqa: PLC0415  beside its only use

    for topic, future in admin.describe_topics(TopicCollection(list(topics)), request_timeout=10).items():
        try:
            future.result(11)
        except KafkaException as error:
            text = error.args[0].str()
            raise ConfigurationError(f'topic "{topic}": {text}', hint=_hint(text, topic, "READ")) from error
        except TimeoutError as error:
            raise BrokerError(f'topic "{topic}" was not described in 10 s') from error


def _hint(reason: str, topic: str, operation: str) -> str:
    if "denies" in reason or "uthoriz" in reason:
        return f'grant {operation} on topic "{topic}"'
    return "signal-router topics apply, or check topic= and prefix="
