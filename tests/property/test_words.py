"""The words on the wire against straightforward second implementations, and against anything at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from signal_router.errors import RecordError
from signal_router.model.canonical import (
    canonical_json,
    canonical_scalars,
    canonical_strings,
    canonical_text,
    canonicalize_json_text,
)
from signal_router.model.json_values import decode_json
from signal_router.model.records import REASONS, decode_signal
from signal_router.model.signals import Signal
from signal_router.model.timestamps import valid_timestamp
from signal_router.model.values import compare, same, typed

LIMIT = 2_000

texts = st.text(st.characters(codec="utf-8"), max_size=12)
integers = st.integers(-(10**64) + 1, 10**64 - 1) | st.integers(-(2**54), 2**54)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-60, 60).map(float) | st.floats(-1e-3, 1e-3)
numbers = integers | floats
scalars = (
    st.none() | st.booleans() | numbers | texts | st.sampled_from([0, 1, "0", "1", True, False, -0.0, 1.0, "true"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def plain_canonical(value: object) -> str:
    """Canonical JSON, written for reading: numbers by way of their exact decimal expansion."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return plain_number(value)
    if isinstance(value, str):
        return '"' + "".join(plain_character(character) for character in value) + '"'
    if isinstance(value, list):
        return "[" + ",".join(plain_canonical(item) for item in value) + "]"
    members = sorted(value.items(), key=lambda member: [ord(character) for character in member[0]])
    return "{" + ",".join(f"{plain_canonical(key)}:{plain_canonical(item)}" for key, item in members) + "}"


def plain_character(character: str) -> str:
    short = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    if character in short:
        return short[character]
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 else character


def plain_number(value: float) -> str:
    """ECMAScript's Number::toString, step by step: digits s of length k with value s·10^(n-k)."""
    if Fraction(value).denominator == 1 and abs(Fraction(value)) < 10**64:
        return str(int(value))
    sign = "-" if value < 0 else ""
    _, digits, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    s, k = "".join(map(str, digits)), len(digits)
    n = k + exponent
    if k <= n <= 21:
        return sign + s + "0" * (n - k)
    if 0 < n <= 21:
        return sign + s[:n] + "." + s[n:]
    if -6 < n <= 0:
        return sign + "0." + "0" * -n + s
    mantissa = s if k == 1 else f"{s[0]}.{s[1:]}"
    return f"{sign}{mantissa}e{'+' if n > 0 else '-'}{abs(n - 1)}"


@given(values)
@example(1e-5)
@example(0.0001)
@example(9.5e-7)
@example(4503599627370495.5)
@example(1e64)
@example([1e63, -0.0])
@example({"\U00010000": 0.5, "\uffff": 1})
def test_canonical_json_is_what_a_plain_writer_writes(value):
    assert canonical_text(value) == plain_canonical(value)


@given(st.dictionaries(texts, scalars, max_size=4), st.lists(st.none() | texts, max_size=4))
@example({"b": 1e64, "a": 1e-7}, ["\x1f\x7f\u2028", None])
def test_the_short_ways_for_params_and_identities_write_the_same_canonical_json(params, strings):
    assert canonical_scalars(params).decode() == plain_canonical(params)
    assert canonical_strings(tuple(strings)) == plain_canonical(strings)


@given(values)
def test_canonical_json_is_read_back_as_the_same_value_and_written_the_same_again(value):
    text = canonical_json(value)

    assert canonical_json(decode_json(text, what="value")) == text
    assert canonicalize_json_text(json.dumps(value, indent=1).encode()) == text


@given(values, values)
def test_values_are_equal_exactly_where_their_canonical_texts_are(left, right):
    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else (typed(value),)

    assert (shape(left) == shape(right)) is (canonical_json(left) == canonical_json(right))


@given(scalars, scalars)
def test_scalars_are_the_same_exactly_where_their_canonical_texts_are(left, right):
    assert same(left, right) is (canonical_json(left) == canonical_json(right))
    assert (typed(left) == typed(right)) is same(left, right)


