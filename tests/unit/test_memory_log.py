"""The log in memory, beyond the contract: faults, cleaning, groups, time."""

from __future__ import annotations

import pytest

from signal_router.errors import BrokerError
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
from signal_router.testing.memory_log import (
    OFFSETS_PARTITION,
    Effect,
    Faults,
    Isolation,
    ManualClock,
    MemoryBroker,
    MemoryLog,
    OffsetOutOfRangeError,
    Rebalance,
    RefusedRecordError,
    Unstable,
)

TOPIC = "triggers"
FIRST = TopicPartition(TOPIC, 0)
UNFENCED = GroupMetadata("app", -1, "").encode()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def broker(clock):
    broker = MemoryBroker(clock)
    broker.create_topic(TOPIC, 2)
    broker.create_topic("changelog", compacted=True)
    return broker


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def log(broker, faults):
    log = MemoryLog(broker, "slot", faults=faults)
    log.init()
    return log


def record(value: bytes, topic: str = TOPIC, key: bytes | None = b"key", partition: int = 0) -> OutputRecord:
    return OutputRecord(topic, key, value, partition)


def write(log: MemoryLog, *records: OutputRecord) -> None:
    log.begin()
    log.produce(records)
    log.commit()


def visible(broker: MemoryBroker, tp: TopicPartition = FIRST) -> list[bytes]:
    records, _, _ = broker.read(tp, broker.start_offset(tp))
    return [each.value for each in records]


# --- reading


def test_reading_in_steps_goes_over_markers_and_aborted_records(broker, log):
    write(log, record(b"1"))
    log.begin()
    log.produce([record(b"aborted")])
    log.abort()
    write(log, record(b"2"), record(b"3"))

    steps, next_offset, at_end = [], 0, False
    while not at_end:
        records, next_offset, at_end = broker.read(FIRST, next_offset, max_records=1)
        steps.append([(each.offset, each.value) for each in records])

    assert steps == [[(0, b"1")], [(4, b"2")], [(5, b"3")]]
    assert next_offset == broker.end_offset(FIRST) == 7


def test_the_end_is_reached_behind_trailing_markers(broker, log):
    write(log, record(b"1"))

    assert broker.read(FIRST, 1) == ([], 2, True)


def test_a_reader_outside_the_log_is_told(broker, log):
    write(log, record(b"1"))
    broker.delete_records(FIRST, 1)

    with pytest.raises(OffsetOutOfRangeError, match="offset 0"):
        broker.read(FIRST, 0)
    with pytest.raises(OffsetOutOfRangeError, match="offset 3"):
        broker.read(FIRST, 3)
    assert broker.read(FIRST, 2) == ([], 2, True)


def test_entries_tell_which_transaction_wrote_a_record_and_how_it_ended(broker, log):
    broker.append(TOPIC, b"plain", partition=0)
    write(log, record(b"committed"))
    log.begin()
    log.produce([record(b"aborted")])
    log.abort()

    entries = broker.entries(FIRST)

    assert [(each.value, each.marker, each.visible) for each in entries] == [
        (b"plain", None, True),
        (b"committed", None, True),
        (None, "commit", False),
        (b"aborted", None, False),
        (None, "abort", False),
    ]
    assert entries[0].run is None
    assert entries[1].run is entries[2].run
    assert entries[1].run.transactional_id == "slot"


# --- faults


@pytest.mark.parametrize(("effect", "expected"), [(Effect.NONE, []), (Effect.DONE, [b"1"]), (Effect.HELD, [])])
def test_after_an_unknown_outcome_the_next_init_decides(broker, log, faults, effect, expected):
    faults.fail("commit", effect=effect)

    with pytest.raises(UnknownOutcomeError):
        write(log, record(b"1"))
    with pytest.raises(UnknownOutcomeError):
        log.begin()
    log.init()

    assert visible(broker) == expected
    assert faults.release() == (effect is Effect.HELD)
    assert visible(broker) == expected
    write(log, record(b"2"))
    assert visible(broker) == [*expected, b"2"]


