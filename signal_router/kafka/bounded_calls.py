"""Blocking calls that can be given up.

librdkafka does not keep the time-outs it is given: `send_offsets_to_transaction` waits for ever once the request to
find the group's coordinator has used up its retries (librdkafka issue 5456, open in 2.16), and a commit blocks for
as long as the broker is away because any time-out but −1 may desynchronise it. A call in a thread of its own can be
left behind instead.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class CallAbandonedError(Exception):
    """The call did not return in time and was left behind, with its thread and all that it holds."""


class _Outcome:
    """Where a call leaves its end: released when done, with the error it raised."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.error: BaseException | None = None


class BoundedCalls:
    """One thread that makes calls one after the other; it adds 20 to 30 µs to a call. Not usable after an abandoned
    call.
    """

    def __init__(self, name: str) -> None:
        self._requests: queue.SimpleQueue[tuple[Callable[[], object], _Outcome] | None] = queue.SimpleQueue()
        # A daemon: a call that never returns must not keep the process from ending.
        threading.Thread(target=_work, args=(self._requests,), name=name, daemon=True).start()

    def __call__(self, request: Callable[[], object], within_s: float) -> None:
        """Makes the call and raises what it raised.

        Raises:
            CallAbandonedError: it did not return within `within_s` seconds.
        """
        outcome = _Outcome()
        self._requests.put((request, outcome))
        if not outcome.done.acquire(timeout=within_s):
            raise CallAbandonedError
        if outcome.error is not None:
            raise outcome.error

    def close(self) -> None:
        """Lets the thread end, now or when its last call returns. Does not wait."""
        self._requests.put(None)


def _work(requests: queue.SimpleQueue[tuple[Callable[[], object], _Outcome] | None]) -> None:
    while (item := requests.get()) is not None:
        request, outcome = item
        try:
            request()
        except BaseException as error:
            outcome.error = error
        outcome.done.release()
        del item, request, outcome  # while the thread waits, nothing is kept alive by it
