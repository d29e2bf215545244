from __future__ import annotations

import math
import timeit
from types import MappingProxyType

import pytest

from signal_router.errors import RecordError
from signal_router.model.canonical import canonical_json, canonical_text, canonicalize_json_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-5.0, "-5"),
        (1e21, "1000000000000000000000"),
        (2**53 + 1, "9007199254740993"),
        (10**64 - 1, "9" * 64),
        (1e63, "1000000000000000057857959942726969827393378689175040438172647424"),
        (1e64, "1e+64"),
        (-1.5e300, "-1.5e+300"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (0.1, "0.1"),
        (0.00012, "0.00012"),
        (1e-5, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (0.000001, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (5e-324, "5e-324"),
        (123456.789, "123456.789"),
        (4503599627370495.5, "4503599627370495.5"),
    ],
)
def test_numbers_are_written_as_integers_or_as_ecmascript_does(value, text):
    assert canonical_text(value) == text
    assert canonical_text([value]) == f"[{text}]"
    assert canonical_text({"a": {"b": value}}) == f'{{"a":{{"b":{text}}}}}'


@pytest.mark.parametrize("with_float", [False, True])
def test_strings_carry_only_the_escapes_json_requires(with_float):
    text = '\x00\x08\t\n\x0b\x0c\r\x1f"\\/\x7f\u2028é\U0001f600'
    written = '"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\"\\\\/\x7f\u2028é\U0001f600"'

    assert canonical_text([text, 0.5] if with_float else [text]) == (
        f"[{written},0.5]" if with_float else f"[{written}]"
    )


@pytest.mark.parametrize("last", [1, 0.5])
def test_keys_stand_in_the_order_of_code_points_not_of_utf16_units(last):
    value = {"\U00010000": last, "\uffff": 3, "é": 2, "a": 1, "": 0, "B": 4}

    assert canonical_text(value) == f'{{"":0,"B":4,"a":1,"é":2,"\uffff":3,"\U00010000":{last}}}'


def test_composed_and_decomposed_letters_stay_different():
    assert canonical_json("\u00e9") != canonical_json("e\u0301")


def test_tuples_and_read_only_mappings_are_written_like_lists_and_dicts():
    assert canonical_json((1, MappingProxyType({"b": (), "a": 0.0}))) == b'[1,{"a":0,"b":[]}]'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\ud800", {"\udc00": 1}, [0.5, "\ud800"]])
def test_values_outside_json_are_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011 -- UnicodeEncodeError is one
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, {1: 0.5}, {None: 1}, object(), {"a": {1}}, b"bytes"])
def test_values_of_foreign_types_are_refused(value):
    with pytest.raises(TypeError):
        canonical_json(value)


def test_json_text_is_rewritten_canonically():
    assert canonicalize_json_text(b' { "b" : 1.0e0, "a":"\\u00e9\\/", "b": -0 } ') == '{"a":"é/","b":0}'.encode()


def test_text_that_is_no_json_is_refused_as_a_record():
    with pytest.raises(RecordError, match="not JSON"):
        canonicalize_json_text(b"{")


def test_parameters_of_a_signal_are_written_in_microseconds():
    params = {"ds": "2026-03-10", "country": "US", "rows": 1500, "full": True, "region": None}

    per_call = min(timeit.repeat(lambda: canonical_json(params), number=2000, repeat=5)) / 2000

    assert per_call < 20e-6  # about 1 µs; the bound only catches a lost fast path on a busy machine