def test_a_held_commit_may_still_arrive_before_the_next_init(broker, log, faults):
    faults.fail("commit", effect=Effect.HELD)
    with pytest.raises(UnknownOutcomeError):
        write(log, record(b"1"))

    faults.release()
    log.init()

    assert visible(broker) == [b"1"]


def test_an_abortable_failure_leaves_the_producer_usable(broker, log, faults):
    faults.fail("send_offsets", AbortableError)
    log.begin()
    log.produce([record(b"1")])

    with pytest.raises(AbortableError):
        log.send_offsets({FIRST: NextOffset(1)}, UNFENCED)
    with pytest.raises(AbortableError):
        log.commit()
    log.abort()
    write(log, record(b"2"))

    assert visible(broker) == [b"2"]


def test_a_fault_waits_for_its_turn_and_its_log(broker, log, faults):
    other = MemoryLog(broker, "other", faults=faults)
    other.init()
    faults.fail("commit", transactional_id="slot", skip=1)

    write(other, record(b"other"))
    write(log, record(b"first"))
    with pytest.raises(UnknownOutcomeError):
        write(log, record(b"second"))

    assert faults.fired == {"commit/none": 1}


@pytest.mark.parametrize("tripwire", [True, False])
def test_a_straggling_commit_tears_the_next_transaction_only_without_the_tripwire(broker, faults, tripwire):
    log = MemoryLog(broker, "slot", faults=faults, tripwire=tripwire)
    log.init()
    faults.straggle("commit")
    write(log, record(b"1"))
    log.begin()
    log.produce([record(b"2")])

    faults.release()
    try:
        log.abort()
    except LogError:
        assert not tripwire

    assert visible(broker) == ([b"1"] if tripwire else [b"1", b"2"])
    assert log.recycles.total() == tripwire


@pytest.mark.parametrize("tripwire", [True, False])
def test_straggling_offsets_move_the_group_back_only_without_the_tripwire(broker, faults, tripwire):
    log = MemoryLog(broker, "slot", faults=faults, tripwire=tripwire)
    log.init()
    faults.straggle("send_offsets")
    for next_offset in (1, 2):
        log.begin()
        log.send_offsets({FIRST: NextOffset(next_offset)}, UNFENCED)
        if next_offset == 2:
            faults.release()
        log.commit()

    assert broker.committed("app", [FIRST]) == {FIRST: NextOffset(2 if tripwire else 1)}


def test_offsets_can_become_visible_before_the_changelog(broker, log):
    changelog = TopicPartition("changelog", 0)
    broker.delayed_markers.add(changelog)
    log.begin()
    log.produce([record(b"entry", "changelog")])
    log.send_offsets({FIRST: NextOffset(1)}, UNFENCED)
    log.commit()

    assert broker.stable_committed("app", [FIRST]) == {FIRST: NextOffset(1)}
    assert visible(broker, changelog) == []
    assert broker.end_offset(changelog, Isolation.READ_COMMITTED) == 0
    assert broker.open_transactions() == {"slot": [changelog]}

    assert broker.write_markers() == 1
    assert visible(broker, changelog) == [b"entry"]


def test_a_changelog_can_become_visible_before_the_offsets(broker, log):
    broker.delayed_markers.add(OFFSETS_PARTITION)
    log.begin()
    log.produce([record(b"1")])
    log.send_offsets({FIRST: NextOffset(1)}, UNFENCED)
    log.commit()

    assert visible(broker) == [b"1"]
    assert broker.stable_committed("app", [FIRST]) == Unstable(("slot",))
    assert broker.committed("app", [FIRST]) == {FIRST: None}


def test_delayed_markers_are_written_before_the_next_transaction_of_their_producer(broker, log):
    broker.delayed_markers.add(FIRST)
    write(log, record(b"1"))
    assert visible(broker) == []

    log.begin()
    log.produce([record(b"2")])

    assert visible(broker) == [b"1"]


