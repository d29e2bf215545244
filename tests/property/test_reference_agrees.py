"""The program reads records, definitions and templates as the reference does, which was written apart from it."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

from hypothesis import example, given, settings
from hypothesis import strategies as st

from signal_router.core.index import MatchIndex
from signal_router.errors import RecordError
from signal_router.model.candidates import identity_of
from signal_router.model.canonical import canonical_json, canonical_text
from signal_router.model.documents import compile_subscription, read_document
from signal_router.model.json_values import decode_json
from signal_router.model.records import decode_signal
from signal_router.model.signals import Signal as ProgramSignal
from signal_router.testing.reference import DefinitionRecord, Position, SignalRecord
from signal_router.testing.reference_definitions import Definitions
from signal_router.testing.reference_signals import Signal, read_signal
from signal_router.testing.reference_template import Bound, render
from signal_router.testing.reference_values import UnreadableError, canonical, read_json

LIMIT = 4_096
TOPIC_ID = "mR1rq1K5SoCzXUK0fYqDuw"
HERE = Position("signals", 0, 7)

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**66), 10**66),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1e21, 1e22, 1e63, 1e64, 1e65, 2.0**53, 5e-324, 1.5]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NUMERALS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,70})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z")
BROKEN = st.sampled_from(
    ['"\\ud800"', '"\\ud83d\\ude00"', "NaN", "-Infinity", "[1", '{"a":1,"a":2}', "[" * 65 + "]" * 65, "", " "]
)
TEXTS = st.one_of(
    VALUES.map(json.dumps), VALUES.map(lambda value: json.dumps(value, ensure_ascii=False)), NUMERALS, BROKEN
)


def same(left: object, right: object) -> bool:
    """Equal as JSON, with types: 1 is not true."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(TEXTS)
@settings(max_examples=250, deadline=None)
@example("1e309")
@example("-1e-400")
@example("1" * 65)
@example('"\\ud800')
def test_json_is_read_and_written_alike(text):
    data = text.encode("utf-8", "surrogatepass")
    try:
        expected = read_json(data)
    except UnreadableError:
        expected = UnreadableError
    try:
        found = decode_json(data, what="text")
    except RecordError:
        found = UnreadableError

    assert found is expected or same(found, expected)
    if expected is not UnreadableError:
        assert canonical_text(found) == canonical(expected)


FIELD = st.one_of(st.text(max_size=3), st.none(), st.just(""), st.integers(), st.just("x"))
TIMES = st.sampled_from(
    [
        "2026-03-10T00:00:00Z",
        "2026-03-10",
        "0000-02-29T00:00:00z",
        "2016-12-31T23:59:60Z",
        "2016-12-31T22:59:60Z",
        "",
        None,
        5,
        "2026-03-10 00:00:00Z",
        "2026-03-10T00:00:00.123456+14:00",
        "2026-03-10T00:00:00+24:00",
        "2026-13-10T00:00:00Z",
    ]
)
PARAMS = st.one_of(st.none(), st.dictionaries(st.text(max_size=3), SCALARS, max_size=3), VALUES)
PLAIN = st.fixed_dictionaries(
    {"name": st.one_of(st.just("A"), st.just("A"), FIELD)},
    optional={"source": FIELD, "id": FIELD, "time": TIMES, "params": PARAMS, "payload": VALUES, "more": VALUES},
)
STRUCTURED = st.fixed_dictionaries(
    {"specversion": st.sampled_from(["1.0", "1.0", "1.0", "0.3"]), "type": st.just("A"), "source": st.just("s")},
    optional={
        "id": st.one_of(st.just("1"), FIELD),
        "time": TIMES,
        "subject": FIELD,
        "extension": st.one_of(
            st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
        ),
        "datacontenttype": st.sampled_from(["application/json", "text/plain", "application/x+json; a=b", "", None]),
        "data": st.one_of(VALUES, st.fixed_dictionaries({"params": PARAMS}, optional={"payload": VALUES})),
        "data_base64": st.one_of(
            st.none(), st.just("?"), TEXTS.map(lambda text: base64.b64encode(text.encode()).decode()), st.integers()
        ),
    },
)
CONTENT_TYPES = st.sampled_from(
    [
        b"application/json",
        b"application/cloudevents+json; charset=utf-8",
        b"application/cloudevents-batch+json",
        b"application/CloudEvents",
        b"text/plain",
        b"application/x+json",
        b"",
        b"\xff",
        None,
    ]
)
FIRST = (
    '["mR1rq1K5SoCzXUK0fYqDuw",0,17]', '["u",3,9223372036854775807]', '["u", 0,1]', '["u",0,1.0]', '["u",true,1]',
    '["u",-1,1]', '["u",0,01]', '["",0,1]', '["u/",0,1]', '["u",0]', '["u",10000000000,1]',
    '["u",0,10000000000000000000]', '"u"',
)  # fmt: skip
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["content-type", "Content-Type"]), CONTENT_TYPES),
        st.tuples(
            st.sampled_from(
                ["ce_type", "ce_source", "ce_id", "CE_ID", "ce_time", "ce_subject", "ce_datacontenttype", "other"]
            ),
            st.sampled_from([b"A", b"", b"\xff", None, b"2026-03-10T00:00:00Z"]),
        ),
        st.tuples(
            st.sampled_from(["traceparent", "tracestate", "sr_replay_of"]),
            st.sampled_from([b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"\xff", "é".encode(), None]),
        ),
        st.tuples(st.just("sr_replay_of"), st.sampled_from([f'{{"position":{first}}}'.encode() for first in FIRST])),
    ),
    max_size=3,
)
BINARY = HEADERS.map(
    lambda headers: [("ce_specversion", b"1.0"), ("ce_type", b"A"), ("ce_source", b"s"), ("ce_id", b"1"), *headers]
)


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


