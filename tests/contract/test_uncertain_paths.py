"""What the real log does when the way to the broker is not certain: lost answers, stragglers, outages.

Every fault is one that the client hides: its calls return success. The mutants without the rule show that the faults
are real, not merely harmless.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest
from clusters import KafkaCluster, until, wait_for_end
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.kafka.embedded import EmbeddedBroker, free_port
from signal_router.kafka.listeners import Listener
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import (
    AbortableError,
    LogError,
    NextOffset,
    OutputRecord,
    TopicPartition,
    UnknownOutcomeError,
)
from signal_router.testing.wire_proxy import (
    ADD_PARTITIONS,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Fault,
    WireProxy,
)

pytestmark = pytest.mark.kafka

LOST = "a connection was lost"
FENCED_CODES = {47, 90}  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED


class Careless(KafkaTransactionLog):
    """The mutant: keeps its producer whatever happened."""

    def _doubt(self, producer):
        producer.doubt()


@pytest.fixture(scope="module")
def proxied():
    """A broker of this module's own and a proxy that stands before one of its listeners."""
    proxy = WireProxy()
    with ExitStack() as held:
        plain, behind = free_port(held), free_port(held)
    advertised = f"PLAINTEXT://127.0.0.1:{plain},BEHIND://{proxy.address}"
    broker = EmbeddedBroker(
        port=plain,
        listeners=[Listener("BEHIND", "PLAINTEXT", port=behind)],
        settings={"advertised.listeners": advertised},
    )
    with broker:
        proxy.start(f"127.0.0.1:{behind}")
        have_offsets_topic(broker)
        yield broker, proxy
        proxy.close()


def have_offsets_topic(broker):
    """A new broker makes it for the first group that asks, which takes longer than a transaction may. Until its
    partitions have a coordinator the answer may be that this one is none.
    """
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "first", "log_level": 0})
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                consumer.committed([ClientPartition("any", 0)], 10)
            except KafkaException as error:
                passing = error.args[0].retriable() or error.args[0].code() == KafkaError.NOT_COORDINATOR
                if not passing or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return
    finally:
        consumer.close()


@pytest.fixture
def proxy(proxied):
    return proxied[1]


@pytest.fixture
def cluster(proxied, prefix):
    """Looks at the broker past the proxy."""
    opened = KafkaCluster(proxied[0].bootstrap, prefix)
    yield opened
    opened.close()


@pytest.fixture
def connect(proxy, prefix):
    """Makes logs whose way to the broker leads through the proxy."""
    with ExitStack() as logs:

        def make(kind=KafkaTransactionLog, **settings):
            log = kind({"bootstrap.servers": proxy.address, **settings}, f"{prefix}slot")
            logs.callback(log.close)
            log.init()
            return log

        yield make


def record(topic, value):
    return OutputRecord(topic, b"key", value, 0)


def values(records):
    return [each.value for each in records]


def write(log, *records):
    log.begin()
    log.produce(records)
    log.commit()


def unfenced(cluster):
    return GroupMetadata(cluster.group, -1, "").encode()


def test_a_connection_lost_between_transactions_costs_one_new_producer(cluster, connect, proxy):
    topic, log = cluster.topic(), connect()
    write(log, record(topic, b"1"))
    assert not log.recycles

    proxy.cut()
    until(lambda: trouble_heard(log))
    write(log, record(topic, b"2"))
    write(log, record(topic, b"3"))

    assert log.recycles == {LOST: 1}
    assert values(cluster.read(topic)) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("ending", ["commit", "abort"])
@pytest.mark.parametrize(
    "request_kind",
    [END_TXN, TXN_OFFSET_COMMIT, ADD_PARTITIONS, PRODUCE],
    ids=["end", "offsets", "partitions", "produce"],
)
def test_a_lost_answer_costs_one_new_producer_and_nothing_else(cluster, connect, proxy, request_kind, ending):
    topic, log = cluster.topic(), connect()
    tp = TopicPartition(topic, 0)
    write(log, record(topic, b"1"))
    struck = proxy.struck[Fault.LOSE_ANSWER]

    proxy.arm(request_kind, Fault.LOSE_ANSWER)
    log.begin()
    log.produce([record(topic, b"2")])
    wait_for_end(cluster, topic, 3)
    log.send_offsets({tp: NextOffset(2)}, unfenced(cluster))
    log.commit() if ending == "commit" else log.abort()
    write(log, record(topic, b"3"))

    assert proxy.struck[Fault.LOSE_ANSWER] == struck + 1
    assert log.recycles.total() == 1
    assert values(cluster.read(topic)) == ([b"1", b"2", b"3"] if ending == "commit" else [b"1", b"3"])
    assert cluster.committed(tp) == {tp: NextOffset(2) if ending == "commit" else None}


