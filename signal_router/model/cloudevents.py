"""CloudEvents 1.0 as signals, in both modes of the Kafka binding (cloudevents/spec, kafka-protocol-binding.md).

The name of the signal is the `type`; `source`, `id` and `time` are the attributes of the same name, and all attributes
and extensions stand in the context as strings. The data:

- JSON with an object `params`: read like the plain form, params and payload from it;
- other JSON: its top-level scalars are the params, and the whole is the payload;
- anything else, by its media type: neither params nor payload.

Data without a media type is JSON, as the JSON format has it (and libraries leave the type out in the binary mode too);
if it is none it is refused rather than taken for a signal without params.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from signal_router.errors import RecordError
from signal_router.model.json_values import decode_json
from signal_router.model.signal_fields import (
    NO_PARAMS,
    SCALARS,
    checked_params,
    checked_time,
    decode_object,
    text_of_member,
)
from signal_router.model.signals import Signal
from signal_router.model.values import Value, type_name

_PREFIX = "ce_"
_REQUIRED = ("specversion", "type", "source", "id")
_STRINGS = frozenset({*_REQUIRED, "subject", "time", "datacontenttype", "dataschema"})
_DATA = frozenset({"data", "data_base64"})
_STRUCTURED = "application/cloudevents"

Attributes = dict[str, str]
ByName = Mapping[str, bytes | None]
"""Headers by their name in lower case."""


def structured_format(headers: ByName) -> str | None:
    """Gives the media type, in lower case and without parameters, where it announces a whole CloudEvent."""
    content_type = headers.get("content-type")
    if content_type is None:
        return None
    media_type = _media_type(content_type.decode(errors="replace"))
    return media_type if media_type.startswith(_STRUCTURED) else None


def is_binary(headers: ByName) -> bool:
    """Whether the record means to be a CloudEvent in binary mode: it has one of the headers each of those needs."""
    return any(_PREFIX + attribute in headers for attribute in _REQUIRED)


def decode_binary(value: bytes, headers: ByName, kept: Attributes) -> Signal:
    """Reads attributes from the headers and the data from the value; raises RecordError.

    An empty value is no data. Attributes win over `kept`, the headers of the last hop.
    """
    attributes: Attributes = {}
    for header, content in headers.items():
        if content is not None and header.startswith(_PREFIX):
            attributes[header[len(_PREFIX) :]] = _header_text(header, content)
    attributes.pop("datacontenttype", None)
    if (content_type := headers.get("content-type")) is not None:
        attributes["datacontenttype"] = _header_text("content-type", content_type)
    return _signal(attributes, value or None, kept)


def decode_structured(value: bytes, kept: Attributes, *, format_: str) -> Signal:
    """Reads attributes and data from one JSON document; raises RecordError, also for batches and formats but JSON."""
    if format_ not in (_STRUCTURED, f"{_STRUCTURED}+json"):
        raise RecordError(
            "cloudevent",
            f'format "{format_}" is not supported',
            hint=f"send one CloudEvent per record as {_STRUCTURED}+json, or in binary mode",
        )
    document = decode_object(value, what="cloudevent")
    attributes = {
        name: _attribute_text(name, item) for name, item in document.items() if item is not None and name not in _DATA
    }
    data = None if document.get("data") is None else text_of_member(value, "data")
    encoded = document.get("data_base64")
    if encoded is not None:
        if data is not None:
            raise _refused("has both data and data_base64", "send one of the two")
        data = _from_base64(encoded) or None
    return _signal(attributes, data, kept)


def _signal(attributes: Attributes, data: bytes | None, kept: Attributes) -> Signal:
    for attribute in _REQUIRED:
        if not attributes.get(attribute):
            raise _refused(f"has no {attribute}", f"CloudEvents 1.0 needs {', '.join(_REQUIRED)}, none of them empty")
    if attributes["specversion"] != "1.0":
        raise _refused(f'has specversion "{attributes["specversion"]}"', 'only specversion "1.0" is read')
    name = attributes["type"]
    what = f'signal "{name}"'
    time = attributes.get("time")
    if time is not None:
        checked_time(time, what=what)
    params, payload = NO_PARAMS, None
    if data is not None and _is_json(attributes.get("datacontenttype")):
        params, payload = _read_data(data, what)
    return Signal(name, attributes["source"], attributes["id"], params, payload, time, {**kept, **attributes})


def _read_data(data: bytes, what: str) -> tuple[Mapping[str, Value], bytes | None]:
    value = decode_json(data, what=f"data of {what}")
    if value is None:
        return NO_PARAMS, None
    if not isinstance(value, dict):
        return NO_PARAMS, data
    params = value.get("params")
    if isinstance(params, dict):
        payload = None if value.get("payload") is None else text_of_member(data, "payload")
        return checked_params(params, what=what), payload
    return {name: item for name, item in value.items() if type(item) in SCALARS}, data


def _is_json(content_type: str | None) -> bool:
    if content_type is None:
        return True
    return _media_type(content_type).endswith(("/json", "+json"))


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _header_text(header: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _refused(f'has a header "{header}" that is not UTF-8', "encode attributes as UTF-8") from None


def _attribute_text(name: str, value: object) -> str:
    """Spells an attribute as the type system of CloudEvents has it: booleans as words, integers in decimal."""
    if isinstance(value, str):
        return value
    if name not in _STRINGS:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value)
    expected = "a string" if name in _STRINGS else "a string, a boolean or an integer"
    raise _refused(f'has an attribute "{name}" of type {type_name(value)}', f"it has to be {expected}")


def _from_base64(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise _refused(f"has data_base64 of type {type_name(encoded)}", "it has to be a string")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):  # ValueError: letters beyond ASCII
        raise _refused("has data_base64 that is no base64", "encode it as RFC 4648, section 4, has it") from None


def _refused(problem: str, hint: str) -> RecordError:
    return RecordError("cloudevent", f"cloudevent {problem}", hint=hint)
