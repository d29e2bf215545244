"""The SDK's consumer on a real broker: retries, parking, order, hand-over, and effects exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Read, read_topics, until

from signal_router.client import (
    AsyncTriggerConsumer,
    BrokerError,
    ConfigurationError,
    Connection,
    FencedError,
    Park,
    Parked,
    Retries,
    SignalRouterError,
    Transaction,
    Trigger,
    TriggerConsumer,
    modes,
)
from signal_router.client import running as running_module
from signal_router.client import transaction as transaction_module
from signal_router.client.connecting import batch_bytes
from signal_router.kafka.admin_client import connect
from signal_router.kafka.embedded import EmbeddedBroker
from signal_router.kafka.offsets import committed_offsets
from signal_router.kafka.publish import Publisher
from signal_router.kafka.topics import topic_text
from signal_router.kafka.transaction import MAX_RECORD_BYTES
from signal_router.model.log import OutputRecord, TopicPartition

pytestmark = pytest.mark.kafka

PROGRAM = Path(__file__).with_name("harness_consumer.py")
EXAMPLE = json.loads(topic_text("examples/trigger.json"))
QUICK = Retries(attempts=3, first_s=0.05, longest_s=0.1)


class Topics:
    """Triggers, outputs and parked ones under one prefix."""

    def __init__(self, broker: object, prefix: str) -> None:
        self.connection = Connection(str(broker), prefix)
        self.group = f"{prefix}workflows"
        self.triggers, self.parked, self.outputs = (f"{prefix}{name}" for name in ("triggers", "parked", "outputs"))
        self.admin: AdminClient = connect(self.connection)
        made = self.admin.create_topics(
            [NewTopic(name, 2, 1) for name in (self.triggers, self.parked, self.outputs, f"{prefix}signals")]
        )
        for future in made.values():
            future.result(20)

    def fire(self, *numbers: int, key: str | None = None, partition: int = -1, subscription: str = "team/a") -> None:
        """Writes triggers as a worker does."""
        with Publisher(self.connection) as publisher:
            for number in numbers:
                document = EXAMPLE | {
                    "params": {"n": number},
                    "subscription": EXAMPLE["subscription"] | {"id": subscription},
                }
                document["idempotency_key"] = f"{EXAMPLE['trigger_id']}/{number}"
                record_key = f"{number}" if key is None else key
                record = OutputRecord(self.triggers, record_key.encode(), json.dumps(document).encode(), partition)
                publisher.publish(record, lambda _: None)

    def write(self, value: bytes | None) -> None:
        with Publisher(self.connection) as publisher:
            publisher.publish_now(OutputRecord(self.triggers, b"k", value))

    def read(self, topic: str, *, committed: bool = True) -> list[Read]:
        return read_topics(self.connection.bootstrap, self.admin, [topic], committed=committed)

    def committed(self) -> int:
        """How far the group is, over all partitions."""
        tps = [TopicPartition(self.triggers, number) for number in range(2)]
        found = committed_offsets(self.connection, self.group, tps).values()
        return sum(each.offset for each in found if each is not None)

    def consumer(self, **arguments: object) -> TriggerConsumer:
        return TriggerConsumer(
            self.connection,
            **{"group": self.group, "park_to": self.parked, "retries": QUICK, **arguments},  # type: ignore[arg-type]
        )


@pytest.fixture
def topics(broker: object, prefix: str) -> Topics:
    return Topics(broker, prefix)


class Running:
    """A consumer in a thread, as it is in a program."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._run = run
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error


@contextmanager
def running(consumer: TriggerConsumer, handler: Callable[[Trigger], object]) -> Iterator[Running]:
    started = Running(lambda: consumer.run(handler))
    try:
        yield started
    finally:
        consumer.stop()
        started.thread.join(30)
        assert not started.thread.is_alive()
    if started.error is not None:
        raise started.error


def number_of(trigger: Trigger) -> int:
    return int(trigger.params["n"])


# ---- at least once