# --- time


def test_a_transaction_ends_by_its_time_out(broker, log, clock):
    log.begin()
    log.produce([record(b"1")])
    clock.advance(9_999)
    assert broker.open_transactions() == {"slot": [FIRST]}
    assert broker.end_offset(FIRST, Isolation.READ_COMMITTED) == 0

    clock.advance(1)

    assert broker.end_offset(FIRST, Isolation.READ_COMMITTED) == 2
    with pytest.raises(ProducerFencedError):
        log.commit()


def test_time_outs_are_counted(broker, log, clock):
    log.begin()
    log.produce([record(b"slow")])
    clock.advance(10_000)
    broker.expire_transactions()

    assert broker.expired == 1


def test_topics_stamp_records_by_their_producer_or_by_the_broker(broker, clock):
    broker.create_topic("appended", timestamps="LogAppendTime")
    early = clock.now - 5_000

    broker.append(TOPIC, b"", partition=0, timestamp=early)
    broker.append("appended", b"", timestamp=early)

    assert broker.read(FIRST, 0)[0][0].timestamp == early
    assert broker.read(TopicPartition("appended", 0), 0)[0][0].timestamp == clock.now


def test_a_clock_moves_only_when_told(clock):
    start = clock()

    assert clock.advance(5) == start + 5 == clock.now
    with pytest.raises(ValueError, match="-1"):
        clock.advance(-1)
    clock.jump_to(start)
    assert clock() == start


# --- records that are refused


@pytest.mark.parametrize(
    ("code", "append"),
    [
        ("MSG_SIZE_TOO_LARGE", {"topic": TOPIC, "value": bytes(1_048_588)}),
        ("INVALID_RECORD", {"topic": "changelog", "value": b"no key"}),
        ("INVALID_TIMESTAMP", {"topic": TOPIC, "value": b"", "timestamp": 2_000_000_000_000}),
    ],
)
def test_a_plain_producer_is_refused(broker, code, append):
    with pytest.raises(RefusedRecordError) as refusal:
        broker.append(append.pop("topic"), append.pop("value"), **append)

    assert refusal.value.code == code


def test_a_denied_topic_fails_the_abort_too(broker, log):
    broker.deny_writes(TOPIC)
    log.begin()
    log.produce([record(b"denied")])

    with pytest.raises(AbortableError, match="TOPIC_AUTHORIZATION_FAILED"):
        log.commit()
    with pytest.raises(UnknownOutcomeError):
        log.abort()
    log.init()
    write(log, record(b"entry", "changelog"))


# --- the life of topics


def test_compaction_keeps_the_last_value_per_key_and_every_offset(broker, log):
    changelog = TopicPartition("changelog", 0)
    for value in (b"1", b"2", b"3"):
        write(log, record(value, "changelog", b"a"), record(value, "changelog", b"b"))
    write(log, record(None, "changelog", b"b"))
    end = broker.end_offset(changelog)

    broker.compact("changelog")

    records, next_offset, _ = broker.read(changelog, 0)
    assert [(each.offset, each.key, each.value) for each in records] == [(6, b"a", b"3"), (9, b"b", None)]
    assert next_offset == end

    broker.compact("changelog", drop_tombstones=True)
    assert [each.key for each in broker.read(changelog, 0)[0]] == [b"a"]
    assert broker.end_offset(changelog) == end


def test_compaction_leaves_the_tail_and_what_is_not_stable(broker, log):
    changelog = TopicPartition("changelog", 0)
    other = MemoryLog(broker, "other")
    other.init()
    write(log, record(b"1", "changelog"))
    write(log, record(b"2", "changelog"))

    broker.compact("changelog", tail=2)
    assert visible(broker, changelog) == [b"1", b"2"]

    other.begin()
    other.produce([record(b"open", "changelog", b"other")])
    write(log, record(b"3", "changelog"))
    broker.compact("changelog")
    other.commit()
    assert visible(broker, changelog) == [b"2", b"open", b"3"]


