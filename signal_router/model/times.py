"""Times as text: epoch milliseconds as RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=16_384)
def rfc3339(at: int) -> str:
    """Writes epoch milliseconds as `2026-03-10T06:00:00.123Z`."""
    seconds, milliseconds = divmod(at, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


def epoch_ms(text: str) -> int:
    """Reads RFC 3339 text into epoch milliseconds; raises `ValueError`."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