def test_each_trigger_is_handled_and_the_group_remembers(topics: Topics) -> None:
    topics.fire(*range(20))
    first: list[int] = []
    second: list[Trigger] = []
    with running(topics.consumer(), lambda trigger: first.append(number_of(trigger))):
        until(lambda: topics.committed() == 20, "offsets")

    topics.fire(20)
    with running(topics.consumer(), second.append):
        until(lambda: topics.committed() == 21, "the offset of another one")

    assert sorted(first) == list(range(20))
    (trigger,) = second
    assert (number_of(trigger), trigger.join_key) == (20, EXAMPLE["join_key"])
    assert trigger.position is not None
    assert trigger.position.topic == topics.triggers


def test_only_triggers_of_the_wanted_subscriptions_are_handled(topics: Topics) -> None:
    topics.fire(1, 2, subscription="team/other")
    topics.fire(3, subscription="team/a")
    topics.fire(4, 5, subscription="team/other")
    handled: list[int] = []

    with running(topics.consumer(subscriptions="team/a"), lambda trigger: handled.append(number_of(trigger))):
        until(lambda: topics.committed() == 5, "offsets")

    assert handled == [3]


def test_a_new_group_may_begin_behind_what_is_there(topics: Topics) -> None:
    topics.fire(1, 2)
    handled: list[int] = []

    with running(topics.consumer(start="latest"), lambda trigger: handled.append(number_of(trigger))):
        until(lambda: topics.committed() == 2, "the start")
        topics.fire(3)
        until(lambda: topics.committed() == 3, "offsets")

    assert handled == [3]


def test_a_trigger_that_fails_is_tried_again_while_other_keys_go_on_and_its_own_waits(topics: Topics) -> None:
    topics.fire(1, 2, key="a", partition=0)
    topics.fire(3, 4, key="b", partition=0)
    order: list[int] = []
    calls: Counter[int] = Counter()

    def handler(trigger: Trigger) -> None:
        number = number_of(trigger)
        calls[number] += 1
        if number == 1 and (calls[1] < 3 or len(order) < 2):
            raise OSError("not yet")
        order.append(number)

    with running(topics.consumer(retries=Retries(attempts=50, first_s=0.05, longest_s=0.1)), handler):
        until(lambda: topics.committed() == 4, "offsets")

    assert calls[1] >= 3
    assert order.index(3) < order.index(1) < order.index(2)
    assert topics.read(topics.parked) == []


def test_a_trigger_that_goes_on_failing_is_parked_with_its_reason_and_the_next_of_its_key_goes_on(
    topics: Topics,
) -> None:
    topics.fire(1, 2, key="a")
    calls: Counter[int] = Counter()

    def handler(trigger: Trigger) -> None:
        calls[number_of(trigger)] += 1
        if number_of(trigger) == 1:
            raise OSError("the target is down")

    with running(topics.consumer(), handler):
        until(lambda: topics.committed() == 2, "offsets")

    assert calls == {1: 3, 2: 1}
    (parked,) = topics.read(topics.parked)
    original = next(each for each in topics.read(topics.triggers) if each.document["params"] == {"n": 1})
    assert (parked.key, parked.value) == (original.key, original.value)
    assert dict(parked.headers) == {
        "sr_parked_reason": b"failed",
        "sr_parked_error": b"OSError: the target is down",
        "sr_parked_attempts": b"3",
        "sr_parked_from": f"{topics.triggers}/{original.partition}/{original.offset}".encode(),
        "sr_parked_group": topics.group.encode(),
    }


def test_what_was_parked_is_handled_by_reading_the_parking_topic(topics: Topics) -> None:
    topics.fire(1)

    def refuse(_: Trigger) -> None:
        raise Park("no such table")

    with running(topics.consumer(), refuse):
        until(lambda: topics.committed() == 1, "offsets")
    handled: list[int] = []
    again = topics.consumer(topics=[topics.parked], park_to=print, group=f"{topics.group}-again")
    with running(again, lambda trigger: handled.append(number_of(trigger))):
        until(lambda: bool(handled), "the parked one")

    (parked,) = topics.read(topics.parked)
    assert dict(parked.headers)["sr_parked_reason"] == b"refused"
    assert dict(parked.headers)["sr_parked_error"] == b"no such table"
    assert dict(parked.headers)["sr_parked_attempts"] == b"1"
    assert handled == [1]


