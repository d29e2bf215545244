from __future__ import annotations

import json

from join_cases import KEY, signal

from signal_router.model import lineage
from signal_router.model.signals import Position

POSITION = Position("signals", 2, 40)


def record(key: str, cause: dict[str, object] | None = None) -> dict[str, object]:
    value = lineage.signal_value(
        signal("1", 1_773_122_400_000, offset=40),
        "team/job",
        key,
        ["a"],
        "expired",
        "within",
        cause,
        1_773_122_401_000,
        3,
        9,
    )
    return dict(json.loads(value))


def test_candidate_that_ended_is_told_with_outcome_reason_and_cause() -> None:
    assert record(KEY, {"position": POSITION}) == {
        "format": 1,
        "kind": "signal",
        "position": {"topic": "signals", "partition": 0, "offset": 40},
        "subscription": "team/job",
        "join_key": {"ds": "2026-03-10"},
        "join_key_hash": lineage.join_key_hash(KEY),
        "aliases": ["a"],
        "name": "s",
        "source": "team",
        "id": "1",
        "outcome": "expired",
        "reason": "within",
        "cause": {"position": {"topic": "signals", "partition": 2, "offset": 40}},
        "recorded_at": "2026-03-10T06:00:00.000Z",
        "ended_at": "2026-03-10T06:00:01.000Z",
        "order": {"partition": 3, "sequence": 9},
    }


def test_candidate_that_joins_by_its_identity_has_an_empty_join_key_and_its_identitys_hash() -> None:
    identity = '["s","team","1"]'

    told = record(identity)

    assert told["join_key"] == {}
    assert told["join_key_hash"] == lineage.join_key_hash(identity) != lineage.join_key_hash("{}")


def test_keys_tell_candidates_of_one_signal_apart() -> None:
    keys = {
        lineage.signal_key(POSITION, "team/job", KEY),
        lineage.signal_key(POSITION, "team/job", "{}"),
        lineage.signal_key(POSITION, "team/job2", KEY),
        lineage.signal_key(Position("signals", 2, 41), "team/job", KEY),
    }

    assert len(keys) == 4
    assert lineage.signal_key(POSITION, "a/b", "{}") == b"signal/signals/2/40/a%2Fb/44136fa355b3678a"


def test_view_and_input_records_are_complete() -> None:
    assert lineage.view_key("sig nals", 1, 7) == b"view/sig%20nals/1/7"
    assert json.loads(lineage.view_value("signals", 1, 99, 7)) == {
        "format": 1,
        "kind": "view",
        "topic": "signals",
        "partition": 1,
        "offset": 99,
        "revision": 7,
    }
    assert lineage.input_key(4, 17) == b"input/4/17"
    assert json.loads(lineage.input_value(4, 17, {"kind": "view", "revision": 7})) == {
        "format": 1,
        "kind": "input",
        "partition": 4,
        "sequence": 17,
        "input": {"kind": "view", "revision": 7},
    }
