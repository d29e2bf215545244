"""Waiting until the workers that are alive have a revision of the definitions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from signal_router.errors import SignalRouterError
from signal_router.kafka.follow import Follower, read_to_end
from signal_router.kafka.offsets import end_offsets
from signal_router.kafka.settings import Connection
from signal_router.kafka.topics import resolve
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.roster import Roster, WorkerRecord, lagging, now_ms
from signal_router.runtime.standing import require

_CAUGHT_UP_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.5
"""Also without news: a worker that stays silent stops counting as alive."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who has a revision. `waiting` names the workers alive that have not, with the revision they have."""

    have: tuple[str, ...]
    waiting: Mapping[str, int]


def read_roster(connection: Connection, admin: AdminClient) -> Roster:
    """Reads the workers topic to its end. Raises `ConfigurationError`, `BrokerError`, `StateError`."""
    topic = resolve(connection.prefix, connection.app).workers
    tps = [TopicPartition(topic, number) for number in range(require(admin, topic))]
    roster = Roster()
    for records in read_to_end(connection, dict.fromkeys(tps, 0), end_offsets(admin, tps)).values():
        roster.take(records)
    return roster


def arrival(workers: Sequence[WorkerRecord], revision: int) -> Arrival:
    """Says which of some workers have a revision."""
    waiting = lagging(workers, revision)
    return Arrival(tuple(worker.slot for worker in workers if worker.slot not in waiting), waiting)


def await_workers(
    connection: Connection,
    admin: AdminClient,
    revision: int,
    *,
    timeout_s: float,
    tell: Callable[[Arrival], None] = lambda _arrival: None,
) -> Arrival:
    """Waits until every worker alive has a revision, or the time is over; `tell` hears where it stands meanwhile.

    Raises `ConfigurationError`, `BrokerError`, `StateError`.
    """
    topic = resolve(connection.prefix, connection.app).workers
    roster, changed, errors = Roster(), threading.Condition(), []

    def take(records: Sequence[InputRecord]) -> None:
        with changed:
            roster.take(records)
            changed.notify()

    def failed(error: SignalRouterError) -> None:
        with changed:
            errors.append(error)
            changed.notify()

    follower = Follower(connection, topic, require(admin, topic), take, failed)
    follower.start()
    try:
        follower.wait(_CAUGHT_UP_WITHIN_S)
        until = now_ms() + int(timeout_s * 1000)
        with changed:
            while True:
                if errors:
                    raise errors[0]
                found = arrival(roster.alive(now_ms()), revision)
                left_s = (until - now_ms()) / 1000
                if not found.waiting or left_s <= 0:
                    return found
                tell(found)
                changed.wait(min(left_s, _LOOK_EVERY_S))
    finally:
        follower.stop()