def test_a_tombstone_stays_for_its_time_after_it_was_cleaned_first(broker, log, clock):
    changelog = TopicPartition("changelog", 0)
    write(log, record(b"1", "changelog", b"a"), record(b"1", "changelog", b"b"))
    write(log, record(None, "changelog", b"b"))

    def cleaned() -> list[bytes | None]:
        broker.compact("changelog", drop_tombstones=60_000)
        return [each.key for each in broker.read(changelog, 0)[0]]

    clock.advance(100_000)  # its age does not count
    assert cleaned() == [b"a", b"b"]
    clock.advance(59_999)
    assert cleaned() == [b"a", b"b"]
    clock.advance(1)
    assert cleaned() == [b"a"]


def test_compaction_takes_aborted_records_and_lets_them_hide_nothing(broker, log):
    write(log, record(b"1", "changelog"))
    log.begin()
    log.produce([record(b"aborted", "changelog")])
    log.abort()

    broker.compact("changelog")

    changelog = TopicPartition("changelog", 0)
    assert [each.value for each in broker.read(changelog, 0, Isolation.READ_UNCOMMITTED)[0]] == [b"1"]


def test_deleted_records_move_the_start_and_truncation_the_end(broker, log):
    for value in (b"1", b"2", b"3"):
        write(log, record(value))

    broker.delete_records(FIRST, 2)
    broker.truncate(FIRST, 4)

    assert (broker.start_offset(FIRST), broker.end_offset(FIRST)) == (2, 4)
    assert visible(broker) == [b"2"]
    broker.delete_records(FIRST, -1)
    assert visible(broker) == []
    assert broker.append(TOPIC, b"4", partition=0) == (FIRST, 4)


def test_a_topic_created_again_is_another_one(broker, log):
    before = broker.topic_id(TOPIC)
    log.begin()
    log.produce([record(b"1")])
    log.send_offsets({FIRST: NextOffset(1)}, UNFENCED)
    log.commit()

    broker.delete_topic(TOPIC)
    after = broker.create_topic(TOPIC, 1)

    assert after == broker.topic_id(TOPIC) != before
    assert broker.end_offset(FIRST) == 0
    assert broker.committed("app", [FIRST]) == {FIRST: None}
    with pytest.raises(BrokerError, match="1 partitions"):
        broker.read(TopicPartition(TOPIC, 1), 0)


def test_ids_are_the_same_in_every_run():
    ids = set()
    for _ in range(2):
        broker = MemoryBroker()
        ids.add(broker.create_topic("signals"))

    assert len(ids) == 1


# --- groups


def test_range_keeps_equal_partitions_of_joined_topics_together(broker):
    broker.create_topic("signals", 4)
    broker.create_topic("candidates", 4)
    members = [broker.join("app", ["signals", "candidates"]) for _ in range(3)]
    settle(*members)

    owned = [{tp.partition for tp in member.partitions} for member in members]

    assert sorted(len(member.partitions) for member in members) == [2, 2, 4]
    assert [len(each) for each in owned] == [2, 1, 1]
    assert set.union(*owned) == {0, 1, 2, 3}


def test_a_revoked_member_speaks_with_its_old_generation_until_it_rejoins(broker, log):
    first = broker.join("app", [TOPIC])
    settle(first)
    before = first.group_metadata()
    broker.join("app", [TOPIC])

    assert first.poll() == Rebalance("revoked", (FIRST, TopicPartition(TOPIC, 1)))
    log.begin()
    log.send_offsets({FIRST: NextOffset(1)}, before)
    log.commit()
    assert first.poll() == Rebalance("assigned", (FIRST,))

    log.begin()
    with pytest.raises(AbortableError, match="ILLEGAL_GENERATION"):
        log.send_offsets({FIRST: NextOffset(2)}, before)
    log.abort()
    assert broker.committed("app", [FIRST]) == {FIRST: NextOffset(1)}


