"""What an operator decides about a worker, checked before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from signal_router.core.join import Limits
from signal_router.errors import ConfigurationError
from signal_router.kafka.settings import Connection
from signal_router.model.records import DEFAULT_SIGNAL_BYTES

CLASSIC, CONSUMER = "classic", "consumer"
"""Group protocols: the one in which clients agree, and that of KIP-848, in which the broker decides."""
RESERVED_SLOT = "apply"
"""`<app>-apply` is the transactional id of those who apply definitions."""

_SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Times:
    """Time-outs in milliseconds. Required order: revoke < transaction < session, message < transaction.

    A worker that is told to give partitions back finishes within `revoke_ms`; an abandoned transaction ends within
    `transaction_ms`; a worker that is silent for `session_ms` loses its partitions. New topics and partitions of
    signals are found, and destinations looked at again, every `refresh_ms`.
    """

    revoke_ms: int = 5_000
    transaction_ms: int = 10_000
    session_ms: int = 12_000
    heartbeat_ms: int = 1_000
    refresh_ms: int = 30_000

    def __post_init__(self) -> None:
        if not self.revoke_ms < self.transaction_ms < self.session_ms:
            raise ConfigurationError(
                f"time-outs must grow: revoke {self.revoke_ms} ms < transaction {self.transaction_ms} ms"
                f" < session {self.session_ms} ms",
                hint="leave them as they are, or raise all three",
            )


@dataclass(frozen=True, slots=True)
class Pace:
    """When a transaction is closed, and how large it may become.

    Caught up: `idle_ms` after its first record, but first the candidates that the transaction before wrote for this
    worker's own partitions are waited for, `echo_ms` at most: they come back within a few milliseconds, and if they
    just missed this transaction they would wait for all of it. With more than `busy_records` waiting: at `max_records`
    or `busy_ms`. `max_outputs` bounds the records one transaction writes, since one signal may fan out to thousands.
    """

    idle_ms: int = 5
    echo_ms: int = 20
    busy_ms: int = 250
    busy_records: int = 500
    max_records: int = 5_000
    max_outputs: int = 20_000


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """A worker: who it is, what it reads, where it keeps its tables.

    `signals`: topics, or patterns that begin with `^`. `signal_bytes`: the largest record that is read as a signal.
    `all_lineage` writes every decision input and outcome. `local_candidates` joins candidates of own partitions in the
    transaction that matched them (`runtime.local`); without it all go through their topic. `static_membership`: after
    a kill the same slot goes on at once, and after a clean stop its partitions wait for it until the session time-out;
    without it the other way round; None: where the protocol has it. `group_protocol`: `classic`, or `consumer`
    (KIP-848), which leaves partitions that stay alone when others move; its session time-out is the broker's.
    `web_port` None = no web server.
    """

    connection: Connection
    slot: str
    state_dir: Path
    signals: tuple[str, ...] = ()
    web_port: int | None = None
    web_host: str = "127.0.0.1"
    signal_bytes: int = DEFAULT_SIGNAL_BYTES
    all_lineage: bool = False
    local_candidates: bool = True
    static_membership: bool | None = None
    group_protocol: str = CLASSIC
    limits: Limits = field(default_factory=Limits)
    times: Times = field(default_factory=Times)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        if not _SLOT.fullmatch(self.slot) or self.slot == RESERVED_SLOT:
            raise ConfigurationError(
                f'slot "{self.slot}" cannot be used', hint="letters, digits, '.', '_' and '-', for instance worker-0"
            )
        self._refuse_group_settings()
        session_ms = self._session_ms
        if not session_ms.isdigit() or int(session_ms) <= self.times.transaction_ms:
            raise ConfigurationError(
                f'session.timeout.ms "{session_ms}" is not above the transaction time-out of'
                f" {self.times.transaction_ms} ms",
                hint="a worker that lost its session must have lost its transaction before; leave it out or raise it",
            )
        for pattern in self.signals:
            if pattern.startswith("^"):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ConfigurationError(
                        f'signals pattern "{pattern}" is no regular expression: {error}'
                    ) from error

    def _refuse_group_settings(self) -> None:
        if self.group_protocol not in {CLASSIC, CONSUMER}:
            raise ConfigurationError(
                f'group protocol "{self.group_protocol}" is not known', hint=f"{CLASSIC} or {CONSUMER}"
            )
        if self.group_protocol == CLASSIC:
            return
        if self.static_membership:
            raise ConfigurationError(
                f'membership "static" does not go with group protocol "{CONSUMER}": a slot that was killed would wait'
                " for the broker's session time-out all the same, as a member that was not released",
                hint="--membership dynamic, or --group-protocol classic",
            )
        for setting in ("session.timeout.ms", "heartbeat.interval.ms"):
            if setting in self.connection.overrides:
                raise ConfigurationError(
                    f'{setting} "{self.connection.overrides[setting]}" is the broker\'s to decide under group protocol'
                    f' "{CONSUMER}"',
                    hint=f"set group.consumer.{setting} on the brokers, or consumer.{setting} of the group",
                )

    @property
    def _session_ms(self) -> str:
        return self.connection.overrides.get("session.timeout.ms", str(self.times.session_ms))

    @property
    def idle_after_stop_s(self) -> float:
        """How long the partitions of a worker that was stopped in good order stay idle at most, if it does not come
        back.
        """
        return int(self._session_ms) / 1000 if self.static else 0.0

    @property
    def static(self) -> bool:
        """Whether the slot is a static member of its group."""
        return self.group_protocol == CLASSIC and self.static_membership is not False

    @property
    def patterns(self) -> bool:
        """Whether a topic that comes into being may be an input."""
        return any(name.startswith("^") for name in self.signals)

    @property
    def group(self) -> str:
        """The consumer group of the app's workers."""
        return f"{self.connection.prefix}{self.connection.app}"

    @property
    def transactional_id(self) -> str:
        """Stable over the lives of a slot, so that a new life fences the one before it."""
        return self.transactional_id_of(self.slot)

    def transactional_id_of(self, slot: str) -> str:
        """That of any slot of the app."""
        return f"{self.connection.prefix}{self.connection.app}-{slot}"
