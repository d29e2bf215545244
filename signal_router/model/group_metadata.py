"""A consumer group's metadata as the client hands it to a transaction: who speaks, and of which generation.

The bytes are confluent-kafka's (`CGMDv2:`, int32 generation in the machine's order, zero-terminated group and
member, then 0x01, or 0x00 and the zero-terminated instance id). Only whether the generation and the member may be
sent is decided on them; the broker does the fencing. It fences *nothing* for generation −1 with an empty member id,
which a consumer returns before it has joined and after it lost its session.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_MAGIC = b"CGMDv2:"
_DYNAMIC = b"\x01"
_STATIC = b"\x00"


class GroupMetadata(NamedTuple):
    """Who commits offsets for a group. Under KIP-848 `generation` is the member's epoch."""

    group: str
    generation: int
    member: str
    instance: str | None = None

    @property
    def fences(self) -> bool:
        """Says whether the broker checks anything at all: a joined member's generation and id."""
        return self.generation > 0 and bool(self.member)

    def encode(self) -> bytes:
        """Returns the client's bytes."""
        tail = _DYNAMIC if self.instance is None else _STATIC + self.instance.encode() + b"\0"
        return b"".join(
            (_MAGIC, struct.pack("=i", self.generation), self.group.encode(), b"\0", self.member.encode(), b"\0", tail)
        )

    @classmethod
    def decode(cls, data: bytes) -> GroupMetadata:
        """Reads the client's bytes.

        Raises:
            ValueError: the bytes are not group metadata of this layout.
        """
        if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + 4:
            raise ValueError(f"group metadata {data!r} does not start with {_MAGIC!r} and a generation")
        (generation,) = struct.unpack_from("=i", data, len(_MAGIC))
        group, found, rest = data[len(_MAGIC) + 4 :].partition(b"\0")
        member, found_member, tail = rest.partition(b"\0")
        if not found or not found_member or tail[:1] not in {_DYNAMIC, _STATIC}:
            raise ValueError(f"group metadata {data!r} is cut short")
        instance = tail[1:].rstrip(b"\0").decode() if tail[:1] == _STATIC else None
        return cls(group.decode(), generation, member.decode(), instance)
