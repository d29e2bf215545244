"""A flood of records that cannot be read, or are too large, among good ones."""

from __future__ import annotations

import json

from harness import PAIR, QUICK, LiveCluster, announced

from prove.rounds import Round

SIGNAL_BYTES = 256 * 1024
UNREADABLE = (
    b"",
    b"no json",
    b"[1]",
    b"\xff\xfe",
    b'{"params": {}}',
    b'{"name": 7}',
    b'{"name": "A", "params": {"k": {}}}',
    b'{"name": "A", "params": {"k": NaN}}',
    b'{"name": "A", "params": {"k": "\\ud800"}}',
    b'{"name": "A", "params": {"k": 1' + b"0" * 80 + b"}}",
    b'{"name": "A", "id": "1", "params": {"k": 1}}',
    b'{"name": "A", "source": "s", "id": "1", "time": "yesterday"}',
    b'{"name": "A", "params": {"k": ' + b"[" * 200 + b"]" * 200 + b"}}",
)
FAULTS = ("unreadable record", "oversized record", "a worker killed in the flood")


def play(round_: Round) -> None:
    """Twenty bad ones for each good one."""
    pairs = round_.few(600, least=60)
    bad, large = round_.few(24_000, least=2_000), round_.few(60, least=8)
    with round_.cluster(round_.brokers.plain, candidates=round_.turn(("local", "topic"))) as cluster:
        cluster.apply(PAIR)
        workers = {slot: cluster.worker(slot, times=QUICK) for slot in ("w1", "w2")}
        for worker in workers.values():
            worker.await_running()
        flood = mixed(round_, pairs, bad, large)
        quarter = len(flood) // 4
        for piece in range(4):
            cluster.publish_many(flood[piece * quarter : None if piece == 3 else (piece + 1) * quarter])
            if piece in {1, 2}:
                slot = round_.rng.choice(sorted(workers))
                round_.kill(workers[slot])
                round_.fired("a worker killed in the flood")
                workers[slot] = cluster.worker(slot, times=QUICK)
        proof = round_.judge(cluster)
        assert_dead_letters(cluster, [each.document for each in proof.dead_letters], bad + large)
        assert proof.fired() == {json.dumps({"k": key}): 1 for key in range(pairs)}
        round_.fired("unreadable record", bad)
        round_.fired("oversized record", large)


def mixed(round_: Round, pairs: int, bad: int, large: int) -> list[dict[str, object] | bytes]:
    """All in random order."""
    rng = round_.rng
    flood: list[dict[str, object] | bytes] = [*announced("A", range(pairs)), *announced("B", range(pairs))]
    flood += [rng.choice(UNREADABLE) for _ in range(bad)]
    flood += [
        {"name": "A", "source": "s", "id": f"large{number}", "params": {"k": 1}, "payload": "x" * (SIGNAL_BYTES + 1)}
        for number in range(large)
    ]
    rng.shuffle(flood)
    return flood


def assert_dead_letters(cluster: LiveCluster, letters: list[dict[str, object]], count: int) -> None:
    """One for each, at the position of a record that is there."""
    positions = [json.dumps(letter["position"], sort_keys=True) for letter in letters]
    assert len(positions) == len(set(positions)) == count, f"{len(positions)} dead letters of {count} records"
    assert {letter["kind"] for letter in letters} == {"signal"}
    assert {"topic": cluster.names.signals}.items() <= letters[0]["position"].items()  # type: ignore[attr-defined]