def test_what_cannot_be_read_is_parked_and_holds_nobody_up(topics: Topics) -> None:
    for value in (b"rubbish", b"{}", None, b"\xff"):
        topics.write(value)
    topics.fire(1, key="k")
    handled: list[int] = []
    parked: list[Parked] = []

    with running(topics.consumer(park_to=parked.append), lambda trigger: handled.append(number_of(trigger))):
        until(lambda: topics.committed() == 5, "offsets")

    assert handled == [1]
    assert [each.value for each in parked] == [b"rubbish", b"{}", None, b"\xff"]
    assert {(each.reason, each.attempts, each.trigger) for each in parked} == {("unreadable", 0, None)}


def test_parking_that_fails_stops_the_consumer_and_the_trigger_comes_again(topics: Topics) -> None:
    topics.fire(1)

    def keep(_: Parked) -> None:
        raise OSError("the disk is full")

    def refuse(_: Trigger) -> None:
        raise Park("no")

    with pytest.raises(SignalRouterError, match="the disk is full"):
        topics.consumer(park_to=keep).run(refuse)

    handled: list[int] = []
    with running(topics.consumer(), lambda trigger: handled.append(number_of(trigger))):
        until(lambda: handled == [1], "the trigger")


def test_parking_on_the_topic_that_is_read_is_refused(topics: Topics) -> None:
    with pytest.raises(ConfigurationError, match="read again for ever"):
        topics.consumer(park_to=topics.triggers).run(print)


@pytest.mark.parametrize("missing", [{"topics": ["no-such-topic"]}, {"park_to": "no-such-topic"}])
def test_a_missing_topic_is_named_before_anything_is_read(topics: Topics, missing: dict[str, object]) -> None:
    topics.fire(1)
    handled: list[Trigger] = []

    with pytest.raises(ConfigurationError, match="no-such-topic"):
        topics.consumer(**missing).run(handled.append)

    assert handled == []


def test_triggers_that_were_deleted_before_they_were_read_stop_the_consumer(topics: Topics) -> None:
    topics.fire(1, partition=0)
    with running(topics.consumer(), lambda _: None):
        until(lambda: topics.committed() == 1, "offsets")
    topics.fire(2, 3, partition=0)
    from confluent_kafka import TopicPartition as Place  # noqa: PLC0415

    for future in topics.admin.delete_records([Place(topics.triggers, 0, 2)]).values():
        future.result(20)

    with pytest.raises(SignalRouterError, match="records are gone"):
        topics.consumer().run(lambda _: None)


def test_partitions_that_another_consumer_takes_over_are_finished_first(topics: Topics) -> None:
    handled: list[tuple[str, int]] = []
    fired = 0

    def handler_of(name: str) -> Callable[[Trigger], None]:
        def handler(trigger: Trigger) -> None:
            time.sleep(0.01)  # the work of a handler: something is in hand when the partitions go
            handled.append((name, number_of(trigger)))

        return handler

    def taken_by(name: str) -> bool:
        nonlocal fired
        topics.fire(*range(fired, fired + 20))
        fired += 20
        return any(each == name for each, _ in handled)

    first, second = topics.consumer(), topics.consumer()
    with running(first, handler_of("first")):
        until(lambda: taken_by("first"), "the first triggers")
        with running(second, handler_of("second")):
            until(lambda: taken_by("second"), "the other consumer's share")
        until(lambda: topics.committed() == fired, "offsets", within_s=60)

    # All were finished and committed before they went over, twice: not one is handled twice.
    assert Counter(number for _, number in handled) == dict.fromkeys(range(fired), 1)


def test_a_partition_that_was_paused_before_it_changed_hands_is_read_to_its_end(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "WAITING_PER_PARTITION", 10)
    released = threading.Event()
    calls: Counter[tuple[str, int]] = Counter()
    handled: set[int] = set()

    def handler_of(name: str) -> Callable[[Trigger], None]:
        def handler(trigger: Trigger) -> None:
            calls[name, trigger.position.partition if trigger.position else -1] += 1
            if number_of(trigger) < 2 and not released.is_set():  # the first of each partition
                raise OSError("not yet")
            handled.add(number_of(trigger))

        return handler

    topics.fire(0, *range(2, 40), key="a", partition=0)
    topics.fire(1, *range(40, 80), key="b", partition=1)
    patient = Retries(attempts=10_000, first_s=0.05, longest_s=0.1)
    first, second = topics.consumer(retries=patient), topics.consumer(retries=patient)

    with running(first, handler_of("first")):
        until(lambda: calls["first", 0] > 2 and calls["first", 1] > 2, "both partitions are held up")
        with running(second, handler_of("second")):
            until(lambda: calls["second", 0] + calls["second", 1] > 2, "the other consumer's share", within_s=60)
        released.set()
        until(lambda: topics.committed() == 80, "offsets", within_s=60)

    assert handled == set(range(80))


