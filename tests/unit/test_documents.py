from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.errors import DefinitionError
from signal_router.model.canonical import canonical_json
from signal_router.model.documents import compile_subscription, join_shape, read_document, read_documents
from signal_router.model.durations import duration_ms, duration_text
from signal_router.model.subscriptions import JoinParameter, JoinType, Operator, Policy, Predicate
from signal_router.model.yaml_text import read_yaml

DESIGN = """\
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: content-ml/decision-model, contact: "#content-ml"}
spec:
  join: {ds: date, country: string}
  members:
    - {alias: titles, signal: warehouse/titles.ready, match: {country: {in: [US, CA]}, rows: {">": 1000}}}
    - {alias: plays, signal: warehouse/plays.ready, join: {ds: dateint, country: cc}, payload: true}
  trigger:
    params: {ds: "{join.ds}", rows: "{titles.params.rows}", day: "{titles.params.day}"}
"""


def minimal(**spec):
    return {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": "a/b"},
        "spec": {"members": [{"alias": "a", "signal": "s"}], **spec},
    }


def one(text):
    [document] = read_documents([("f.yaml", text)]).documents
    return document


def problems_of(*files):
    with pytest.raises(DefinitionError) as caught:
        read_documents(files)
    return caught.value.problems


def problem_of(value):
    with pytest.raises(DefinitionError) as caught:
        read_document(value)
    [problem] = caught.value.problems
    return problem


def scalar_problems(text):
    return problems_of(("f.yaml", DESIGN.replace("[US, CA]", f"[{text}]")))


def test_the_example_of_the_contract_compiles():
    subscription = compile_subscription(one(DESIGN), birth=2, join_generation=3, revision=41)

    titles, plays = subscription.members
    assert (subscription.id, subscription.contact) == ("content-ml/decision-model", "#content-ml")
    assert (subscription.birth, subscription.join_generation, subscription.revision) == (2, 3, 41)
    assert subscription.join_names == ("ds", "country")
    assert titles.predicates == (
        Predicate("country", Operator.IN, ("US", "CA")),
        Predicate("rows", Operator.GT, 1000),
        Predicate("day", Operator.EXISTS, True),
    )
    assert plays.join == (
        JoinParameter("ds", JoinType.DATE, "dateint"),
        JoinParameter("country", JoinType.STRING, "cc"),
    )
    assert (titles.payload, plays.payload) == (False, True)


def test_a_parameter_that_the_template_names_must_be_there_even_if_the_match_says_absent():
    members = [{"alias": "a", "signal": "s", "match": {"p": {"exists": False}, "q": {"exists": True}, "r": {"!=": 1}}}]
    params = {"x": "{a.params.p} {a.params.q} {a.params.r}"}

    [member] = compile_subscription(read_document(minimal(members=members, trigger={"params": params}))).members

    assert [(each.parameter, each.operand) for each in member.predicates] == [
        ("p", False),
        ("q", True),
        ("r", 1),
        ("p", True),
    ]


def test_defaults_are_filled_in_when_compiling_and_not_in_the_spec():
    document = read_document(minimal())

    subscription = compile_subscription(document)

    assert (subscription.within_ms, subscription.dedupe_ms) == (7 * 86_400_000, 14 * 86_400_000)
    assert (subscription.policy, subscription.topic) == (Policy.FIFO, "triggers")
    assert subscription.by_identity
    assert document.spec == minimal()["spec"]


def test_dedupe_defaults_to_within_where_that_is_longer():
    subscription = compile_subscription(read_document(minimal(within="30d")))

    assert subscription.dedupe_ms == duration_ms("30d")


def test_the_version_is_the_digest_of_the_canonical_spec_whatever_the_spelling():
    flow = one(DESIGN)
    block = one(
        DESIGN.replace("{ds: date, country: string}", "\n    country: 'string'\n    ds: date").replace("1000", "1e3")
    )

    assert flow.version == "sha256:" + hashlib.sha256(canonical_json(flow.spec)).hexdigest()
    assert block.version == flow.version
    assert one(DESIGN.replace("1000", "1001")).version != flow.version


def test_json_and_several_documents_in_one_file_are_read():
    json_text = '{"apiVersion":"signal-router/v1","kind":"Subscription",\n\t"metadata":{"id":"j/\\ud83d\\ude00"}}'
    two = read_documents([("f.yaml", f"---\n{DESIGN}\n---\n{DESIGN.replace('decision-model', 'other')}")])

    [problem, missing] = problems_of(("f.json", json_text))

    assert [document.id for document in two.documents] == ["content-ml/decision-model", "content-ml/other"]
    assert (problem.line, problem.field) == (1, "spec")
    assert '"j/\U0001f600" is no id' in missing.message


