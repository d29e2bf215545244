"""Faults for a `MemoryLog`: what can go wrong between a transactional client and its broker, armed one by one.

`fired` counts what really happened, so that a test can refuse to pass when its fault never struck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from signal_router.model.log import LogError, UnknownOutcomeError

Call = Literal["init", "begin", "produce", "send_offsets", "commit", "abort"]


class Effect(StrEnum):
    """What became of the request that the caller was told nothing good about."""

    NONE = "none"
    """It never reached the broker."""
    DONE = "done"
    """It took effect; the answer was lost."""
    HELD = "held"
    """It is still on its way, and takes effect when `Faults.release` lets it."""


@dataclass(slots=True)
class _Armed:
    call: Call
    error: Callable[[str], LogError] | None
    effect: Effect
    transactional_id: str | None
    skip: int


class Faults:
    """The armed faults and the held requests of one broker's clients. Shared by all `MemoryLog`s that are given it."""

    def __init__(self) -> None:
        self.fired: Counter[str] = Counter()
        self._armed: list[_Armed] = []
        self._held: list[Callable[[], None]] = []

    def fail(
        self,
        call: Call,
        error: Callable[[str], LogError] = UnknownOutcomeError,
        *,
        effect: Effect = Effect.NONE,
        transactional_id: str | None = None,
        skip: int = 0,
    ) -> None:
        """Makes the next `call` (after `skip` others) raise `error`, its request having had the given effect."""
        self._armed.append(_Armed(call, error, effect, transactional_id, skip))

    def straggle(
        self,
        call: Literal["send_offsets", "commit", "abort"],
        *,
        transactional_id: str | None = None,
        skip: int = 0,
    ) -> None:
        """Makes the next `call` succeed on a second try after its connection broke, with the first request still on
        its way.

        The caller sees success. Let loose into a later transaction of the same epoch, the held request ends that one
        or moves its offsets (the gap that KIP-890 part 2 closes and librdkafka has); a new epoch fences it.
        """
        self._armed.append(_Armed(call, None, Effect.HELD, transactional_id, skip))

    def disarm(self) -> None:
        """Takes back every fault that has not struck; held requests stay on their way."""
        self._armed.clear()

    def take(self, call: Call, transactional_id: str) -> tuple[Callable[[str], LogError] | None, Effect] | None:
        """Takes the fault armed for this call, if it is its turn. For logs, not for tests."""
        for armed in self._armed:
            if armed.call == call and armed.transactional_id in {None, transactional_id}:
                if armed.skip:
                    armed.skip -= 1
                    return None
                self._armed.remove(armed)
                self.fired[f"{call}/{'straggle' if armed.error is None else armed.effect}"] += 1
                return armed.error, armed.effect
        return None

    def hold(self, request: Callable[[], None]) -> None:
        """Keeps a request on its way. For logs, not for tests."""
        self._held.append(request)

    @property
    def held(self) -> int:
        """How many requests are on their way."""
        return len(self._held)

    def release(self) -> int:
        """Lets every held request reach the broker, in order, and returns how many; a refusal reaches nobody."""
        held, self._held = self._held, []
        for request in held:
            try:
                request()
            except LogError as refusal:
                self.fired[f"released/refused/{type(refusal).__name__}"] += 1
            else:
                self.fired["released/applied"] += 1
        return len(held)