COORDINATOR_LOADING, NOT_LEADER, CONCURRENT_TRANSACTIONS = 14, 6, 51


@pytest.mark.parametrize(
    ("request_kind", "code"),
    [
        (END_TXN, COORDINATOR_LOADING),
        (TXN_OFFSET_COMMIT, COORDINATOR_LOADING),
        (ADD_PARTITIONS, CONCURRENT_TRANSACTIONS),
        (PRODUCE, NOT_LEADER),
        (INIT_PRODUCER_ID, CONCURRENT_TRANSACTIONS),
    ],
    ids=["end", "offsets", "partitions", "produce", "init"],
)
def test_an_error_that_passes_costs_nothing(cluster, connect, proxy, request_kind, code):
    """No new producer either: the client has read the answer, and its connection still stands."""
    topic = cluster.topic()
    tp = TopicPartition(topic, 0)
    fired = proxy.fired[request_kind, Fault.ERROR]

    proxy.arm(request_kind, Fault.ERROR, code=code)
    log = connect()
    log.begin()
    log.produce([record(topic, b"1")])
    log.send_offsets({tp: NextOffset(1)}, unfenced(cluster))
    log.commit()
    write(log, record(topic, b"2"))

    assert proxy.fired[request_kind, Fault.ERROR] == fired + 1
    assert not log.recycles
    assert values(cluster.read(topic)) == [b"1", b"2"]
    assert cluster.committed(tp) == {tp: NextOffset(1)}


ILLEGAL_GENERATION = 22


def test_offsets_refused_in_the_proxys_answer_abort_the_transaction(cluster, connect, proxy):
    tp, log = TopicPartition(cluster.topic(), 0), connect()
    proxy.arm(TXN_OFFSET_COMMIT, Fault.ERROR, code=ILLEGAL_GENERATION)

    log.begin()
    log.produce([record(tp.topic, b"1")])
    with pytest.raises(AbortableError, match="ILLEGAL_GENERATION"):
        log.send_offsets({tp: NextOffset(1)}, unfenced(cluster))
    log.abort()
    write(log, record(tp.topic, b"2"))

    assert values(cluster.read(tp.topic)) == [b"2"]
    assert cluster.committed(tp) == {tp: None}


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.LATE, Fault.SWALLOW], ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("request_kind", [END_TXN, PRODUCE, INIT_PRODUCER_ID], ids=["end", "produce", "init"])
def test_what_a_broken_or_silent_way_takes_longer_is_written_once(cluster, connect, proxy, request_kind, fault):
    topic, fired = cluster.topic(), proxy.fired[request_kind, fault]

    proxy.arm(request_kind, fault, seconds=1.0)
    log = connect()
    write(log, record(topic, b"1"))
    write(log, record(topic, b"2"))

    assert proxy.fired[request_kind, fault] == fired + 1
    assert values(cluster.read(topic)) == [b"1", b"2"]


@pytest.mark.parametrize("kind", [KafkaTransactionLog, Careless])
def test_a_straggling_commit_ends_a_later_transaction_only_where_the_producer_was_kept(cluster, connect, proxy, kind):
    topic, log = cluster.topic(), connect(kind)
    proxy.arm(END_TXN, Fault.HOLD)
    write(log, record(topic, b"1"))  # succeeds on the client's second try
    assert proxy.struck[Fault.HOLD]

    log.begin()
    log.produce([record(topic, b"2")])
    wait_for_end(cluster, topic, 3)
    (code,) = proxy.release()
    try:
        log.abort()
    except LogError:
        assert kind is Careless

    if kind is Careless:
        assert code == 0
        assert values(cluster.read(topic)) == [b"1", b"2"]  # aborted, and visible all the same
    else:
        assert code in FENCED_CODES
        assert log.recycles == {LOST: 1}
        assert values(cluster.read(topic)) == [b"1"]


@pytest.mark.parametrize("kind", [KafkaTransactionLog, Careless])
def test_straggling_offsets_move_the_group_back_only_where_the_producer_was_kept(cluster, connect, proxy, kind):
    tp, log = TopicPartition(cluster.topic(), 0), connect(kind)
    proxy.arm(TXN_OFFSET_COMMIT, Fault.HOLD)
    for next_offset in (1, 2):
        log.begin()
        log.send_offsets({tp: NextOffset(next_offset)}, unfenced(cluster))
        if next_offset == 2:
            proxy.release()
        log.commit()

    assert cluster.committed(tp) == {tp: NextOffset(1 if kind is Careless else 2)}