def test_a_zombie_is_refused_and_learns_of_its_loss_when_it_polls(broker, log):
    zombie, heir = broker.join("app", [TOPIC]), broker.join("app", [TOPIC])
    settle(zombie, heir)
    before, owned = zombie.group_metadata(), zombie.partitions

    zombie.expire()
    settle(heir)

    assert len(heir.partitions) == 2
    assert zombie.partitions == owned
    log.begin()
    with pytest.raises(AbortableError, match="UNKNOWN_MEMBER_ID"):
        log.send_offsets({owned[0]: NextOffset(1)}, before)
    log.abort()
    assert zombie.poll() == Rebalance("lost", owned)
    # The trap: what it would send now is not fenced.
    assert not GroupMetadata.decode(zombie.group_metadata()).fences
    settle(zombie, heir)
    assert len(zombie.partitions) == len(heir.partitions) == 1


def test_a_zombie_is_refused_under_the_consumer_protocol_too(broker, log):
    zombie = broker.join("app", [TOPIC], protocol="consumer")
    heir = broker.join("app", [TOPIC], protocol="consumer")
    settle(zombie, heir, zombie, heir)
    before, owned = zombie.group_metadata(), zombie.partitions

    zombie.expire()
    settle(heir)

    assert len(heir.partitions) == 2
    log.begin()
    with pytest.raises(AbortableError, match="UNKNOWN_MEMBER_ID"):
        log.send_offsets({owned[0]: NextOffset(1)}, before)
    log.abort()
    assert broker.committed("app", owned) == {owned[0]: None}


def test_offsets_outside_a_transaction_are_fenced_and_not_taken_back(broker, log):
    member = broker.join("app", [TOPIC])
    settle(member)
    metadata = GroupMetadata.decode(member.group_metadata())
    log.begin()

    broker.commit_outside({FIRST: NextOffset(7)}, metadata)
    with pytest.raises(AbortableError, match="ILLEGAL_GENERATION"):
        broker.commit_outside({FIRST: NextOffset(8)}, metadata._replace(generation=metadata.generation - 1))
    log.abort()

    assert broker.committed("app", [FIRST]) == {FIRST: NextOffset(7)}


def test_a_member_that_leaves_gives_its_partitions_up(broker):
    first, second = broker.join("app", [TOPIC]), broker.join("app", [TOPIC])
    settle(first, second)

    second.leave()
    settle(first)

    assert len(first.partitions) == 2
    assert second.poll() is None


def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(broker, log):
    first = broker.join("app", [TOPIC], instance="slot-1")
    second = broker.join("app", [TOPIC], instance="slot-2")
    settle(first, second)
    before, owned = first.group_metadata(), first.partitions

    again = broker.join("app", [TOPIC], instance="slot-1")

    assert again.poll() == Rebalance("assigned", owned)
    assert second.poll() is None
    log.begin()
    with pytest.raises(AbortableError, match="FENCED_INSTANCE_ID"):
        log.send_offsets({owned[0]: NextOffset(1)}, before)
    log.abort()
    assert first.poll() == Rebalance("fenced", owned)
    assert first.poll() is None
    assert second.poll() is None


def test_under_the_consumer_protocol_only_what_moves_is_revoked(broker):
    first = broker.join("app", [TOPIC], protocol="consumer")
    settle(first)
    second = broker.join("app", [TOPIC], protocol="consumer")
    settle(second)
    assert second.partitions == ()  # still the first one's

    assert first.settle() == [Rebalance("revoked", (TopicPartition(TOPIC, 1),))]
    settle(second)

    assert first.partitions == (FIRST,)
    assert second.partitions == (TopicPartition(TOPIC, 1),)


def test_more_partitions_make_the_group_assign_anew(broker):
    member = broker.join("app", [TOPIC])
    settle(member)

    broker.create_partitions(TOPIC, 3)
    settle(member)

    assert len(member.partitions) == 3


def settle(*members) -> None:
    """Polls all members in turn until none has anything to do."""
    happened = True
    while happened:
        happened = sum(member.poll() is not None for member in members)
