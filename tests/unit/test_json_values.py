from __future__ import annotations

import math

import pytest

from signal_router.errors import RecordError
from signal_router.model.json_values import MAX_NESTING, decode_json, normalised_float


def reason_of(data: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        decode_json(data, what="record")
    assert caught.value.hint
    assert caught.value.message.startswith("record ")
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1.0", 1),
        ("1.0e0", 1),
        ("-0", 0),
        ("-0.0", 0),
        ("1e-400", 0),
        ("1E2", 100),
        ("9007199254740993", 2**53 + 1),
        ("9007199254740993.0", 2**53),
        ("18446744073709551616", 2**64),
        ("-" + "9" * 64, -(10**64) + 1),
        ("1e63", int(1e63)),
        ("1e64", 1e64),
        ("0.1", 0.1),
        ("123456789012345678901234567890.5", 123456789012345677877719597056),
        ("0." + "0" * 400 + "1e401", 1),
        ("1.7976931348623157e308", 1.7976931348623157e308),
    ],
)
def test_numbers_are_exact_integers_or_doubles(text, value):
    decoded = decode_json(text.encode(), what="record")

    assert (type(decoded), repr(decoded)) == (type(value), repr(value))


def test_a_key_given_twice_keeps_its_last_value():
    assert decode_json(b'{"a":1,"b":2,"a":3}', what="record") == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        '{"a":[NaN]}',
        "1e400",
        "-1e400",
        "1" * 65,
        "-" + "1" * 65,
        "9" * 5000,
        "1" + "0" * 400 + ".0",
    ],
)
def test_numbers_out_of_range_are_refused(text):
    assert reason_of(text.encode()) == "number"
    assert reason_of(f'[{{"a":{text}}}]'.encode()) == "number"


def test_long_runs_of_digits_that_are_no_integers_are_read():
    assert decode_json(b'["' + b"7" * 100 + b'",0.' + b"3" * 100 + b"]", what="record") == ["7" * 100, 1 / 3]


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '"\\udc00 "', '"\\ud800\\u0041"', '"\\ud800\\ud800"', '{"\\ud83d":1}', '["a\\ud800b"]']
)
def test_halves_of_surrogate_pairs_are_refused(text):
    assert reason_of(text.encode()) == "surrogate"


def test_whole_surrogate_pairs_are_read():
    assert decode_json(b'"\\ud83d\\ude00"', what="record") == "\U0001f600"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"{",
        b"[1,]",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"'a'",
        b'"a\x01"',
        b"nul",
        b"1 2",
        b"\xef\xbb\xbf1",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\xff"',
    ],
)
def test_what_is_no_json_is_refused(data):
    assert reason_of(data) == "not-json"


def test_nesting_is_read_up_to_its_limit():
    assert decode_json(b"[" * MAX_NESTING + b"]" * MAX_NESTING, what="record") is not None


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_beyond_its_limit_is_refused(levels, opening, closing):
    assert reason_of(opening * levels + b"1" + closing * levels) == "nesting"


def test_wide_values_and_brackets_in_strings_are_no_nesting():
    assert decode_json(b"[" + b"[]," * 200 + b'"' + b'[{\\"' * 100 + b'"]', what="record") is not None


def test_a_refusal_names_the_value_and_the_place():
    with pytest.raises(RecordError) as caught:
        decode_json(b'{"a": nul}', what='payload of signal "x"')

    assert caught.value.message == 'payload of signal "x" is not JSON: expecting value at line 1 column 7'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_are_no_numbers(value):
    with pytest.raises(ValueError, match="no JSON number"):
        normalised_float(value)
