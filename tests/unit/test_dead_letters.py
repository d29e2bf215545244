from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from signal_router.errors import RecordError
from signal_router.model.dead_letters import (
    MAX_BYTES,
    Kind,
    dead_letter,
    dead_letter_key,
    decode_dead_letter,
    encode_dead_letter,
)
from signal_router.model.signals import Position

ERROR = RecordError("not-json", "record is not JSON", hint="check it")
EXAMPLES = Path(__file__).parents[2] / "topics" / "examples"
AT = Position("signals", 3, 17)


def letter(*, kind=Kind.SIGNAL, position=AT, key=b"k", headers=None, value=b"{", **more):
    return dead_letter(kind=kind, position=position, error=ERROR, key=key, headers=headers, value=value, **more)


def test_a_dead_letter_holds_the_record_and_the_reason():
    headers = [("a", b"\xff\x00"), ("b", None), ("a", b"")]

    written = json.loads(encode_dead_letter(letter(key=b"\xfek", headers=headers, value=b"\xff{")))

    assert written == {
        "format": 1,
        "kind": "signal",
        "position": {"topic": "signals", "partition": 3, "offset": 17},
        "reason": "not-json",
        "message": "record is not JSON",
        "hint": "check it",
        "key": base64.b64encode(b"\xfek").decode(),
        "headers": [
            ["a", base64.b64encode(b"\xff\x00").decode()],
            ["b", None],
            ["a", ""],
        ],
        "value": base64.b64encode(b"\xff{").decode(),
        "truncated": False,
        "sha256": hashlib.sha256(b"\xff{").hexdigest(),
    }


@pytest.mark.parametrize(
    "given",
    [
        letter(),
        letter(key=None, value=None),
        letter(kind=Kind.CANDIDATE, headers=[("x", b"1"), ("x", None)]),
        letter(kind=Kind.TRIGGER, trigger_id="0b5a", destination="team-triggers"),
        letter(kind=Kind.DEFINITION, value=b"x" * (MAX_BYTES + 1)),
    ],
)
def test_what_is_written_is_read_back(given):
    assert decode_dead_letter(encode_dead_letter(given)) == given


def test_a_value_is_cut_at_64_kb_and_its_hash_is_that_of_the_whole():
    whole = bytes(range(256)) * 256

    fits, cut = letter(value=whole), letter(value=whole + b"!")

    assert (fits.value, fits.truncated) == (whole, False)
    assert (cut.value, cut.truncated) == (whole, True)
    assert cut.sha256 == hashlib.sha256(whole + b"!").hexdigest()


def test_a_dead_letter_of_the_largest_record_still_fits_its_topic():
    half = b"\xff" * 500_000

    given = letter(
        key=half, value=half, headers=[("small", b"1"), ("\x00" * 60_000, b"2"), ("large", half), ("z", b"3")]
    )

    assert given.truncated
    assert [name for name, _ in given.headers] == ["small", "\x00" * 60_000]
    assert len(encode_dead_letter(given)) < 1_000_000


def test_the_key_is_the_position():
    assert dead_letter_key(letter()) == b"signals/3/17"
    assert dead_letter_key(letter(position=Position("a/b c%", 0, 1))) == b"a%2Fb%20c%25/0/1"


def test_the_key_of_a_trigger_is_its_id():
    assert dead_letter_key(letter(kind=Kind.TRIGGER, trigger_id="0b5a-1")) == b"0b5a-1"


def test_a_newer_format_is_refused():
    newer = encode_dead_letter(letter()).replace(b'"format":1', b'"format":2')

    with pytest.raises(RecordError, match="format 2") as caught:
        decode_dead_letter(newer)

    assert caught.value.reason == "format"


def test_fields_that_are_added_later_are_ignored():
    given = letter()

    assert decode_dead_letter(encode_dead_letter(given)[:-1] + b',"more":[1]}') == given


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"format":1}', b'{"format":"1"}', b"\xff", b"[" * 5000, b'{"format":null,"kind":"signal"}'],
)
def test_what_is_no_dead_letter_is_refused(data):
    with pytest.raises(RecordError) as caught:
        decode_dead_letter(data)

    assert caught.value.reason == "not-dead-letter"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("dead-letter-*.json")), ids=lambda path: path.stem)
def test_the_published_examples_are_read(example):
    found = decode_dead_letter(example.read_bytes())

    assert found.sha256 is not None
    assert found.sha256 == hashlib.sha256(found.value or b"").hexdigest()


def test_there_are_published_examples():
    assert len(list(EXAMPLES.glob("dead-letter-*.json"))) >= 2
