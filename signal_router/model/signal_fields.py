"""The fields that every wire form of a signal shares, and what is refused in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from signal_router.errors import RecordError
from signal_router.model.json_values import MAX_NESTING, decode_json
from signal_router.model.timestamps import valid_timestamp
from signal_router.model.values import Value, type_name

NO_PARAMS: Mapping[str, Value] = {}
"""The params of every signal without any; shared, and never written to."""

SCALARS = frozenset({str, int, float, bool, type(None)})

_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_object(data: bytes, *, what: str) -> dict[str, object]:
    """Reads a JSON object; raises RecordError `not-object`, or as `decode_json` does."""
    value = decode_json(data, what=what)
    if isinstance(value, dict):
        return value
    raise RecordError(
        "not-object", f"{what} is a JSON {type_name(value)}, not an object", hint='send {"name": …, "params": {…}}'
    )


def text_of_member(data: bytes, name: str) -> bytes | None:
    """Gives the JSON text of one member as it came, of a key given twice the last; `data` is known to be an object."""
    raw = _split(data).get(name)
    return None if raw is None else bytes(raw)


def checked_text(value: object, *, field: str, what: str) -> str:
    """Gives a field that has to be a string with something in it; raises RecordError with the field as the reason."""
    if not isinstance(value, str):
        raise RecordError(
            field, f"{field} of {what} is a {type_name(value)}, not a string", hint=f"send {field} as a JSON string"
        )
    if not value:
        raise RecordError(field, f"{field} of {what} is empty", hint=f"leave {field} out, or say something in it")
    return value


def checked_time(text: str, *, what: str) -> str:
    """Gives a timestamp as it is spelled; raises RecordError `time` where RFC 3339 does not know it."""
    if not valid_timestamp(text):
        raise RecordError(
            "time",
            f'time of {what} is no RFC 3339 timestamp: "{text[:40]}"',
            hint='write it like "2026-03-10T04:05:06Z", with an offset or Z',
        )
    return text


def checked_params(value: object, *, what: str) -> Mapping[str, Value]:
    """Gives the params of a signal; raises RecordError `params` unless it is an object of scalars."""
    if not isinstance(value, dict):
        raise RecordError(
            "params", f"params of {what} is a {type_name(value)}, not an object", hint='send "params": {"name": value}'
        )
    for name, item in value.items():
        if type(item) not in SCALARS:
            raise RecordError(
                "params",
                f'parameter "{name}" of {what} is an {type_name(item)}, not a scalar',
                hint="params hold strings, numbers, booleans and nulls; put structures into the payload",
            )
    return cast("dict[str, Value]", value)


def checked_payload(data: bytes, *, what: str) -> bytes | None:
    """Gives the payload's JSON text as it came, None for null; raises RecordError where `decode_json` does.

    It may be nested one level less than a record, as it stands in one.
    """
    return None if decode_json(data, what=f"payload of {what}", levels=MAX_NESTING - 1) is None else data
