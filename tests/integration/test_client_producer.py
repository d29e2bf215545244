"""The SDK's producer on a real broker: each signal is there once, or the program knows why it may not be."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic
from harness import Read, read_topics

from signal_router.client import (
    AsyncSignalProducer,
    BrokerError,
    ConfigurationError,
    Connection,
    DeliveryError,
    RecordError,
    SignalProducer,
)
from signal_router.kafka.admin_client import connect
from signal_router.kafka.embedded import EmbeddedBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
def admin(broker: object) -> AdminClient:
    return connect(Connection(str(broker)))


@pytest.fixture
def topic(admin: AdminClient, prefix: str) -> str:
    """The prefix's topic of signals, with two partitions."""
    return made(admin, f"{prefix}signals")


def made(admin: AdminClient, topic: str, **config: str) -> str:
    settings = {key.replace("_", "."): value for key, value in config.items()}
    for future in admin.create_topics([NewTopic(topic, 2, 1, config=settings)]).values():
        future.result(20)
    return topic


def there(broker: object, admin: AdminClient, topic: str, *, committed: bool = True) -> list[Read]:
    return read_topics(str(broker), admin, [topic], committed=committed)


def ids(reads: list[Read]) -> list[str]:
    return sorted(str(each.document["id"]) for each in reads)


