"""Which candidates are joined at once, and which go through their topic."""

from __future__ import annotations

import pytest

from signal_router.core.join import Joiner, Limits
from signal_router.kafka.topics import resolve
from signal_router.model import candidates
from signal_router.model.candidates import Candidate, SignalCopy
from signal_router.model.definitions import definition, definition_key, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.definitions import DefinitionsView
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.join import CandidatesPartition, JoinProcessor
from signal_router.runtime.local import LocalCandidates
from signal_router.runtime.outputs import Outputs
from signal_router.runtime.stage import Stage
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable

DOCUMENT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: team/single}
spec:
  members: [{alias: a, signal: A}]
  trigger: {params: {}}
"""
NAMES = resolve("", "app")
ENOUGH = 1_000


class Given:
    """Two own candidates partitions, read up to offset 10; a third one is somebody else's."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.view = DefinitionsView(NAMES.triggers)
        document = read_documents([("single.yaml", DOCUMENT)]).documents[0]
        value = encode_definition(definition(document, birth=1, join_generation=1, applied_at=0))
        self.view.take(self.view.read(InputRecord(0, 0, definition_key(document.id), value)))
        outputs = Outputs(NAMES, "app", Destinations({NAMES.triggers: 10**6, NAMES.lineage: 10**6}), all_lineage=False)
        self.join = JoinProcessor(NAMES, self.view, outputs, slot="w", candidates_partitions=3, all_lineage=False)
        for number in (0, 1):
            table = PartitionTable(MemoryStore(), number)
            joiner = Joiner(table, self.view, Limits())
            partition = self.join.partitions[number] = CandidatesPartition(table, joiner, 10, 0, "t")
            self.join.settle(partition, Stage(1, "w/1/0"), max_outputs=ENOUGH)  # takes the definitions
        self.local = LocalCandidates(self.join, NAMES.candidates, enabled=enabled)
        self.local.begin({0: 10, 1: 10})
        self.offset = 0
        self.transactions = 0

    def stage(self, *partitions: int) -> Stage:
        """A stage that holds one candidate for each partition named."""
        self.transactions += 1
        stage = Stage(1, f"w/1/{self.transactions}")
        for partition in partitions:
            self.hold(stage, partition)
        return stage

    def hold(self, stage: Stage, partition: int, *, name: str = "A") -> None:
        self.offset += 1
        identity = f'["{name}","s","{self.offset}"]'
        copy = SignalCopy(
            identity, name, "s", str(self.offset), b"{}", None, None, 1, NAMES.signals, 0, self.offset, b"d"
        )
        stage.hold(partition, Candidate("team/single", 1, 1, 0, identity, 1, copy))

    def commit(self, stage: Stage, at: int) -> None:
        """The stage is committed, the tracked records stand at an offset."""
        tracked = {TopicPartition(each.topic, each.partition): at for each in stage.outputs if each.tracked}
        self.local.committed(stage, tracked)


def sent(stage: Stage) -> dict[int, list[int]]:
    """The offsets of the signals that were sent through the topic, by partition."""
    found: dict[int, list[int]] = {}
    for each in stage.outputs:
        if each.topic == NAMES.candidates:
            candidate = candidates.decode(each.value or b"")
            assert isinstance(candidate, Candidate)
            found.setdefault(each.partition, []).append(candidate.signal.offset)
    return found


def fired(stage: Stage) -> int:
    return sum(each.topic == NAMES.triggers for each in stage.outputs)


def test_candidates_of_own_partitions_that_are_read_to_the_end_are_joined_at_once() -> None:
    given = Given()
    stage = given.stage(0, 1, 0)

    given.local.join(stage, max_outputs=ENOUGH)

    assert fired(stage) == 3
    assert stage.candidates == {}
    assert set(stage.tables) == {0, 1}
    assert stage.next_offsets[TopicPartition(NAMES.candidates, 0)].offset == 10


def test_candidates_of_others_go_through_the_topic() -> None:
    given = Given()
    stage = given.stage(2, 0, 2)

    given.local.send(stage, max_outputs=ENOUGH)

    assert sent(stage) == {2: [1, 3]}
    assert fired(stage) == 1
    given.commit(stage, 50)  # nothing that has to be waited for
    assert given.stage(2).sent == set()


def test_switched_off_all_go_through_the_topic_in_order() -> None:
    given = Given(enabled=False)
    stage = given.stage(0, 1, 0)

    given.local.send(stage, max_outputs=ENOUGH)

    assert sent(stage) == {0: [1, 3], 1: [2]}
    assert fired(stage) == 0


def test_what_earlier_owners_wrote_comes_first() -> None:
    given = Given()
    given.local.begin({0: 11, 1: 10})
    behind = given.stage(0, 1)

    given.local.send(behind, max_outputs=ENOUGH)
    given.commit(behind, 11)
    given.join.partitions[0].next_offset = 11
    still = given.stage(0)
    given.local.send(still, max_outputs=ENOUGH)

    assert sent(behind) == {0: [1]}
    assert sent(still) == {0: [3]}


def test_what_this_worker_sent_comes_first() -> None:
    given = Given()
    given.local.begin({0: 12, 1: 10})
    first = given.stage(0, 0)
    given.local.send(first, max_outputs=ENOUGH)
    given.commit(first, 13)
    given.join.partitions[0].next_offset = 13

    second = given.stage(0)
    given.local.send(second, max_outputs=ENOUGH)
    given.commit(second, 15)
    given.join.partitions[0].next_offset = 16
    third = given.stage(0)
    given.local.join(third, max_outputs=ENOUGH)

    assert (sent(first), sent(second), fired(third)) == ({0: [1, 2]}, {0: [3]}, 1)


def test_of_one_stage_nothing_is_joined_behind_what_was_sent() -> None:
    given = Given()
    given.local.begin({0: 11})
    stage = given.stage(0)
    given.local.send(stage, max_outputs=ENOUGH)
    given.join.partitions[0].next_offset = 11
    given.hold(stage, 0)

    given.local.send(stage, max_outputs=ENOUGH)

    assert sent(stage) == {0: [1, 2]}


def test_a_full_stage_leaves_the_rest_for_its_end() -> None:
    given = Given()
    stage = given.stage(0, 0, 0, 0)

    given.local.join(stage, max_outputs=3)  # a trigger and its lineage are two outputs
    held = [each.signal.offset for each in stage.candidates[0]]
    given.local.send(stage, max_outputs=3)

    assert held == [3, 4]
    assert stage.candidates == {}
    assert fired(stage) == 4


def test_what_a_stage_cannot_hold_at_all_goes_through_the_topic_behind_what_it_joined() -> None:
    given = Given()
    stage = given.stage(*[0] * 10)

    given.local.send(stage, max_outputs=3)

    joined = fired(stage)
    assert 0 < joined < 10
    assert sent(stage) == {0: list(range(joined + 1, 11))}


def test_a_candidate_whose_joining_fails_goes_through_the_topic_with_all_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = Given()
    stage = given.stage(0)
    given.hold(stage, 0, name="broken")
    given.hold(stage, 0)
    joiner = given.join.partitions[0].joiner
    join = joiner.candidate

    def fail(sequence: int, candidate: Candidate) -> object:
        if candidate.signal.name == "broken":
            raise RuntimeError("broken")
        return join(sequence, candidate)

    monkeypatch.setattr(joiner, "candidate", fail)
    given.local.send(stage, max_outputs=ENOUGH)

    assert fired(stage) == 1
    assert sent(stage) == {0: [2, 3]}
    assert given.join.partitions[0].sequence == 2  # the definitions, and one candidate