RECORDS = st.one_of(
    st.tuples(PLAIN.map(encoded), st.just([])),
    st.tuples(PLAIN.map(encoded), HEADERS),
    st.tuples(st.one_of(TEXTS.map(str.encode), st.binary(max_size=4)), st.one_of(st.just([]), BINARY)),
    st.tuples(
        st.one_of(VALUES, st.fixed_dictionaries({"params": PARAMS}, optional={"payload": VALUES})).map(encoded), BINARY
    ),
    st.tuples(STRUCTURED.map(encoded), st.just([("content-type", b"application/cloudevents+json")])),
    st.just((b'{"name": "A", "payload": "' + b"x" * LIMIT + b'"}', [])),
    st.just((None, [])),
)


@given(RECORDS)
@settings(max_examples=600, deadline=None)
def test_records_become_the_same_signals(record):
    value, headers = record
    try:
        expected = read_signal(SignalRecord(7, 0, None, value, headers), HERE, TOPIC_ID, LIMIT)
    except UnreadableError as error:
        expected = error
    try:
        found = decode_signal(value, headers, limit_bytes=LIMIT)
    except RecordError as error:
        found = error

    if isinstance(expected, Signal) and isinstance(found, ProgramSignal):
        assert same(fields_of(found), fields_of(expected))
        assert identity_of(found, TOPIC_ID, 0, 7) == expected.identity
    else:
        assert (expected is None, isinstance(expected, Exception)) == (found is None, isinstance(found, Exception)), (
            expected,
            found,
        )


def fields_of(signal: Signal | ProgramSignal) -> list[object]:
    payload = signal.payload
    if isinstance(payload, bytes):
        payload = decode_json(payload, what="payload")
    elif payload is not None:
        payload = payload.value
    return [signal.name, signal.source, signal.id, dict(signal.params), payload, signal.time, dict(signal.context)]


WORDS = st.sampled_from(["a", "ab", "b", "1", "20260310", "2026-03-10", "2026-03-10T23:00:00-08:00", "2026-02-30"])
PARAM_VALUES = st.one_of(WORDS, st.sampled_from([0, 1, 2, 2**53, 2**53 + 1, 20260310, 1.5, 1e64, True, False, None]))
OPERATORS = st.one_of(
    st.tuples(st.sampled_from(["=", "!=", "eq", "ne"]), PARAM_VALUES),
    st.tuples(
        st.sampled_from(["<", "<=", ">", ">=", "lt", "ge"]), st.one_of(WORDS, st.sampled_from([0, 1, 1.5, 2**53]))
    ),
    st.tuples(st.sampled_from(["in", "not-in"]), st.lists(PARAM_VALUES, min_size=1, max_size=3)),
    st.tuples(st.just("prefix"), st.sampled_from(["", "a", "2026"])),
    st.tuples(st.just("exists"), st.booleans()),
)
MATCHES = st.dictionaries(
    st.sampled_from(["p", "q", "$source"]),
    st.one_of(PARAM_VALUES, st.lists(OPERATORS, min_size=1, max_size=2).map(dict)),
    max_size=2,
)
MEMBERS = st.fixed_dictionaries(
    {"signal": st.sampled_from(["A", "A", "B"]), "match": MATCHES},
    optional={"join": st.fixed_dictionaries({"k": st.sampled_from(["q", "$id"])}), "payload": st.booleans()},
)
TEMPLATES = st.sampled_from(
    [{}, {"v": "{m0.params.q}"}, {"v": ["x{m0.params.p}y", {"w": "{m0.source}{{}}"}]}, {"v": '{m0.params["p"]}'}]
)


