"""Faust's transport, reduced to what is ours to give: whole inboxes of batches as single Faust events.

Faust costs 60 µs and more per event, so one event is everything that waits for a stage. Two virtual topics, `match`
and `join`, with one partition each that is always assigned, carry the inboxes to the two agents; which real
partitions this worker has, what it reads from where, and what happens when that changes is not Faust's affair (its
own rebalance drops and replays queues). A batch that waits when its assignment ends is told by its stamp and dropped
by the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import confluent_kafka
from faust.transport import base
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.producer import Producer as BaseProducer
from faust.types import TP, ConsumerMessage

from signal_router.kafka.consume import Fetched
from signal_router.runtime.inbox import Inbox

MATCH = "match"
JOIN = "join"
VIRTUAL = frozenset({TP(MATCH, 0), TP(JOIN, 0)})

_IDLE_S = 0.2


class BatchConsumer(BaseConsumer):  # type: ignore[misc]
    """Takes batches by `push` and hands the inboxes to Faust."""

    async def on_start(self) -> None:
        """Prepares the inboxes."""
        self._inboxes: dict[TP, Inbox] = {tp: Inbox() for tp in VIRTUAL}
        self._busy: set[TP] = set()
        self._wake = asyncio.Event()
        self._flowing = False
        self._number = 0

    def push(self, topic: str, batch: Fetched) -> None:
        """Puts a batch into the inbox of a virtual topic. Called on the event loop."""
        self._inboxes[TP(topic, 0)].put(batch)
        self._wake.set()

    def done(self, topic: str) -> None:
        """Says that the agent of a virtual topic is ready for the next turn; until then it has the inbox already."""
        self._busy.discard(TP(topic, 0))
        self._wake.set()

    async def subscribe(self, _topics: Iterable[str]) -> None:
        """Gives Faust its two virtual partitions, for good. In a task: the conductor waits for this call to return."""
        self.add_future(self._assign())

    async def _assign(self) -> None:
        self.app.on_rebalance_start()
        self.app.consumer_generation_id += 1
        await self.on_partitions_assigned(set(VIRTUAL), self.app.consumer_generation_id)

    def stop_flow(self) -> None:
        """Closes the gate."""
        self._flowing = False
        super().stop_flow()

    def resume_flow(self) -> None:
        """Opens the gate."""
        super().resume_flow()
        self._flowing = True
        self._wake.set()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Inbox]]:
        if self._flowing:
            free = (active_partitions or VIRTUAL) - self._busy
            found = {tp: [inbox] for tp in free if (inbox := self._inboxes[tp])}
            self._busy.update(found)
            if found:
                return found
        self._wake.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), min(timeout or _IDLE_S, _IDLE_S))
        return {}

    def _to_message(self, tp: TP, inbox: Inbox) -> ConsumerMessage:
        self._number += 1
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            self._number,
            0.0,
            0,
            None,
            b"",
            inbox,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    # ---- what a consumer of real partitions would do; nothing is left to do for virtual ones

    def assignment(self) -> set[TP]:
        """The virtual partitions."""
        return set(VIRTUAL)

    async def perform_seek(self) -> None:
        """Does nothing: the worker seeks."""

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _commit(self, _offsets: object) -> bool:
        return True

    async def seek_to_committed(self) -> dict[TP, int]:
        return {}

    async def _seek(self, _partition: TP, _offset: int) -> None: ...

    async def seek_wait(self, _partitions: object) -> None: ...

    async def position(self, _tp: TP) -> int:
        return 0

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        return dict.fromkeys(partitions, 0)

    def highwater(self, _tp: TP) -> int:
        return 0

    def topic_partitions(self, _topic: str) -> int | None:
        return None

    def key_partition(self, _topic: str, _key: bytes | None, partition: int | None = None) -> int | None:
        return partition

    async def create_topic(self, *_args: Any, **_kwargs: Any) -> None: ...  # noqa: ANN401 - Faust's signature


class NoProducer(BaseProducer):  # type: ignore[misc]
    """Refuses to send: every output belongs into the stage's transaction."""

    async def create_topic(self, *_args: Any, **_kwargs: Any) -> None: ...  # noqa: ANN401 - Faust's signature

    async def flush(self) -> None: ...

    async def send(self, *_args: Any, **_kwargs: Any) -> Any:  # noqa: ANN401 - Faust's signature
        """Raises: see the class."""
        raise RuntimeError("outputs are written in transactions, not by Faust")


class Transport(base.Transport):  # type: ignore[misc]
    """Faust's plug points."""

    Consumer = BatchConsumer
    Producer = NoProducer
    default_port = 9092
    driver_version = f"confluent_kafka={confluent_kafka.__version__}"
