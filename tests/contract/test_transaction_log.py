"""The contract of `TransactionLog`: what every implementation does, whoever stands behind it."""

from __future__ import annotations

import os

import pytest
from clusters import until, wait_for_end

from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import (
    AbortableError,
    LogError,
    NextOffset,
    OutputRecord,
    ProducerFencedError,
    TopicPartition,
    UnknownOutcomeError,
)
from signal_router.testing.memory_log import Isolation


def record(
    topic: str, value: bytes, *, key: bytes | None = b"key", partition: int = 0, tracked: bool = False
) -> OutputRecord:
    return OutputRecord(topic, key, value, partition, (("sr_txn", b"slot/1/1"),), tracked)


def write(log, *records: OutputRecord) -> None:
    """Produces and commits: whether a failure shows in one or in the other is not part of the contract."""
    log.produce(records)
    log.commit()


def values(records) -> list[bytes]:
    return [each.value for each in records]


@pytest.fixture
def log(cluster):
    log = cluster.log()
    log.init()
    yield log
    log.close()


def anybody(cluster) -> bytes:
    """Metadata of nobody in particular: the broker does not fence it, so it serves where fencing is not the subject."""
    return GroupMetadata(cluster.group, -1, "").encode()


def test_committed_records_are_visible_in_order_with_key_and_headers(cluster, log):
    topic = cluster.topic()

    log.begin()
    log.produce([record(topic, b"1"), record(topic, b"2")])
    log.produce([record(topic, b"3", key=None)])
    log.commit()

    found = cluster.read(topic)
    assert values(found) == [b"1", b"2", b"3"]
    assert [each.key for each in found] == [b"key", b"key", None]
    assert list(found[0].headers) == [("sr_txn", b"slot/1/1")]


def test_open_records_are_invisible_until_the_commit(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"1", tracked=True)])
    log.send_offsets({TopicPartition(topic, 0): NextOffset(1)}, anybody(cluster))

    assert cluster.read(topic) == []

    log.commit()

    assert values(cluster.read(topic)) == [b"1"]


def test_aborted_records_stay_invisible_to_committed_readers_only(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"aborted")])
    wait_for_end(cluster, topic, 1)
    log.abort()
    log.begin()
    log.produce([record(topic, b"committed")])
    log.commit()

    assert values(cluster.read(topic)) == [b"committed"]
    assert values(cluster.read(topic, isolation=Isolation.READ_UNCOMMITTED)) == [b"aborted", b"committed"]


def test_a_transaction_is_all_or_nothing_over_topics_and_offsets(cluster, log):
    triggers, lineage, signals = cluster.topic(2), cluster.topic(), cluster.topic()
    read = TopicPartition(signals, 0)
    log.begin()
    log.produce([record(triggers, b"t", partition=1), record(lineage, b"l")])
    log.send_offsets({read: NextOffset(7)}, anybody(cluster))
    log.abort()

    assert cluster.read(triggers, 1) == cluster.read(lineage) == []
    assert cluster.committed(read) == {read: None}

    log.begin()
    log.produce([record(triggers, b"t", partition=1), record(lineage, b"l")])
    log.send_offsets({read: NextOffset(7, "slot-1;41")}, anybody(cluster))
    log.commit()

    assert values(cluster.read(triggers, 1)) == [b"t"]
    assert values(cluster.read(lineage)) == [b"l"]
    assert cluster.committed(read) == {read: NextOffset(7, "slot-1;41")}


def test_a_transaction_of_offsets_alone_commits(cluster, log):
    tp = TopicPartition(cluster.topic(), 0)

    log.begin()
    log.send_offsets({tp: NextOffset(0)}, anybody(cluster))
    log.commit()

    assert cluster.committed(tp) == {tp: NextOffset(0)}


def test_an_empty_transaction_commits_and_aborts(cluster, log):
    topic = cluster.topic()

    log.begin()
    log.commit()
    log.begin()
    log.abort()

    assert cluster.end(topic) == 0


