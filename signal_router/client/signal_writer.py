"""From what a program says to the record of a signal, refused here for the reasons that would make it a dead letter."""

from __future__ import annotations

import itertools
import json
import os
import re
from copy import copy
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from signal_router.errors import RecordError
from signal_router.model.records import DEFAULT_SIGNAL_BYTES, decode_signal
from signal_router.model.signal_fields import SCALARS
from signal_router.model.signals import CAUSED_BY
from signal_router.model.values import type_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from signal_router.client.trigger import Trigger

Form = Literal["json", "cloudevents"]
"""How a signal is written: plain JSON, or CloudEvents 1.0 in the binary mode of its Kafka binding."""

Headers = list[tuple[str, bytes]]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRIGGER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")
_OWN_ATTRIBUTES = frozenset({
    "specversion", "type", "source", "id", "time", "subject", "datacontenttype", "dataschema", "data",
})  # fmt: skip
_NO_HEADERS: Headers = []
_NO_PAYLOAD = msgspec.Raw()


class _Plain(msgspec.Struct, gc=False, omit_defaults=True):
    """The plain form, in the order in which people write it."""

    name: str
    source: str
    id: str
    params: Mapping[str, Any] | None = None
    payload: msgspec.Raw = _NO_PAYLOAD
    time: str | None = None


class _Data(msgspec.Struct, gc=False, omit_defaults=True):
    """The data of a CloudEvent, which is read like the plain form."""

    params: Mapping[str, Any]
    payload: msgspec.Raw = _NO_PAYLOAD


_encode = msgspec.json.Encoder().encode


class SignalRecord(msgspec.Struct, frozen=True, gc=False):
    """A signal as it goes out."""

    id: str
    value: bytes
    headers: Headers


class SignalWriter:
    """Writes signals of one producer. Safe to use from several threads.

    `source` is that of signals that are given none. Signals without an id get one that no other has: it is made once,
    here, so that whatever sends the record again repeats the signal.
    """

    def __init__(
        self,
        *,
        source: str | None = None,
        form: Form = "json",
        traceparent: str | None = None,
        limit_bytes: int = DEFAULT_SIGNAL_BYTES,
    ) -> None:
        if form not in ("json", "cloudevents"):
            raise ValueError(f'form is "{form}", not "json" or "cloudevents"')
        self._source = source
        self._cloudevents = form == "cloudevents"
        self._limit_bytes = limit_bytes
        self._headers = _NO_HEADERS if traceparent is None else [("traceparent", checked_traceparent(traceparent))]
        self._id_begins = f"{os.urandom(12).hex()}-"
        self._number = itertools.count(1).__next__
        self._cause: Trigger | None = None

    def because_of(self, trigger: Trigger) -> SignalWriter:
        """A writer for what follows from one trigger: that is the cause of its signals, and their ids follow from it,
        so that they are the same however often the trigger is handled.
        """
        writer = copy(self)
        writer._id_begins = f"{trigger.idempotency_key}/"
        writer._number = itertools.count(1).__next__
        writer._cause = trigger
        return writer

    def write(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        payload: object = None,
        source: str | None = None,
        id: str | None = None,  # noqa: A002  the word of the wire
        time: str | datetime | None = None,
        subject: str | None = None,
        context: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        caused_by: Trigger | str | None = None,
    ) -> SignalRecord:
        """Gives the record of one signal.

        Raises:
            RecordError: a worker would refuse it, with its reason; or `id-without-source`, `traceparent`, `caused-by`,
                `context` where what was given cannot be said on the wire.
        """
        source = source or self._source
        if not source:
            raise RecordError(
                "id-without-source",
                f'signal "{name}" has no source, within which its id would be unique',
                hint='say who announces it: SignalProducer(source="wf/titles"), or publish(…, source="wf/titles")',
            )
        if id is None:
            id = f"{self._id_begins}{self._number()}"  # noqa: A001
        if params:
            params = _checked(params, name)
        if time is not None and not isinstance(time, str):
            time = _written(time, name)
        raw = _NO_PAYLOAD if payload is None else _payload(payload, name)
        headers = self._headers
        if caused_by is None:
            caused_by = self._cause
        if traceparent is not None or caused_by is not None:
            headers = self._with(traceparent, caused_by)
        if self._cloudevents:
            headers = _binary_headers(name, source, id, time, subject, context or {}) + headers
            fields: msgspec.Struct = _Data(params or {}, raw)
        elif subject is not None or context:
            raise RecordError(
                "context",
                f'signal "{name}" has a subject or a context, which plain JSON cannot say',
                hint='SignalProducer(form="cloudevents") writes them as attributes',
            )
        else:
            fields = _Plain(name, source, id, params or None, raw, time)
        try:
            value = _encode(fields)
        except UnicodeEncodeError:
            raise _surrogate(name) from None
        except (TypeError, ValueError) as error:
            raise RecordError("not-json", f'signal "{name}" cannot be written: {error}') from None
        decode_signal(value, headers, limit_bytes=self._limit_bytes)
        return SignalRecord(id, value, headers)

    def _with(self, traceparent: str | None, caused_by: Trigger | str | None) -> Headers:
        """The headers of a signal with a trace of its own, or a cause.

        Whoever starts a program from a trigger gives it a trace context that goes on from the trigger's, so that of the
        environment stands before that of the trigger.
        """
        identifier = caused_by
        if caused_by is not None and not isinstance(caused_by, str):
            identifier = caused_by.trigger_id
            if traceparent is None and not self._headers:
                traceparent = known_traceparent(caused_by.traceparent)
        headers = self._headers if traceparent is None else [("traceparent", checked_traceparent(traceparent))]
        if identifier is None:
            return headers
        if not isinstance(identifier, str) or not _TRIGGER_ID.fullmatch(identifier):
            raise RecordError(
                "caused-by", f'"{identifier}" is no id of a trigger', hint="caused_by=trigger, or its trigger_id"
            )
        return [*headers, (CAUSED_BY, identifier.encode())]