@pytest.mark.parametrize(
    "text",
    [
        "NO",
        "no",
        "Yes",
        "ON",
        "off",
        "y",
        "N",
        "12:30",
        "1:02:03.5",
        "07",
        "-01",
        "00.5",
        "0x1F",
        "0o17",
        "0b1",
        ".inf",
        "-.INF",
        ".NaN",
        "1_000",
        "1e999",
        "1" * 65,
    ],
)
def test_scalars_that_look_like_something_else_are_refused_with_a_hint_to_quote(text):
    [problem] = scalar_problems(f"US, {text}")

    assert (problem.line, problem.field) == (7, "spec.members[0].match.country.in[1]")
    assert text[:40] in problem.message
    assert "quote it" in problem.hint
    assert one(DESIGN.replace("[US, CA]", f'["{text}"]')).spec["members"][0]["match"]["country"]["in"] == [text]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-10", "2026-03-10"),
        ("2026-03-10T12:30:00Z", "2026-03-10T12:30:00Z"),
        ("20260310", 20260310),
        ("0", 0),
        ("-0.0", 0),
        ("+5", 5),
        ("1.0", 1),
        ("1.5e3", 1500),
        ("0.5", 0.5),
        ("~", None),
        ("null", None),
        ("True", True),
        ("nope", "nope"),
        ("1.2.3", "1.2.3"),
        ("9" * 64, 10**64 - 1),
        ("tRUE", "tRUE"),
    ],
)
def test_other_plain_scalars_are_those_of_the_core_schema(text, value):
    [document], problems = read_yaml("f.yaml", f"a: {text}")

    assert problems == []
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


@pytest.mark.parametrize("text", ["{join.ds}", "{join.ds, join.country}", '{"join.ds"}'])
def test_an_unquoted_placeholder_is_refused_with_a_hint_to_quote(text):
    [problem] = problems_of(("f.yaml", DESIGN.replace('"{join.ds}"', text)))

    assert (problem.line, problem.field) == (10, "spec.trigger.params.ds")
    assert "a placeholder needs quotes" in problem.hint


@pytest.mark.parametrize("text", ["{{join.ds}}", '{x: {plays.params["x"]}}', "{>: 1}", "[", "\x00", b"\xff", "[" * 200])
def test_what_is_not_yaml_is_one_problem_with_its_line(text):
    [problem] = problems_of(("f.yaml", b"\n" + b"a: " + (text if isinstance(text, bytes) else text.encode())))

    assert problem.line in (0, 2, 3)
    assert problem.message


@pytest.mark.parametrize(
    "text", ["a: &x 1", "a: *x", "a: !!str 1", "a: {!=: 1}", "a: 1\na: 2", "1: a", "null: a", "%YAML 1.1\n---\na: 1"]
)
def test_yaml_that_readers_take_in_two_ways_is_refused(text):
    assert read_yaml("f.yaml", text)[1]


def test_every_problem_of_every_file_is_reported_at_once_in_order():
    broken = (
        DESIGN.replace("country: string", "country: sting").replace("rows}", "rows").replace("alias: plays", "alais: p")
    )

    problems = problems_of(
        ("a.yaml", broken), ("b.yaml", "a: }"), ("c.yaml", ""), ("d.yaml", DESIGN), ("e.yaml", DESIGN)
    )

    assert [(problem.file, problem.line, problem.field) for problem in problems] == [
        ("a.yaml", 5, "spec.join.country"),
        ("a.yaml", 8, "spec.members[1].alias"),
        ("a.yaml", 8, "spec.members[1].alais"),
        ("a.yaml", 10, "spec.trigger.params.rows"),
        ("b.yaml", 1, ""),
        ("c.yaml", 0, ""),
        ("e.yaml", 3, "metadata.id"),
    ]
    assert 'did you mean "alias"?' in str(problems[2])
    assert "d.yaml:3" in problems[-1].hint


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"members": []}, "spec.members"),
        ({"members": [{"alias": f"a{n}", "signal": "s"} for n in range(33)]}, "spec.members"),
        ({"members": [{"alias": "a", "signal": ""}]}, "spec.members[0].signal"),
        ({"members": [{"alias": "a b", "signal": "s"}]}, "spec.members[0].alias"),
        ({"members": [{"alias": "join", "signal": "s"}]}, "spec.members[0].alias"),
        ({"members": [{"alias": "a", "signal": "s"}] * 2}, "spec.members[1].alias"),
        ({"members": [{"alias": "a", "signal": "s", "payload": "yes"}]}, "spec.members[0].payload"),
        ({"members": [{"alias": "a", "signal": "s", "join": {"x": "y"}}]}, "spec.members[0].join.x"),
        ({"members": [{"alias": "a", "signal": "s", "match": {"$So": 1}}]}, "spec.members[0].match.$So"),
        ({"members": [{"alias": "a", "signal": "s", "match": {"": 1}}]}, "spec.members[0].match."),
        ({"join": {"a b": "any"}}, "spec.join.a b"),
        ({"join": {"a": "int"}}, "spec.join.a"),
        ({"join": ["a", "a"]}, "spec.join"),
        ({"join": {f"j{n}": "any" for n in range(17)}}, "spec.join"),
        ({"policy": "lifo"}, "spec.policy"),
        ({"within": 7}, "spec.within"),
        ({"within": "7"}, "spec.within"),
        ({"within": "0s"}, "spec.within"),
        ({"within": "2d", "dedupe": "1d"}, "spec.dedupe"),
        ({"dedupe": "1d"}, "spec.dedupe"),
        ({"trigger": {"topic": ".."}}, "spec.trigger.topic"),
        ({"trigger": {"topik": "x"}}, "spec.trigger.topik"),
        ({"trigger": {"params": {"x": "{a.payload.y}"}}}, "spec.trigger.params.x"),
        ({"trigger": {"params": {"x": ["{b.source}"]}}}, "spec.trigger.params.x[0]"),
        ({"trigger": {"params": {"x": "{join.ds}"}}}, "spec.trigger.params.x"),
        ({"trigger": {"params": {"x": {"y": "}"}}}}, "spec.trigger.params.x.y"),
        ({"trigger": 5}, "spec.trigger"),
    ],
)
def test_a_wrong_field_is_named(spec, field):
    assert problem_of(minimal(**spec)).field == field


