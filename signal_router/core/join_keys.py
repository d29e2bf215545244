"""Join keys: the typed values on which all members of a set agree, as each signal gives them.

| type    | takes                                                        | in the key |
|---------|--------------------------------------------------------------|------------|
| any     | string, boolean, integral number                             | as it is   |
| string  | string                                                       | as it is   |
| integer | integral number                                              | as it is   |
| date    | YYYY-MM-DD, YYYYMMDD (string or integer), RFC 3339 timestamp | YYYY-MM-DD |

A timestamp gives the date as written, in its own offset. Epoch numbers are refused, since nothing tells seconds from
milliseconds or whose midnight is meant. What is missing, null or of another type gives no key, reason `join`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from json.encoder import encode_basestring
from typing import TypeAlias

from signal_router.core.predicates import ABSENT, Fields, Found, look_up
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import JoinParameter, JoinType, Member
from signal_router.model.timestamps import valid_timestamp
from signal_router.model.values import Value, type_name

Reader: TypeAlias = Callable[[Found], Value]
"""Gives a join value as it stands in the key; None where it cannot be one (null is no join value)."""

_DATE = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})")
_DATE_LENGTHS = (8, 10)

NO_KEY = "{}"
"""The key text of sets whose members agree on nothing."""


def join_key(member: Member, signal: Signal) -> dict[str, Value] | None:
    """Gives the join key of a signal for a member; None where a part of it is missing or of another type."""
    key: dict[str, Value] = {}
    for part in member.join:
        value = READERS[part.type](look_up(part.parameter, signal))
        if value is None:
            return None
        key[part.name] = value
    return key


def refusal(kind: JoinType, found: Found) -> str:
    """Says why a value cannot be a join value of this type, for people."""
    if found is ABSENT:
        return "missing"
    if found is None:
        return "null joins nothing"
    if type_name(found) == "number" and isinstance(found, float):
        return "not an integral number"
    if kind is JoinType.DATE:
        if type_name(found) == "number":
            return "a number that is no YYYYMMDD (epoch numbers are not read as dates)"
        return "no YYYY-MM-DD, YYYYMMDD or RFC 3339 timestamp of a day that exists"
    return f"a {type_name(found)}, not {'an integer' if kind is JoinType.INTEGER else f'a {kind.value}'}"


class JoinPlan:
    """The compiled join of a member: writes the key's canonical JSON without building the key."""

    __slots__ = ("__weakref__", "_parts")

    def __init__(self, parameters: Sequence[JoinParameter]) -> None:
        parts = []
        for index, part in enumerate(sorted(parameters, key=lambda part: part.name)):
            opening = f"{',' if index else '{'}{encode_basestring(part.name)}:"
            parts.append((opening, part.parameter, _WRITERS[part.type]))
        self._parts = tuple(parts)

    def key_text(self, fields: Fields) -> str | None:
        """Gives the canonical JSON of the key; None where a part of it is missing or of another type."""
        if not self._parts:
            return NO_KEY
        text = ""
        for opening, parameter, writers in self._parts:
            value = fields.get(parameter)
            write = writers.get(type(value))
            written = None if write is None else write(value)
            if written is None:
                return None
            text += opening + written
        return text + "}"


def _read_any(found: Found) -> Value:
    return None if found is ABSENT or type(found) is float else found


def _read_string(found: Found) -> Value:
    return found if type(found) is str else None


def _read_integer(found: Found) -> Value:
    return found if type(found) is int else None


def _read_date(found: Found) -> Value:
    return _day(found) if type(found) is str or type(found) is int else None


def _day(written: str | int) -> str | None:
    text = str(written) if isinstance(written, int) else written
    if len(text) not in _DATE_LENGTHS:
        if not valid_timestamp(text):
            return None
        text = text[:10]
    digits = _DATE.fullmatch(text)
    if digits is None:
        return None
    try:
        return date(int(digits[1]), int(digits[2]), int(digits[3])).isoformat()
    except ValueError:  # a day that does not exist
        return None


@lru_cache(maxsize=16_384)  # a stream of signals holds few different days and timestamps at a time
def _written_day(written: str | int) -> str | None:
    day = _day(written)
    return None if day is None else f'"{day}"'


READERS: dict[JoinType, Reader] = {
    JoinType.ANY: _read_any,
    JoinType.STRING: _read_string,
    JoinType.INTEGER: _read_integer,
    JoinType.DATE: _read_date,
}

_Writers: TypeAlias = Mapping[type, Callable[..., str | None]]
"""By the type of a join value, what writes it as it stands in the key's text; a type that is not there gives no key."""

_WORDS = {True: "true", False: "false"}

# The same as READERS, in calls into C only: a key is written for nearly every signal.
_WRITERS: dict[JoinType, _Writers] = {
    JoinType.ANY: {str: encode_basestring, int: str, bool: _WORDS.__getitem__},
    JoinType.STRING: {str: encode_basestring},
    JoinType.INTEGER: {int: str},
    JoinType.DATE: {str: _written_day, int: _written_day},
}