def checked_traceparent(text: str) -> bytes:
    """Gives a trace context as a header has it; raises RecordError `traceparent` where W3C does not know it."""
    if not _TRACEPARENT.fullmatch(text):
        raise RecordError(
            "traceparent",
            f'"{text[:80]}" is no trace context',
            hint="as W3C has it: 00-<32 hexadecimal digits>-<16>-<2>, in lower case",
        )
    return text.encode()


def known_traceparent(text: str | None) -> str | None:
    """Gives the trace context of the environment, None where it is none: nobody's signal fails for that."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def _checked(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Gives params as the encoder takes them exactly; what it would bend (NaN, dates, keys that are numbers) is
    refused.
    """
    plain = type(params) is dict
    for key, value in params.items():
        kind = type(value)
        if type(key) is not str:
            raise RecordError("params", f'a name among the params of signal "{name}" is {key!r}, not a string')
        if kind is float:
            if value - value != 0:
                raise RecordError(
                    "number",
                    f'parameter "{key}" of signal "{name}" is {value}, which is no JSON number',
                    hint="send null, or leave the value out, where there is no number",
                )
        elif kind not in SCALARS:
            plain = False
    return params if plain else {key: _scalar(value, key, name) for key, value in params.items()}


def _scalar(value: object, key: str, name: str) -> object:
    """Gives the scalar behind an enum or a subclass of one, as numeric libraries have them."""
    if type(value) in SCALARS:
        return value
    if isinstance(value, Enum):
        return _scalar(value.value, key, name)
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    what = type_name(value) if isinstance(value, (list, dict)) else type(value).__name__
    raise RecordError(
        "params",
        f'parameter "{key}" of signal "{name}" is of type {what}, not a scalar',
        hint="params hold strings, numbers, booleans and nulls: write dates as strings, put structures in the payload",
    )


def _written(time: datetime, name: str) -> str:
    if time.tzinfo is None:
        raise RecordError(
            "time",
            f'time of signal "{name}" is in no time zone: {time}',
            hint="datetime.now(UTC), or a string as RFC 3339 has it",
        )
    return time.isoformat()


def _payload(payload: object, name: str) -> msgspec.Raw:
    what = f'payload of signal "{name}"'
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise _surrogate(name) from None
    except RecursionError:
        raise RecordError("nesting", f"{what} is nested too deep") from None
    except TypeError as error:
        raise RecordError(
            "not-json", f"{what} is no JSON: {error}", hint="dicts, lists, strings, numbers, booleans, None"
        ) from None
    except ValueError as error:
        raise RecordError("number", f"{what}: {error}", hint="send null where there is no number") from None
    return msgspec.Raw(text)


def _binary_headers(
    name: str, source: str, id_: str, time: str | None, subject: str | None, context: Mapping[str, str]
) -> Headers:
    attributes = {"specversion": "1.0", "type": name, "source": source, "id": id_}
    if time is not None:
        attributes["time"] = time
    if subject is not None:
        attributes["subject"] = subject
    for attribute, text in context.items():
        if not _ATTRIBUTE.fullmatch(attribute) or attribute in _OWN_ATTRIBUTES:
            raise RecordError(
                "context",
                f'"{attribute}" cannot be an extension attribute of signal "{name}"',
                hint="1 to 20 lower-case letters and digits, and none of CloudEvents' own names",
            )
        if not isinstance(text, str):
            raise RecordError("context", f'context "{attribute}" of signal "{name}" is {text!r}, not a string')
        attributes[attribute] = text
    try:
        headers: Headers = [(f"ce_{attribute}", text.encode()) for attribute, text in attributes.items()]
    except (UnicodeEncodeError, AttributeError):
        raise RecordError("cloudevent", f'an attribute of signal "{name}" is no string of whole characters') from None
    headers.append(("content-type", b"application/json"))
    return headers


def _surrogate(name: object) -> RecordError:
    return RecordError(
        "surrogate",
        f"signal {name!r} holds a string with half of a surrogate pair",
        hint="the string was cut in the middle of a character; cut at code points",
    )
