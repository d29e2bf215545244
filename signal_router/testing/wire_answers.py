"""Answers that a broker gives when it refuses a request: what the proxy says in its place.

Each is built from the request alone, for the versions that librdkafka sends; another version is an error, since an
answer that the client cannot read would be a lost connection and no refusal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

PRODUCE, FETCH, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = (
    0, 1, 10, 22, 24, 25, 26, 28,
)  # fmt: skip

_FLEXIBLE_FROM = {PRODUCE: 9, FETCH: 12, INIT_PRODUCER_ID: 2, ADD_PARTITIONS: 3, END_TXN: 3, TXN_OFFSET_COMMIT: 3}
_KNOWN = {
    PRODUCE: range(3, 12), FETCH: range(7, 17), INIT_PRODUCER_ID: range(6), ADD_PARTITIONS: range(4),
    END_TXN: range(5), TXN_OFFSET_COMMIT: range(5),
}  # fmt: skip

_NOTHING = b"\0"  # no tagged fields
Topics = Sequence[tuple[bytes, Sequence[int]]]


def refusal(frame: bytes, code: int) -> bytes:
    """The answer, length prefix included, that refuses a whole request (with its length prefix) with an error code.

    Raises: ValueError: no answer is known for this request in this version.
    """
    api_key, version, correlation_id = struct.unpack_from(">hhi", frame, 4)
    if version not in _KNOWN.get(api_key, ()):
        raise ValueError(f"no answer is known to request {api_key} in version {version}")
    flexible = version >= _FLEXIBLE_FROM[api_key]
    head = struct.pack(">i", correlation_id) + (_NOTHING if flexible else b"")
    body = _BODIES[api_key](_Request(frame, flexible=flexible), version, code)
    answer = head + body + (_NOTHING if flexible else b"")
    return struct.pack(">i", len(answer)) + answer


class _Request:
    """Reads the fields of a request one after the other, from behind its header."""

    def __init__(self, frame: bytes, *, flexible: bool) -> None:
        self.flexible = flexible
        self._frame = frame
        self._at = 12
        (length,) = self._unpack(">h")  # the client's id is never compact
        self._at += max(length, 0)
        self.end_of_fields()

    def skip(self, size: int) -> None:
        self._at += size

    def end_of_fields(self) -> None:
        """Passes over tagged fields."""
        if self.flexible:
            for _ in range(self._varint()):
                self._varint()
                self.skip(self._varint())

    def text(self) -> bytes:
        """Reads a string; a null is empty."""
        length = self._varint() - 1 if self.flexible else self._unpack(">h")[0]
        return self._take(max(length, 0))

    def blob(self) -> None:
        """Passes over bytes."""
        self.skip(max(self._varint() - 1 if self.flexible else self._unpack(">i")[0], 0))

    def count(self) -> int:
        """Reads an array's length."""
        return self._varint() - 1 if self.flexible else int(self._unpack(">i")[0])

    def int32(self) -> int:
        return int(self._unpack(">i")[0])

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._frame[self._at - size : self._at]

    def _unpack(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from(layout, self._frame, self._at)
        self._at += struct.calcsize(layout)
        return found

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._frame[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def _end(_request: _Request, _version: int, code: int) -> bytes:
    return struct.pack(">ih", 0, code)


def _init(_request: _Request, _version: int, code: int) -> bytes:
    return struct.pack(">ihqh", 0, code, -1, -1)


def _fetch(request: _Request, _version: int, code: int) -> bytes:
    return struct.pack(">ihi", 0, code, 0) + _count(0, flexible=request.flexible)


def _add_partitions(request: _Request, _version: int, code: int) -> bytes:
    request.text()
    request.skip(10)  # producer id and epoch
    topics = []
    for _ in range(request.count()):
        name = request.text()
        topics.append((name, [request.int32() for _ in range(request.count())]))
        request.end_of_fields()
    return struct.pack(">i", 0) + _per_partition(topics, struct.pack(">h", code), flexible=request.flexible)


def _txn_offset_commit(request: _Request, version: int, code: int) -> bytes:
    request.text()
    request.text()
    request.skip(10)  # producer id and epoch
    if version >= 3:
        request.skip(4)  # generation
        request.text()
        request.text()
    topics = []
    for _ in range(request.count()):
        name, partitions = request.text(), []
        for _ in range(request.count()):
            partitions.append(request.int32())
            request.skip(12 if version >= 2 else 8)  # offset, and the leader's epoch
            request.text()
            request.end_of_fields()
        request.end_of_fields()
        topics.append((name, partitions))
    return struct.pack(">i", 0) + _per_partition(topics, struct.pack(">h", code), flexible=request.flexible)


def _produce(request: _Request, version: int, code: int) -> bytes:
    request.text()
    request.skip(6)  # acks, time-out
    topics = []
    for _ in range(request.count()):
        name, partitions = request.text(), []
        for _ in range(request.count()):
            partitions.append(request.int32())
            request.blob()
            request.end_of_fields()
        request.end_of_fields()
        topics.append((name, partitions))
    refused = struct.pack(">hqq", code, -1, -1)  # base offset and append time
    if version >= 5:
        refused += struct.pack(">q", -1)  # start of the log
    if version >= 8:  # no errors of single records, no text
        refused += _count(0, flexible=request.flexible) + (b"\0" if request.flexible else struct.pack(">h", -1))
    return _per_partition(topics, refused, flexible=request.flexible) + struct.pack(">i", 0)


def _per_partition(topics: Topics, refused: bytes, *, flexible: bool) -> bytes:
    ending = _NOTHING if flexible else b""
    answer = _count(len(topics), flexible=flexible)
    for name, partitions in topics:
        answer += _uvarint(len(name) + 1) if flexible else struct.pack(">h", len(name))
        answer += name + _count(len(partitions), flexible=flexible)
        for number in partitions:
            answer += struct.pack(">i", number) + refused + ending
        answer += ending
    return answer


def _count(number: int, *, flexible: bool) -> bytes:
    return _uvarint(number + 1) if flexible else struct.pack(">i", number)


def _uvarint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


_BODIES: dict[int, Callable[[_Request, int, int], bytes]] = {
    PRODUCE: _produce,
    FETCH: _fetch,
    INIT_PRODUCER_ID: _init,
    ADD_PARTITIONS: _add_partitions,
    END_TXN: _end,
    TXN_OFFSET_COMMIT: _txn_offset_commit,
}
