"""`AsyncTriggerConsumer`: the same consumer, with handlers that are coroutines of an event loop.

The consumer runs in a thread and waits there for each handler, so triggers are handled one after the other as they are
without a loop, and the loop is never blocked.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack

from signal_router.client.consumer import SIGNALS, TriggerConsumer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from signal_router.client.parking import Parking
    from signal_router.client.retries import Retries
    from signal_router.client.running import Start
    from signal_router.client.signal_writer import Form
    from signal_router.client.transaction import Transaction
    from signal_router.client.trigger import Trigger
    from signal_router.kafka.settings import Connection


class Arguments(TypedDict, total=False):
    """What `TriggerConsumer` takes besides the connection."""

    group: Required[str]
    park_to: Required[Parking]
    subscriptions: Iterable[str]
    topics: Iterable[str]
    prefix: str | None
    retries: Retries | None
    start: Start
    handler_within_s: float


class AsyncTriggerConsumer:
    """Takes the arguments of `TriggerConsumer`. Cancelling a run stops it after the handler in hand."""

    def __init__(self, connection: Connection | str | None = None, **arguments: Unpack[Arguments]) -> None:
        self._consumer = TriggerConsumer(connection, **arguments)

    async def run(
        self, handler: Callable[[Trigger], Coroutine[Any, Any, object]], *, stop_on: Iterable[int] = SIGNALS
    ) -> None:
        """Awaits the handler for each trigger until `stop`, or one of the signals `stop_on`; see `TriggerConsumer.run`.

        A signal stops all consumers of its loop that run until it. Only the loop of the main thread hears any; what the
        loop did at a signal before gives way for good, so a program that handles signals itself says `stop_on=()`.
        """
        loop = asyncio.get_running_loop()

        def handle(trigger: Trigger) -> object:
            return asyncio.run_coroutine_threadsafe(handler(trigger), loop).result()

        await self._run(lambda: self._consumer.run(handle, stop_on=()), stop_on)

    async def run_exactly_once(
        self,
        handler: Callable[[Trigger, Transaction], Coroutine[Any, Any, object]],
        *,
        transactional_id: str,
        source: str | None = None,
        form: Form = "json",
        stop_on: Iterable[int] = SIGNALS,
    ) -> None:
        """Awaits the handler with each trigger and a transaction; see `run` and `TriggerConsumer.run_exactly_once`."""
        loop = asyncio.get_running_loop()

        def handle(trigger: Trigger, transaction: Transaction) -> object:
            return asyncio.run_coroutine_threadsafe(handler(trigger, transaction), loop).result()

        def run() -> None:
            self._consumer.run_exactly_once(
                handle, transactional_id=transactional_id, source=source, form=form, stop_on=()
            )

        await self._run(run, stop_on)

    def stop(self) -> None:
        """Lets the run return once the trigger in hand is finished."""
        self._consumer.stop()

    async def _run(self, run: Callable[[], None], stop_on: Iterable[int]) -> None:
        with _stopped_by(stop_on, self.stop):
            task = asyncio.ensure_future(asyncio.to_thread(run))
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                self.stop()
                await task
                raise


_stops: dict[tuple[asyncio.AbstractEventLoop, int], list[Callable[[], None]]] = {}
"""What a signal stops: a loop has one handler for each signal, and may run several consumers."""
_before: dict[tuple[asyncio.AbstractEventLoop, int], Any] = {}
"""What happened at that signal before."""


@contextmanager
def _stopped_by(signals: Iterable[int], stop: Callable[[], None]) -> Iterator[None]:
    """Lets signals stop a run beside others of the running loop; the last one to end puts back what was there."""
    loop = asyncio.get_running_loop()
    with ExitStack() as heard:
        for number in signals:
            heard.enter_context(_heard(loop, number, stop))
        yield


@contextmanager
def _heard(loop: asyncio.AbstractEventLoop, number: int, stop: Callable[[], None]) -> Iterator[None]:
    place = (loop, number)
    if place not in _stops:
        before = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, _stop_all, place)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or a system without
            yield
            return
        _stops[place] = []
        # What this loop itself did at the signal is gone; the mark that it leaves would do nothing if it came back.
        _before[place] = None if before == signal.getsignal(number) else before
    _stops[place].append(stop)
    try:
        yield
    finally:
        _stops[place].remove(stop)
        if not _stops[place]:
            del _stops[place]
            loop.remove_signal_handler(number)
            if (before := _before.pop(place)) is not None:
                signal.signal(number, before)


def _stop_all(place: tuple[asyncio.AbstractEventLoop, int]) -> None:
    for stop in _stops.get(place, ()):
        stop()
