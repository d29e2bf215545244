"""A replay is the signal it repeats; a header that says so wrongly is passed over."""

from __future__ import annotations

import pytest

from signal_router.model.candidates import identity_of, position_text
from signal_router.model.records import decode_signal

TOPIC_ID = "mR1rq1K5SoCzXUK0fYqDuw"


def identity(value: bytes, replay_of: str | None = None) -> str:
    headers = None if replay_of is None else [("sr_replay_of", replay_of.encode())]
    return identity_of(decode_signal(value, headers, limit_bytes=1000), TOPIC_ID, 2, 40)


def test_a_signal_without_an_id_is_known_by_its_position():
    assert identity(b'{"name": "A"}') == f'["A",null,{{"position":["{TOPIC_ID}",2,40]}}]'


def test_a_replay_without_an_id_keeps_the_identity_it_had():
    first = identity_of(decode_signal(b'{"name": "A"}', None, limit_bytes=1000), TOPIC_ID, 0, 17)

    assert identity(b'{"name": "A"}', position_text(TOPIC_ID, 0, 17)) == first


def test_a_replay_with_an_id_is_known_by_its_id():
    assert identity(b'{"name": "A", "source": "s", "id": "1"}', position_text(TOPIC_ID, 0, 17)) == '["A","s","1"]'


@pytest.mark.parametrize(
    "header",
    [
        "",
        "17",
        '{"position":["u",0]}',
        '{"position": ["u",0,1]}',
        '{"position":["u",0,1.0]}',
        '{"position":["u",0,-1]}',
        '{"position":["u",0,1],"more":1}',
        '{"position":["' + "u" * 65 + '",0,1]}',
        '{"position":["u",0,1]}\n',
    ],
)
def test_a_header_of_another_form_is_passed_over(header):
    assert identity(b'{"name": "A"}', header) == identity(b'{"name": "A"}')
