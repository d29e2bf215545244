from __future__ import annotations

import pytest

from signal_router.errors import DefinitionError
from signal_router.model.signals import Signal
from signal_router.model.templates import Scope, parse_template, read_template

SCOPE = Scope(frozenset({"titles", "plays"}), frozenset({"plays"}), frozenset({"ds"}))
TITLES = Signal(
    "t.ready", None, None, {"rows": 1500, "x": 1.5, "n": None, "a.b": True, "s": 'say "hi"'}, None, None, {}
)
PLAYS = Signal(
    "p.ready",
    "wf/plays",
    "run-7",
    {},
    b'{"items": [{"k": null}, [1, "a"]], "o": {"b": 1.0, "a": "\\u00e9"}}',
    "2026",
    {},
)


def rendered(text, *, join=None):
    template = parse_template({"it": text})
    params, missing = template.render(join or {"ds": "2026-03-10"}, {"titles": TITLES, "plays": PLAYS})
    return params["it"], missing


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{join.ds}", "2026-03-10"),
        ("{titles.params.rows}", 1500),
        ("{titles.params.n}", None),
        ('{titles.params["a.b"]}', True),
        ("{plays.source}", "wf/plays"),
        ("{plays.payload.items[0]}", {"k": None}),
        ("{plays.payload.items[0].k}", None),
        ("{plays.payload.o.b}", 1),
        ("from {plays.source} at {plays.time}", "from wf/plays at 2026"),
        ("{titles.params.rows}{titles.params.x}", "15001.5"),
        ("<{titles.params.n}|{titles.params.s}>", '<null|say "hi">'),
        ('{titles.params["a.b"]}!', "true!"),
        ("= {plays.payload.items[1]} {plays.payload.o}", '= [1,"a"] {"a":"é","b":1}'),
        ("{{join.ds}}", "{join.ds}"),
        ("{{{join.ds}}}", "{2026-03-10}"),
        ("}}{{", "}{"),
        ({"a": ["{join.ds}", 5, {"b": "{plays.id}"}]}, {"a": ["2026-03-10", 5, {"b": "run-7"}]}),
        ([{"{{": 1}] and [1, None, 2.5], [1, None, 2.5]),
    ],
)
def test_a_placeholder_alone_keeps_its_type_and_is_text_within_text(text, value):
    assert rendered(text) == (value, [])
    assert type(rendered(text)[0]) is type(value)


@pytest.mark.parametrize(
    ("text", "value", "missing"),
    [
        ("{titles.params.gone}", None, ["titles.params.gone"]),
        ("{titles.source}", None, ["titles.source"]),
        ("a{titles.id}b{titles.time}", "ab", ["titles.id", "titles.time"]),
        ("{titles.payload.x}", None, ["titles.payload.x"]),
        ("{plays.payload.items[9].k}", None, ["plays.payload.items[9].k"]),
        ("{plays.payload.items.k}", None, ["plays.payload.items.k"]),
        ("{plays.payload.items[0].k.l}", None, ["plays.payload.items[0].k.l"]),
        ("{plays.payload.o[0]}", None, ["plays.payload.o[0]"]),
        ("{other.name}", None, ["other.name"]),
        ("{join.gone}", None, ["join.gone"]),
        (["{titles.id}", "{titles.id}", "{join.b}"], [None, None, None], ["join.b", "titles.id"]),
    ],
)
def test_what_is_absent_is_null_or_empty_and_listed(text, value, missing):
    assert rendered(text) == (value, missing)


@pytest.mark.parametrize("payload", [None, b"", b"{", b"[" * 500, b"\xff", b"5"])
def test_a_payload_that_cannot_be_read_is_absent(payload):
    signal = Signal("p", None, None, {}, payload, None, {})

    assert parse_template({"x": "{a.payload.y}"}).render({}, {"a": signal}) == ({"x": None}, ["a.payload.y"])


def test_the_parameters_that_a_template_names_are_known_by_alias():
    template = parse_template(
        {"a": "{titles.params.rows} {titles.params.day}", "b": ["{plays.params.x}"], "c": "{join.ds} {plays.payload.y}"}
    )

    assert template.requires == {"plays": ["x"], "titles": ["day", "rows"]}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "}",
        "a { b",
        "{}",
        "{ join.ds }",
        "{join}",
        "{join.ds.x}",
        "{titles}",
        "{titles.params}",
        "{titles.params.a.b}",
        "{titles.payload}",
        "{titles.name.x}",
        "{titles.parms.rows}",
        '{titles.params["$source"]}',
        "{join.ds|upper}",
        "{titles.params.rows",
        "{1a.name}",
        "{titles.params[0]}",
        "{titles..name}",
    ],
)
def test_what_is_no_path_is_refused(text):
    with pytest.raises(DefinitionError):
        parse_template({"x": text})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{join.dsx}", 'did you mean "ds"?'),
        ("{title.name}", 'did you mean "titles"?'),
        ("{titles.payload.x}", "payload: true"),
        ("{plays.sorce}", 'did you mean "source"?'),
        ("{", '"{{"'),
    ],
)
def test_a_placeholder_out_of_scope_is_refused_with_what_was_probably_meant(text, hint):
    template, [problem] = read_template({"x": {"y": ["{join.ds}", text]}}, SCOPE)

    assert problem.field == ("x", "y", 1)
    assert hint in problem.hint
    assert [path.text for path in template.paths] == ["join.ds"]


def test_names_of_params_take_no_placeholders():
    with pytest.raises(DefinitionError):
        parse_template({"x": {"{join.ds}": 1}})
