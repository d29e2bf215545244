"""A TCP proxy that reads the requests it passes on, to lose an answer or to keep a request on its way.

It stands on the advertised address of a listener, so clients reach the broker through it without any rewriting.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from enum import Enum

PRODUCE, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = (
    0,
    10,
    22,
    24,
    25,
    26,
    28,
)


class Fault(Enum):
    """What happens to a request. Lost answers and held requests break the client's connection."""

    LOSE_ANSWER = "lose answer"
    HOLD = "hold"
    REFUSE = "refuse"


class WireProxy:
    """Forwards every connection made to `address` to the broker; faults are armed one by one."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.struck: Counter[Fault] = Counter()
        self._target: tuple[str, int] | None = None
        self._armed: dict[int, Fault] = {}
        self._held: list[bytes] = []
        self.no_coordinator = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def start(self, target: str) -> None:
        host, port = target.split(":")
        self._target = (host, int(port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection that exists now."""
        with self._lock:
            broken, self._sockets = self._sockets, set()
        for each in broken:
            _break(each)

    def arm(self, api_key: int, fault: Fault) -> None:
        with self._lock:
            self._armed[api_key] = fault

    def release(self) -> list[int]:
        """Sends the held requests to the broker and returns the error codes of their answers."""
        held, self._held = self._held, []
        return [self._send_alone(frame) for frame in held]

    def _send_alone(self, frame: bytes) -> int:
        with socket.create_connection(self._target) as upstream:
            upstream.sendall(frame)
            answer = _read_frame(upstream)
        api_key, _version = struct.unpack_from(">hh", frame, 4)
        # EndTxn's answer: correlation id, throttle time, error code. TxnOffsetCommit's code is per partition: not read.
        return struct.unpack_from(">h", answer, 12)[0] if api_key == END_TXN else 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until the server is closed
            while True:
                client, _ = self._server.accept()
                try:
                    upstream = socket.create_connection(self._target)
                except ConnectionRefusedError:  # the broker is down
                    _break(client)
                    continue
                with self._lock:
                    self._sockets |= {client, upstream}
                lost, asked = threading.Event(), set()
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(client, upstream, lost, asked), daemon=True).start()

    def _refused(self, frame: bytes, asked: set[int]) -> bytes:
        """Says COORDINATOR_NOT_AVAILABLE to whoever asked for a coordinator."""
        (correlation_id,) = struct.unpack_from(">i", frame, 4)
        if correlation_id not in asked:
            return frame
        asked.discard(correlation_id)
        self.struck[Fault.REFUSE] += 1
        return frame[:12] + struct.pack(">h", 15) + frame[14:]  # after the throttle time

    def _requests(self, client: socket.socket, upstream: socket.socket, lost: threading.Event, asked: set[int]) -> None:
        with contextlib.suppress(OSError):
            while frame := _read_frame(client):
                api_key = struct.unpack_from(">h", frame, 4)[0]
                with self._lock:
                    self.seen[api_key] += 1
                    fault = self._armed.pop(api_key, None)
                    if fault is not None:
                        self.struck[fault] += 1
                if self.no_coordinator and api_key == FIND_COORDINATOR:
                    asked.add(struct.unpack_from(">i", frame, 8)[0])
                if fault is Fault.HOLD:
                    self._held.append(frame)
                    break
                if fault is Fault.LOSE_ANSWER:
                    lost.set()
                upstream.sendall(frame)
                if fault is Fault.LOSE_ANSWER:
                    return  # the broker answers, and that breaks the connection
        _break(client)
        _break(upstream)

    def _answers(self, client: socket.socket, upstream: socket.socket, lost: threading.Event, asked: set[int]) -> None:
        with contextlib.suppress(OSError):
            while frame := _read_frame(upstream):
                if lost.is_set():
                    break
                client.sendall(self._refused(frame, asked))
        _break(client)
        _break(upstream)


def _read_frame(source: socket.socket) -> bytes:
    """Reads one length-prefixed frame, prefix included; empty at the connection's end."""
    head = _read_exactly(source, 4)
    return head and head + _read_exactly(source, struct.unpack(">i", head)[0])


def _read_exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _break(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
