"""A clock that a test moves: every time in the in-memory parts comes from it, so a schedule can be run again
exactly.
"""

from __future__ import annotations

# 2026-01-01T00:00:00Z: far from zero, so that a forgotten unit (seconds for milliseconds) shows at once.
START_AT = 1_767_225_600_000


class ManualClock:
    """Epoch milliseconds that stand still until told to move. Callable, so it serves wherever a function of time is
    wanted.
    """

    __slots__ = ("_now",)

    def __init__(self, now: int = START_AT) -> None:
        self._now = now

    def __call__(self) -> int:
        return self._now

    @property
    def now(self) -> int:
        """The present, in epoch milliseconds."""
        return self._now

    def advance(self, by_ms: int) -> int:
        """Moves forward by `by_ms` ≥ 0 and returns the new present."""
        if by_ms < 0:
            raise ValueError(
                f"a clock advances by 0 ms or more, not by {by_ms}; use jump_to for a clock that is set back"
            )
        self._now += by_ms
        return self._now

    def jump_to(self, at: int) -> None:
        """Sets the present, backwards too: a wall clock may do that."""
        self._now = at
