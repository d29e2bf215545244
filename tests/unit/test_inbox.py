from __future__ import annotations

from signal_router.kafka.consume import Fetched
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.inbox import Inbox

FIRST, SECOND = TopicPartition("signals", 0), TopicPartition("signals", 1)


def batch(tp: TopicPartition, *offsets: int, epoch: int = 1) -> Fetched:
    records = [InputRecord(offset, 0, None, b"x") for offset in offsets]
    return Fetched(tp, records, offsets[-1] + 1, epoch, len(offsets))


def test_batches_of_a_partition_grow_while_they_wait_and_others_stand_beside_them() -> None:
    inbox = Inbox()

    inbox.put(batch(FIRST, 1, 2))
    inbox.put(batch(SECOND, 7))
    inbox.put(batch(FIRST, 5))

    first, second = inbox.take()
    assert ([each.offset for each in first.records], first.next_offset, first.size) == ([1, 2, 5], 6, 3)
    assert [each.offset for each in second.records] == [7]


def test_what_was_taken_grows_no_more() -> None:
    inbox = Inbox()
    inbox.put(batch(FIRST, 1))
    (taken,) = inbox.take()

    inbox.put(batch(FIRST, 2))

    assert [each.offset for each in taken.records] == [1]
    assert [[each.offset for each in left.records] for left in inbox.take()] == [[2]]
    assert not inbox
    assert inbox.take() == []


def test_a_batch_of_another_epoch_replaces_what_is_void() -> None:
    inbox = Inbox()

    inbox.put(batch(FIRST, 1, 2))
    inbox.put(batch(FIRST, 1, epoch=2))

    (only,) = inbox.take()
    assert (only.epoch, [each.offset for each in only.records]) == (2, [1])