def test_an_event_loop_awaits_its_handlers(topics: Topics) -> None:
    topics.fire(*range(5))
    handled: list[int] = []

    async def main() -> None:
        consumer = AsyncTriggerConsumer(topics.connection, group=topics.group, park_to=topics.parked)

        async def handler(trigger: Trigger) -> None:
            await asyncio.sleep(0)
            handled.append(number_of(trigger))
            if len(handled) == 5:
                consumer.stop()

        await asyncio.wait_for(consumer.run(handler), 60)

    asyncio.run(main())

    assert sorted(handled) == list(range(5))
    assert topics.committed() == 5


def test_a_signal_ends_all_consumers_of_an_event_loop(topics: Topics) -> None:
    handled: Counter[str] = Counter()

    async def main() -> None:
        def run(name: str, stop_on: tuple[int, ...] = (signal.SIGTERM,)) -> asyncio.Task[None]:
            consumer = AsyncTriggerConsumer(topics.connection, group=f"{topics.group}{name}", park_to=topics.parked)

            async def handler(_: Trigger) -> None:
                handled[name] += 1
                if name == "short":
                    consumer.stop()

            return asyncio.ensure_future(consumer.run(handler, stop_on=stop_on))

        first, short, second = run("first"), run("short"), run("second")
        topics.fire(1)
        await asyncio.wait_for(short, 60)  # it does not take the signal with it
        while len(handled) < 3:
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(first, second), 60)

    asyncio.run(main())

    assert handled == {"first": 1, "short": 1, "second": 1}


# ---- processes


class Process:
    """A consumer in a process of its own."""

    def __init__(self, topics: Topics, folder: Path, name: str, **settings: object) -> None:
        self.log_file = folder / f"{name}.log"
        given = {
            "bootstrap": topics.connection.bootstrap,
            "prefix": topics.connection.prefix,
            "group": topics.group,
            "park_to": topics.parked,
            "outputs": topics.outputs,
            "transactional_id": f"{topics.group}-{name.partition('-')[0]}",
            **settings,
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, str(PROGRAM), json.dumps(given)], stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.log[-3000:]


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.kill()


def test_sigterm_finishes_the_handler_in_hand(topics: Topics, tmp_path: Path, processes: list[Process]) -> None:
    topics.fire(1, 2, 3, key="a")
    consumer = Process(topics, tmp_path, "c", mode="at-least-once", work_s=2.0)
    processes.append(consumer)
    until(lambda: "began 1" in consumer.log, "the first handler", within_s=60)

    consumer.stop()

    assert "ended 1" in consumer.log
    assert "began 2" not in consumer.log
    assert topics.committed() == 1


def test_a_consumer_killed_in_a_handler_leaves_a_trigger_that_comes_again_with_the_same_key(
    topics: Topics, tmp_path: Path, processes: list[Process]
) -> None:
    topics.fire(1, key="a")
    killed = Process(topics, tmp_path, "c", mode="at-least-once", work_s=60.0)
    processes.append(killed)
    until(lambda: "began 1" in killed.log, "the handler", within_s=60)
    killed.kill()
    keys: list[str] = []

    with running(topics.consumer(), lambda trigger: keys.append(trigger.idempotency_key)):
        until(lambda: topics.committed() == 1, "offsets", within_s=60)

    assert keys == [f"{EXAMPLE['trigger_id']}/1"]
    assert "ended 1" not in killed.log


def test_a_handler_that_takes_longer_than_it_may_loses_its_partitions_and_the_trigger_comes_again(
    topics: Topics,
) -> None:
    topics.fire(1, key="a")
    connection = Connection(topics.connection.bootstrap, topics.connection.prefix, overrides={
        "session.timeout.ms": "6000", "heartbeat.interval.ms": "500",
    })  # fmt: skip
    calls: list[float] = []

    def handler(_: Trigger) -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(9)  # the work of a handler, longer than the six seconds below

    consumer = TriggerConsumer(connection, group=topics.group, park_to=topics.parked, handler_within_s=6)
    with running(consumer, handler):
        until(lambda: topics.committed() == 1, "offsets", within_s=60)

    assert len(calls) == 2
    assert calls[1] - calls[0] > 6
    assert topics.read(topics.parked) == []


