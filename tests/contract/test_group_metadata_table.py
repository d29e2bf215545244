"""Which group metadata a broker accepts with the offsets of a transaction: the table on which fencing of workers rests.

A refused transaction must leave nothing behind, an accepted one must commit; both are looked up afterwards.
"""

from __future__ import annotations

import pytest
from clusters import KafkaCluster, MemoryCluster, until

from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import AbortableError, NextOffset, TopicPartition

COMMITTED, REFUSED = "committed", "refused"
PARTITIONS = 4


@pytest.fixture(
    params=[
        "memory-classic",
        "memory-consumer",
        pytest.param("kafka-classic", marks=pytest.mark.kafka),
        pytest.param("kafka-consumer", marks=pytest.mark.kafka),
    ]
)
def cluster(request):
    where, protocol = request.param.split("-")
    if where == "memory":
        yield MemoryCluster(protocol)
        return
    opened = KafkaCluster(str(request.getfixturevalue("broker")), request.getfixturevalue("prefix"), protocol)
    yield opened
    opened.close()


class Offer:
    """Offers offsets under some metadata, each time by a producer of its own, and says what became of them."""

    def __init__(self, cluster) -> None:
        self._cluster = cluster
        self._offset = 100

    def __call__(self, metadata: bytes, *partitions: TopicPartition) -> str:
        self._offset += 1
        offered = {tp: NextOffset(self._offset) for tp in partitions}
        log = self._cluster.log(f"offer-{self._offset}")
        log.init()
        log.begin()
        try:
            log.send_offsets(offered, metadata)
            log.commit()
        except AbortableError:
            log.abort()
        found = self._cluster.committed(*partitions)
        log.close()
        if found == offered:
            return COMMITTED
        assert all(found[tp] != offered[tp] for tp in partitions), "a refused transaction moved an offset"
        return REFUSED


def changed(metadata: bytes, **changes: object) -> bytes:
    return GroupMetadata.decode(metadata)._replace(**changes).encode()


@pytest.fixture
def offer(cluster):
    return Offer(cluster)


@pytest.fixture
def topic(cluster):
    return cluster.topic(PARTITIONS)


def owns(member, count: int) -> bool:
    return len(member.partitions) == count


def test_what_the_group_checks_of_generation_and_member(cluster, offer, topic):
    member = cluster.join(topic)
    until(lambda: owns(member, PARTITIONS), member)
    live = member.group_metadata()
    generation = GroupMetadata.decode(live).generation
    tp = TopicPartition(topic, 0)

    assert GroupMetadata.decode(live).fences
    assert offer(live, tp) == COMMITTED
    assert offer(changed(live, member=""), tp) == REFUSED
    assert offer(changed(live, member="nobody"), tp) == REFUSED
    assert offer(changed(live, generation=generation - 1), tp) == REFUSED
    assert offer(changed(live, generation=generation + 1), tp) == REFUSED
    assert offer(changed(live, generation=-1), tp) == REFUSED
    # The hole: nobody at generation −1 is not fenced at all.
    assert offer(changed(live, generation=-1, member=""), tp) == COMMITTED


def test_current_metadata_commits_a_partition_that_somebody_else_owns(cluster, offer, topic):
    first = cluster.join(topic)
    until(lambda: owns(first, PARTITIONS), first)
    second = cluster.join(topic)
    until(lambda: owns(first, PARTITIONS // 2) and owns(second, PARTITIONS // 2), first, second)

    assert offer(first.group_metadata(), second.partitions[0]) == COMMITTED


def test_metadata_from_before_a_loss_does_not_commit_what_was_lost(cluster, offer, topic):
    first = cluster.join(topic)
    until(lambda: owns(first, PARTITIONS), first)
    before = first.group_metadata()
    second = cluster.join(topic)
    until(lambda: owns(first, PARTITIONS // 2) and owns(second, PARTITIONS // 2), first, second)
    kept, lost = first.partitions[0], second.partitions[0]

    assert offer(before, lost) == REFUSED
    assert offer(before, lost, kept) == REFUSED
    assert offer(before, kept) == (COMMITTED if modern(cluster) else REFUSED)


def test_metadata_of_an_earlier_ownership_does_not_commit(cluster, offer, topic):
    first = cluster.join(topic)
    until(lambda: owns(first, PARTITIONS), first)
    before = first.group_metadata()
    second = cluster.join(topic)
    until(lambda: owns(first, PARTITIONS // 2) and owns(second, PARTITIONS // 2), first, second)
    kept, lost = first.partitions[0], second.partitions[0]
    second.leave()
    until(lambda: owns(first, PARTITIONS), first)

    assert offer(before, lost) == REFUSED
    assert offer(before, lost, kept) == REFUSED
    assert offer(first.group_metadata(), lost, kept) == COMMITTED


def modern(cluster) -> bool:
    return cluster.protocol == "consumer"
