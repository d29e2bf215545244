"""What became of a signal that was handed over: where it stands, or why it does not."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol, cast

from confluent_kafka import KafkaError

from signal_router.errors import BrokerError
from signal_router.kafka.publish import Sent

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

_REASONS = {
    "topic-missing": {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION},
    "denied": {
        KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    },
    "too-large": {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE},
    "timed-out": {
        KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT, KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
    },
    "given-up": {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT},
}  # fmt: skip

HINTS = {
    "topic-missing": "signal-router topics apply, or check topic= and prefix=",
    "denied": "grant this client WRITE on the topic, and on its transactional id if it has one",
    "too-large": "this signal or a neighbour in its batch: raise max.message.bytes of the topic, or send a reference",
    "timed-out": "it may have arrived or not: publish it again with the same id, a repeat does no harm",
    "given-up": "it may have been sent already: publish it again with the same id, a repeat does no harm",
    "queue-full": "the brokers take less than this program gives: publish slower, or raise queue_timeout_s",
    "refused": "publish it again with the same id once the cause is gone",
    "fenced": "give each process a transactional id of its own",
}
"""Every reason why a signal was not delivered, with what to do."""

KEPT = 100_000
"""How many failures are kept until somebody asks: about a kilobyte each. A program that never asks must not grow."""

_TOLD = 3


class DeliveryError(BrokerError):
    """Signals that the broker did not acknowledge. `reason` is a key of `HINTS`, `ids` are those of the signals."""

    def __init__(self, message: str, *, reason: str, ids: tuple[str, ...]) -> None:
        super().__init__(message, hint=HINTS[reason])
        self.reason = reason
        self.ids = ids


class Waiting(Protocol):
    """Who serves the reports of deliveries."""

    delivery_timeout_s: float

    def poll(self, timeout_s: float) -> None:
        """Serves reports for so long at most."""

    def ended(self, delivery: Delivery) -> None:
        """Takes note that the client is done with a delivery."""

    def failed(self, error: DeliveryError) -> None:
        """Keeps the failure of a delivery until somebody was told."""

    def told(self, error: DeliveryError) -> None:
        """Forgets a failure of which somebody was told."""


class Failures:
    """Failures of which nobody was told yet: the latest `at_most`, and how many there were before them."""

    def __init__(self, at_most: int = KEPT) -> None:
        self._at_most = at_most
        self._errors: dict[DeliveryError, None] = {}  # in their order; each is itself only
        self._left_out = 0
        self._changing = threading.RLock()  # whoever serves reports adds; a handler of a signal may flush meanwhile

    def add(self, error: DeliveryError) -> None:
        """Keeps one; the oldest makes room where there is none."""
        with self._changing:
            if len(self._errors) >= self._at_most:
                del self._errors[next(iter(self._errors))]
                self._left_out += 1
            self._errors[error] = None

    def remove(self, error: DeliveryError) -> None:
        """Forgets one, if it is there."""
        with self._changing:
            self._errors.pop(error, None)

    def joined(self) -> DeliveryError | None:
        """One error for all, if there is any."""
        with self._changing:
            return joined([*self._errors], left_out=self._left_out) if self._errors or self._left_out else None

    def take(self) -> DeliveryError | None:
        """One error for all, which are forgotten by it."""
        with self._changing:
            error = self.joined()
            self._errors, self._left_out = {}, 0
        return error


class Delivery:
    """One signal on its way. `id` is the signal's: publishing it again with the same id is a repeat."""

    __slots__ = ("_error", "_on_done", "_sent", "_waiting", "id")

    def __init__(self, id_: str, waiting: Waiting, on_done: Callable[[Delivery], None] | None = None) -> None:
        self.id = id_
        self._waiting = waiting
        self._on_done = on_done
        self._sent: Sent | None = None
        self._error: DeliveryError | None = None

    @property
    def done(self) -> bool:
        """Whether its fate is known to this program; `result` waits for it."""
        return self._sent is not None or self._error is not None

    @property
    def error(self) -> DeliveryError | None:
        """Why it failed, if it did."""
        return self._error

    def result(self, timeout_s: float | None = None) -> Sent:
        """Waits until the broker has the signal, and says where it stands.

        Raises:
            DeliveryError: it was not delivered, or is not yet after `timeout_s` (by default the delivery time-out).
        """
        limit = self._waiting.delivery_timeout_s + 5 if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        while not self.done:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeliveryError(
                    f'signal "{self.id}" was not acknowledged in {limit:g} s', reason="timed-out", ids=(self.id,)
                )
            self._waiting.poll(min(left, 0.05))  # short: another thread may be the one that takes the report
        if self._sent is not None:
            return self._sent
        error = cast("DeliveryError", self._error)
        self._waiting.told(error)
        raise error

    def report(self, error: KafkaError | None, message: Message) -> None:
        """Takes the client's report."""
        if error is None:
            partition, offset = message.partition(), message.offset()
            self._sent = Sent(-1 if partition is None else partition, -1 if offset is None else offset)
        else:
            failure = not_delivered(message.topic() or "", error, self.id)
            self._waiting.failed(failure)  # before another thread can see it, and say that it was told
            self._error = failure
        self._waiting.ended(self)
        if self._on_done is not None:
            self._on_done(self)


def joined(errors: list[DeliveryError], *, left_out: int = 0) -> DeliveryError:
    """One error for all: the first few in words, the ids of all but those that were `left_out`."""
    if len(errors) == 1 and not left_out:
        return errors[0]
    told = [f"  {error.message}" for error in errors[:_TOLD]]
    if len(errors) > _TOLD:
        told.append(f"  … and {len(errors) - _TOLD} more")
    if left_out:
        told.append(f"  … and {left_out} before them, whose ids are not kept")
    ids = tuple(id_ for error in errors for id_ in error.ids)
    reason = errors[0].reason if errors else "refused"
    text = f"{len(errors) + left_out} signals were not delivered:\n" + "\n".join(told)
    return DeliveryError(text, reason=reason, ids=ids)


def not_delivered(topic: str, error: KafkaError, id_: str) -> DeliveryError:
    """Says in our words why a signal was not delivered."""
    return DeliveryError(
        f'signal "{id_}" was not delivered to topic "{topic}": {error.str()}', reason=reason_of(error), ids=(id_,)
    )


def reason_of(error: KafkaError) -> str:
    """Sorts a client's error into one of the reasons."""
    return next((reason for reason, codes in _REASONS.items() if error.code() in codes), "refused")