# ---- exactly once


def numbers(reads: list[Read]) -> list[int]:
    return sorted(int(each.document["n"]) for each in reads)  # type: ignore[call-overload]


SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
STRIKES = ("handler", "produced", "offsets", "commit", None, "handler", "commit", None, "produced", "commit")
"""Before which step each kill strikes; None: at any time."""


@pytest.mark.timeout(420)
def test_outputs_are_there_once_however_often_consumers_are_killed(
    topics: Topics, tmp_path: Path, processes: list[Process]
) -> None:
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    rng = random.Random(SEED)
    arms = {name: tmp_path / f"{name}.arm" for name in ("w1", "w2")}
    lives = {name: Process(topics, tmp_path, name, arm=str(arms[name])) for name in arms}
    processes += lives.values()
    fired = 0

    def gone(process: subprocess.Popen[bytes]) -> bool:
        """Fires more until it has died: at first the other one may take all."""
        nonlocal fired
        topics.fire(*range(fired, fired + 20))
        fired += 20
        return process.poll() is not None

    for round_, step in enumerate(STRIKES):
        name = ("w1", "w2")[round_ % 2]
        struck = lives[name]
        topics.fire(*range(fired, fired + 100))
        fired += 100
        if step is None:
            time.sleep(rng.uniform(0, 0.5))  # the time of the kill, not a wait for anything
            struck.kill()
        else:
            arms[name].write_text(step)
            until(lambda: gone(struck.process), f"the kill at {step}", within_s=60)  # noqa: B023
            assert struck.process.returncode == -9, struck.log[-3000:]
        lives[name] = Process(topics, tmp_path, name, arm=str(arms[name]))
        processes.append(lives[name])
    until(lambda: len(topics.read(topics.outputs)) >= fired, "all outputs", within_s=120)
    for each in lives.values():
        each.stop()

    assert numbers(topics.read(topics.outputs)) == list(range(fired))
    aborted = len(topics.read(topics.outputs, committed=False)) - fired
    print(f"{fired} triggers, {len(STRIKES)} kills, {aborted} outputs of aborted transactions")
    # Six of the kills wait until the broker has what they interrupt; some may interrupt offsets without outputs.
    assert aborted >= 3
    signals = topics.read(f"{topics.connection.prefix}signals")
    assert sorted(int(each.document["params"]["n"]) for each in signals) == list(range(fired))  # type: ignore[index]
    assert {dict(each.headers)["sr_caused_by"] for each in signals} == {EXAMPLE["trigger_id"].encode()}


def frozen_and_thawed(topics: Topics, folder: Path, processes: list[Process], step: str, **settings: object) -> None:
    """Freezes a consumer until another one has done its work, then lets both go on."""
    arm = folder / "w1.arm"
    frozen = Process(topics, folder, "w1", arm=str(arm), **settings)
    processes.append(frozen)
    topics.fire(0)
    until(lambda: len(topics.read(topics.outputs)) == 1, "the first output", within_s=60)
    arm.write_text(f"freeze-{step}")
    topics.fire(*range(1, 20))
    until(lambda: "frozen" in frozen.log, "the freeze", within_s=60)
    successor = Process(topics, folder, "w2")
    processes.append(successor)
    until(lambda: len(topics.read(topics.outputs)) == 20, "the outputs of the successor", within_s=90)
    frozen.process.send_signal(signal.SIGCONT)
    topics.fire(*range(20, 40))
    until(lambda: len(topics.read(topics.outputs)) >= 40, "the outputs of both", within_s=60)
    if "mutant" not in settings:
        until(lambda: "what was not committed is handled again" in frozen.log, "its refusal", within_s=60)
    frozen.stop()
    successor.stop()
    print(frozen.log[-3000:])


@pytest.mark.parametrize("step", ["handler", "offsets"])
def test_a_consumer_that_was_frozen_and_lost_its_partitions_writes_nothing(
    topics: Topics, tmp_path: Path, processes: list[Process], step: str
) -> None:
    """In a handler no transaction is open yet: then the group's metadata alone is what the brokers refuse."""
    frozen_and_thawed(topics, tmp_path, processes, step)

    assert numbers(topics.read(topics.outputs)) == list(range(40))