@given(numbers | texts, numbers | texts)
def test_the_order_of_values_is_that_of_fractions_and_of_code_points(left, right):
    if isinstance(left, str) != isinstance(right, str):
        assert compare(left, right) is None
        return

    a, b = ([ord(c) for c in v] if isinstance(v, str) else Fraction(v) for v in (left, right))

    assert compare(left, right) == (-1 if a < b else 1 if a > b else 0)


def attempt(read: Callable[[], object]) -> object:
    """What a reader gives, or the refusal it raises; any other error ends the test."""
    try:
        return read()
    except RecordError as error:
        return error


JSON_NUMBER = st.from_regex(r"-?(0|[1-9][0-9]{0,70})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(JSON_NUMBER)
@example("1" + "0" * 64)
@example("-" + "9" * 65)
@example("1e64")
@example("9007199254740993.0")
def test_numbers_are_read_as_python_reads_them_or_refused_where_they_do_not_fit(spelling):
    integer = re.fullmatch(r"-?[0-9]+", spelling)
    expected = int(spelling) if integer else float(spelling)
    fits = abs(expected) < 10**64 if integer else math.isfinite(expected)

    found = attempt(lambda: decode_json(spelling.encode(), what="number"))

    if isinstance(found, RecordError):
        assert (found.reason, fits) == ("number", False)
    else:
        assert fits
        assert found == expected
        assert isinstance(found, int) or not found.is_integer() or abs(found) >= 1e64


loose_json = st.recursive(
    st.sampled_from(["NaN", "1e400", '"\\ud800"', '"\\ud83d\\ude00"', "9" * 65, "-Infinity", "1.0", "nul", '"\x01"'])
    | values.map(json.dumps)
    | JSON_NUMBER,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(texts.map(json.dumps), inner), max_size=3).map(
            lambda members: "{" + ", ".join(f"{key} : {item}" for key, item in members) + "}"
        )
    ),
    max_leaves=6,
)
RFC_TIME = st.datetimes(timezones=st.timezones(no_cache=True), allow_imaginary=False).map(lambda at: at.isoformat())
spellings = {
    "name": texts.map(json.dumps) | st.just('"x"'),
    "source": texts.map(json.dumps) | st.just('"s"'),
    "id": texts.map(json.dumps) | st.just('"1"'),
    "time": st.sampled_from(['"2026-03-10T04:05:06Z"', '"2026-02-29T04:05:06Z"', '"x"']),
    "params": st.dictionaries(texts, scalars, max_size=4).map(json.dumps),
    "payload": values.map(json.dumps),
    "more": values.map(json.dumps),
}


@st.composite
def nearly_signals(draw):
    """JSON texts that are signals in most fields, anything in some; of a key given twice only the last may be bad."""
    fields = ["name", *draw(st.lists(st.sampled_from(list(spellings)), max_size=8))]
    members = [
        f'"{field}":{draw(spellings[field] if field in fields[at + 1 :] else spellings[field] | loose_json)}'
        for at, field in enumerate(fields)
    ]
    return "{" + ",".join(members) + "}"


def plain_signal(text: str) -> Signal | None:
    """The rules of the plain form, read with the standard library; None where it is refused."""

    def refuse(_: str) -> object:
        raise ValueError

    def integer(spelling: str) -> int:
        if len(spelling.lstrip("-")) > 64:
            raise ValueError
        return int(spelling)

    def number(spelling: str) -> float:
        if not math.isfinite(float(spelling)):
            raise ValueError
        return json.loads(plain_number(float(spelling)))

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        json.dumps(pairs, ensure_ascii=False).encode()
        return dict(pairs)

    try:
        fields = json.loads(
            text, parse_constant=refuse, parse_int=integer, parse_float=number, object_pairs_hook=members
        )
    except ValueError:
        return None
    name, source, id_, time = (fields.get(field) for field in ("name", "source", "id", "time"))
    params = {} if fields.get("params") is None else fields["params"]
    if (
        not isinstance(name, str)
        or not name
        or any(v is not None and not isinstance(v, str) for v in (source, id_, time))
    ):
        return None
    if (
        "" in (source, id_, time)
        or (id_ is not None and source is None)
        or (time is not None and not valid_timestamp(time))
    ):
        return None
    if not isinstance(params, dict) or any(isinstance(v, (list, dict)) for v in params.values()):
        return None
    context = {k: v for k, v in (("type", name), ("source", source), ("id", id_), ("time", time)) if v is not None}
    payload = fields.get("payload")
    return Signal(
        name, source, id_, params, None if payload is None else plain_canonical(payload).encode(), time, context
    )


