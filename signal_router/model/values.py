"""Parameter values: what they are, when two are equal, and how they are ordered.

Equality and order are typed: a string never equals a number and `true` never equals 1, although Python says so. Numbers
compare by exact value, whatever their size and whether integer or double (Python compares those without rounding).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None
"""A scalar. Numbers are normalised when read: an integral float below 10**64 in size is an int, so 1.0 is 1."""

_TYPE_NAMES = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
    tuple: "array",
    dict: "object",
}

_TYPED_TRUE = ("boolean", True)
_TYPED_FALSE = ("boolean", False)


def type_name(value: object) -> str:
    """Names the JSON type of a value: string, number, boolean, null; array or object for what is no scalar."""
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def same(left: Value, right: Value) -> bool:
    """Whether two values are equal: of one type, and numbers by exact value."""
    if left is True or left is False or right is True or right is False:
        return left is right
    return left == right


def typed(value: Value) -> Hashable:
    """Gives a key for dicts and sets that is equal for two values exactly when `same` is.

    Only booleans need another shape: everything else is its own key.
    """
    if value is True:
        return _TYPED_TRUE
    if value is False:
        return _TYPED_FALSE
    return value


def compare(left: Value, right: Value) -> int | None:
    """Orders two numbers by exact value or two strings by code point: -1, 0 or 1.

    None means that the two have no order: they differ in type, or are booleans or nulls.
    """
    if isinstance(left, str):
        if isinstance(right, str):
            return (left > right) - (left < right)
        return None
    if left is None or right is None or isinstance(left, bool) or isinstance(right, (bool, str)):
        return None
    return (left > right) - (left < right)
