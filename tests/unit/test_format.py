"""Format 1 of the internal topics and of the store, as recorded bytes: what a later version must still read.

The recording is made by `SIGNAL_ROUTER_RECORD_FORMAT=1 pytest tests/unit/test_format.py`. A difference means that the
format changed: then it needs a new number, and this recording stays.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from signal_router.core import join_sets
from signal_router.core.join import Joiner, Limits
from signal_router.kafka.topics import resolve
from signal_router.model import candidates
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.join import CandidatesPartition, JoinProcessor
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.match import MatchProcessor, SignalsPartition
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.stage import Stage
from signal_router.state.keys import FORMAT, POSITION
from signal_router.state.restore import local_entries
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable

RECORDING = Path(__file__).parent.parent / "fixtures" / f"format-{FORMAT}.json"
DOCUMENT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/pair}
spec:
  join: {k: any}
  within: 1h
  dedupe: 2h
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B, payload: true}
  trigger: {params: {k: "{join.k}", v: "{b.payload.v}"}}
"""
AT = 1_772_000_000_000


@dataclass
class Batch:
    tp: TopicPartition
    records: list[InputRecord]
    next_offset: int
    at: int = 0


def signals() -> list[InputRecord]:
    def record(offset: int, name: str, key: object, **more: object) -> InputRecord:
        value = {"name": name, "source": "s", "id": f"{name}{offset}", "params": {"k": key}} | more
        return InputRecord(offset, AT + offset * 1000, None, json.dumps(value).encode(), None)

    first = record(0, "A", 1)
    many = [record(10 + n, "A", "hot") for n in range(12)]
    return [
        first,
        record(1, "B", 1, payload={"v": 7}),
        InputRecord(2, AT + 2000, None, first.value, None),
        record(3, "A", "1"),
        record(4, "B", 2, payload={"v": "large" * 400}),
        *many,
        record(30, "B", "hot", payload={"v": None}),
        record(31, "A", 10**40, id=None, source=None),
    ]


@pytest.fixture
def written() -> dict[str, list[list[str | None]]]:
    """What the two stages write for a fixed story, in hexadecimal: candidates and the changelog."""
    names = resolve("", "app")
    view = DefinitionsView(names.triggers)
    document = read_documents([("pair.yaml", DOCUMENT)]).documents[0]
    value = encode_definition(definition(document, birth=1, join_generation=1, applied_at=0))
    view.take(view.read(InputRecord(0, 0, definition_key(document.id), value)))
    destinations = Destinations({names.triggers: 10**6, names.lineage: 10**6})
    outputs = Outputs(names, "app", destinations, all_lineage=False)
    match = MatchProcessor(names, view, slot="w", candidates_partitions=1, limit_bytes=10**6)
    join = JoinProcessor(names, view, outputs, slot="w", candidates_partitions=1, all_lineage=False)
    tp = TopicPartition(names.signals, 0)
    match.partitions[tp] = SignalsPartition("AAAAAAAAAAAAAAAAAAAAAA", 0)
    table = PartitionTable(MemoryStore(), 0)
    join.partitions[0] = CandidatesPartition(table, Joiner(table, view, Limits()), 0, 0, "BBBBBBBBBBBBBBBBBBBBBB")
    first, second = Stage(1, "w/1/1"), Stage(1, "w/1/2")

    match.step(Batch(tp, signals(), 32), first, now=AT + 10**7, max_outputs=10**6, max_records=10**6)
    LocalCandidates(join, names.candidates, enabled=False).send(first, max_outputs=10**6)
    match.mark(first, {"signals/0": AT + 31_000}, ("signals/0", "signals/1"), ())
    sent = [output.value for output in first.outputs if output.topic == names.candidates]
    records = [InputRecord(offset, AT, None, value) for offset, value in enumerate(sent)]
    batch = Batch(TopicPartition(names.candidates, 0), records, len(records))
    join.step(batch, second, max_outputs=10**6, max_records=10**6)

    changelog = [*table.staged(), (POSITION, second.positions[0])]
    return {
        "candidates": [[value.hex()] for value in sent if value is not None],
        "changelog": [[key.hex(), None if value is None else value.hex()] for key, value in changelog],
    }


def recorded() -> dict[str, list[list[str | None]]]:
    return json.loads(RECORDING.read_text(encoding="utf-8"))


def test_the_story_reaches_every_kind_of_entry(written):
    kinds = {bytes.fromhex(key)[:1] for key, _ in written["changelog"]}

    assert kinds == {b"S", b"Q", b"I", b"N", b"D", b"V", b"P"}
    assert len(signals()) > join_sets.HEAD_ENTRIES


def test_what_is_written_is_the_recorded_format(written):
    if os.environ.get("SIGNAL_ROUTER_RECORD_FORMAT"):
        RECORDING.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")

    assert written["candidates"] == recorded()["candidates"]
    assert sorted(written["changelog"]) == sorted(recorded()["changelog"])


def test_recorded_candidates_are_read():
    kinds = [type(candidates.decode(bytes.fromhex(value))).__name__ for (value,) in recorded()["candidates"]]

    assert kinds.count("Mark") == 1
    assert kinds.count("Candidate") == len(signals())


def test_a_store_made_of_the_recorded_changelog_goes_on_where_it_was():
    store = MemoryStore()
    prefix = b"\0\0"
    for key, value in recorded()["changelog"]:
        raw = bytes.fromhex(key)
        store.write([(prefix + raw, None if value is None else bytes.fromhex(value))])
        if value is not None and raw[:1] in b"SQI":
            store.write([(prefix + local, entry) for local, entry in local_entries(raw, bytes.fromhex(value))])

    table = PartitionTable(store, 0)

    hot = table.join_set("team/pair", '{"k":"hot"}')
    assert hot is not None
    assert len(hot.pending) + hot.queued == 11
    assert table.pending_count("team/pair") == 11 + 3
    assert table.progress().revision == 0
    assert table.progress().clock == -1
    assert len(list(table.due(AT + 10**9))) >= 3
