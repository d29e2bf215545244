"""The teams' producers: one client each, all sending at once and none knowing who listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from signal_router.demo.cluster import DemoCluster, flush
from signal_router.demo.story import Story

RECORDS_PER_SECOND = 700


class Producers(threading.Thread):
    """Sends a story's records, in their order and at a steady pace; `sent` is told of each."""

    def __init__(self, cluster: DemoCluster, story: Story, sent: Callable[[], None]) -> None:
        super().__init__(name="producers", daemon=True)
        self._topic = cluster.names.signals
        self._story = story
        self._sent = sent
        self._clients = {team: cluster.producer() for team in story.teams()}
        self._enough = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        """Sends everything; what goes wrong is kept for `finish`."""
        try:
            self._send()
        except Exception as error:  # raised again by `finish`
            self._error = error

    def _send(self) -> None:
        began = time.monotonic()
        for number, sending in enumerate(self._story.sendings):
            if self._enough.wait(max(0.0, began + number / RECORDS_PER_SECOND - time.monotonic())):
                return
            client = self._clients[sending.team]
            client.produce(self._topic, sending.value, partition=sending.partition)
            client.poll(0)
            self._sent()
        for client in self._clients.values():
            flush(client)

    def finish(self) -> None:
        """Waits until all is sent. Raises what went wrong."""
        self.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Sends no more. Idempotent."""
        self._enough.set()
        if self.is_alive():
            self.join()
