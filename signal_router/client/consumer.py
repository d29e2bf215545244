"""`TriggerConsumer`: calls a handler for each trigger, at least once, or exactly once where it only writes to Kafka."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from signal_router.client.connecting import connection_of, require_topics, writable
from signal_router.client.modes import AtLeastOnce, ExactlyOnce
from signal_router.client.producer import topic_of_signals
from signal_router.client.retries import Retries
from signal_router.client.running import Run, Wanted
from signal_router.client.signal_writer import SignalWriter
from signal_router.errors import ConfigurationError
from signal_router.kafka.admin_client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from signal_router.client.modes import Mode
    from signal_router.client.parking import Parking
    from signal_router.client.running import Start
    from signal_router.client.signal_writer import Form
    from signal_router.client.transaction import Transaction
    from signal_router.client.trigger import Trigger
    from signal_router.kafka.settings import Connection

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_SESSION_MS = 45_000
"""librdkafka's own default: after so long without a heartbeat the group takes a process for dead."""
_SHORTEST_SESSION_MS = 6_000
"""The brokers' own `group.min.session.timeout.ms`."""


class TriggerConsumer:
    """Reads triggers, committed ones only, as a member of a consumer group. More processes share the partitions.

    Triggers of one key are handled in their order. One that fails is tried again after a pause, while those behind it
    in its key wait; after the last attempt it is parked, and they go on. What cannot be read is parked at once.

    Args:
        connection: a `Connection` (TLS and SASL are in its overrides), a bootstrap string, or None for what
            `SIGNAL_ROUTER_BOOTSTRAP` and its neighbours say.
        group: the consumer group: it remembers what is done.
        park_to: where triggers go that could not be handled: a topic of yours, or something that is called with a
            `Parked`.
        subscriptions: the ids of the subscriptions whose triggers are meant; empty: all that stand on the topics.
        topics: where they stand; by default the prefix's topic of triggers.
        prefix: what topic names begin with, beside a bootstrap string.
        retries: how often, and after which pauses.
        start: where a new group begins: with the `earliest` trigger that is there, or behind the `latest`.
        handler_within_s: how long a call of the handler may take. One that takes longer loses its partitions, and
            another consumer handles its trigger again. Not less than the session time-out, which is 45 s, or this
            where it is less; brokers take 6 s at least.

    Raises:
        ConfigurationError: the connection says something else than it may, or `handler_within_s` is too little.
    """

    def __init__(
        self,
        connection: Connection | str | None = None,
        *,
        group: str,
        park_to: Parking,
        subscriptions: Iterable[str] = (),
        topics: Iterable[str] = (),
        prefix: str | None = None,
        retries: Retries | None = None,
        start: Start = "earliest",
        handler_within_s: float = 300.0,
    ) -> None:
        if start not in ("earliest", "latest"):
            raise ValueError(f'start is "{start}", not "earliest" or "latest"')
        self._cluster = connection_of(connection, prefix)
        named = _several(topics) or (_topic_of_triggers(self._cluster),)
        self._wanted = Wanted(named, frozenset(_several(subscriptions)), start, group)
        self._park_to = park_to
        self._retries = retries or Retries()
        self._within_ms = int(handler_within_s * 1000)
        self._session_ms = _session_ms(self._cluster, self._within_ms)
        self._stopping = threading.Event()

    def run(self, handler: Callable[[Trigger], object], *, stop_on: Iterable[int] = SIGNALS) -> None:
        """Calls the handler for each trigger until `stop`, or one of the signals `stop_on`; what is in hand is
        finished.

        At least once: the offset is committed after the handler has returned. A process that dies in between, or loses
        its partitions, leaves triggers that come again, under the same `idempotency_key`.

        Raises:
            ConfigurationError: a topic is missing or denied, or the client refuses a setting.
            BrokerError: no broker answers, records were deleted before they were read, or parking failed.
        """
        self._check()
        self._run(lambda: AtLeastOnce(handler, self._cluster, self._park_to), stop_on)

    def run_exactly_once(
        self,
        handler: Callable[[Trigger, Transaction], object],
        *,
        transactional_id: str,
        source: str | None = None,
        form: Form = "json",
        stop_on: Iterable[int] = SIGNALS,
    ) -> None:
        """Calls the handler with each trigger and a transaction, until `stop` or a signal.

        What the handler gives the transaction becomes visible in one Kafka transaction with the trigger's offset, or
        not at all: once per trigger, whatever dies when. What it does besides is done at least once. A trigger that has
        to be tried again holds up its partition.

        Args:
            handler: called with the trigger and its `Transaction`.
            transactional_id: one per process; the same one in its next life, so that what it left open ends at once.
            source: of the signals that the transaction publishes.
            form: how those are written.
            stop_on: signals that stop it, where it runs in the main thread.

        Raises:
            FencedError: another process runs with the same transactional id.
            ConfigurationError, BrokerError: as `run`.
        """
        self._check()
        cluster = self._cluster

        def mode() -> Mode:
            writer = SignalWriter(source=source, form=form)
            signals = topic_of_signals(cluster)
            return ExactlyOnce(handler, cluster, transactional_id, writer, signals, self._park_to)

        self._run(mode, stop_on)

    def stop(self) -> None:
        """Lets `run` return once the trigger in hand is finished. From any thread, or a handler."""
        self._stopping.set()

    def _run(self, mode: Callable[[], Mode], stop_on: Iterable[int]) -> None:
        with _stopped_by(stop_on, self._stopping):
            Run(self._settings(), self._wanted, mode(), self._retries).run(self._stopping)

    def _check(self) -> None:
        """Names what is missing before anything is read."""
        require_topics(connect(self._cluster), self._wanted.topics)
        if isinstance(self._park_to, str):
            if self._park_to in self._wanted.topics:
                raise ConfigurationError(
                    f'triggers of topic "{self._park_to}" would be parked on it, and read again for ever',
                    hint="park_to= another topic",
                )
            writable(self._cluster, self._park_to)

    def _settings(self) -> dict[str, Any]:
        ours = {
            "group.id": self._wanted.group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # triggers that are gone are not skipped
            "max.poll.interval.ms": self._within_ms,
            "allow.auto.create.topics": False,
            "log_level": 0,
        }
        return self._cluster.consumer_config(ours, defaults={"session.timeout.ms": self._session_ms})


def _session_ms(connection: Connection, within_ms: int) -> int:
    """The session time-out, which the client does not let be longer than a handler may take."""
    given = connection.overrides.get("session.timeout.ms", "")
    session_ms = int(given) if given.isdecimal() else max(min(_SESSION_MS, within_ms), _SHORTEST_SESSION_MS)
    if within_ms < session_ms:
        raise ConfigurationError(
            f"handler_within_s is {within_ms / 1000:g}, less than the session time-out of {session_ms / 1000:g} s",
            hint="a handler may take as long as the session, or longer; session.timeout.ms is a setting",
        )
    return session_ms


def _topic_of_triggers(connection: Connection) -> str:
    from signal_router.kafka.topics import resolve  # noqa: PLC0415  reads YAML; whoever names a topic needs none

    return resolve(connection.prefix, connection.app).triggers


def _several(given: Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@contextmanager
def _stopped_by(signals: Iterable[int], stopping: threading.Event) -> Iterator[None]:
    """Lets signals stop a run; only the main thread hears any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