def test_markers_take_offsets(cluster, log):
    topic = cluster.topic()
    for value in (b"1", b"2"):
        log.begin()
        log.produce([record(topic, value)])
        log.commit()

    found = cluster.read(topic)

    assert [each.offset for each in found] == [0, 2]
    assert cluster.end(topic) == 4
    assert cluster.end(topic, isolation=Isolation.READ_COMMITTED) == 4


def test_the_marker_of_an_abort_takes_an_offset_too(cluster, log):
    topic = cluster.topic(2)
    log.begin()
    log.produce([record(topic, b"aborted"), record(topic, b"aborted", partition=1)])
    wait_for_end(cluster, topic, 1)
    until(lambda: cluster.end(topic, 1) >= 1)
    log.abort()
    log.begin()
    log.produce([record(topic, b"fine")])
    log.commit()

    assert [each.offset for each in cluster.read(topic)] == [2]
    assert (cluster.end(topic), cluster.end(topic, 1)) == (4, 2)
    assert cluster.read(topic, 1) == []


def test_offsets_alone_write_no_marker_to_the_partitions_they_speak_of(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.send_offsets({TopicPartition(topic, 0): NextOffset(0)}, anybody(cluster))
    log.commit()

    assert cluster.end(topic) == 0


def test_of_two_open_transactions_offsets_that_were_sent_later_count(cluster, log):
    tp = TopicPartition(cluster.topic(), 0)
    other = cluster.log("other")
    other.init()
    log.begin()
    log.send_offsets({tp: NextOffset(10)}, anybody(cluster))
    other.begin()
    other.send_offsets({tp: NextOffset(20)}, anybody(cluster))
    other.commit()
    log.commit()

    assert cluster.committed(tp) == {tp: NextOffset(20)}
    other.close()


def test_the_last_stable_offset_stands_before_the_oldest_open_transaction(cluster, log):
    topic = cluster.topic()
    other = cluster.log("other")
    other.init()
    log.begin()
    log.produce([record(topic, b"open")])
    wait_for_end(cluster, topic, 1)
    other.begin()
    other.produce([record(topic, b"behind")])
    other.commit()

    assert cluster.read(topic) == []
    assert cluster.end(topic, isolation=Isolation.READ_COMMITTED) == 0
    assert cluster.end(topic) == 3

    log.commit()

    assert values(cluster.read(topic)) == [b"open", b"behind"]
    other.close()


def test_the_offsets_of_tracked_records_are_reported_after_the_commit(cluster, log):
    topic = cluster.topic(2)
    log.begin()
    log.produce([record(topic, b"a"), record(topic, b"position", tracked=True), record(topic, b"b", partition=1)])
    log.commit()

    assert log.delivered() == {TopicPartition(topic, 0): 1}

    log.begin()
    log.produce([record(topic, b"position", partition=number, tracked=True) for number in (0, 1)])
    log.commit()

    # partition 0: two records and a marker; partition 1: one record and a marker
    assert log.delivered() == {TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 2}
    assert cluster.read(topic, 0)[-1].offset == 3
    assert cluster.read(topic, 1)[-1].offset == 2


def test_the_last_tracked_record_of_a_partition_counts(cluster, log):
    topic = cluster.topic()

    log.begin()
    log.produce([record(topic, b"1", tracked=True), record(topic, b"2", tracked=True)])
    log.commit()

    assert log.delivered() == {TopicPartition(topic, 0): 1}


def test_an_aborted_transaction_delivers_nothing_new(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"1", tracked=True)])
    log.commit()
    log.begin()
    log.produce([record(topic, b"2", tracked=True)])
    log.abort()

    assert log.delivered() == {TopicPartition(topic, 0): 0}


