"""An admin client that has reached the cluster, or a clear error within seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource

from signal_router.errors import BrokerError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signal_router.kafka.settings import Connection

REACHED_WITHIN_S = 5.0
REQUEST_S = 5.0

_HOPELESS = {KafkaError._AUTHENTICATION, KafkaError._SSL}  # no retry mends them


def connect(connection: Connection, *, timeout_s: float = REACHED_WITHIN_S) -> AdminClient:
    """Returns an admin client once the cluster has answered it.

    Raises:
        BrokerError: the cluster does not answer within `timeout_s`, or refuses these credentials; the cause is named.
        ConfigurationError: librdkafka does not know a setting.
    """
    causes: list[KafkaError] = []
    admin = _client(connection, causes)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            admin.list_topics(timeout=0.5)
        except KafkaException as error:
            admin.poll(0)  # delivers why connections failed
            if time.monotonic() < deadline and not any(cause.code() in _HOPELESS for cause in causes):
                continue
            raise _unreachable(connection, causes, error) from error
        return admin


def _client(connection: Connection, causes: list[KafkaError]) -> AdminClient:
    try:
        return AdminClient(connection.admin_config() | {"error_cb": causes.append})
    except KafkaException as error:
        raise ConfigurationError(
            f"kafka client settings are refused: {error.args[0].str()}",
            hint="check -X, --kafka-config and the environment",
        ) from error


def _unreachable(connection: Connection, causes: list[KafkaError], error: KafkaException) -> BrokerError:
    hopeless = [cause for cause in causes if cause.code() in _HOPELESS]
    telling = hopeless or [cause for cause in causes if cause.code() != KafkaError._ALL_BROKERS_DOWN]
    reason = (telling[-1] if telling else error.args[0]).str()
    if hopeless:
        hint = "check the security settings: -X security.protocol=…, sasl.mechanism, sasl.username, ssl.ca.location"
    else:
        hint = "check --bootstrap, or start a broker: signal-router broker"
    return BrokerError(f'no broker answers at "{connection.bootstrap}": {reason}', hint=hint)


def session_hint(admin: AdminClient) -> str:
    """Which session time-outs the brokers allow, as a hint; by name where they do not say."""
    names = "group.min.session.timeout.ms", "group.max.session.timeout.ms"
    found = _broker_settings(admin)
    if not found.keys() >= set(names):
        return f"-X session.timeout.ms=… between {names[0]} and {names[1]} of the brokers"
    low, high = (found[name].value for name in names)
    return f"-X session.timeout.ms=… between {low} and {high}, as the brokers have it ({names[0]}, {names[1]})"


def before_4_3(admin: AdminClient) -> bool:
    """Whether a broker tells its settings of KIP-848 groups, and those that came with Kafka 4.3 are not among them.

    The versions of requests, which clients learn and do not pass on, would not tell: what 4.3 changed for these groups
    (KIP-1251) changed no request. False where the broker does not tell its settings.
    """
    names = _broker_settings(admin).keys()
    return "group.consumer.session.timeout.ms" in names and "group.consumer.assignment.interval.ms" not in names


def _broker_settings(admin: AdminClient) -> Mapping[str, ConfigEntry]:
    """The settings of one of the brokers; none where it does not tell them."""
    try:
        broker = ConfigResource(ConfigResource.Type.BROKER, str(min(admin.list_topics(timeout=REQUEST_S).brokers)))
        found: Mapping[str, ConfigEntry] = admin.describe_configs([broker], request_timeout=REQUEST_S)[broker].result(
            REQUEST_S + 1
        )
    except (KafkaException, TimeoutError, ValueError):
        return {}
    return found
