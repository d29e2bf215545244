"""What restore adds to the changelog: the entries that are kept locally only, made from those they belong to."""

from __future__ import annotations

import struct

import msgspec

from signal_router.core.tables import NOTED_DUE, QUEUED_DUE, SET_DUE
from signal_router.errors import StateError


class _Head(msgspec.Struct, gc=False, array_like=True):
    """`JoinSet`, of which only the last field is decoded: a restore reads millions."""

    pending: msgspec.Raw = msgspec.Raw()
    remembered: msgspec.Raw = msgspec.Raw()
    queues: msgspec.Raw = msgspec.Raw()
    queued: int = 0
    noted: int = 0
    due: int = 0


class _Queued(msgspec.Struct, gc=False, array_like=True):
    """`Pending`, as far as it is needed here."""

    sequence: int
    aliases: int
    deadline: int
    signal: msgspec.Raw


class _Noted(msgspec.Struct, gc=False, array_like=True):
    """`Remembered`, as far as it is needed here."""

    identity: msgspec.Raw
    digest: msgspec.Raw
    forget_at: int


_decode_head = msgspec.msgpack.Decoder(_Head).decode
_decode_queued = msgspec.msgpack.Decoder(_Queued).decode
_decode_noted = msgspec.msgpack.Decoder(_Noted).decode

_INDEX = struct.Struct(">cQc").pack
_SET, _QUEUED, _NOTED = (b"%d" % kind for kind in (SET_DUE, QUEUED_DUE, NOTED_DUE))


def local_key(key: bytes, value: bytes) -> bytes | None:
    """Gives the key in the time index of a changelog record (None: it has none), without the partition's prefix.

    The entry's value is empty. Idempotent, and safe for records that a later one replaces: an entry that nothing stands
    behind any more is passed over when its time comes. Raises `StateError` where the record cannot be read.

    Puts together what `signal_router.state.keys.due_key` would give, from bytes to bytes: this is most of a restore.
    """
    try:
        kind = key[0]
        if kind == 83:  # S
            at = _decode_head(value).due
            return b"%b%b\x000\x000\x00" % (_INDEX(b"T", at, _SET), key[1:]) if at else None
        if kind == 81:  # Q
            queued = _decode_queued(value)
            place = b"%d\0%d\0" % (queued.aliases, int.from_bytes(key[-8:], "big"))
            return _INDEX(b"T", queued.deadline, _QUEUED) + key[1:-12] + place
        if kind == 73:  # I
            at = _decode_noted(value).forget_at
            subscription, join_key, identity = key[1:].split(b"\0", 2)
            whose = b"%b\0%b\x000\x000\0%b" % (subscription, join_key, identity)
            return _INDEX(b"T", at, _NOTED) + whose if at else None
    except (msgspec.DecodeError, ValueError, IndexError, struct.error) as error:
        raise StateError(
            f"changelog record {key!r} cannot be read: {error}",
            hint="was it written by a newer version? then run that one",
        ) from error
    return None


def local_entries(key: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """Gives the entries that belong to a changelog record: none, or one under `local_key`."""
    local = local_key(key, value)
    return [] if local is None else [(local, b"")]
