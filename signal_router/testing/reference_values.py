"""Values for the reference evaluation: reading JSON exactly, writing canonical JSON, comparing, formatting times.

Written on the standard library alone and on purpose apart from `signal_router.model`, so that a fault there shows as a
difference and is not repeated here.
"""

from __future__ import annotations

import hashlib
import json
import re
from calendar import isleap
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Scalar: TypeAlias = "bool | int | float | str | None"

MAXIMAL_DIGITS = 64
MAXIMAL_NESTING = 64


class UnreadableError(Exception):
    """The bytes are no JSON of the kind that the contract reads."""


def read_json(data: bytes) -> Json:
    """Reads one JSON value: integers exactly, integral doubles below 10^64 as integers, other numbers as doubles.

    Raises UnreadableError for what the contract refuses: no UTF-8, no JSON, NaN, infinities (also by overflow),
    integers of more than 64 digits, lone surrogates, nesting deeper than 64.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError("not UTF-8") from error
    if _nesting(text) > MAXIMAL_NESTING:
        raise UnreadableError("nested too deeply")
    try:
        value: Json = json.loads(
            text,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_refused_constant,
            object_pairs_hook=_object,
        )
    except ValueError as error:
        raise UnreadableError(f"not JSON: {error}") from error
    _refuse_surrogates(value)
    return value


def _nesting(text: str) -> int:
    without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "", text, flags=re.DOTALL)
    depth = deepest = 0
    for character in without_strings:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAXIMAL_DIGITS:
        raise UnreadableError("an integer of more than 64 digits")
    return int(digits)


def _number(text: str) -> int | float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise UnreadableError("a number beyond the range of doubles")
    return normalised(number)


def normalised(number: float) -> int | float:
    """Gives the integer where a double is integral and has at most 64 digits, otherwise the double itself."""
    if number.is_integer() and abs(number) < 10**MAXIMAL_DIGITS:
        return int(number)
    return number


def _refused_constant(name: str) -> Json:
    raise UnreadableError(f"{name} is no JSON")


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    for name, value in pairs:  # also those that a later pair of the same name replaces
        _refuse_surrogates(name)
        _refuse_surrogates(value)
    return dict(pairs)


def _refuse_surrogates(value: Json) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise UnreadableError("a lone surrogate")
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)


def canonical(value: Json) -> str:  # noqa: PLR0911 (one per type)
    """Writes a value as canonical JSON (see docs/model.md), as text."""
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        number = normalised(value)
        return str(number) if isinstance(number, int) else _double(number)
    if isinstance(value, list):
        return "[" + ",".join([canonical(item) for item in value]) + "]"
    return "{" + ",".join([f"{_text(name)}:{canonical(value[name])}" for name in sorted(value)]) + "}"


_text = json.JSONEncoder(ensure_ascii=False).encode
"""Made once: `json.dumps` makes one for every text."""


def _double(number: float) -> str:
    """Writes a double as ECMAScript's Number::toString does (RFC 8785, section 3.2.2.3)."""
    sign, digit_tuple, exponent = Decimal(repr(number)).as_tuple()
    if not isinstance(exponent, int):
        raise UnreadableError(f"{number!r} is no JSON")
    all_digits = "".join(map(str, digit_tuple))
    digits = all_digits.rstrip("0")
    point = len(all_digits) + exponent  # the decimal point stands after this many digits
    minus = "-" if sign else ""
    if len(digits) <= point <= 21:
        return minus + digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{minus}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    mantissa = digits[0] if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{minus}{mantissa}e{point - 1:+d}"


def join_key_hash(key_text: str) -> str:
    """The first 16 hex digits of SHA-256 of a key's canonical JSON."""
    return hashlib.sha256(key_text.encode()).hexdigest()[:16]


def type_of(value: Scalar) -> str:
    """Names a scalar's type: string, number, boolean or null."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "string"


def equal(left: Scalar, right: Scalar) -> bool:
    """Whether two scalars are the same value of the same type; numbers compare by exact value."""
    return type_of(left) == type_of(right) and left == right


_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_COMPACT_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def date_as_written(value: Scalar) -> str | None:
    """Reads a day in any of the spellings of join type `date`; gives `YYYY-MM-DD`, or None where it is none."""
    day = None
    if isinstance(value, int) and not isinstance(value, bool):
        day = _day(_COMPACT_DATE.fullmatch(str(value)))
    elif isinstance(value, str) and rfc3339(value):
        day = _day(_TIMESTAMP.fullmatch(value))
    elif isinstance(value, str):
        day = _day(_DATE.fullmatch(value) or _COMPACT_DATE.fullmatch(value))
    return None if day is None or day.startswith("0000") else day  # there is no year 0


def rfc3339(text: str) -> bool:
    """Whether a text is an RFC 3339 timestamp of a day that exists."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None or _day(found) is None:
        return False
    hour, minute, second, offset_hour, offset_minute = (int(found[part] or 0) for part in (4, 5, 6, 8, 9))
    if hour > 23 or minute > 59 or second > 60 or offset_hour > 23 or offset_minute > 59:
        return False
    offset = (offset_hour * 60 + offset_minute) * (-1 if found[7] == "-" else 1)
    minute_of_utc_day = (hour * 60 + minute - offset) % (24 * 60)
    return second < 60 or minute_of_utc_day == 23 * 60 + 59  # leap seconds are put there and nowhere else


def _day(found: re.Match[str] | None) -> str | None:
    if found is None:
        return None
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    days = [31, 29 if isleap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    if not 1 <= month <= 12 or not 1 <= day <= days[month - 1]:
        return None
    return f"{found[1]}-{found[2]}-{found[3]}"


def time_text(epoch_ms: int) -> str:
    """Writes epoch milliseconds as RFC 3339 in UTC with milliseconds and `Z`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=epoch_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{epoch_ms % 1000:03d}Z"


_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION_PART = r"([0-9]+)(ms|s|m|h|d)\s*"


def duration_ms(text: str) -> int:
    """Reads a duration such as `7d` or `12h 30m` as milliseconds. Raises UnreadableError."""
    if not re.fullmatch(f"(?:{_DURATION_PART})+", text):
        raise UnreadableError(f'"{text}" is no duration')
    parts = re.findall(_DURATION_PART, text)
    return sum(int(number) * _UNITS_MS[unit] for number, unit in parts)


def text_or_none(document: Mapping[str, Json], name: str) -> str | None:
    """The string under a name; None where it is absent or null. Raises UnreadableError for an empty one and others."""
    value = document.get(name)
    if value is None or (isinstance(value, str) and value):
        return value
    raise UnreadableError(f"{name} is empty or no string")
