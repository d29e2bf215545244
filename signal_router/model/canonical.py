r"""Canonical JSON: one text per value, so that keys, identities and digests are equal exactly where the values are.

The text is UTF-8 without white space, object keys in the order of their code points, only the escapes JSON requires (in
the spelling of RFC 8785: `\b \t \n \f \r`, other controls as `\u00xx`), strings as they are, without Unicode
normalisation. Integral numbers below 10**64 in size are written as integers (`-0` and `1.0` are `0` and `1`); all other
numbers as RFC 8785 writes doubles, that is as ECMAScript does (`1e-7`, `0.00001`, `1e+300`). Two points differ from
RFC 8785: integers are exact instead of rounded to doubles, and keys are ordered by code point, not by UTF-16 unit.

msgspec writes the same text for everything but some floats, so values without those go straight to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from signal_router.model.json_values import decode_json, normalised_float
from signal_router.model.values import Value

_encode = msgspec.json.Encoder(order="sorted").encode

_EXACT = frozenset({str, int, bool, type(None)})
"""Types that msgspec writes canonically."""


def canonical_json(value: object) -> bytes:
    """Writes `value` (None, bool, int, float, str, list or tuple, mapping with string keys) as canonical JSON.

    Raises ValueError for NaN, infinities and lone surrogates, TypeError for what is no JSON value; nothing that came
    through `decode_json` holds either. Integers are written exactly, whatever their size.
    """
    return _encode(value) if _is_plain(value) else _written(value).encode()


def canonical_scalars(values: Mapping[str, Value]) -> bytes:
    """Writes what `canonical_json` does of a dict of scalars, where only floats need a second look."""
    for value in values.values():
        if type(value) is float:
            return canonical_json(values)
    return _encode(values)


def canonical_strings(values: tuple[str | None, ...]) -> str:
    """Writes what `canonical_text` does of an array of strings and nulls."""
    return _encode(values).decode()


def canonical_text(value: object) -> str:
    """Writes `value` as `canonical_json` does, as text."""
    return canonical_json(value).decode()


def canonicalize_json_text(data: bytes) -> bytes:
    """Rewrites JSON text as canonical JSON; raises RecordError where `decode_json` does."""
    return canonical_json(decode_json(data, what="JSON text"))


def _is_plain(value: object) -> bool:
    """Whether msgspec writes `value` canonically; what is unknown is left to the careful path."""
    kind = type(value)
    if kind in _EXACT:
        return True
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str or (type(item) not in _EXACT and not _is_plain(item)):
                return False
        return True
    if type(value) is list or type(value) is tuple:
        return all(type(item) in _EXACT or _is_plain(item) for item in value)
    # A fraction of common size is written without an exponent by both; NaN fails the comparison.
    return type(value) is float and not value.is_integer() and 1e-4 <= abs(value) < 1e16


def _written(value: object) -> str:
    if value is None or isinstance(value, (bool, int, str)):
        return _encode(value).decode()
    if isinstance(value, float):
        return _written_float(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON has string keys only, not {key!r}")
        return f"{{{','.join(f'{_written(key)}:{_written(value[key])}' for key in sorted(value))}}}"
    raise TypeError(f"canonical JSON cannot hold a value of type {type(value).__name__}: {value!r}")


def _written_float(value: float) -> str:
    """Turns Python's shortest spelling into ECMAScript's; the digits are the same, the exponent is not.

    Only spellings with a negative exponent differ: what has a positive one is at least 1e64 here, as smaller integral
    numbers are integers and no double above 2**53 has a fraction.
    """
    number = normalised_float(value)
    if isinstance(number, int):
        return str(number)
    text = repr(number)
    mantissa, _, exponent = text.partition("e-")
    if not exponent:
        return text
    if int(exponent) > 6:
        return f"{mantissa}e-{int(exponent)}"
    sign = "-" if number < 0 else ""
    return f"{sign}0.{'0' * (int(exponent) - 1)}{mantissa.lstrip('-').replace('.', '')}"
