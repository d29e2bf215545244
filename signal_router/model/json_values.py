"""Reading JSON exactly: what one producer wrote and what every consumer sees is the same value, or a named refusal.

Integers are exact up to 64 digits; numbers with a fraction or an exponent are IEEE doubles, and those that are integral
become integers, so that 1 and 1.0 are one value. A key given twice: the last wins. What two readers could take in two
ways is refused: NaN and infinities, numbers out of range, lone surrogates, bytes that are not UTF-8, absurd nesting.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import NoReturn

import msgspec

from signal_router.errors import RecordError

INTEGER_DIGITS = 64
"""Digits an integer may have: enough for any id or amount, little enough to compare and print at no cost."""

INTEGER_BOUND = 10**INTEGER_DIGITS
"""Integers are smaller than this in size, and so are the integral floats that become integers."""

MAX_NESTING = 64
"""Levels of arrays and objects; far above what people write, far below what overflows a reader's stack."""

_DIGITS = bytes(0x30 if chr(byte) in "0123456789" else 0x20 for byte in range(256))
_TOO_MANY_DIGITS = b"0" * (INTEGER_DIGITS + 1)
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def normalised_float(value: float) -> int | float:
    """Gives an integral float below 10**64 in size as the integer it is, any other as it came.

    Raises ValueError for NaN and the infinities.
    """
    if value.is_integer():
        return int(value) if -INTEGER_BOUND < value < INTEGER_BOUND else value
    if value - value != 0:  # true of NaN and of the infinities only
        raise ValueError(f"{value!r} is no JSON number")
    return value


class NumberOutOfRangeError(ArithmeticError):
    """A number that no double, or no integer of 64 digits, can hold; the text is its spelling.

    Not a ValueError, as msgspec would wrap that into an error of its own.
    """


def read_float(spelling: str) -> int | float:
    """Reads a JSON number with a fraction or an exponent: the `float_hook` of every decoder of records.

    Raises NumberOutOfRangeError.
    """
    try:
        return normalised_float(float(spelling))
    except ValueError:
        raise NumberOutOfRangeError(spelling) from None


_decode = msgspec.json.Decoder(float_hook=read_float).decode


def decode_json(data: bytes, *, what: str, levels: int = MAX_NESTING) -> object:
    """Reads one JSON value exactly; `what` names it in the refusals, `levels` is how deep it may be nested.

    Raises RecordError with reason `not-json` (malformed, or not UTF-8), `number` (NaN, an infinity, out of range),
    `surrogate` (a string holds half of a surrogate pair) or `nesting`.
    """
    if data.count(b"[") + data.count(b"{") > levels:
        _check_nesting(data, what, levels)
    try:
        value: object = _decode(data)
        if len(data) > INTEGER_DIGITS and _TOO_MANY_DIGITS in data.translate(_DIGITS):
            _check_integers(value)
    except NumberOutOfRangeError as error:
        raise _number_refused(what, str(error)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _refuse(data, what)
    return value


def _number_refused(what: str, spelling: str) -> RecordError:
    shown = spelling if len(spelling) <= 40 else f"{spelling[:40]}…"
    return RecordError(
        "number",
        f"{what} holds the number {shown}, which is out of range",
        hint=f"integers have at most {INTEGER_DIGITS} digits, other numbers must fit a double; send it as a string",
    )


def _check_nesting(data: bytes, what: str, levels: int) -> None:
    depth = 0
    for byte in _STRINGS.sub(b"", data):
        if byte in b"[{":
            depth += 1
            if depth > levels:
                raise _nesting_refused(what)
        elif byte in b"]}":
            depth -= 1


def _nesting_refused(what: str) -> RecordError:
    return RecordError(
        "nesting",
        f"{what} is nested deeper than {MAX_NESTING} levels",
        hint="send deep structures as a string, or a reference to where they are stored",
    )


def _check_integers(value: object) -> None:
    if isinstance(value, int):
        if not -INTEGER_BOUND < value < INTEGER_BOUND:
            raise NumberOutOfRangeError(str(value))
    elif isinstance(value, list):
        for item in value:
            _check_integers(item)
    elif isinstance(value, dict):
        for item in value.values():
            _check_integers(item)


def _refuse(data: bytes, what: str) -> NoReturn:
    """Says why the decoder refused, in the words of the standard library's reader, which is slower and accepts more."""
    if not data.strip():
        raise RecordError(
            "not-json", f"{what} is empty", hint="send a JSON value; a tombstone is a null, not an empty one"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise RecordError(
            "not-json", f"{what} is not UTF-8: byte 0x{byte:02x} at {error.start}", hint="JSON is encoded as UTF-8"
        ) from None
    try:
        value = json.loads(text, parse_constant=partial(_refuse_constant, what))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise RecordError(
            "not-json", f"{what} is not JSON: {error.msg.lower()} at {where}", hint=f"check {where} with a JSON linter"
        ) from None
    except RecursionError:
        raise _nesting_refused(what) from None
    except ValueError:  # the standard library reads no integer of more than 4300 digits
        raise _number_refused(what, max(re.findall(r"-?[0-9]+", text), key=len)) from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RecordError(
            "surrogate",
            f"{what} holds a string with half of a surrogate pair",
            hint="the producer cut a string in the middle of a character; cut at code points",
        ) from None
    raise RecordError("not-json", f"{what} is not JSON", hint="check it with a JSON linter")


def _refuse_constant(what: str, spelling: str) -> NoReturn:
    raise RecordError(
        "number",
        f"{what} holds {spelling}, which is no JSON number",
        hint="send null, or leave the value out, where there is no number",
    )
