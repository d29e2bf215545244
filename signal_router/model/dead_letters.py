"""Dead letters: records that could not become what they should, or be written where they should go, kept for replay.

The wire form is JSON, UTF-8:

    {"format": 1, "kind": "signal", "position": {"topic": "signals", "partition": 0, "offset": 17},
     "reason": "not-json", "message": "record is not JSON: …", "hint": "…",
     "key": "azE=", "headers": [["traceparent", "MDAt…"]],
     "value": "eyJuYW1lIjo=", "truncated": false, "sha256": "9f2c…"}

Keys, header values and values of records are any bytes, so all three stand in base64 (RFC 4648, section 4); null stays
null. Of the value 64 kB are kept (before base64), of the key as well, and of the headers as many as fit into 64 kB in
their order, so that a dead letter always fits its topic. `truncated` says that anything was cut; `sha256` is that of
the whole value. For kind trigger, `trigger_id` and `destination` (the topic it should have gone to) stand there too,
and the value is the trigger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import Enum
from urllib.parse import quote

import msgspec

from signal_router.errors import RecordError
from signal_router.model.signals import Position

FORMAT = 1
"""The version of the wire form that is written, and the newest that is read."""

MAX_BYTES = 64 * 1024
"""What is kept of the value, the key and all headers, each: with base64 below a broker's default limit of 1 MB."""


class Kind(Enum):
    """What the record should have become."""

    SIGNAL = "signal"
    CANDIDATE = "candidate"
    TRIGGER = "trigger"
    DEFINITION = "definition"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. `position` is where the record stands, or that of the completing signal for kind TRIGGER.

    `reason` is for machines, `message` and `hint` are for people.
    """

    format: int = FORMAT
    kind: Kind
    position: Position
    reason: str
    message: str = ""
    hint: str | None
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None
    truncated: bool
    sha256: str | None
    trigger_id: str | msgspec.UnsetType = msgspec.UNSET
    destination: str | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DeadLetter).decode
_decode_format = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def dead_letter(
    *,
    kind: Kind,
    position: Position,
    error: RecordError,
    key: bytes | None,
    headers: Iterable[tuple[str, bytes | None]] | None,
    value: bytes | None,
    trigger_id: str | None = None,
    destination: str | None = None,
) -> DeadLetter:
    """Builds the dead letter of a record as it was read, or of a trigger as it should have been written."""
    kept_headers, headers_cut = _cut_headers(headers or ())
    return DeadLetter(
        kind=kind,
        position=position,
        reason=error.reason,
        message=error.message,
        hint=error.hint,
        key=_cut(key),
        headers=kept_headers,
        value=_cut(value),
        truncated=headers_cut or any(part is not None and len(part) > MAX_BYTES for part in (key, value)),
        sha256=None if value is None else hashlib.sha256(value).hexdigest(),
        trigger_id=msgspec.UNSET if trigger_id is None else trigger_id,
        destination=msgspec.UNSET if destination is None else destination,
    )


def dead_letter_key(letter: DeadLetter) -> bytes:
    """Gives the record key: for kind TRIGGER the trigger id, else topic/partition/offset, the parts percent-encoded."""
    if letter.kind is Kind.TRIGGER and letter.trigger_id is not msgspec.UNSET:
        return quote(letter.trigger_id, safe="").encode()
    at = letter.position
    return f"{quote(at.topic, safe='')}/{at.partition}/{at.offset}".encode()


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """Writes the wire form."""
    return _encode(letter)


def decode_dead_letter(data: bytes) -> DeadLetter:
    """Reads the wire form; fields it does not know are ignored, and without a format it is the first.

    Raises RecordError: `format` for a newer format than this program knows, `not-dead-letter` for what it cannot read.
    """
    try:
        found = msgspec.json.decode(_decode_format(data).get("format", b"1"), type=int)
        if found > FORMAT:
            raise RecordError(
                "format",
                f"dead letter has format {found}, this program reads up to {FORMAT}",
                hint="upgrade signal-router to the version that wrote it",
            )
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(
            "not-dead-letter", f"record is no dead letter: {error}", hint="check what else writes to the topic"
        ) from None


def _cut(content: bytes | None) -> bytes | None:
    return None if content is None else content[:MAX_BYTES]


def _cut_headers(headers: Iterable[tuple[str, bytes | None]]) -> tuple[tuple[tuple[str, bytes | None], ...], bool]:
    """Keeps whole headers as long as they fit together; returns them and whether any was left out."""
    kept: list[tuple[str, bytes | None]] = []
    left = MAX_BYTES
    for name, value in headers:
        left -= len(name.encode()) + len(value or b"")
        if left < 0:
            return tuple(kept), True
        kept.append((name, value))
    return tuple(kept), False