@pytest.mark.parametrize(
    ("comparison", "hint"),
    [
        (["US", "CA"], 'write {in: ["US", "CA"]}'),
        ({}, "known are"),
        ({"=>": 1}, "did you mean"),
        ({">": None}, None),
        ({">": True}, None),
        ({"=": [1]}, "write in"),
        ({"in": 1}, "write {in"),
        ({"in": []}, None),
        ({"in": [[1]]}, None),
        ({"in": list(range(10_001))}, None),
        ({"prefix": 1}, "quote it"),
        ({"exists": "yes"}, None),
    ],
)
def test_a_comparison_that_cannot_be_meant_is_refused(comparison, hint):
    problem = problem_of(minimal(members=[{"alias": "a", "signal": "s", "match": {"p": comparison}}]))

    assert problem.field.startswith("spec.members[0].match.p")
    assert hint is None or hint in problem.hint


def test_every_operator_may_be_spelled_in_words():
    words = {"eq": 1, "ne": 2, "lt": 3, "le": 4, "gt": 5, "ge": 6}
    signs = {"=": 1, "!=": 2, "<": 3, "<=": 4, ">": 5, ">=": 6}

    compiled = [
        compile_subscription(read_document(minimal(members=[{"alias": "a", "signal": "s", "match": {"p": each}}])))
        for each in (words, signs)
    ]

    assert compiled[0].members == compiled[1].members


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"apiVersion": "signal-router/v2"}, "apiVersion"),
        ({"kind": "Signal"}, "kind"),
        ({"kind": "subscription"}, "kind"),
        ({"metadata": {"id": "nospace"}}, "metadata.id"),
        ({"metadata": {"id": "a/b/c"}}, "metadata.id"),
        ({"metadata": {"id": "a/b", "contact": 5}}, "metadata.contact"),
        ({"metadata": {}}, "metadata.id"),
        ({"spec": None}, "spec"),
    ],
)
def test_what_is_no_subscription_of_this_version_is_refused(change, field):
    assert problem_of({**minimal(), **change}).field == field


def test_the_join_shape_changes_with_aliases_signals_and_join_only():
    shape = join_shape(one(DESIGN))

    assert join_shape(one(DESIGN.replace("day: ", "night: ").replace("spec:", "spec:\n  policy: latest"))) == shape
    assert join_shape(one(DESIGN.replace("{ds: date, country: string}", "{country: string, ds: date}"))) == shape
    for other in (
        ("alias: plays", "alias: views"),
        ("plays.ready", "p"),
        ("ds: dateint, ", ""),
        ("ds: date,", "ds: any,"),
    ):
        assert join_shape(one(DESIGN.replace(*other))) != shape


def test_what_is_allowed_and_probably_not_meant_is_a_warning():
    text = (
        DESIGN.replace("[US, CA]", "[US]")
        .replace("{in: [US]}", '{"!=": US}')
        .replace('rows: {">": 1000}', "x: {exists: true}")
    )

    [warning] = read_documents([("f.yaml", text)]).warnings

    assert (warning.file, warning.line, warning.field) == ("f.yaml", 7, "spec.members[0].match")
    assert read_documents([("f.yaml", DESIGN)]).warnings == ()


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("7d", 604_800_000),
        ("12h 30m", 45_000_000),
        ("1h30m", 5_400_000),
        ("45s500ms", 45_500),
        ("1ms", 1),
        ("5m", 300_000),
    ],
)
def test_durations_are_whole_numbers_with_units(text, milliseconds):
    assert duration_ms(text) == milliseconds
    assert duration_ms(duration_text(milliseconds)) == milliseconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "30m 1h", "1d 1d", "1w", "3651d", "1D", "٧d"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        duration_ms(text)


@given(st.one_of(st.text(), st.text(alphabet="{}[]:,-&*!|>'\"%@` \n#ab1", max_size=40), st.binary(max_size=30)))
def test_no_text_makes_the_reader_raise_anything_but_problems(text):
    for file in ("f.yaml", "f.json"):
        assert problems_of((file, text))