@given(nearly_signals() | loose_json)
def test_the_plain_form_is_read_as_a_plain_reader_reads_it(text):
    expected = plain_signal(text) if text.startswith("{") else None

    found = attempt(lambda: decode_signal(text.encode(), None, limit_bytes=10**6))

    if isinstance(found, RecordError):
        assert found.reason in REASONS
        assert expected is None
        return
    assert isinstance(found, Signal)
    assert expected is not None
    payload = None if found.payload is None else canonicalize_json_text(found.payload)
    assert msgspec.structs.replace(found, payload=payload) == expected
    assert repr(found.params) == repr(expected.params)  # 1, 1.0 and True are equal in Python, their spellings are not


header_names = st.sampled_from(
    [
        "ce_specversion",
        "ce_type",
        "ce_source",
        "ce_id",
        "ce_time",
        "ce_",
        "CE_ID",
        "content-type",
        "traceparent",
        "sr_replay_of",
    ]
)
header_values = (
    st.none()
    | st.binary(max_size=8)
    | st.sampled_from(
        [
            b"1.0",
            b"application/json",
            b"application/cloudevents",
            b"application/cloudevents+json; x",
            b"application/cloudevents-batch+json",
            b"text/plain",
            b"2026-03-10T04:05:06Z",
        ]
    )
)
whole_event = [("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_source", b"s"), ("ce_id", b"1")]
headers_of_records = st.none() | st.builds(
    lambda event, more: [*event, *more],
    st.sampled_from([[], whole_event]),
    st.lists(st.tuples(header_names | texts, header_values), max_size=5),
)
cloudevents = st.dictionaries(
    st.sampled_from(["specversion", "type", "source", "id", "time", "data", "data_base64", "datacontenttype", "x"]),
    values | st.sampled_from(["1.0", "s", "MQ==", "application/json", {"params": {"a": 1}, "payload": 2}]),
    max_size=8,
)
structured = st.builds(
    lambda more: json.dumps({"specversion": "1.0", "type": "t", "source": "s", "id": "1"} | more).encode(), cloudevents
)


@given(
    st.none() | st.binary(max_size=40) | nearly_signals().map(str.encode) | loose_json.map(str.encode) | structured,
    headers_of_records,
)
def test_any_record_is_a_signal_a_tombstone_or_refused_with_a_reason(value, headers):
    signal = attempt(lambda: decode_signal(value, headers, limit_bytes=LIMIT))

    if isinstance(signal, RecordError):
        assert signal.reason in REASONS
        assert signal.hint
        return
    if value is None:
        assert signal is None
        return
    assert isinstance(signal, Signal)
    assert signal.name
    assert signal.id is None or signal.source is not None
    assert signal.context["type"] == signal.name
    assert all(isinstance(attribute, str) for attribute in signal.context.values())
    canonical_json(signal.params)
    canonical_json(dict(signal.context))
    if signal.payload is not None:
        canonicalize_json_text(signal.payload)


@given(RFC_TIME)
def test_every_aware_time_that_python_writes_is_a_timestamp(text):
    assert valid_timestamp(text) is (re.search(r"[+-]\d\d:\d\d$", text) is not None)
