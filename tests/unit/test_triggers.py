from __future__ import annotations

import json
import uuid
from dataclasses import replace

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from join_cases import KEY, signal, subscription

from signal_router.model import triggers
from signal_router.model.candidates import SignalCopy
from signal_router.model.canonical import canonical_json
from signal_router.model.templates import parse_template
from signal_router.model.triggers import NAMESPACE, Bound, Trigger

TEMPLATE = {"ds": "{join.ds}", "rows": "{a.params.rows}", "note": "from {b.source}", "gone": "{a.params.gone}"}
PAIR = replace(subscription("ab", revision=41), template=parse_template(TEMPLATE))


def bound(alias: str, copy: SignalCopy, sequence: int, *, payload: bool = False) -> Bound:
    return Bound(alias, sequence, copy, payload)


def pair(*, payload: bytes | None = None, shown: bool = False) -> Trigger:
    first = msgspec.structs.replace(
        signal("1", 1_773_122_400_500, payload=payload, offset=7), params=b'{"rows":12345678901234567890123}'
    )
    members = [bound("a", first, 11, payload=shown), bound("b", signal("2", 1_773_122_400_000), 12)]
    return triggers.build(PAIR, KEY, members, members[1], 3)


def test_trigger_says_what_caused_it() -> None:
    value = json.loads(triggers.encode(pair()))

    identifier = value["trigger_id"]
    assert value == {
        "trigger_id": identifier,
        "kind": "fired",
        "attempt": 1,
        "idempotency_key": f"{identifier}/1",
        "subscription": {"id": "team/job", "version": "sha256:0", "revision": 41},
        "join_key": {"ds": "2026-03-10"},
        "params": {"ds": "2026-03-10", "rows": 12345678901234567890123, "note": "from team", "gone": None},
        "opened_at": "2026-03-10T06:00:00.000Z",
        "fired_at": "2026-03-10T06:00:00.000Z",
        "order": {"partition": 3, "sequence": 12},
        "missing": ["a.params.gone"],
        "signals": [
            {
                "alias": "a",
                "name": "s",
                "source": "team",
                "id": "1",
                "params": {"rows": 12345678901234567890123},
                "time": None,
                "recorded_at": "2026-03-10T06:00:00.500Z",
                "position": {"topic": "signals", "partition": 0, "offset": 7},
                "sequence": 11,
            },
            {
                "alias": "b",
                "name": "s",
                "source": "team",
                "id": "2",
                "params": {},
                "time": None,
                "recorded_at": "2026-03-10T06:00:00.000Z",
                "position": {"topic": "signals", "partition": 0, "offset": 0},
                "sequence": 12,
            },
        ],
    }


def test_payload_stands_where_the_member_asks_for_it_but_not_in_lineage() -> None:
    shown = pair(payload=b'{"x":1}', shown=True)

    assert json.loads(triggers.encode(shown))["signals"][0]["payload"] == {"x": 1}
    assert "payload" not in json.loads(triggers.encode(pair(payload=b'{"x":1}')))["signals"][0]
    without = json.loads(triggers.encode(triggers.without_payloads(shown)))
    assert without == json.loads(triggers.encode(pair()))


def test_form_for_a_small_topic_names_positions_only() -> None:
    value = json.loads(triggers.encode(triggers.by_position(pair(payload=b"[1]", shown=True))))

    assert value["by_position"] is True
    assert [one["params"] for one in value["signals"]] == [{}, {}]
    assert "payload" not in value["signals"][0]
    assert value["signals"][0]["position"] == {"topic": "signals", "partition": 0, "offset": 7}
    assert value["trigger_id"] == pair().trigger_id


def test_id_does_not_depend_on_the_order_of_members_or_arrival() -> None:
    one, two = bound("a", signal("1"), 1), bound("b", signal("2"), 2)
    later = bound("a", signal("1", 9_999, offset=4, content="other"), 7)

    assert triggers.trigger_id(PAIR, KEY, [one, two]) == triggers.trigger_id(PAIR, KEY, [two, later])


def test_id_tells_sets_lives_and_shapes_apart() -> None:
    one, two = bound("a", signal("1"), 1), bound("b", signal("2"), 2)
    others = [
        triggers.trigger_id(PAIR, KEY, [one, two]),
        triggers.trigger_id(PAIR, KEY, [bound("b", one.signal, 1), bound("a", two.signal, 2)]),
        triggers.trigger_id(PAIR, "{}", [one, two]),
        triggers.trigger_id(replace(PAIR, birth=2), KEY, [one, two]),
        triggers.trigger_id(replace(PAIR, join_generation=2), KEY, [one, two]),
        triggers.trigger_id(replace(PAIR, id="team/other"), KEY, [one, two]),
    ]

    assert len(set(others)) == len(others)


_aliases = st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,3}", fullmatch=True), min_size=1, max_size=5, unique=True)


@given(aliases=_aliases, name=st.text(min_size=1, max_size=3))
def test_id_is_the_uuid_of_the_canonical_json_of_the_set(aliases: list[str], name: str) -> None:
    identity = canonical_json([name, "team", "1"]).decode()
    members = [
        bound(alias, msgspec.structs.replace(signal("1"), identity=identity), number)
        for number, alias in enumerate(aliases)
    ]
    parts = [[alias, name, "team", "1"] for alias in sorted(aliases)]

    identifier = triggers.trigger_id(PAIR, KEY, members)

    text = canonical_json(["team/job", 1, 1, {"ds": "2026-03-10"}, parts]).decode()
    assert identifier == str(uuid.uuid5(NAMESPACE, text))


def test_headers_are_those_of_cloudevents() -> None:
    trigger = pair()
    key = triggers.key_of(PAIR, KEY)

    assert dict(triggers.headers(trigger, "app", key, "00-aa-bb-01")) == {
        "ce_specversion": b"1.0",
        "ce_id": trigger.trigger_id.encode(),
        "ce_source": b"/signal-router/app",
        "ce_type": b"signal-router.trigger.v1",
        "ce_subject": b"team/job",
        "ce_time": b"2026-03-10T06:00:00.000Z",
        "ce_partitionkey": b'["team/job",{"ds":"2026-03-10"}]',
        "content-type": b"application/json",
        "traceparent": b"00-aa-bb-01",
    }
    assert "traceparent" not in dict(triggers.headers(trigger, "app", key))


def test_signal_that_fires_by_itself_has_no_join_key_but_its_identity_in_the_kafka_key() -> None:
    alone = subscription("a", join_names=())
    copy = signal("1")

    trigger = triggers.build(alone, copy.identity, [bound("a", copy, 1)], bound("a", copy, 1), 0)

    assert bytes(trigger.join_key) == b"{}"
    assert triggers.key_of(alone, copy.identity) == b'["team/job",{},["s","team","1"]]'