def test_keys_choose_the_same_partition_everywhere(cluster, log):
    topic = cluster.topic(5)
    keys = [b"", b"a", b"key", b"foobar", "schlüssel".encode(), b'["content-ml/decision-model",{}]', bytes(range(256))]
    expected = [1, 4, 1, 1, 1, 2, 4]  # the same for Java's default partitioner

    log.begin()
    log.produce([record(topic, str(index).encode(), key=key, partition=-1) for index, key in enumerate(keys)])
    log.commit()

    found = {int(each.value): number for number in range(5) for each in cluster.read(topic, number)}
    assert [found[index] for index in range(len(keys))] == expected


def test_a_second_init_aborts_and_fences_the_first(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"old")])
    wait_for_end(cluster, topic, 1)
    successor = cluster.log()

    successor.init()

    assert cluster.end(topic, isolation=Isolation.READ_COMMITTED) == cluster.end(topic)
    with pytest.raises(ProducerFencedError):
        write(log, record(topic, b"too late"))
    with pytest.raises(LogError):
        log.begin()
    successor.begin()
    successor.produce([record(topic, b"new")])
    successor.commit()
    assert values(cluster.read(topic)) == [b"new"]
    successor.close()


def test_a_fenced_log_can_take_the_id_back(cluster, log):
    topic = cluster.topic()
    successor = cluster.log()
    successor.init()
    log.begin()
    with pytest.raises(ProducerFencedError):
        write(log, record(topic, b"fenced"))

    log.init()
    log.begin()
    log.produce([record(topic, b"mine")])
    log.commit()

    assert values(cluster.read(topic)) == [b"mine"]
    successor.close()


def test_different_ids_do_not_fence_each_other(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"one")])
    other = cluster.log("other")

    other.init()
    log.commit()

    assert values(cluster.read(topic)) == [b"one"]
    other.close()


def test_offsets_are_unstable_while_a_transaction_has_them_pending(cluster, log):
    tp, untouched = TopicPartition(cluster.topic(), 0), TopicPartition(cluster.topic(), 0)
    log.begin()
    log.send_offsets({tp: NextOffset(5)}, anybody(cluster))

    assert not cluster.stable(tp)
    assert cluster.stable(untouched)
    assert cluster.committed(tp, stable=False) == {tp: None}

    log.commit()

    assert cluster.stable(tp)
    assert cluster.committed(tp) == {tp: NextOffset(5)}


def test_the_next_init_resolves_unstable_offsets(cluster, log):
    tp = TopicPartition(cluster.topic(), 0)
    log.begin()
    log.send_offsets({tp: NextOffset(5)}, anybody(cluster))

    cluster.log().init()

    assert cluster.stable(tp)
    assert cluster.committed(tp) == {tp: None}


def test_a_negative_next_offset_is_refused(cluster, log):
    tp = TopicPartition(cluster.topic(), 0)
    log.begin()

    with pytest.raises(ValueError, match="-1001"):
        log.send_offsets({tp: NextOffset(-1001)}, anybody(cluster))

    log.abort()


def test_a_refused_generation_aborts_and_the_next_transaction_is_fine(cluster, log):
    topic = cluster.topic()
    tp = TopicPartition(topic, 0)
    log.begin()
    log.produce([record(topic, b"refused")])
    with pytest.raises(AbortableError) as refusal:
        log.send_offsets({tp: NextOffset(1)}, GroupMetadata(cluster.group, 1, "nobody").encode())
    with pytest.raises(AbortableError):
        log.commit()
    log.abort()

    log.begin()
    log.produce([record(topic, b"fine")])
    log.send_offsets({tp: NextOffset(2)}, anybody(cluster))
    log.commit()

    assert refusal.value.membership
    assert not refusal.value.delivery
    assert values(cluster.read(topic)) == [b"fine"]
    assert cluster.committed(tp) == {tp: NextOffset(2)}
    assert not log.recycles  # a definite answer leaves nothing in doubt


