"""What restore adds to the changelog: the entries that are kept locally only, made from those they belong to."""

from __future__ import annotations

import msgspec

from signal_router.core.tables import NOTED_DUE, QUEUED_DUE, SET_DUE, Due, JoinSet, Pending, Remembered
from signal_router.errors import StateError
from signal_router.state.keys import due_key

_decode_set = msgspec.msgpack.Decoder(JoinSet).decode
_decode_pending = msgspec.msgpack.Decoder(Pending).decode
_decode_remembered = msgspec.msgpack.Decoder(Remembered).decode


def local_entries(key: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """Gives the time index's entries of a changelog record, keys without the partition's prefix.

    Idempotent, and safe for records that a later one replaces: an entry that nothing stands behind any more is passed
    over when its time comes. Raises `StateError` where the record cannot be read.
    """
    try:
        return [(due_key(due), b"") for due in _dues(key, value)]
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise StateError(
            f"changelog record {key!r} cannot be read: {error}",
            hint="run the program version that wrote it",
        ) from error


def _dues(key: bytes, value: bytes) -> list[Due]:
    kind = key[:1]
    if kind == b"S":
        due_at = _decode_set(value).due
        subscription, join_key = key[1:].decode().split("\0")
        return [Due(due_at, SET_DUE, subscription, join_key)] if due_at else []
    if kind == b"Q":
        pending = _decode_pending(value)
        subscription, join_key = (part.decode() for part in key[1:-13].split(b"\0"))
        index = int.from_bytes(key[-8:], "big")
        return [Due(pending.deadline, QUEUED_DUE, subscription, join_key, pending.aliases, index)]
    if kind == b"I":
        remembered = _decode_remembered(value)
        subscription, join_key, identity = key[1:].decode().split("\0", 2)
        at = remembered.forget_at
        return [Due(at, NOTED_DUE, subscription, join_key, identity=identity)] if at else []
    return []
