"""Reading the records of signals topics, for the reference evaluation: plain JSON and both CloudEvents modes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import string
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from signal_router.testing.reference_types import Position, SignalRecord
from signal_router.testing.reference_values import (
    Json,
    Scalar,
    UnreadableError,
    canonical,
    read_json,
    rfc3339,
    text_or_none,
)


@dataclass(frozen=True, slots=True)
class Payload:
    """A payload that is there; its value may be null."""

    value: Json


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal and where its record stands. `identity_tail` is its id, or the position that stands for it."""

    name: str
    source: str | None
    id: str | None
    params: Mapping[str, Scalar]
    payload: Payload | None
    time: str | None
    context: Mapping[str, str]
    position: Position
    timestamp: int
    identity_tail: Json

    @property
    def identity(self) -> str:
        """The canonical JSON of `[name, source, id]`."""
        return canonical([self.name, self.source, self.identity_tail])

    @property
    def content(self) -> str:
        """What a repeat must share not to be a conflict: a digest of params and payload."""
        params: dict[str, Json] = dict(self.params)
        payload = None if self.payload is None else self.payload.value
        return hashlib.sha256(canonical([params, payload]).encode()).hexdigest()

    def value_of(self, parameter: str) -> Scalar | Absent:
        """The parameter's value; a name with a leading `$` asks for a context attribute."""
        if parameter.startswith("$"):
            return self.context.get(parameter[1:], ABSENT)
        return self.params.get(parameter, ABSENT)


class Absent:
    """The type of ABSENT: a parameter that is not there, told from one that is null."""


ABSENT = Absent()

_OF_TOPIC_IDS = frozenset(string.ascii_letters + string.digits + "_-")
_REQUIRED = ("specversion", "type", "source", "id")
_STRINGS = (*_REQUIRED, "subject", "time", "datacontenttype", "dataschema")


def read_signal(record: SignalRecord, position: Position, topic_id: str, limit_bytes: int) -> Signal | None:
    """Reads a record; None for a tombstone. Raises UnreadableError for what must become a dead letter."""
    if record.value is None:
        return None
    if len(record.value) > limit_bytes:
        raise UnreadableError(f"larger than {limit_bytes} bytes")
    headers = {name.lower(): content for name, content in record.headers}
    media_type = _media_type((headers.get("content-type") or b"").decode(errors="replace"))
    if media_type.startswith("application/cloudevents"):
        wire = _structured(record.value, media_type)
    elif any(f"ce_{attribute}" in headers for attribute in _REQUIRED):
        wire = _binary(record.value, headers)
    else:
        wire = _plain(_object(read_json(record.value)))
    wire = replace(wire, context={**_kept(headers), **wire.context})
    return _signal(wire, record, position, topic_id)


@dataclass(frozen=True, slots=True)
class _Wire:
    """What the three wire forms have in common."""

    name: str | None
    source: str | None
    id: str | None
    time: str | None
    params: Json
    payload: Payload | None
    context: Mapping[str, str]


def _signal(wire: _Wire, record: SignalRecord, position: Position, topic_id: str) -> Signal:
    if not wire.name:
        raise UnreadableError("no name")
    if wire.id is not None and wire.source is None:
        raise UnreadableError("an id without a source")
    if wire.time is not None and not rfc3339(wire.time):
        raise UnreadableError("time is not RFC 3339")
    tail: Json = wire.id
    if tail is None:
        tail = _first_position(wire.context.get("sr_replay_of"))
    if tail is None:
        tail = {"position": [topic_id, position.partition, position.offset]}
    context = {"type": wire.name, "source": wire.source, "id": wire.id, "time": wire.time, **wire.context}
    return Signal(
        name=wire.name,
        source=wire.source,
        id=wire.id,
        params=_scalars(wire.params),
        payload=wire.payload,
        time=wire.time,
        context={name: text for name, text in context.items() if text is not None},
        position=position,
        timestamp=record.timestamp,
        identity_tail=tail,
    )


def _first_position(text: str | None) -> Json:
    """Where a replayed signal stood first, if the header says so in exactly the form it is written in."""
    if text is None:
        return None
    try:
        tail = read_json(text.encode())
    except UnreadableError:
        return None
    if not isinstance(tail, dict) or set(tail) != {"position"} or canonical(tail) != text:
        return None
    match tail["position"]:
        case [str(topic_id), int(partition), int(offset)] if not isinstance(partition, bool):
            fits = 0 <= partition < 10**10 and 0 <= offset < 10**19 and not isinstance(offset, bool)
            return tail if fits and 0 < len(topic_id) <= 64 and set(topic_id) <= _OF_TOPIC_IDS else None
    return None