@pytest.mark.parametrize("mutant", ["anonymous", "offsets-outside"])
def test_without_the_rules_the_frozen_consumer_writes_twice(
    topics: Topics, tmp_path: Path, processes: list[Process], mutant: str
) -> None:
    frozen_and_thawed(topics, tmp_path, processes, "handler", mutant=mutant)

    found = numbers(topics.read(topics.outputs))
    assert len(found) > len(set(found))


def test_a_second_process_with_the_same_transactional_id_ends_the_first(topics: Topics) -> None:
    first, second = topics.consumer(), topics.consumer()

    def handler(trigger: Trigger, transaction: Transaction) -> None:
        transaction.produce(topics.outputs, json.dumps({"n": number_of(trigger)}))

    earlier = Running(lambda: first.run_exactly_once(handler, transactional_id=f"{topics.group}-x"))
    topics.fire(0)
    until(lambda: len(topics.read(topics.outputs)) == 1, "the first output")
    later = Running(lambda: second.run_exactly_once(handler, transactional_id=f"{topics.group}-x"))
    number = 0

    def ended() -> bool:
        nonlocal number
        number += 1
        topics.fire(number, partition=number % 2)
        return not earlier.thread.is_alive()

    until(ended, "the end of the first", within_s=60)
    until(lambda: len(topics.read(topics.outputs)) == number + 1, "all outputs", within_s=60)
    second.stop()
    later.thread.join(30)

    assert isinstance(earlier.error, FencedError)
    assert later.error is None
    assert numbers(topics.read(topics.outputs)) == list(range(number + 1))


def test_outputs_of_a_call_that_failed_are_not_written_and_it_is_parked_in_the_end(topics: Topics) -> None:
    topics.fire(*range(6), partition=0)

    def handler(trigger: Trigger, transaction: Transaction) -> None:
        transaction.produce(topics.outputs, json.dumps({"n": number_of(trigger)}))
        if number_of(trigger) == 2:
            raise OSError("after its output")

    consumer = topics.consumer()
    started = Running(lambda: consumer.run_exactly_once(handler, transactional_id=f"{topics.group}-x"))
    until(lambda: len(topics.read(topics.outputs)) == 5, "outputs", within_s=60)
    consumer.stop()
    started.thread.join(30)

    assert started.error is None
    assert numbers(topics.read(topics.outputs, committed=False)) == [0, 1, 3, 4, 5]
    (parked,) = topics.read(topics.parked)
    assert dict(parked.headers)["sr_parked_attempts"] == b"3"


@pytest.mark.parametrize("looks_in_vain", [0, 1])
def test_many_outputs_for_a_topic_that_takes_small_batches_are_all_written(
    topics: Topics, monkeypatch: pytest.MonkeyPatch, looks_in_vain: int
) -> None:
    looked: Counter[str] = Counter()

    def look(*given: Any) -> int:
        looked["at destinations"] += 1
        if looked["at destinations"] <= looks_in_vain:
            raise BrokerError("no broker answers")
        return batch_bytes(*given)

    monkeypatch.setattr(modes, "batch_bytes", look)
    small = f"{topics.connection.prefix}small"
    settings = {"max.message.bytes": "20000"}
    for future in topics.admin.create_topics([NewTopic(small, 1, 1, config=settings)]).values():
        future.result(20)
    topics.fire(*range(10), partition=0)

    def handler(trigger: Trigger, transaction: Transaction) -> None:
        for number in range(10):  # of one trigger alone more than one batch may hold
            text = {"n": number_of(trigger) * 10 + number, "noise": os.urandom(3_000).hex()}
            transaction.produce(small, json.dumps(text))

    consumer = topics.consumer()
    started = Running(lambda: consumer.run_exactly_once(handler, transactional_id=f"{topics.group}-x"))
    until(lambda: len(topics.read(small)) == 100, "outputs", within_s=60)
    consumer.stop()
    started.thread.join(30)

    assert started.error is None
    assert numbers(topics.read(small)) == list(range(100))
    assert topics.read(topics.parked) == []