def test_a_record_over_the_topics_limit_fails_its_transaction_only(cluster, log):
    topic = cluster.topic(max_record_bytes=2_000)
    log.begin()
    with pytest.raises(AbortableError) as failure:
        write(log, record(topic, b"neighbour"), record(topic, os.urandom(5_000)))
    log.abort()

    log.begin()
    log.produce([record(topic, b"fine")])
    log.commit()

    assert failure.value.delivery
    assert values(cluster.read(topic)) == [b"fine"]
    assert log.recycles == {"a delivery failed": 1}


def test_a_record_over_the_clients_limit_voids_the_transaction(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"neighbour")])

    # A commit that follows would succeed without the record, so the log must not let one follow.
    with pytest.raises(UnknownOutcomeError, match="MSG_SIZE_TOO_LARGE"):
        log.produce([record(topic, bytes(1_100_000))])
    with pytest.raises(UnknownOutcomeError):
        log.commit()
    with pytest.raises(UnknownOutcomeError):
        log.begin()

    log.init()
    log.begin()
    log.produce([record(topic, b"fine")])
    log.commit()
    assert values(cluster.read(topic)) == [b"fine"]


def test_a_missing_partition_is_a_failed_delivery(cluster, log):
    topic = cluster.topic()

    # The real client may only count the failure at first, and is asked for the cause by a second try.
    failures = []
    for _ in range(2):
        log.begin()
        with pytest.raises(LogError) as failure:
            write(log, record(topic, b"nowhere", partition=7))
        failures.append(failure.value)
        if isinstance(failure.value, UnknownOutcomeError):
            # This client knew the topic's partitions when it was given the record. The next one may only count again.
            log.init()
            break
        log.abort()

    assert isinstance(failures[-1], UnknownOutcomeError) or failures[-1].delivery
    assert cluster.read(topic) == []


def test_a_transaction_that_times_out_is_fenced(cluster):
    topic = cluster.topic()
    log = cluster.log(transaction_timeout_ms=1_000)
    log.init()
    log.begin()
    log.produce([record(topic, b"slow")])
    wait_for_end(cluster, topic, 1)

    cluster.let_time_out(log, topic, 1_000)

    with pytest.raises(ProducerFencedError):
        log.commit()
    log.init()
    log.begin()
    log.produce([record(topic, b"again")])
    log.commit()
    assert values(cluster.read(topic)) == [b"again"]
    log.close()


def test_abort_without_a_transaction_does_nothing(cluster, log):
    log.abort()
    log.begin()
    log.abort()
    log.abort()


@pytest.mark.parametrize("call", ["begin", "commit", "produce"])
def test_a_call_out_of_order_is_an_unknown_outcome(cluster, log, call):
    topic = cluster.topic()
    if call == "begin":
        log.begin()

    with pytest.raises(UnknownOutcomeError):
        {"begin": log.begin, "commit": log.commit, "produce": lambda: log.produce([record(topic, b"")])}[call]()


def test_nothing_works_before_init_and_after_close(cluster):
    log = cluster.log()
    with pytest.raises(UnknownOutcomeError):
        log.begin()

    log.init()
    log.close()
    log.close()

    with pytest.raises(UnknownOutcomeError):
        log.begin()


def test_close_leaves_nothing_visible(cluster, log):
    topic = cluster.topic()
    log.begin()
    log.produce([record(topic, b"given up")])

    log.close()
    cluster.log().init()

    assert cluster.read(topic) == []
    assert cluster.end(topic, isolation=Isolation.READ_COMMITTED) == cluster.end(topic)


def test_clean_transactions_never_replace_the_producer(cluster, log):
    topic = cluster.topic(2)

    for number in range(100):
        log.begin()
        log.produce([record(topic, b"%d" % number, partition=number % 2, tracked=True)])
        log.send_offsets({TopicPartition(topic, 0): NextOffset(number)}, anybody(cluster))
        if number % 10 == 9:
            log.abort()
        else:
            log.commit()

    assert not log.recycles
    assert len(cluster.read(topic, 0)) + len(cluster.read(topic, 1)) == 90
