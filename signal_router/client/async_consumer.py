"""`AsyncTriggerConsumer`: the same consumer, with handlers that are coroutines of an event loop.

The consumer runs in a thread and waits there for each handler, so triggers are handled one after the other as they are
without a loop, and the loop is never blocked.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack

from signal_router.client.consumer import TriggerConsumer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

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

    async def run(self, handler: Callable[[Trigger], Coroutine[Any, Any, object]]) -> None:
        """Awaits the handler for each trigger until `stop`, SIGTERM or SIGINT; see `TriggerConsumer.run`."""
        loop = asyncio.get_running_loop()

        def handle(trigger: Trigger) -> object:
            return asyncio.run_coroutine_threadsafe(handler(trigger), loop).result()

        await self._run(asyncio.to_thread(self._consumer.run, handle))

    async def run_exactly_once(
        self,
        handler: Callable[[Trigger, Transaction], Coroutine[Any, Any, object]],
        *,
        transactional_id: str,
        source: str | None = None,
        form: Form = "json",
    ) -> None:
        """Awaits the handler with each trigger and a transaction; see `TriggerConsumer.run_exactly_once`."""
        loop = asyncio.get_running_loop()

        def handle(trigger: Trigger, transaction: Transaction) -> object:
            return asyncio.run_coroutine_threadsafe(handler(trigger, transaction), loop).result()

        def run() -> None:
            self._consumer.run_exactly_once(handle, transactional_id=transactional_id, source=source, form=form)

        await self._run(asyncio.to_thread(run))

    def stop(self) -> None:
        """Lets the run return once the trigger in hand is finished."""
        self._consumer.stop()

    async def _run(self, running: Awaitable[None]) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(running)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self.stop()
            await task
            raise
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
