"""Where a worker's time goes: seconds by phase, for benchmarks and metrics."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter


class PhaseClock:
    """Adds up seconds by phase: one phase at a time, each begins where the one before it ends.

    Used from one thread at a time. `clock(name)` begins a phase, `clock.stop()` ends the last one. `timer` gives
    seconds: wall time, or `time.thread_time` where waiting for a processor must not count.
    """

    def __init__(self, timer: Callable[[], float] = perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._timer = timer
        self._phase = ""
        self._began = 0.0

    def __call__(self, phase: str) -> None:
        """Begins a phase."""
        now = self._timer()
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._began
        self._phase, self._began = phase, now

    def stop(self) -> None:
        """Ends the phase that runs."""
        self("")
