"""A trigger as its consumers see it: the record's JSON in types, with the trace context of its headers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from signal_router.errors import RecordError
from signal_router.model.json_values import NumberOutOfRangeError, read_float
from signal_router.model.signals import Position
from signal_router.model.values import Value


class SubscriptionRef(msgspec.Struct, frozen=True):
    """The subscription that fired: `version` is the digest of its document, `revision` the document's offset."""

    id: str
    version: str
    revision: int


class Order(msgspec.Struct, frozen=True, order=True):
    """The place in the order of joining; it grows along the triggers of one key."""

    partition: int
    sequence: int


class TriggerSignal(msgspec.Struct, frozen=True):
    """One signal of the set. `payload` is there where the subscription asks for it."""

    alias: str
    name: str
    source: str | None
    id: str | None
    params: Mapping[str, Value]
    time: str | None
    recorded_at: datetime
    position: Position
    sequence: int
    payload: Any = None


class Trigger(msgspec.Struct, frozen=True):
    """One complete set of signals, and the parameters of the run that it starts.

    `idempotency_key` is the same for the same trigger, for ever: give it to whatever starts the run. `position` and
    `traceparent` are those of the record.
    """

    trigger_id: str
    kind: str
    attempt: int
    idempotency_key: str
    subscription: SubscriptionRef
    join_key: Mapping[str, Value]
    params: Mapping[str, Any]
    opened_at: datetime
    fired_at: datetime
    order: Order
    missing: tuple[str, ...] = ()
    signals: tuple[TriggerSignal, ...] = ()
    traceparent: str | None = None
    position: Position | None = None

    def signal(self, alias: str) -> TriggerSignal:
        """The signal that was bound to an alias; raises KeyError."""
        for each in self.signals:
            if each.alias == alias:
                return each
        raise KeyError(alias)


_decode = msgspec.json.Decoder(Trigger, float_hook=read_float).decode


def decode_trigger(
    value: bytes | None,
    headers: list[tuple[str, bytes | None]] | None = None,
    position: Position | None = None,
) -> Trigger:
    """Reads one record of a topic of triggers; fields that are not known yet are passed over.

    Raises:
        RecordError: it is none; the reason is `unreadable`.
    """
    if value is None:
        raise _unreadable("the value is null")
    try:
        trigger = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NumberOutOfRangeError) as error:
        raise _unreadable(str(error)) from None
    found = [content for name, content in headers or () if name == "traceparent" and content is not None]
    traceparent = found[-1].decode(errors="replace") if found else None
    return msgspec.structs.replace(trigger, traceparent=traceparent, position=position)


def _unreadable(why: str) -> RecordError:
    return RecordError("unreadable", f"the record is no trigger: {why}", hint="only signal-router writes to this topic")
