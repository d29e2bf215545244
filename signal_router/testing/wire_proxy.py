"""A TCP proxy that reads the requests it passes on, to lose an answer or to keep a request on its way.

It stands on the advertised address of a listener, so clients reach the broker through it without any rewriting. It is
for tests of what a client makes of an uncertain way to its broker; each fault is counted when it has happened.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from signal_router.testing.wire_answers import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    END_TXN,
    FETCH,
    FIND_COORDINATOR,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    refusal,
)

__all__ = [
    "ADD_OFFSETS", "ADD_PARTITIONS", "END_TXN", "FETCH", "FIND_COORDINATOR", "INIT_PRODUCER_ID", "PRODUCE",
    "TXN_OFFSET_COMMIT", "Fault", "WireProxy",
]  # fmt: skip


class Fault(Enum):
    """What happens to a request.

    LOSE_ANSWER: the broker does it, and the connection breaks instead of an answer. HOLD: it is kept until `release`,
    and the connection breaks. REFUSE: whoever asks for a coordinator is told that there is none. ERROR: the broker
    never sees it, and the client is told an error. LATE: the broker does it, and the answer comes later. CUT: the
    connection breaks before the broker has it. SWALLOW: it vanishes with all that comes behind it, and the connection
    breaks only after a while.
    """

    LOSE_ANSWER = "answer dropped"
    HOLD = "held"
    REFUSE = "refused"
    ERROR = "error answered"
    LATE = "answer late"
    CUT = "connection cut"
    SWALLOW = "black hole"


@dataclass(frozen=True, slots=True)
class _Order:
    fault: Fault
    code: int
    seconds: float


@dataclass(slots=True)
class _Connection:
    client: socket.socket
    upstream: socket.socket
    writing: threading.Lock = field(default_factory=threading.Lock)
    lost: threading.Event = field(default_factory=threading.Event)
    silent: threading.Event = field(default_factory=threading.Event)
    coordinators: set[int] = field(default_factory=set)
    """Requests for a coordinator, by correlation id, that will be refused."""
    late: dict[int, float] = field(default_factory=dict)
    """Seconds by correlation id."""

    def answer(self, frame: bytes) -> None:
        with self.writing:
            self.client.sendall(frame)

    def break_(self) -> None:
        _break(self.client)
        _break(self.upstream)


class WireProxy:
    """Forwards every connection made to `address` to the broker; faults are armed one by one.

    `seen` counts requests by API key; `struck` the faults that happened, `fired` the same by API key and fault.
    """

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.struck: Counter[Fault] = Counter()
        self.fired: Counter[tuple[int, Fault]] = Counter()
        self.no_coordinator = False
        self._target = ("", 0)
        self._armed: dict[int, _Order] = {}
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connections: list[_Connection] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def start(self, target: str) -> None:
        """Begins to forward to `host:port`."""
        host, port = target.split(":")
        self._target = (host, int(port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Ends everything."""
        self._closed.set()
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection that exists now."""
        with self._lock:
            broken, self._connections = self._connections, []
        for each in broken:
            each.break_()

    def arm(self, api_key: int, fault: Fault, *, code: int = 0, seconds: float = 0.0) -> None:
        """Strikes the next request of this kind. `code` is the error that is answered, `seconds` how late an answer
        comes, or how long a black hole is open.
        """
        with self._lock:
            self._armed[api_key] = _Order(fault, code, seconds)

    def disarm(self) -> None:
        """Forgets what has not struck yet."""
        with self._lock:
            self._armed.clear()

    def release(self) -> list[int]:
        """Sends the held requests to the broker and returns the error codes of their answers."""
        held, self._held = self._held, []
        return [self._send_alone(frame) for frame in held]

    def _send_alone(self, frame: bytes) -> int:
        with socket.create_connection(self._target) as upstream:
            upstream.sendall(frame)
            answer = _read_frame(upstream)
        (api_key,) = struct.unpack_from(">h", frame, 4)
        # EndTxn's answer: correlation id, throttle time, error code. TxnOffsetCommit's code is per partition: not read.
        return int(struct.unpack_from(">h", answer, 12)[0]) if api_key == END_TXN else 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until the server is closed
            while True:
                client, _ = self._server.accept()
                try:
                    upstream = socket.create_connection(self._target)
                except OSError:  # the broker is down
                    _break(client)
                    continue
                connection = _Connection(client, upstream)
                with self._lock:
                    self._connections.append(connection)
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(connection,), daemon=True).start()

    def _requests(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while frame := _read_frame(connection.client):
                api_key, _, correlation_id = struct.unpack_from(">hhi", frame, 4)
                with self._lock:
                    self.seen[api_key] += 1
                    order = self._armed.pop(api_key, None)
                if self.no_coordinator and api_key == FIND_COORDINATOR:
                    connection.coordinators.add(correlation_id)
                if order is None:
                    connection.upstream.sendall(frame)
                    continue
                goes_on = self._strike(connection, frame, order)
                self._count(api_key, order.fault)
                if not goes_on:
                    break
                if order.fault is Fault.LOSE_ANSWER:
                    return  # the broker answers, and that breaks the connection
        self._end(connection)

    def _strike(self, connection: _Connection, frame: bytes, order: _Order) -> bool:
        """Does to a request what was ordered; False: the connection ends."""
        fault = order.fault
        if fault is Fault.HOLD:
            self._held.append(frame)
            return False
        if fault is Fault.CUT:
            return False
        if fault is Fault.SWALLOW:
            connection.silent.set()
            self._closed.wait(order.seconds)
            return False
        if fault is Fault.ERROR:
            connection.answer(refusal(frame, order.code))
            return True
        if fault is Fault.LATE:
            connection.late[struct.unpack_from(">i", frame, 8)[0]] = order.seconds
        if fault is Fault.LOSE_ANSWER:
            connection.lost.set()
        connection.upstream.sendall(frame)
        return True

    def _answers(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while frame := _read_frame(connection.upstream):
                if connection.lost.is_set():
                    break
                if connection.silent.is_set():
                    continue
                (correlation_id,) = struct.unpack_from(">i", frame, 4)
                if correlation_id in connection.late:
                    self._closed.wait(connection.late.pop(correlation_id))  # and all answers behind it
                if correlation_id in connection.coordinators:
                    connection.coordinators.discard(correlation_id)
                    self._count(FIND_COORDINATOR, Fault.REFUSE)
                    # COORDINATOR_NOT_AVAILABLE, behind the throttle time
                    frame = frame[:12] + struct.pack(">h", 15) + frame[14:]
                connection.answer(frame)
        if not connection.silent.is_set():
            self._end(connection)

    def _count(self, api_key: int, fault: Fault) -> None:
        with self._lock:
            self.struck[fault] += 1
            self.fired[api_key, fault] += 1

    def _end(self, connection: _Connection) -> None:
        connection.break_()
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(connection)


def _read_frame(source: socket.socket) -> bytes:
    """Reads one length-prefixed frame, prefix included; empty at the connection's end."""
    head = _read_exactly(source, 4)
    return head and head + _read_exactly(source, struct.unpack(">i", head)[0])


def _read_exactly(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)


def _break(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