def test_an_output_that_no_topic_takes_parks_its_own_trigger_only(topics: Topics) -> None:
    topics.fire(*range(6), partition=0)

    def handler(trigger: Trigger, transaction: Transaction) -> None:
        large = os.urandom(1_500_000).hex() if number_of(trigger) == 2 else ""
        transaction.produce(topics.outputs, json.dumps({"n": number_of(trigger), "large": large}))

    consumer = topics.consumer()
    started = Running(lambda: consumer.run_exactly_once(handler, transactional_id=f"{topics.group}-x"))
    until(lambda: len(topics.read(topics.outputs)) == 5, "outputs", within_s=90)
    consumer.stop()
    started.thread.join(30)

    assert started.error is None
    assert numbers(topics.read(topics.outputs)) == [0, 1, 3, 4, 5]
    (parked,) = topics.read(topics.parked)
    assert parked.document["params"] == {"n": 2}
    assert b"MSG_SIZE_TOO_LARGE" in (dict(parked.headers)["sr_parked_error"] or b"")


@pytest.mark.parametrize("why", ["_UNKNOWN_PARTITION", "MSG_SIZE_TOO_LARGE"])
def test_an_output_that_the_client_refuses_at_once_parks_its_own_trigger_only(
    topics: Topics, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(transaction_module, "_LARGEST_BYTES", 1 << 40)  # what the client itself says is looked at here
    topics.fire(*range(6), partition=0)

    def handler(trigger: Trigger, transaction: Transaction) -> None:
        refused = number_of(trigger) == 2
        partition = 7 if refused and why == "_UNKNOWN_PARTITION" else 0
        value = bytes(MAX_RECORD_BYTES) if refused and not partition else json.dumps({"n": number_of(trigger)})
        transaction.produce(topics.outputs, value, partition=partition)

    consumer = topics.consumer()
    started = Running(lambda: consumer.run_exactly_once(handler, transactional_id=f"{topics.group}-x"))
    until(lambda: len(topics.read(topics.outputs)) == 5, "outputs", within_s=90)
    consumer.stop()
    started.thread.join(30)

    assert started.error is None
    assert numbers(topics.read(topics.outputs)) == [0, 1, 3, 4, 5]
    (parked,) = topics.read(topics.parked)
    assert parked.document["params"] == {"n": 2}
    assert why.encode() in (dict(parked.headers)["sr_parked_error"] or b"")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_broker_that_dies_or_stands_still_is_waited_for_and_outputs_are_there_once(
    own_broker: EmbeddedBroker, fault: str
) -> None:
    topics = Topics(own_broker.bootstrap, "x-")
    consumer = topics.consumer()

    def handler(trigger: Trigger, transaction: Transaction) -> None:
        transaction.produce(topics.outputs, json.dumps({"n": number_of(trigger)}))

    started = Running(lambda: consumer.run_exactly_once(handler, transactional_id="x"))
    fired = 0
    for _ in range(3):
        topics.fire(*range(fired, fired + 300))
        fired += 300
        time.sleep(random.uniform(0, 0.2))  # the time of the fault, not a wait for anything
        if fault == "kill":
            own_broker.kill()
            own_broker.start()
        else:
            own_broker.pause()
            time.sleep(12)  # longer than a transaction may take
            own_broker.resume()
        topics.admin = connect(topics.connection)
        assert started.error is None
    until(lambda: len(topics.read(topics.outputs)) >= fired, "all outputs", within_s=150)
    consumer.stop()
    started.thread.join(40)

    assert started.error is None
    assert numbers(topics.read(topics.outputs)) == list(range(fired))


@pytest.mark.timeout(240)
def test_at_least_once_goes_on_when_the_broker_is_back(own_broker: EmbeddedBroker) -> None:
    topics = Topics(own_broker.bootstrap, "x-")
    consumer = topics.consumer()
    handled: Counter[int] = Counter()

    started = Running(lambda: consumer.run(lambda trigger: handled.update([number_of(trigger)])))
    for begin in (0, 100, 200):
        topics.fire(*range(begin, begin + 100))
        own_broker.kill()
        own_broker.start()
        topics.admin = connect(topics.connection)
    until(lambda: topics.committed() == 300, "offsets", within_s=90)
    consumer.stop()
    started.thread.join(40)

    assert started.error is None
    assert sorted(handled) == list(range(300))
