"""Schemas, examples and the program say the same: what it writes fits, and what is published it reads."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from signal_router.errors import RecordError
from signal_router.kafka.topics import topic_text
from signal_router.model import lineage
from signal_router.model.candidates import SignalCopy
from signal_router.model.dead_letters import Kind, dead_letter, decode_dead_letter, encode_dead_letter
from signal_router.model.definitions import decode_definition, definition, definition_key, deletion, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.outcomes import Outcome, Reason
from signal_router.model.signals import Position

AT = Position("signals", 3, 17)


def problems(schema: str, value: bytes) -> list[str]:
    found = Draft202012Validator(json.loads(topic_text(f"schemas/{schema}.json"))).iter_errors(json.loads(value))
    return [error.message for error in found]


@pytest.mark.parametrize("example", ["definition", "definition-deleted"])
def test_the_published_definitions_are_read(example):
    text = topic_text(f"examples/{example}.json").encode()

    each = decode_definition(definition_key(json.loads(text)["id"]), text)

    assert json.loads(encode_definition(each)) == json.loads(text)


@pytest.mark.parametrize("example", ["dead-letter-signal", "dead-letter-trigger"])
def test_the_published_dead_letters_are_as_the_program_writes_them(example):
    text = topic_text(f"examples/{example}.json").encode()

    assert json.loads(encode_dead_letter(decode_dead_letter(text))) == json.loads(text)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"x" * 100_000])
def test_dead_letters_fit_their_schema(kind, value):
    of_trigger = (
        {"trigger_id": "7352c181-f0b3-5c09-9bc7-aa113860a75e", "destination": "t"} if kind is Kind.TRIGGER else {}
    )
    error = RecordError("not-json", "record is not JSON")
    headers = [("a", b"\xff"), ("b", None)]

    letter = dead_letter(kind=kind, position=AT, error=error, key=None, headers=headers, value=value, **of_trigger)

    assert problems("dead-letter", encode_dead_letter(letter)) == []


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.PENDING])
@pytest.mark.parametrize("reason", list(Reason))
def test_outcomes_fit_the_schema_of_lineage(outcome, reason):
    copy = SignalCopy('["A","s","1"]', "A", "s", "1", b"{}", None, None, 1, *("signals", 3, 17), b"")

    for key, cause in (('{"k":1}', {"position": AT}), (copy.identity, {"trigger_id": "x"}), ("{}", None)):
        value = lineage.signal_value(copy, "t/a", key, ["a"], outcome.value, reason.value, cause, 2, 0, 5)
        assert problems("lineage", value) == []


def test_views_and_inputs_fit_the_schema_of_lineage():
    assert problems("lineage", lineage.view_value("signals", 0, 5, 7)) == []
    assert problems("lineage", lineage.input_value(0, 5, {"kind": "mark"})) == []


def test_definitions_fit_their_schema():
    text = """
        {apiVersion: signal-router/v1, kind: Subscription, metadata: {id: t/a}, spec: {
          join: [k], policy: latest, within: 1h 30m, members: [{alias: a, signal: A, match: {x: {exists: false}}}]}}
    """
    (document,) = read_documents([("test.yaml", text)]).documents
    applied = definition(document, birth=2, join_generation=1, applied_at=0)

    assert problems("definition", encode_definition(applied)) == []
    assert problems("definition", encode_definition(deletion(applied, applied_at=1))) == []


@pytest.mark.parametrize(
    ("schema", "example", "field"),
    [
        ("definition", "definition", "applied_at"),
        ("definition", "definition-deleted", "spec"),
        ("dead-letter", "dead-letter-trigger", "destination"),
        ("lineage", "lineage-signal", "outcome"),
    ],
)
def test_a_schema_misses_what_is_missing(schema, example, field):
    document = json.loads(topic_text(f"examples/{example}.json"))
    del document[field]

    assert problems(schema, json.dumps(document).encode()) != []
