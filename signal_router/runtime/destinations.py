"""Where triggers may go: topics that exist, that we may write to, and how large a record each takes.

Whatever is not known here is unusable: one bad destination must not stop the others, since a record that the broker
refuses fails its whole transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HEADROOM_BYTES = 1024
"""Kept free of a topic's `max.message.bytes`: the record batch's own head, and headers the broker counts."""
_COMMON_HEADERS_BYTES = 8192
"""More than our own headers ever take beside the key, so that most records need no exact count."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """Verified topics with their `max.message.bytes`, and for the others the reason why they are unusable."""

    limits: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """The topics that were looked at."""
        return frozenset(self.limits) | frozenset(self.refused)

    def refusal(self, topic: str) -> str | None:
        """Why a topic cannot be written to; None if it can."""
        if topic in self.limits:
            return None
        return self.refused.get(topic, f'topic "{topic}" is not known to exist')

    @property
    def batch_bytes(self) -> int:
        """The largest batch of records that every topic takes; the limits hold for batches, not for records."""
        return min(self.limits.values(), default=HEADROOM_BYTES + 1_000_000) - HEADROOM_BYTES

    def room(self, topic: str) -> int:
        """What a record's value and twice its key may take together and certainly fit, with headers as triggers have
        them (one repeats the key); below 0 where the topic cannot be written to.
        """
        return self.limits.get(topic, 0) - _COMMON_HEADERS_BYTES

    def fits(self, topic: str, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> bool:
        """Whether a record is small enough for a topic, uncompressed."""
        limit = self.limits.get(topic, 0)
        size = len(key or b"") + len(value) + sum(len(name) + len(content) + 8 for name, content in headers)
        return size + HEADROOM_BYTES <= limit
