"""What a worker fetches: which batches count, and when signals wait for candidates that are on their way.

Local candidates need partitions that have been read far enough (`runtime.local`). Under load they never would be: what
is matched meanwhile goes through the topic and has to be read in its turn. So while something is behind only candidates
are fetched, for a moment: another worker's open transaction may be in the way, and signals must not wait for that.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from signal_router.kafka.consume import ConsumeThread
from signal_router.model.log import TopicPartition
from signal_router.runtime.join import JoinProcessor
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.match import MatchProcessor

CATCH_UP_S = 2.0
"""How long signals wait at most."""
CATCH_UP_AGAIN_S = 10.0
"""How long after a wait in vain the next one may come."""

_log = structlog.get_logger(__name__)


class Fetching:
    """Begins fetching where the partitions of the two stages stand. `epoch` is that of the batches that count."""

    def __init__(self, match: MatchProcessor, join: JoinProcessor, local: LocalCandidates, candidates: str) -> None:
        """`candidates` is the candidates topic. Belongs to the running event loop."""
        self.epoch = -1
        self.consume: ConsumeThread | None = None
        self._match = match
        self._join = join
        self._local = local
        self._candidates = candidates
        self._loop = asyncio.get_running_loop()
        self._assignment = 0
        self._untold = 0
        self._catching_up: asyncio.TimerHandle | None = None
        self._again_at = 0.0

    def begin(self, assignment: int, *, signals: bool = False) -> None:
        """Fetches anew, candidates alone while any are behind and not `signals`. What was fetched before is void."""
        self.end()
        self._assignment = assignment
        offsets = {
            TopicPartition(self._candidates, number): partition.next_offset
            for number, partition in self._join.partitions.items()
        }
        if self._local.behind and not signals:
            self._catching_up = self._loop.call_later(CATCH_UP_S, self._give_up)
        else:
            offsets |= {tp: partition.next_offset for tp, partition in self._match.partitions.items()}
        if self.consume is not None:
            self._untold += 1
            self.consume.start_fetching(assignment, offsets)

    def look(self) -> None:
        """Takes signals again once nothing is behind, and leaves them alone where something has fallen behind."""
        if self.epoch < 0:
            return
        behind = bool(self._local.behind)
        if behind == (self._catching_up is not None):
            return
        if not behind or time.monotonic() >= self._again_at:
            self.begin(self._assignment)

    def stop(self, assignment: int) -> None:
        """Fetches nothing more of an assignment that goes on."""
        self.end()
        if self.consume is not None:
            self._untold += 1
            self.consume.stop_fetching(assignment)

    def end(self) -> None:
        """Makes void what was fetched until now."""
        self.epoch = -1
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None

    def leave(self) -> None:
        """Forgets the assignment: what the consume thread still says of it is not meant for the next one."""
        self.end()
        self._untold = 0

    def told(self, epoch: int) -> None:
        """Takes the consume thread's answer to one call. Between two beginnings records may be fetched that the later
        one fetches again, so only the answer to the last call counts.
        """
        self._untold -= 1
        if self._untold == 0:
            self.epoch = epoch

    def _give_up(self) -> None:
        _log.info("candidates go through their topic", partitions=sorted(self._local.behind))
        self._again_at = time.monotonic() + CATCH_UP_AGAIN_S
        self.begin(self._assignment, signals=True)
