"""How a table's entries are laid out in bytes: format 1 of the store and of the changelog.

A key is one letter for the kind and what tells the entry from others of its kind; in the store the partition's number
stands before it (two bytes, big endian), in the changelog nothing does. Kinds: S head of a set, Q queued signal, I
identity noted outside a head, N pending count, D life of a subscription, V progress; P position record; T time index
and L changelog position, both local only.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from signal_router.core.tables import Due

FORMAT = 1
"""Format of entries and position records; a worker refuses newer ones."""

POSITION = b"P"
LOCAL_POSITION = b"L"
PROGRESS = b"V"

_QUEUED = struct.Struct(">IQ")
_AT = struct.Struct(">Q")
_PARTITION = struct.Struct(">H")


def partition_prefix(partition: int) -> bytes:
    """What stands before every key of a partition in the store."""
    return _PARTITION.pack(partition)


def set_key(subscription: str, key: str) -> bytes:
    """Key of a set's head."""
    return f"S{subscription}\0{key}".encode()


def queued_key(subscription: str, key: str, aliases: int, index: int) -> bytes:
    """Key of a queued signal; the queue's order is the keys' order."""
    return f"Q{subscription}\0{key}\0".encode() + _QUEUED.pack(aliases, index)


def noted_prefix(subscription: str, key: str) -> bytes:
    """What the keys of a set's noted identities begin with."""
    return f"I{subscription}\0{key}\0".encode()


def noted_key(subscription: str, key: str, identity: str) -> bytes:
    """Key of an identity noted outside the head."""
    return f"I{subscription}\0{key}\0{identity}".encode()


@lru_cache(maxsize=65_536)
def count_key(subscription: str) -> bytes:
    """Key of a pending count; the partition's own has no subscription."""
    return f"N{subscription}".encode()


@lru_cache(maxsize=65_536)
def life_key(subscription: str) -> bytes:
    """Key of a subscription's life."""
    return f"D{subscription}".encode()


def due_key(due: Due) -> bytes:
    """Key in the time index: ordered by time."""
    rest = f"{due.kind}{due.subscription}\0{due.key}\0{due.aliases}\0{due.place}\0{due.identity}"
    return b"T" + _AT.pack(due.at) + rest.encode()


def set_due_key(at: int, name: bytes) -> bytes:
    """Key in the time index of a set whose head has the key `name`: what `due_key` gives for it, from its bytes."""
    return b"T%b0%b\x000\x000\0" % (_AT.pack(at), name[1:])


def due_bound(at: int) -> bytes:
    """The smallest key in the time index at a time."""
    return b"T" + _AT.pack(at)


def due_of(key: bytes) -> Due:
    """Reads an entry of the time index back from its key."""
    (at,) = _AT.unpack_from(key, 1)
    text = key[9:].decode()
    subscription, join_key, aliases, place, identity = text[1:].split("\0", 4)
    return Due(at, int(text[0]), subscription, join_key, int(aliases), int(place), identity)


def after(prefix: bytes) -> bytes:
    """The smallest key that lies behind every key with a prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
