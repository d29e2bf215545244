"""Records into signals: the wire forms that a signals topic may carry, and the reason where a record is none of them.

Three forms are read:

- plain JSON, `{"name", "source", "id", "params", "payload", "time"}`. `name` is required. A null `source`, `id`,
  `params`, `payload` or `time` is the same as none. Other fields are ignored, so that producers may be ahead of us.
- CloudEvents 1.0 in the binary mode of its Kafka binding: attributes in `ce_…` headers, the data in the value.
- CloudEvents 1.0 in the structured mode: a `content-type` of `application/cloudevents+json`.

A null value is a tombstone in every form. What can be none of these is refused with a reason out of `REASONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated

import msgspec

from signal_router.errors import RecordError
from signal_router.model.cloudevents import decode_binary, decode_structured, is_binary, structured_format
from signal_router.model.json_values import normalised_float
from signal_router.model.signal_fields import (
    NO_PARAMS,
    checked_params,
    checked_payload,
    checked_text,
    checked_time,
    decode_object,
    text_of_member,
)
from signal_router.model.signals import REPLAY_OF, Signal
from signal_router.model.timestamps import valid_timestamp
from signal_router.model.values import Value

REASONS = {
    "not-json": "the value is not UTF-8 or not JSON",
    "number": "a number is NaN, infinite, has more than 64 digits or does not fit a double",
    "surrogate": "a string holds half of a surrogate pair",
    "nesting": "arrays and objects are nested deeper than 64 levels",
    "too-large": "the value is over the size limit of signals",
    "not-object": "the value is JSON, but no object",
    "name": "the name is missing, empty or no string",
    "source": "the source is empty or no string",
    "id": "the id is empty or no string",
    "time": "the time is no string or no RFC 3339 timestamp",
    "id-without-source": "there is an id, but no source that makes it unique",
    "params": "the params are no object, or one of them is no scalar",
    "cloudevent": "an attribute of CloudEvents is missing or wrong, or the format is not supported",
}
"""Every reason why a record is no signal, with what it means; part of the public contract of dead letters."""

DEFAULT_SIGNAL_BYTES = 256 * 1024
"""The largest record that a worker reads as a signal, unless its operator says otherwise."""

Headers = Iterable[tuple[str, bytes | None]]
"""The headers of a record in their order; of a name given twice the last counts."""

_TRACE_HEADERS = ("traceparent", "tracestate")

_NOTHING_KEPT: dict[str, str] = {}

_NO_PAYLOAD = msgspec.Raw()

# Integers beyond 64 bits take the careful path, where their digits are counted.
_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float


class _Plain(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The plain form as nearly every record has it; whatever does not fit is read again, carefully."""

    name: str
    source: str | None = None
    id: str | None = None
    params: dict[str, str | _Number | bool | None] | None = None
    payload: msgspec.Raw = _NO_PAYLOAD
    time: str | None = None


_decode_plain_fields = msgspec.json.Decoder(_Plain).decode


def decode_signal(value: bytes | None, headers: Headers | None, *, limit_bytes: int) -> Signal | None:
    """Reads one record of a signals topic; None for a tombstone.

    Raises RecordError with a reason out of `REASONS`, and nothing else, whatever the bytes.
    """
    if value is None:
        return None
    if len(value) > limit_bytes:
        raise RecordError(
            "too-large",
            f"record has {len(value)} bytes, signals have at most {limit_bytes}",
            hint="store what is large elsewhere and send a reference to it",
        )
    if not headers:
        return _decode_plain(value, _NOTHING_KEPT)
    by_name = {name.lower(): content for name, content in headers}
    kept = _kept_of(by_name)
    if (format_ := structured_format(by_name)) is not None:
        return decode_structured(value, kept, format_=format_)
    if is_binary(by_name):
        return decode_binary(value, by_name, kept)
    return _decode_plain(value, kept)


def _kept_of(headers: dict[str, bytes | None]) -> dict[str, str]:
    """The headers that stand in the context of every form: the trace, and what a replay repeats, where readable.

    A broken trace is no reason to refuse a signal.
    """
    kept = {}
    for name in _TRACE_HEADERS:
        content = headers.get(name)
        if content is not None and content.isascii():
            kept[name] = content.decode()
    repeated = headers.get(REPLAY_OF)
    if repeated is not None:
        with suppress(UnicodeDecodeError):
            kept[REPLAY_OF] = repeated.decode()
    return kept


def _decode_plain(value: bytes, kept: dict[str, str]) -> Signal:
    try:
        fields = _decode_plain_fields(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_plain_carefully(value, kept)
    name, source, id_, time = fields.name, fields.source, fields.id, fields.time
    if (
        not name
        or (not source and (source is not None or id_ is not None))
        or id_ == ""
        or (time is not None and not valid_timestamp(time))
    ):
        return _decode_plain_carefully(value, kept)
    params: Mapping[str, Value] = NO_PARAMS if fields.params is None else fields.params
    for item in params.values():
        if type(item) is float:
            params = _normalised(params)
            break
    payload = None
    if fields.payload is not _NO_PAYLOAD:
        payload = checked_payload(bytes(fields.payload), what=f'signal "{name}"')
    return Signal(name, source, id_, params, payload, time, _context_of(name, source, id_, time, kept))


def _normalised(params: Mapping[str, Value]) -> Mapping[str, Value]:
    return {name: normalised_float(item) if type(item) is float else item for name, item in params.items()}


def _decode_plain_carefully(value: bytes, kept: dict[str, str]) -> Signal:
    """Reads the plain form field by field, so that what is wrong can be named."""
    fields = decode_object(value, what="record")
    if fields.get("name") is None:
        raise RecordError("name", "record has no name", hint='a signal needs a "name": {"name": "team/thing.ready"}')
    name = checked_text(fields["name"], field="name", what="record")
    what = f'signal "{name}"'
    source, id_, time = (
        None if fields.get(field) is None else checked_text(fields[field], field=field, what=what)
        for field in ("source", "id", "time")
    )
    if id_ is not None and source is None:
        raise RecordError(
            "id-without-source",
            f'{what} has the id "{id_}" but no source',
            hint="an id is unique within its source only: send a source, or leave the id out",
        )
    if time is not None:
        checked_time(time, what=what)
    params = NO_PARAMS if fields.get("params") is None else checked_params(fields["params"], what=what)
    payload = None if fields.get("payload") is None else text_of_member(value, "payload")
    return Signal(name, source, id_, params, payload, time, _context_of(name, source, id_, time, kept))


def _context_of(
    name: str, source: str | None, id_: str | None, time: str | None, kept: dict[str, str]
) -> dict[str, str]:
    context = {"type": name}
    if source is not None:
        context["source"] = source
        if id_ is not None:
            context["id"] = id_
    if time is not None:
        context["time"] = time
    if kept:
        context.update(kept)
    return context
