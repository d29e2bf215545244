"""Looking at where triggers may go: does the topic exist, may we write, how large a record does it take."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource

from signal_router.errors import BrokerError

REQUEST_S = 10.0
SIZE = "max.message.bytes"
LEAST_BYTES = 17_408
"""A topic that takes less is refused: what one destination cannot hold at once, none gets at once (see
`KafkaTransactionLog`), and below Java's default batch of 16 kB all would be slowed down.
"""


def verify_destinations(
    admin: AdminClient, topics: Iterable[str], forbidden: frozenset[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Returns usable topics with their `max.message.bytes`, and unusable ones with the reason. Raises `BrokerError`."""
    limits: dict[str, int] = {}
    refused = {
        topic: f'topic "{topic}" is one of signal-router\'s own or an input' for topic in topics if topic in forbidden
    }
    wanted = sorted(set(topics) - forbidden)
    if not wanted:
        return limits, refused
    usable = []
    answers = admin.describe_topics(
        TopicCollection(wanted), include_authorized_operations=True, request_timeout=REQUEST_S
    )
    for name, future in answers.items():
        try:
            operations = future.result(REQUEST_S + 1).authorized_operations
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                refused[name] = f'topic "{name}" does not exist'
            elif code in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION}:
                refused[name] = f'topic "{name}": {error.args[0].str()}'
            else:
                raise BrokerError(f'topic "{name}" cannot be described: {error.args[0].str()}') from error
            continue
        if operations and AclOperation.WRITE not in operations and AclOperation.ALL not in operations:
            refused[name] = f'topic "{name}" denies WRITE'
        else:
            usable.append(name)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in usable]
    for resource, future in (admin.describe_configs(resources, request_timeout=REQUEST_S) if resources else {}).items():
        try:
            limit = int(future.result(REQUEST_S + 1)[SIZE].value)
        except KafkaException:
            limit = 1_048_588  # the broker's default, where we may not look
        if limit < LEAST_BYTES:
            refused[resource.name] = f'topic "{resource.name}" has {SIZE} {limit}, at least {LEAST_BYTES} are needed'
        else:
            limits[resource.name] = limit
    return limits, refused
