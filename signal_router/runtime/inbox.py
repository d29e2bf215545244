"""Where the batches of one stage wait for their turn."""

from __future__ import annotations

from signal_router.kafka.consume import Fetched
from signal_router.model.log import TopicPartition


class Inbox:
    """The batches that came since the stage last had its turn, at most one per partition: they grow while they wait.

    A stage that takes everything that is there does as much with one transaction as can be done with it; under load
    the transactions grow by themselves.
    """

    def __init__(self) -> None:
        self._batches: dict[TopicPartition, Fetched] = {}

    def __bool__(self) -> bool:
        return bool(self._batches)

    def put(self, batch: Fetched) -> None:
        """Adds a batch behind those of its partition; one of another epoch makes what waits void and replaces it."""
        waiting = self._batches.get(batch.tp)
        if waiting is not None and waiting.epoch == batch.epoch:
            waiting.join(batch)
        else:
            self._batches[batch.tp] = batch

    def take(self) -> list[Fetched]:
        """Takes everything out."""
        batches = list(self._batches.values())
        self._batches.clear()
        return batches