@st.composite
def documents(draw):
    join = draw(st.sampled_from([{}, {"k": "any"}, {"k": "string"}, {"k": "integer"}, {"k": "date"}, ["k"]]))
    members = [
        {"alias": f"m{index}", **each} for index, each in enumerate(draw(st.lists(MEMBERS, min_size=1, max_size=3)))
    ]
    for member in members:
        if not join:
            member.pop("join", None)
    return {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": "t/s"},
        "spec": {"join": join, "members": members, "trigger": {"params": draw(TEMPLATES)}},
    }


SIGNALS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["A", "A", "A", "B"]),
        "params": st.dictionaries(st.sampled_from(["p", "q", "k"]), PARAM_VALUES),
    },
    optional={"source": WORDS},
)


@given(documents(), SIGNALS)
@settings(max_examples=300, deadline=None)
def test_the_same_signals_match_under_the_same_keys(document, wire):
    value = encoded(wire)
    compiled = compile_subscription(read_document(document))
    index = MatchIndex()
    index.add(compiled)
    signal = decode_signal(value, None, limit_bytes=LIMIT)

    found = {}
    for match in index.match(signal):
        key = match.key_text or identity_of(signal, TOPIC_ID, 0, 7)
        aliases = [member.alias for bit, member in enumerate(compiled.members) if match.alias_mask >> bit & 1]
        found[key] = tuple(aliases)

    reference = Definitions([DefinitionRecord(0, on_topic(document))])
    expected = read_signal(SignalRecord(7, 0, None, value), HERE, TOPIC_ID, LIMIT)
    assert found == {match.key_text: match.aliases for match in reference.matches(expected, 0)}


def on_topic(document: dict) -> bytes:
    spec = document["spec"]
    return encoded(
        {
            "format": 1,
            "kind": "Subscription",
            "id": "t/s",
            "birth": 1,
            "join_generation": 1,
            "version": f"sha256:{sha256(canonical_json(spec)).hexdigest()}",
            "contact": None,
            "deleted": False,
            "applied_at": "2026-03-10T00:00:00.000Z",
            "spec": spec,
        }
    )


PIECES = st.sampled_from(
    [
        "{a.params.n}",
        "{a.params.none}",
        '{a.params["x.y"]}',
        "{a.payload.list[1].deep}",
        "{a.payload.list}",
        "{a.time}",
        "{a.payload.list[9]}",
        "{join.k}",
        "{a.source}",
        "{{",
        "}}",
        " ",
        "é",
        '{a.payload["q\\"r"]}',
    ]
)
TEMPLATE_TEXTS = st.lists(PIECES, max_size=4).map("".join)
TEMPLATE_VALUES = st.one_of(TEMPLATE_TEXTS, st.lists(TEMPLATE_TEXTS, max_size=2), st.integers(), st.none())


@given(st.dictionaries(st.sampled_from(["u", "v"]), TEMPLATE_VALUES), st.booleans())
@settings(max_examples=300, deadline=None)
def test_templates_give_the_same_params(params, with_payload):
    document = {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": "t/s"},
        "spec": {
            "join": ["k"],
            "members": [{"alias": "a", "signal": "A", "payload": True}],
            "trigger": {"params": params},
        },
    }
    wire = {"name": "A", "source": "s", "params": {"k": "x", "n": 3, "none": None, "x.y": 0.5}}
    if with_payload:
        wire["payload"] = {"list": [0, {"deep": [1.0]}], 'q"r': True}
    value = encoded(wire)
    template = compile_subscription(read_document(document)).template

    found = template.render({"k": "x"}, {"a": decode_signal(value, None, limit_bytes=LIMIT)})

    signal = read_signal(SignalRecord(7, 0, None, value), HERE, TOPIC_ID, LIMIT)
    expected = render(params, {"k": "x"}, {"a": Bound(signal, payload_kept=True)})
    assert same(list(found), list(expected))
