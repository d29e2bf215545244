"""`AsyncSignalProducer`: the same producer for programs that run in an event loop.

The client underneath is the same; one thread serves its reports, and hands them to the loop. What may block
(connecting, a full queue, a transaction) is done in a thread, so the loop never waits.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypedDict, Unpack

from signal_router.client.delivery import DeliveryError
from signal_router.client.producer import SignalProducer
from signal_router.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from signal_router.client.delivery import Delivery
    from signal_router.client.publishing import Collected, Key, Said
    from signal_router.client.signal_writer import Form
    from signal_router.kafka.publish import Sent
    from signal_router.kafka.settings import Connection

_SERVED_EVERY_S = 0.1


class Arguments(TypedDict, total=False):
    """What `SignalProducer` takes besides the connection."""

    prefix: str | None
    topic: str | None
    source: str | None
    form: Form
    transactional_id: str | None
    delivery_timeout_s: float
    queue_timeout_s: float
    signal_bytes: int


class AsyncSignalProducer:
    """Publishes signals from one event loop. An async context manager: it connects on entry, and leaving it waits until
    the broker has everything, or raises. Takes the arguments of `SignalProducer`.
    """

    def __init__(self, connection: Connection | str | None = None, **arguments: Unpack[Arguments]) -> None:
        self._connection = connection
        self._arguments = arguments
        self._producer: SignalProducer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = threading.Event()
        self._serving: threading.Thread | None = None

    async def __aenter__(self) -> AsyncSignalProducer:
        self._loop = asyncio.get_running_loop()
        self._producer = await asyncio.to_thread(lambda: SignalProducer(self._connection, **self._arguments))
        self._serving = threading.Thread(target=self._serve, args=(self._producer,), name="signals", daemon=True)
        self._serving.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        producer, self._producer = self._connected(), None
        try:
            await asyncio.to_thread(producer.__exit__, kind, error, trace)
        finally:
            self._ended.set()

    async def publish(self, name: str, *, key: Key = None, **said: Unpack[Said]) -> Sent:
        """Publishes one signal and waits until the broker has it; takes the arguments of `SignalProducer.publish`.

        Many at once share their batches: `await asyncio.gather(*(producer.publish(…) for …))`. Cancelling it leaves
        the signal on its way.

        Raises:
            RecordError: it is no signal.
            DeliveryError: it was not delivered.
        """
        producer = self._connected()
        record = producer.writer.write(name, **said)
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()

        def on_done(delivery: Delivery) -> None:
            if delivery.error is not None:
                producer.told(delivery.error)
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_settle, future, delivery)

        if producer.has_room:
            producer.send(record, key, on_done)
        else:
            await asyncio.to_thread(producer.send, record, key, on_done)
        return await future

    @asynccontextmanager
    async def when_done(self) -> AsyncIterator[Collected]:
        """Collects signals (its `publish` is not awaited), and publishes them when the block has succeeded.

        See `SignalProducer.when_done`.
        """
        producer = self._connected()
        collected = producer.collect()
        yield collected
        await asyncio.to_thread(producer.publish_collected, collected)

    async def flush(self, timeout_s: float | None = None) -> None:
        """Waits until the broker has everything that was published. Raises DeliveryError."""
        await asyncio.to_thread(self._connected().flush, timeout_s)

    def _connected(self) -> SignalProducer:
        if self._producer is None:
            raise ConfigurationError(
                "the producer is not connected", hint="async with AsyncSignalProducer(…) as signals: …"
            )
        return self._producer

    def _serve(self, producer: SignalProducer) -> None:
        while not self._ended.is_set():
            producer.poll(_SERVED_EVERY_S)


def _settle(future: asyncio.Future[Sent], delivery: Delivery) -> None:
    if future.done():  # cancelled
        return
    if isinstance(delivery.error, DeliveryError):
        future.set_exception(delivery.error)
    else:
        future.set_result(delivery.result())
