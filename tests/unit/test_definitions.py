from __future__ import annotations

import json

import pytest

from signal_router.errors import NewerFormatError, RecordError
from signal_router.model.definitions import decode_definition, definition, definition_key, deletion, encode_definition
from signal_router.model.documents import read_document

DOCUMENT = read_document(
    {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": "a/b", "contact": "me"},
        "spec": {"members": [{"alias": "a", "signal": "s", "match": {"rows": {">": 1.5}}}]},
    }
)
APPLIED = definition(DOCUMENT, birth=1, join_generation=2, applied_at=1_773_000_000_123)
KEY = definition_key("a/b")


def changed(**fields):
    return json.dumps({**json.loads(encode_definition(APPLIED)), **fields}).encode()


def test_a_definition_on_the_wire_is_what_the_contract_says():
    assert KEY == b"subscription/a/b"
    assert json.loads(encode_definition(APPLIED)) == {
        "format": 1,
        "kind": "Subscription",
        "id": "a/b",
        "birth": 1,
        "join_generation": 2,
        "version": DOCUMENT.version,
        "contact": "me",
        "deleted": False,
        "applied_at": "2026-03-08T20:00:00.123Z",
        "spec": DOCUMENT.spec,
    }


def test_a_deletion_keeps_the_last_spec_and_is_no_subscription():
    deleted = decode_definition(KEY, encode_definition(deletion(APPLIED, applied_at=1_773_000_001_000)))

    assert deleted.deleted
    assert (deleted.birth, deleted.spec) == (1, DOCUMENT.spec)
    assert deleted.subscription(5) is None


def test_a_deletion_is_read_even_if_its_spec_is_no_longer_valid():
    assert decode_definition(KEY, changed(deleted=True, spec={"old": 1})).deleted


def test_a_tombstone_says_nothing():
    assert decode_definition(KEY, None) is None


def test_a_newer_format_stops_the_reader_and_is_no_bad_record():
    with pytest.raises(NewerFormatError, match="format 2"):
        decode_definition(KEY, changed(format=2, unknown="field"))


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", b"\xff", b"null", b"[" * 500]
    + [
        changed(**fields)
        for fields in (
            {"format": 0},
            {"format": True},
            {"format": "1"},
            {"kind": "Signal"},
            {"id": "a/c"},
            {"id": None},
            {"birth": 0},
            {"birth": "1"},
            {"join_generation": None},
            {"version": "sha256:0"},
            {"contact": 1},
            {"deleted": 0},
            {"applied_at": "yesterday"},
            {"applied_at": 5},
            {"spec": None},
            {"spec": {}},
            {"spec": {**DOCUMENT.spec, "within": "long"}},
            {"extra": 1},
        )
    ],
)
def test_what_cannot_be_read_is_refused_with_one_reason(value):
    with pytest.raises(RecordError) as caught:
        decode_definition(KEY, value)

    assert caught.value.reason == "definition"


def test_a_definition_under_another_key_is_refused():
    for key in (None, b"a/b", b"subscription/a/c"):
        with pytest.raises(RecordError):
            decode_definition(key, encode_definition(APPLIED))