def test_what_was_published_is_there_when_the_block_is_left(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    with SignalProducer(str(broker), prefix=prefix, source="wf/titles") as signals:
        deliveries = [signals.publish("A", params={"k": number}) for number in range(1_000)]

    found = there(broker, admin, topic)
    assert len(found) == 1_000
    assert ids(found) == sorted(each.id for each in deliveries)
    assert {each.document["source"] for each in found} == {"wf/titles"}
    places = {(each.partition, each.offset): each.document["id"] for each in found}
    assert all(places[delivery.result()] == delivery.id for delivery in deliveries)


def test_a_signal_is_acknowledged_when_its_result_is_there(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    with SignalProducer(str(broker), prefix=prefix, source="s") as signals:
        place = signals.publish("A", id="1", key="k").result()

        (found,) = there(broker, admin, topic)
        assert (found.partition, found.offset, found.key) == (*place, b"k")


def test_the_environment_says_where_and_which_trace(
    broker: object, admin: AdminClient, topic: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    monkeypatch.setenv("SIGNAL_ROUTER_BOOTSTRAP", str(broker))
    monkeypatch.setenv("SIGNAL_ROUTER_PREFIX", prefix)
    monkeypatch.setenv("TRACEPARENT", trace)

    with SignalProducer(source="s") as signals:
        signals.publish("A", caused_by="1f0e7a3c-52a4-5b1d-9c3e-0a6f4f1f9d27")

    (found,) = there(broker, admin, topic)
    assert dict(found.headers) == {
        "traceparent": trace.encode(),
        "sr_caused_by": b"1f0e7a3c-52a4-5b1d-9c3e-0a6f4f1f9d27",
    }


# ---- blocks


def publish_and_fail(signals: SignalProducer) -> None:
    with signals.when_done() as done:
        done.publish("A", id="3")
        raise ZeroDivisionError


def publish_a_wrong_one(signals: SignalProducer) -> None:
    with signals.when_done() as done:
        done.publish("A", id="4")
        done.publish("", id="5")


@pytest.mark.parametrize("transactional", [False, True])
def test_a_block_publishes_when_it_succeeds_and_never_when_it_fails(
    broker: object, admin: AdminClient, topic: str, prefix: str, transactional: bool
) -> None:
    transactional_id = f"{prefix}p" if transactional else None
    with SignalProducer(str(broker), prefix=prefix, source="s", transactional_id=transactional_id) as signals:
        with signals.when_done() as done:
            done.publish("A", id="1")
            done.publish("B", id="2")
            assert there(broker, admin, topic, committed=False) == []
        assert ids(there(broker, admin, topic)) == ["1", "2"]

        with pytest.raises(ZeroDivisionError):
            publish_and_fail(signals)
        with pytest.raises(RecordError):
            publish_a_wrong_one(signals)
        with signals.when_done():
            pass

    assert ids(there(broker, admin, topic, committed=False)) == ["1", "2"]


def test_a_producer_killed_in_the_middle_of_a_transaction_leaves_none_of_its_signals(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    program = f"""
        import os, signal
        from signal_router.client import SignalProducer

        producer = SignalProducer({str(broker)!r}, prefix={prefix!r}, source="s", transactional_id={prefix + "p"!r})
        with producer as signals:
            log = signals._transactions
            commit = log.commit

            def struck():
                log._producer._client.flush(10)
                os.kill(os.getpid(), signal.SIGKILL)

            log.commit = struck
            with signals.when_done() as done:
                for number in range(10):
                    done.publish("A", id=str(number))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    assert done.returncode == -9

    with SignalProducer(str(broker), prefix=prefix, source="s", transactional_id=f"{prefix}p") as signals:
        assert len(there(broker, admin, topic, committed=False)) == 10
        assert there(broker, admin, topic) == []
        with signals.when_done() as collected:
            for number in range(10):
                collected.publish("A", id=str(number))

    assert ids(there(broker, admin, topic)) == sorted(str(number) for number in range(10))


def test_of_two_producers_with_one_transactional_id_the_earlier_is_told(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    earlier = SignalProducer(str(broker), prefix=prefix, source="s", transactional_id=f"{prefix}p")
    later = SignalProducer(str(broker), prefix=prefix, source="s", transactional_id=f"{prefix}p")

    with pytest.raises(DeliveryError) as caught, earlier.when_done() as done:
        done.publish("A", id="1")
    with later.when_done() as done:
        done.publish("A", id="2")

    assert (caught.value.reason, caught.value.ids) == ("fenced", ("1",))
    assert ids(there(broker, admin, topic)) == ["2"]


def test_a_transactional_producer_publishes_in_blocks_only_and_not_once_it_is_closed(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    with (
        SignalProducer(str(broker), prefix=prefix, source="s", transactional_id=f"{prefix}p") as signals,
        pytest.raises(ConfigurationError, match="publishes in blocks"),
    ):
        signals.publish("A")

    with pytest.raises(ConfigurationError, match="is closed"):
        publish_in_a_block(signals, 1)
    assert there(broker, admin, topic, committed=False) == []


def test_blocks_of_several_threads_are_one_transaction_each(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    with SignalProducer(str(broker), prefix=prefix, source="s", transactional_id=f"{prefix}p") as signals:
        with ThreadPoolExecutor(4) as pool:
            blocks = [pool.submit(publish_in_a_block, signals, 5) for _ in range(12)]
        for block in blocks:
            block.result()

    assert ids(there(broker, admin, topic)) == sorted(12 * [str(number) for number in range(5)])


# ---- what cannot be delivered


def test_a_missing_topic_is_named_at_once(broker: object, prefix: str) -> None:
    began = time.monotonic()

    with pytest.raises(ConfigurationError, match=f'topic "{prefix}signals" does not exist') as caught:
        SignalProducer(str(broker), prefix=prefix)

    assert time.monotonic() - began < 10
    assert "topics apply" in str(caught.value.hint)


def test_a_broker_that_is_not_there_is_named() -> None:
    with pytest.raises(BrokerError, match="no broker answers"):
        SignalProducer("127.0.0.1:1", topic="signals")


def test_a_topic_that_is_deleted_while_a_program_publishes_is_named(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    signals = SignalProducer(str(broker), prefix=prefix, source="s", delivery_timeout_s=5)
    signals.publish("A").result()
    for future in admin.delete_topics([topic]).values():
        future.result(20)
    delivery = signals.publish("A", id="late")

    with pytest.raises(DeliveryError) as caught:
        signals.flush()

    assert caught.value.reason in ("topic-missing", "timed-out")
    assert caught.value.ids == ("late",)
    with pytest.raises(DeliveryError, match="late"):
        delivery.result()
    signals.flush()  # it was told


def test_a_signal_that_the_topic_does_not_take_is_refused_before_it_is_sent(
    broker: object, admin: AdminClient, prefix: str
) -> None:
    topic = made(admin, f"{prefix}signals", max_message_bytes="20000")
    with SignalProducer(str(broker), prefix=prefix, source="s") as signals:
        with pytest.raises(RecordError) as caught:
            signals.publish("A", payload="x" * 20_000)
        for number in range(50):  # together they are far more than one batch may hold
            signals.publish("A", id=str(number), payload="x" * 10_000)

    assert caught.value.reason == "too-large"
    assert len(there(broker, admin, topic)) == 50


def test_a_limit_that_falls_under_a_running_program_is_named(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    with SignalProducer(str(broker), prefix=prefix, source="s") as signals:
        signals.publish("A", id="1").result()
        lower(admin, topic, "2000")
        noise = os.urandom(4_000).hex()

        with pytest.raises(DeliveryError) as caught:
            signals.publish("A", id="2", payload=noise).result()

        signals.publish("A", id="3").result()
    assert (caught.value.reason, caught.value.ids) == ("too-large", ("2",))
    assert ids(there(broker, admin, topic)) == ["1", "3"]


def lower(admin: AdminClient, topic: str, limit: str) -> None:
    setting = ConfigEntry("max.message.bytes", limit, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[setting])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)
    deadline = time.monotonic() + 20
    while True:
        described = admin.describe_configs([resource])[resource].result(20)
        if described["max.message.bytes"].value == limit:
            return
        assert time.monotonic() < deadline


def test_a_broker_that_stands_still_fills_the_queue_and_then_everything_says_so(
    own_broker: EmbeddedBroker,
) -> None:
    admin = connect(Connection(own_broker.bootstrap))
    made(admin, "signals")
    connection = Connection(own_broker.bootstrap, overrides={"queue.buffering.max.messages": "100"})
    signals = SignalProducer(connection, source="s", queue_timeout_s=0.5, delivery_timeout_s=3)
    signals.publish("A", id="before").result()
    own_broker.pause()
    sent: list[str] = []

    try:
        early = signals.publish("A", id="early")
        with pytest.raises(DeliveryError) as short:
            signals.flush(0.2)
        sent.append(early.id)
        with pytest.raises(DeliveryError) as full:
            sent.extend(signals.publish("A", id=str(number)).id for number in range(1_000))
        with pytest.raises(DeliveryError) as late:
            signals.flush()
    finally:
        own_broker.resume()

    assert (short.value.reason, short.value.ids) == ("timed-out", ("early",))
    assert full.value.reason == "queue-full"
    assert full.value.ids == (str(len(sent) - 1),)
    assert late.value.reason == "timed-out"
    assert set(late.value.ids) == set(sent)  # each one that was taken is accounted for
    with signals:  # the same again, by id
        for id_ in late.value.ids:
            signals.publish("A", id=id_)
    found = set(ids(read_topics(own_broker.bootstrap, admin, ["signals"], committed=True)))
    assert found == {"before", *sent}


def test_a_block_and_a_close_account_for_every_signal_while_the_broker_stands_still(own_broker: EmbeddedBroker) -> None:
    admin = connect(Connection(own_broker.bootstrap))
    made(admin, "signals")
    connection = Connection(own_broker.bootstrap, overrides={"queue.buffering.max.messages": "100"})
    blocked = SignalProducer(connection, source="s", queue_timeout_s=0.5, delivery_timeout_s=3)
    closed = SignalProducer(own_broker.bootstrap, source="s")
    own_broker.pause()

    try:
        with pytest.raises(DeliveryError) as late:
            publish_in_a_block(blocked, 300)
        deliveries = [closed.publish("A") for _ in range(10)]
        closed.close()
    finally:
        own_broker.resume()

    assert sorted(late.value.ids, key=int) == [str(number) for number in range(300)]
    assert [delivery.error and delivery.error.reason for delivery in deliveries] == ["given-up"] * 10
    assert "may have been sent" in str(deliveries[0].error and deliveries[0].error.hint)
    with pytest.raises(ConfigurationError, match="is closed"):
        closed.publish("A")


def publish_in_a_block(signals: SignalProducer, count: int) -> None:
    with signals.when_done() as done:
        for number in range(count):
            done.publish("A", id=str(number))


def test_a_queue_that_is_full_for_a_moment_loses_nothing(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    connection = Connection(str(broker), prefix, overrides={"queue.buffering.max.messages": "50", "linger.ms": "1"})

    with SignalProducer(connection, source="s") as signals:
        for number in range(2_000):
            signals.publish("A", id=str(number))

    assert ids(there(broker, admin, topic)) == sorted(str(number) for number in range(2_000))


def test_a_program_that_never_waits_sends_what_it_published_before_it_ends(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    program = f"""
        from signal_router.client import SignalProducer

        signals = SignalProducer({str(broker)!r}, prefix={prefix!r}, source="s")
        for number in range(100):
            signals.publish("A", id=str(number))
    """

    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)

    assert len(there(broker, admin, topic)) == 100


def test_a_close_logs_the_failures_that_nobody_was_told_of(
    broker: object, admin: AdminClient, topic: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    signals = SignalProducer(str(broker), prefix=prefix, source="s")
    signals.publish("A", id="before").result()
    lower(admin, topic, "2000")
    delivery = signals.publish("A", id="large", payload=os.urandom(4_000).hex())
    while not delivery.done:
        signals.poll(1)

    signals.close()  # nobody has asked

    assert '"large" was not delivered' in caplog.text


def test_the_end_of_a_program_logs_the_failures_that_nobody_was_told_of(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    program = f"""
        import os
        from signal_router.client import SignalProducer

        signals = SignalProducer({str(broker)!r}, prefix={prefix!r}, source="s")
        signals.publish("A", id="before").result()
        print("ready", flush=True)
        input()
        signals.publish("A", id="large", payload=os.urandom(4_000).hex())
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lower(admin, topic, "2000")
        _, said = process.communicate("\n", timeout=60)

    assert process.returncode == 0
    assert '"large" was not delivered' in said


# ---- in an event loop


async def publish_in_vain(signals: AsyncSignalProducer) -> None:
    async with signals.when_done() as done:
        done.publish("B", id="never")
        raise ZeroDivisionError


def test_an_event_loop_publishes_many_at_once(broker: object, admin: AdminClient, topic: str, prefix: str) -> None:
    async def run() -> None:
        async with AsyncSignalProducer(str(broker), prefix=prefix, source="s") as signals:
            places = await asyncio.gather(*(signals.publish("A", id=str(number)) for number in range(500)))
            assert len(set(places)) == 500
            async with signals.when_done() as done:
                done.publish("B", id="done")
            with pytest.raises(ZeroDivisionError):
                await publish_in_vain(signals)
            with pytest.raises(RecordError):
                await signals.publish("")

    asyncio.run(run())

    found = ids(there(broker, admin, topic))
    assert found == sorted([*(str(number) for number in range(500)), "done"])


def test_an_event_loop_is_told_what_could_not_be_delivered(
    broker: object, admin: AdminClient, topic: str, prefix: str
) -> None:
    async def run() -> str:
        async with AsyncSignalProducer(str(broker), prefix=prefix, source="s") as signals:
            await asyncio.to_thread(lower, admin, topic, "2000")
            with pytest.raises(DeliveryError) as caught:
                await signals.publish("A", payload=os.urandom(4_000).hex())
            await signals.publish("A", id="after")
            return caught.value.reason

    assert asyncio.run(run()) == "too-large"
    assert ids(there(broker, admin, topic)) == ["after"]


# ---- re-runs


def test_publishing_json_lines_by_hand_and_by_the_sdk_is_the_same(
    broker: object, admin: AdminClient, topic: str, prefix: str, tmp_path: Path
) -> None:
    with SignalProducer(str(broker), prefix=prefix, source="s") as signals:
        signals.publish("A", id="1", params={"k": 1})

    (found,) = there(broker, admin, topic)
    assert json.loads(found.value or b"") == {"name": "A", "source": "s", "id": "1", "params": {"k": 1}}
