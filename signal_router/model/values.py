"""Parameter values: what they are, when two are equal, and how they are ordered."""

from __future__ import annotations

from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None
"""A scalar. Numbers are normalised at the edge: an integral float below 10**64 in size is an int, so 1 and 1.0 are one value."""
