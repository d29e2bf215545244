"""Random interleavings of producers on the broker in memory, against a model that knows only what Kafka promises."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import LogError, NextOffset, OutputRecord, TopicPartition
from signal_router.testing.memory_log import (
    OFFSETS_PARTITION,
    Effect,
    Faults,
    Isolation,
    ManualClock,
    MemoryBroker,
    MemoryLog,
    Unstable,
)

PARTITIONS = [TopicPartition("out", 0), TopicPartition("out", 1), TopicPartition("changelog", 0)]
INPUT = TopicPartition("in", 0)
UNFENCED = GroupMetadata("app", -1, "").encode()
TIMEOUT_MS = 10_000

slots = st.sampled_from(["a", "b", "c"])


class Transactions(RuleBasedStateMachine):
    """Three slots write at random; each keeps what it wrote in its open transaction.

    The model: a commit that returned makes exactly those records visible, at the offsets they were given, whatever the
    others did; everything else stays invisible. Commits of unknown outcome are settled by the slot's next init.
    """

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(self.clock)
        self.faults = Faults()
        self.broker.create_topic("out", 2)
        self.broker.create_topic("changelog")
        self.broker.create_topic("in")
        self.logs = {name: MemoryLog(self.broker, name, faults=self.faults) for name in ("a", "b", "c")}
        for log in self.logs.values():
            log.init()
        self.open: dict[str, list[tuple[TopicPartition, bytes]]] = {}
        self.expected: dict[TopicPartition, set[bytes]] = defaultdict(set)
        self.never: set[bytes] = set()
        self.offsets_of: dict[str, int] = {}
        self.committed_offsets: set[int] = {-1}
        self.next_value = 0

    def give_up(self, name: str) -> None:
        self.never |= {value for _, value in self.open.pop(name, [])}
        self.offsets_of.pop(name, None)

    def settle_commit(self, name: str) -> None:
        for tp, value in self.open.pop(name):
            self.expected[tp].add(value)
        if name in self.offsets_of:
            self.committed_offsets.add(self.offsets_of.pop(name))

    @rule(name=slots)
    def begin(self, name: str) -> None:
        if name in self.open:
            return
        try:
            self.logs[name].begin()
        except LogError:
            self.logs[name].init()
            return
        self.open[name] = []

    @rule(name=slots, tp=st.sampled_from(PARTITIONS), count=st.integers(1, 3))
    def produce(self, name: str, tp: TopicPartition, count: int) -> None:
        if name not in self.open:
            return
        written = []
        for _ in range(count):
            self.next_value += 1
            written.append(b"%s-%d" % (name.encode(), self.next_value))
        self.open[name] += [(tp, value) for value in written]
        try:
            self.logs[name].produce([OutputRecord(tp.topic, b"k", value, tp.partition, (), True) for value in written])
        except LogError:
            self.recover(name)

    @rule(name=slots, next_offset=st.integers(0, 1_000_000))
    def send_offsets(self, name: str, next_offset: int) -> None:
        if (
            name not in self.open or name in self.offsets_of
        ):  # once per transaction: stragglers know no order inside one
            return
        try:
            self.logs[name].send_offsets({INPUT: NextOffset(next_offset)}, UNFENCED)
        except LogError:
            self.recover(name)
        else:
            self.offsets_of[name] = next_offset

    @rule(name=slots)
    def commit(self, name: str) -> None:
        if name not in self.open:
            return
        try:
            self.logs[name].commit()
        except LogError:
            self.recover(name)
        else:
            self.settle_commit(name)

    @rule(name=slots)
    def abort(self, name: str) -> None:
        if name not in self.open:
            return
        try:
            self.logs[name].abort()
        except LogError:
            self.recover(name)
        else:
            self.give_up(name)

    @rule(
        name=slots,
        tps=st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=3),
        ending=st.sampled_from(["commit", "commit", "abort"]),
        straggles=st.booleans(),
    )
    def transact(self, name: str, tps: list[TopicPartition], ending: str, *, straggles: bool) -> None:
        """A whole transaction, in which stragglers arrive before its last record."""
        self.begin(name)
        for number, tp in enumerate(tps):
            if number == len(tps) - 1:
                self.faults.release()
            self.produce(name, tp, 1)
        if straggles:
            self.faults.straggle(ending, transactional_id=name)
        self.commit(name) if ending == "commit" else self.abort(name)

    @rule(name=slots)
    def crash_and_come_back(self, name: str) -> None:
        self.logs[name] = MemoryLog(self.broker, name, faults=self.faults)
        self.recover(name)

    def recover(self, name: str) -> None:
        """New producer, then look at the log: that is how an unknown outcome becomes known."""
        self.logs[name].init()
        written = self.open.get(name, [])
        seen = [value in self.decided(tp) for tp, value in written]
        assert all(seen) or not any(seen), "a torn transaction"
        if seen and seen[0]:
            self.settle_commit(name)
        else:
            if name in self.offsets_of and not seen:  # offsets alone: either outcome is whole
                self.committed_offsets.add(self.offsets_of[name])
            self.give_up(name)

    @rule(call=st.sampled_from(["send_offsets", "commit", "abort"]), effect=st.sampled_from(Effect))
    def arm_unknown_outcome(self, call: str, effect: Effect) -> None:
        self.faults.fail(call, effect=effect)

    @rule(call=st.sampled_from(["send_offsets", "commit", "abort"]))
    def arm_straggler(self, call: str) -> None:
        self.faults.straggle(call)

    @precondition(lambda self: self.faults.held)
    @rule()
    def release_stragglers(self) -> None:
        self.faults.release()

    @rule(tp=st.sampled_from([*PARTITIONS, OFFSETS_PARTITION]))
    def delay_markers(self, tp: TopicPartition) -> None:
        self.broker.delayed_markers.add(tp)

    @rule()
    def write_markers(self) -> None:
        self.broker.write_markers()

    @rule(by_ms=st.sampled_from([1, 4_000, TIMEOUT_MS]))
    def time_passes(self, by_ms: int) -> None:
        self.clock.advance(by_ms)

    def decided(self, tp: TopicPartition) -> set[bytes]:
        """What is committed, even where another slot's open transaction still hides it."""
        return {each.value for each in self.broker.entries(tp) if each.run and each.run.committed and not each.marker}

    def visible(self, tp: TopicPartition) -> list[bytes]:
        return [record.value for record in self.records(tp)]

    def records(self, tp: TopicPartition):
        """Reads in steps of one, as the rules for next offsets must allow."""
        records, next_offset, at_end = [], 0, False
        while not at_end:
            some, next_offset, at_end = self.broker.read(tp, next_offset, max_records=1)
            records += some
        assert next_offset == self.broker.end_offset(tp, Isolation.READ_COMMITTED)
        return records

    @invariant()
    def what_is_visible_was_committed(self) -> None:
        for tp in PARTITIONS:
            visible = self.visible(tp)
            assert len(visible) == len(set(visible))
            unsettled = {value for written in self.open.values() for _, value in written}
            assert set(visible) <= self.expected[tp] | unsettled
            assert not set(visible) & self.never

    @invariant()
    def each_slot_is_read_in_the_order_it_wrote(self) -> None:
        for tp in PARTITIONS:
            numbers = defaultdict(list)
            for value in self.visible(tp):
                slot, number = value.split(b"-")
                numbers[slot].append(int(number))
            assert all(each == sorted(each) for each in numbers.values())

    @invariant()
    def the_last_stable_offset_hides_nothing_that_is_decided_before_it(self) -> None:
        for tp in PARTITIONS:
            stable = self.broker.end_offset(tp, Isolation.READ_COMMITTED)
            undecided = [each.offset for each in self.broker.entries(tp) if each.run and each.run.committed is None]
            assert stable == min(undecided, default=self.broker.end_offset(tp))

    @invariant()
    def committed_offsets_were_committed(self) -> None:
        committed = self.broker.stable_committed("app", [INPUT])
        if not isinstance(committed, Unstable) and committed[INPUT] is not None:
            unsettled = set(self.offsets_of.values())
            assert committed[INPUT].offset in self.committed_offsets | unsettled

    def teardown(self) -> None:
        if not hasattr(self, "broker"):
            return
        for name in list(self.open):
            self.give_up_cleanly(name)
        self.broker.write_markers()
        for tp in PARTITIONS:
            assert set(self.visible(tp)) == self.expected[tp]
            assert self.broker.end_offset(tp) == self.broker.end_offset(tp, Isolation.READ_COMMITTED)

    def give_up_cleanly(self, name: str) -> None:
        self.crash_and_come_back(name)


Transactions.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestTransactions = Transactions.TestCase
