"""Durations as people write them: `7d`, `12h 30m`, `500ms`."""

from __future__ import annotations

import re

UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""The units, largest first, in milliseconds. A day is 24 hours: there is no calendar behind it."""

LONGEST_MS = 3_650 * UNITS_MS["d"]
"""Ten years: above any use, and small enough that no time computed with it leaves the range of dates."""

_DURATION = re.compile("".join(rf"(?:(?P<{unit}>[0-9]{{1,15}}){unit}(?![a-z])\s*)?" for unit in UNITS_MS))


def duration_ms(text: str) -> int:
    """Reads a duration: whole numbers with units, largest first, each unit at most once. Returns milliseconds.

    Raises ValueError, in words for the person who wrote it, where it is no duration, not positive or above ten years.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f'"{text}" is no duration')
    total = sum(int(match[unit]) * size for unit, size in UNITS_MS.items() if match[unit])
    if not 0 < total <= LONGEST_MS:
        raise ValueError(f'"{text}" is no duration between 1ms and {LONGEST_MS // UNITS_MS["d"]}d')
    return total


def duration_text(duration: int) -> str:
    """Writes milliseconds as `duration_ms` reads them, without blanks: `7d`, `1h30m`."""
    text = ""
    for unit, size in UNITS_MS.items():
        count, duration = divmod(duration, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