def _plain(document: Mapping[str, Json]) -> _Wire:
    return _Wire(
        name=text_or_none(document, "name"),
        source=text_or_none(document, "source"),
        id=text_or_none(document, "id"),
        time=text_or_none(document, "time"),
        params=document.get("params"),
        payload=_payload_of(document),
        context={},
    )


def _structured(value: bytes, media_type: str) -> _Wire:
    if media_type not in ("application/cloudevents", "application/cloudevents+json"):
        raise UnreadableError(f"the CloudEvents format {media_type} is not read")
    document = {name: part for name, part in _object(read_json(value)).items() if part is not None}
    attributes = {
        name: _attribute_text(name, attribute)
        for name, attribute in document.items()
        if name not in ("data", "data_base64")
    }
    if "data_base64" in document:
        if "data" in document:
            raise UnreadableError("both data and data_base64")
        return _cloud_event(attributes, *_bytes_data(_decoded(document["data_base64"]), attributes))
    if "data" in document and _is_json(attributes):
        return _cloud_event(attributes, *_json_data(document["data"]))
    return _cloud_event(attributes, None, None)


def _binary(value: bytes, headers: Mapping[str, bytes | None]) -> _Wire:
    attributes = {
        name[3:]: _utf8(content) for name, content in headers.items() if name.startswith("ce_") and content is not None
    }
    attributes.pop("datacontenttype", None)
    content_type = headers.get("content-type")
    if content_type is not None:
        attributes["datacontenttype"] = _utf8(content_type)
    return _cloud_event(attributes, *_bytes_data(value, attributes))


def _cloud_event(attributes: Mapping[str, str], params: Json, payload: Payload | None) -> _Wire:
    if not all(attributes.get(name) for name in _REQUIRED) or attributes["specversion"] != "1.0":
        raise UnreadableError("no CloudEvent of version 1.0")
    return _Wire(
        name=attributes["type"],
        source=attributes["source"],
        id=attributes["id"],
        time=attributes.get("time"),
        params=params,
        payload=payload,
        context=attributes,
    )


def _bytes_data(data: bytes, attributes: Mapping[str, str]) -> tuple[Json, Payload | None]:
    if not data or not _is_json(attributes):
        return None, None
    return _json_data(read_json(data))


def _json_data(data: Json) -> tuple[Json, Payload | None]:
    """JSON data with an object `params` is read like the plain form; of others the top-level scalars are the params."""
    if data is None:
        return None, None
    if not isinstance(data, dict):
        return None, Payload(data)
    if isinstance(data.get("params"), dict):
        return data["params"], _payload_of(data)
    return {name: value for name, value in data.items() if not isinstance(value, dict | list)}, Payload(data)


def _payload_of(document: Mapping[str, Json]) -> Payload | None:
    return Payload(document["payload"]) if document.get("payload") is not None else None


def _is_json(attributes: Mapping[str, str]) -> bool:
    """Whether data is JSON: by its media type, and where there is none."""
    content_type = attributes.get("datacontenttype")
    return content_type is None or _media_type(content_type).endswith(("/json", "+json"))


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _kept(headers: Mapping[str, bytes | None]) -> dict[str, str]:
    """Headers that stand in the context of every wire form, where readable: the trace, and what a replay repeats."""
    kept = {}
    for name in ("traceparent", "tracestate", "sr_replay_of"):
        content = headers.get(name)
        if content is not None and (name == "sr_replay_of" or content.isascii()):
            with suppress(UnicodeDecodeError):
                kept[name] = content.decode("utf-8")
    return kept


def _scalars(params: Json) -> dict[str, Scalar]:
    if params is None:
        return {}
    scalars: dict[str, Scalar] = {}
    for name, value in _object(params).items():
        if isinstance(value, dict | list):
            raise UnreadableError(f'parameter "{name}" is no scalar')
        scalars[name] = value
    return scalars


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise UnreadableError("no object")
    return value


def _attribute_text(name: str, value: Json) -> str:
    """Attributes are matched as strings; extensions may be booleans and integers, in their canonical text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) and name not in _STRINGS:
        return canonical(value)
    raise UnreadableError(f'attribute "{name}" is no string')


def _decoded(value: Json) -> bytes:
    if not isinstance(value, str):
        raise UnreadableError("data_base64 is no string")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableError("data_base64 is not base64") from error


def _utf8(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError("a header that is not UTF-8") from error