def test_a_request_that_timed_out_costs_one_new_producer(cluster, connect, proxied):
    broker, _ = proxied
    topic, log = cluster.topic(), connect(**{"socket.timeout.ms": 1_000})
    write(log, record(topic, b"1"))
    log.begin()
    log.produce([record(topic, b"2")])
    wait_for_end(cluster, topic, 3)

    with paused(broker, for_s=2.5):
        log.commit()
    write(log, record(topic, b"3"))

    assert log.recycles.total() == 1
    assert values(cluster.read(topic)) == [b"1", b"2", b"3"]


def test_a_commit_is_given_up_at_its_deadline(cluster, connect, proxied):
    broker, _ = proxied
    topic, log = cluster.topic(), connect()
    log.begin()
    log.produce([record(topic, b"1")])
    wait_for_end(cluster, topic, 1)

    broker.pause()
    try:
        started = time.monotonic()
        with pytest.raises(UnknownOutcomeError, match="did not return in time"):
            log.commit(deadline_s=0.5)
        log.close()
        took = time.monotonic() - started
    finally:
        broker.resume()

    assert took < 3
    with pytest.raises(UnknownOutcomeError):
        log.begin()
    # The commit may or may not have reached the broker; the successor's init decides that, and then it is known.
    log.init()
    assert values(cluster.read(topic)) in ([], [b"1"])
    write(log, record(topic, b"2"))
    assert values(cluster.read(topic))[-1] == b"2"


def test_a_client_that_waits_for_ever_is_left_behind(cluster, proxy, prefix):
    """The client gives up looking for the group's coordinator and keeps waiting, whatever time-out it was given."""
    topic = cluster.topic()
    tp = TopicPartition(topic, 0)
    log = KafkaTransactionLog({"bootstrap.servers": proxy.address}, f"{prefix}slot", transaction_timeout_ms=1_500)
    log.init()
    log.begin()
    log.produce([record(topic, b"given up")])

    proxy.no_coordinator = True
    started = time.monotonic()
    try:
        with pytest.raises(UnknownOutcomeError, match="did not return in time"):
            log.send_offsets({tp: NextOffset(1)}, unfenced(cluster))
    finally:
        proxy.no_coordinator = False
    took = time.monotonic() - started

    assert took < 5
    assert proxy.struck[Fault.REFUSE]
    log.init()
    log.begin()
    log.produce([record(topic, b"fine")])
    log.send_offsets({tp: NextOffset(2)}, unfenced(cluster))
    log.commit()
    assert values(cluster.read(topic)) == [b"fine"]
    assert cluster.committed(tp) == {tp: NextOffset(2)}
    log.close()


def test_a_log_outlives_the_brokers_death(cluster, connect, proxied):
    broker, _ = proxied
    topic, log = cluster.topic(), connect()
    write(log, record(topic, b"before"))
    log.begin()
    log.produce([record(topic, b"torn away")])
    wait_for_end(cluster, topic, 3)

    broker.kill()
    broker.start()
    outcome = "committed"
    try:
        log.commit()
    except LogError:
        outcome = "not committed"
        log.init()
    write(log, record(topic, b"after"))

    expected = [b"before", b"torn away", b"after"] if outcome == "committed" else [b"before", b"after"]
    assert values(cluster.read(topic)) == expected


def test_a_client_whose_log_is_silent_is_never_trusted(cluster, connect):
    topic, log = cluster.topic(), connect(Deaf)

    write(log, record(topic, b"1"))
    write(log, record(topic, b"2"))

    assert log.recycles == {"the client's log is silent": 2}


class Deaf(KafkaTransactionLog):
    """A log whose client tells it nothing."""

    def _sized(self):
        return {name: value for name, value in super()._sized().items() if name != "debug"}


class paused:  # noqa: N801
    """Pauses a broker for a while that runs beside the block."""

    def __init__(self, broker: EmbeddedBroker, *, for_s: float) -> None:
        self._broker = broker
        self._timer = threading.Timer(for_s, broker.resume)

    def __enter__(self) -> None:
        self._broker.pause()
        self._timer.start()

    def __exit__(self, *_error: object) -> None:
        self._timer.join()


def trouble_heard(log: KafkaTransactionLog) -> bool:
    return log._producer.doubt() is not None
