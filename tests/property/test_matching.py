"""Matching by the index is matching one by one: whatever the subscriptions, the signals and the edits in between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from signal_router.core import posting_nodes
from signal_router.core.explain import explain
from signal_router.core.index import MatchIndex
from signal_router.core.join_keys import join_key
from signal_router.core.predicates import matches
from signal_router.model.canonical import canonical_text
from signal_router.model.definitions import decode_definition, definition, definition_key, encode_definition
from signal_router.model.documents import compile_subscription, join_shape, read_document, read_documents
from signal_router.model.signals import Signal
from signal_router.model.templates import parse_template

SCALARS = st.one_of(
    st.sampled_from(["a", "ab", "b", "1"]),
    st.sampled_from([0, 1, 2, 1.5]),
    st.sampled_from(["", "true", "2026-03-10", "é", "\U0001f600", 20260310, -1, 2**53, 2**53 + 1, 10**40, -2.5]),
    st.booleans(),
    st.none(),
)
ORDERED = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
PARAMETERS = st.sampled_from(["p", "q", "r", "$source", "$kind"])
NAMES = st.sampled_from(["n", "n", "n", "m"])


def _operators():
    lists = st.lists(SCALARS, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "=": SCALARS,
            "!=": SCALARS,
            "<": ORDERED,
            "<=": ORDERED,
            ">": ORDERED,
            ">=": ORDERED,
            "in": lists,
            "not-in": lists,
            "prefix": st.sampled_from(["", "a", "ab", "2026"]),
            "exists": st.booleans(),
        },
    ).filter(lambda operators: 1 <= len(operators) <= 3)


MATCH = st.dictionaries(PARAMETERS, st.one_of(SCALARS, _operators()), max_size=3)
JOIN = st.dictionaries(st.sampled_from(["k", "d"]), st.sampled_from(["any", "string", "integer", "date"]), max_size=2)


@st.composite
def documents(draw, ident=None):
    join = draw(JOIN)
    members = []
    for index in range(draw(st.integers(1, 3))):
        mapped = draw(st.dictionaries(st.sampled_from(sorted(join)), PARAMETERS, max_size=2)) if join else {}
        members.append({"alias": f"m{index}", "signal": draw(NAMES), "match": draw(MATCH), "join": mapped})
    params = {"x": "{m0.params.q}"} if draw(st.integers(0, 3)) == 0 else {}
    return {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": ident or f"t/s{draw(st.integers(0, 5))}"},
        "spec": {"join": join, "members": members, "trigger": {"params": params}},
    }


@st.composite
def signals(draw):
    params = draw(st.dictionaries(st.sampled_from(["p", "q", "r", "k", "d", "$source"]), SCALARS, min_size=1))
    context = draw(st.dictionaries(st.sampled_from(["source", "kind"]), st.sampled_from(["a", "ab", "1"]), max_size=2))
    return Signal(draw(NAMES), context.get("source"), None, params, None, None, context)


def holds(operator, value, operand):
    """The contract of predicates, word by word."""
    if operator == "exists":
        return (value is not KeyError) is operand
    if value is KeyError:
        return False
    if operator in ("in", "not-in"):
        if operator == "in":
            return any(kind(each) == kind(value) and each == value for each in operand)
        return kind(value) in map(kind, operand) and not any(kind(e) == kind(value) and e == value for e in operand)
    if kind(value) != kind(operand):
        return False
    if operator in ("<", "<=", ">", ">="):
        return {"<": value < operand, "<=": value <= operand, ">": value > operand, ">=": value >= operand}[operator]
    if operator == "prefix":
        return value[: len(operand)] == operand
    return (value == operand) is (operator == "=")


def kind(value):
    return {str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def linear_scan(written, signal):
    """All (id, key text, mask) of a signal, by looking at every member of every document."""
    found = {}
    for document, subscription in written.values():
        for position, (member, entry) in enumerate(zip(subscription.members, document["spec"]["members"], strict=True)):
            if entry["signal"] != signal.name or not fits(entry, document, signal):
                continue
            key = join_key(member, signal)
            if key is not None:
                text = "" if subscription.by_identity else canonical_text(key)
                found[subscription.id, text] = found.get((subscription.id, text), 0) | 1 << position
    return [(*key, mask) for key, mask in sorted(found.items())]


def fits(entry, document, signal):
    asked = [
        (parameter, operator, operand)
        for parameter, written in entry["match"].items()
        for operator, operand in (written if isinstance(written, dict) else {"=": written}).items()
    ]
    if entry["alias"] == "m0" and document["spec"]["trigger"]["params"]:
        asked.append(("q", "exists", True))
    return all(holds(operator, read(signal, parameter), operand) for parameter, operator, operand in asked)


def read(signal, parameter):
    if parameter.startswith("$"):
        return signal.context.get(parameter[1:], KeyError)
    return signal.params.get(parameter, KeyError)


def answers(index, signal):
    return [(match.subscription.id, match.key_text, match.alias_mask) for match in index.match(signal)]


EDITS = st.lists(st.one_of(documents(), st.integers(0, 5).map("t/s{}".format), signals()), min_size=1, max_size=14)


@given(EDITS, st.integers(0, 3), st.lists(signals(), min_size=3, max_size=6))
@settings(max_examples=250, deadline=None)
def test_the_index_answers_as_a_scan_of_all_subscriptions_does(edits, list_bound, last):
    bound = posting_nodes.LIST_BOUND
    posting_nodes.LIST_BOUND = list_bound  # so that a few subscriptions already make nodes of nodes
    try:
        index, written = MatchIndex(), {}
        for edit in edits:
            if isinstance(edit, Signal):
                assert answers(index, edit) == linear_scan(written, edit)
            elif isinstance(edit, str):
                index.remove(edit)
                written.pop(edit, None)
            else:
                subscription = compile_subscription(read_document(edit))
                index.add(subscription)
                written[subscription.id] = (edit, subscription)
        assert len(index) == len(written)
        for signal in last:
            assert answers(index, signal) == linear_scan(written, signal)
        for ident in list(written):
            index.remove(ident)
        assert not index._names
        assert not any(index.stats()[:7])
    finally:
        posting_nodes.LIST_BOUND = bound


@given(documents("t/s"), signals())
@settings(max_examples=150, deadline=None)
def test_the_explanation_says_what_the_index_does(document, signal):
    subscription = compile_subscription(read_document(document))
    index = MatchIndex()
    index.add(subscription)

    explanation = explain(subscription, signal)

    fitting = sum(1 << position for position, member in enumerate(explanation.members) if member.matches)
    assert explanation.matches is bool(index.match(signal))
    assert fitting == sum(match.alias_mask for match in index.match(signal))
    for member, told in zip(subscription.members, explanation.members, strict=True):
        if told.name_fits:
            assert [each.holds for each in told.predicates] == [matches(each, signal) for each in member.predicates]
            assert all(bool(each.reason) is not each.holds for each in told.predicates)


@given(documents())
@settings(max_examples=60, deadline=None)
def test_a_document_survives_the_definitions_topic(written):
    document = read_document(written)
    applied = definition(document, birth=2, join_generation=3, applied_at=1_773_000_000_123)

    back = decode_definition(definition_key(document.id), encode_definition(applied))

    assert back == applied
    assert back.subscription(41) == compile_subscription(document, birth=2, join_generation=3, revision=41)
    assert join_shape(back.document) == join_shape(document)


@given(documents())
@settings(max_examples=40, deadline=None)
def test_a_file_of_canonical_json_reads_as_the_document_it_is(written):
    reading = read_documents([("a.json", canonical_text(written)), ("b.yaml", "")][:1])

    assert reading.documents == (read_document(written),)


JSON = st.recursive(
    SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.text(max_size=3), below, max_size=3)),
)
TEMPLATES = st.dictionaries(
    st.sampled_from(["x", "y"]),
    st.recursive(
        st.sampled_from(
            [
                "{join.k}",
                "{a.params.p}",
                "{a.payload.p[0].q}",
                '{a.payload["p"].q}',
                "{b.source}",
                "{a.id}-{a.time} {{{a.name}}}",
                "text",
                1,
                None,
            ]
        ),
        lambda below: st.one_of(st.lists(below, max_size=2), st.dictionaries(st.sampled_from("kl"), below, max_size=2)),
    ),
)


@given(TEMPLATES, signals(), st.one_of(st.none(), JSON.map(lambda value: canonical_text(value).encode()), st.binary()))
@settings(max_examples=150, deadline=None)
def test_rendering_a_template_never_raises(written, signal, payload):
    bound = Signal(signal.name, signal.source, signal.id, signal.params, payload, None, signal.context)

    params, missing = parse_template(written).render({"k": 1}, {"a": bound})

    canonical_text(params)
    assert params.keys() == written.keys()
    assert missing == sorted(set(missing))
