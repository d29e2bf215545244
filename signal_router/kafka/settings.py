"""How a client reaches the cluster: address, names, and the operator's librdkafka settings, passed through.

Where a setting is given twice the nearer place wins: `-X key=value`, then `SIGNAL_ROUTER_KAFKA_<KEY>` in the
environment, then a file of `key=value` lines. What the guarantees need is set here and refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from signal_router.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Setting = Any
"""What librdkafka takes as a value: strings, numbers, booleans, and callbacks of many shapes."""

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
DEFAULT_APP = "signal-router"
ENVIRONMENT_PREFIX = "SIGNAL_ROUTER_KAFKA_"

_NOT_CLIENT_SETTINGS = frozenset({"SIGNAL_ROUTER_KAFKA_JARS", "SIGNAL_ROUTER_KAFKA_CONFIG"})
_NAME = re.compile(r"[A-Za-z0-9._-]*")
_SECRET = re.compile(r"password|secret|jaas|\.pem$|token")

_OFFSETS = "offsets are committed inside the transaction of what was read for them"
_TIMES = "the time-outs of transaction, delivery and session depend on each other; a wrong order loses exactly-once"
_GROUP = "the group and its members are named after app, prefix and slot (--app, --prefix, --slot)"
_IDEMPOTENCE = "every record is written in a transaction, which needs idempotent writes acknowledged by all replicas"
_ASSIGNOR = "only range gives a worker the same partition numbers of both stages"

RESERVED: Mapping[str, str] = {
    "bootstrap.servers": "it is given by --bootstrap or SIGNAL_ROUTER_BOOTSTRAP",
    "metadata.broker.list": "it is given by --bootstrap or SIGNAL_ROUTER_BOOTSTRAP",
    "enable.auto.commit": _OFFSETS,
    "auto.commit.interval.ms": _OFFSETS,
    "enable.auto.offset.store": _OFFSETS,
    "offset.store.method": _OFFSETS,
    "isolation.level": "records of aborted transactions must stay invisible",
    "auto.offset.reset": "a gap in the log must stop the worker, not be skipped",
    "enable.partition.eof": "a restore ends at the end of the partition, which only this tells",
    "group.id": _GROUP,
    "group.instance.id": _GROUP,
    "group.protocol": "callbacks and time-outs depend on it (--group-protocol)",
    "group.remote.assignor": _ASSIGNOR,
    "partition.assignment.strategy": _ASSIGNOR,
    "transactional.id": "the broker fences the slot's former life by it",
    "transaction.timeout.ms": _TIMES,
    "message.timeout.ms": _TIMES,
    "delivery.timeout.ms": _TIMES,
    "enable.idempotence": _IDEMPOTENCE,
    "enable.gapless.guarantee": _IDEMPOTENCE,
    "acks": _IDEMPOTENCE,
    "request.required.acks": _IDEMPOTENCE,
    "message.send.max.retries": _IDEMPOTENCE,
    "retries": _IDEMPOTENCE,
    "message.max.bytes": "each topic has its own limit, and outputs are checked against that",
    "partitioner": "keys must land on the partitions where Java clients expect them",
    "statistics.interval.ms": "the producer is replaced by what the statistics say about lost connections",
    "debug": "the producer is replaced by what the client logs about lost connections",
    "allow.auto.create.topics": "topics are made by `signal-router topics apply` only",
    "metadata.recovery.strategy": "a client that does not bootstrap anew may never find the brokers again",
    "test.mock.num.brokers": "a mock broker proves nothing about exactly-once",
}
"""librdkafka settings that the guarantees need, each with the reason."""

_ALLOWED_VALUES: Mapping[str, str] = {
    "metadata.recovery.strategy": "rebootstrap",
    "partition.assignment.strategy": "range",
    "group.protocol": "classic",
}
"""Reserved settings that may be spelt out with the value they have anyway."""

_CONSUMER_ONLY = frozenset({
    "session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type", "coordinator.query.interval.ms",
    "max.poll.interval.ms", "queued.min.messages", "queued.max.messages.kbytes", "fetch.wait.max.ms",
    "fetch.queue.backoff.ms", "fetch.message.max.bytes", "max.partition.fetch.bytes", "fetch.max.bytes",
    "fetch.min.bytes", "fetch.error.backoff.ms", "check.crcs",
})  # fmt: skip
_PRODUCER_ONLY = frozenset({
    "queue.buffering.max.messages", "queue.buffering.max.kbytes", "queue.buffering.max.ms", "linger.ms",
    "queue.buffering.backpressure.threshold", "compression.codec", "compression.type", "compression.level",
    "batch.num.messages", "batch.size", "delivery.report.only.error", "sticky.partitioning.linger.ms",
    "request.timeout.ms", "queuing.strategy",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the cluster is, which names are ours there, and the operator's own librdkafka settings (`overrides`).

    Raises:
        ConfigurationError: prefix or app cannot be part of a topic name, or an override is reserved.
    """

    bootstrap: str = DEFAULT_BOOTSTRAP
    prefix: str = ""
    app: str = DEFAULT_APP
    overrides: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold passwords

    def __post_init__(self) -> None:
        if not self.bootstrap.strip():
            raise ConfigurationError("bootstrap is empty", hint="--bootstrap host:port, or SIGNAL_ROUTER_BOOTSTRAP")
        for option, value in (("prefix", self.prefix), ("app", self.app)):
            if not _NAME.fullmatch(value) or (option == "app" and not value):
                raise ConfigurationError(
                    f'{option} "{value}" cannot be part of a topic name', hint="letters, digits, '.', '_' and '-' only"
                )
        refuse_reserved(self.overrides)

    def admin_config(self) -> dict[str, Setting]:
        """Settings for an admin client; its own log is silent, its errors are raised."""
        return self._merged(_CONSUMER_ONLY | _PRODUCER_ONLY, {}, {"log_level": 0})

    def consumer_config(
        self, ours: Mapping[str, Setting], *, defaults: Mapping[str, Setting] | None = None
    ) -> dict[str, Setting]:
        """Settings for a consumer: `ours` stand above the operator's, which stand above `defaults`."""
        return self._merged(_PRODUCER_ONLY, ours, defaults or {})

    def producer_config(
        self, ours: Mapping[str, Setting], *, defaults: Mapping[str, Setting] | None = None
    ) -> dict[str, Setting]:
        """Settings for a producer: `ours` stand above the operator's, which stand above `defaults`."""
        return self._merged(_CONSUMER_ONLY, ours, defaults or {})

    def described(self) -> dict[str, str]:
        """The operator's settings fit for a log: what may be a secret is masked."""
        return {key: "***" if _SECRET.search(key) else value for key, value in sorted(self.overrides.items())}

    def _merged(
        self, left_out: frozenset[str], ours: Mapping[str, Setting], defaults: Mapping[str, Setting]
    ) -> dict[str, Setting]:
        # librdkafka warns about a setting of the other kind of client at every start, so each gets its own only.
        operators = {key: value for key, value in self.overrides.items() if key not in left_out}
        return {**defaults, **operators, **ours, "bootstrap.servers": self.bootstrap}


def refuse_reserved(settings: Mapping[str, str]) -> None:
    """Raises ConfigurationError for the first setting that the guarantees need, with the reason."""
    for key, value in settings.items():
        if key in RESERVED and value != _ALLOWED_VALUES.get(key):
            raise ConfigurationError(f'setting "{key}={value}" is reserved: {RESERVED[key]}', hint=f"leave {key} out")


def load_overrides(
    options: Iterable[str], *, file: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Collects the operator's librdkafka settings from `key=value` options, environment and file, nearest wins.

    Raises:
        ConfigurationError: an entry is no `key=value`, the file cannot be read, or a setting is reserved.
    """
    overrides = {} if file is None else _from_file(file)
    for name, value in (environment or {}).items():
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _NOT_CLIENT_SETTINGS:
            overrides[name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", ".")] = value
    overrides |= dict(_pair(option, "-X") for option in options)
    refuse_reserved(overrides)
    return overrides


def _from_file(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'kafka config "{file}" cannot be read: {error}') from error
    return dict(
        _pair(line, f"{file}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )


def _pair(text: str, where: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f'{where}: "{text}" is not a setting', hint="key=value, as librdkafka names them")
    return key.strip(), value.strip()
