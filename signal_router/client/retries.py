"""How often a handler is tried again, and how long it is left alone in between."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retries:
    """A handler is called `attempts` times at most; the pause after the first failure is `first_s`, and doubles up to
    `longest_s`. Each pause is shortened by a random share of at most `jitter`, so that consumers that failed together
    do not try again together.
    """

    attempts: int = 5
    first_s: float = 1.0
    longest_s: float = 60.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.first_s <= self.longest_s or not 0 <= self.jitter < 1:
            raise ValueError(f"these are no retries: {self}")

    def pause_s(self, failures: int, *, chance: float | None = None) -> float:
        """How long to wait after so many failures; `chance` in [0, 1) stands for the dice."""
        longest = min(self.first_s * 2.0 ** min(failures - 1, 60), self.longest_s)
        return longest * (1 - self.jitter * (random.random() if chance is None else chance))
