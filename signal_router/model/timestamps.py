"""Timestamps of producers: RFC 3339, checked and otherwise left as they are spelled, since they decide nothing."""

from __future__ import annotations

import re
from calendar import isleap

_DATE = r"(\d{4})-(\d\d)-(\d\d)"
_TIME = r"(\d\d):(\d\d):(\d\d)(?:\.\d+)?"
_OFFSET = r"(?:[Zz]|([+-])(\d\d):(\d\d))"
_ANY = re.compile(f"{_DATE}[Tt]{_TIME}{_OFFSET}", re.ASCII)

# Every timestamp but those of 29 February and of leap seconds, which need arithmetic.
_COMMON = re.compile(
    r"\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"[Tt](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
).fullmatch

_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def valid_timestamp(text: str) -> bool:
    """Whether `text` is a date-time of RFC 3339, section 5.6: date, `T`, time, and an offset or `Z`.

    Days exist in their month; second 60 stands only where leap seconds are put, at 23:59 UTC.
    """
    return _COMMON(text) is not None or _uncommon(text)


def _uncommon(text: str) -> bool:
    parts = _ANY.fullmatch(text)
    if parts is None:
        return False
    year, month, day, hour, minute, second = (int(part) for part in parts.groups()[:6])
    sign, offset_hour, offset_minute = parts[7], int(parts[8] or 0), int(parts[9] or 0)
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1] or (month == 2 and day == 29 and not isleap(year)):
        return False
    if hour > 23 or minute > 59 or second > 60 or offset_hour > 23 or offset_minute > 59:
        return False
    if second < 60:
        return True
    offset = (offset_hour * 60 + offset_minute) * (-1 if sign == "-" else 1)
    return (hour * 60 + minute - offset) % (24 * 60) == 23 * 60 + 59
