"""What the demo does with the cluster beside the worker: preparing it, watching it, and reading topics to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from signal_router.errors import BrokerError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.follow import input_record, reader_settings
from signal_router.kafka.offsets import end_offsets, stable_offsets
from signal_router.kafka.settings import Connection
from signal_router.kafka.topic_changes import apply_topics, wanted_topics
from signal_router.kafka.topics import TopicNames, load_topics, resolve
from signal_router.model.documents import Document, read_documents
from signal_router.model.log import InputRecord, TopicPartition
from signal_router.runtime.apply import Publication, plan
from signal_router.runtime.roster import now_ms

REQUEST_S = 10.0
_LOOK_EVERY_S = 0.05


class DemoCluster:
    """The topics of one demo."""

    def __init__(self, connection: Connection) -> None:
        """Raises BrokerError if the cluster does not answer."""
        self.connection = connection
        self.names: TopicNames = resolve(connection.prefix, connection.app)
        self.group = f"{connection.prefix}{connection.app}"
        self.admin: AdminClient = connect(connection)
        self._tps: dict[str, list[TopicPartition]] = {}

    # ---- preparing and cleaning up

    def make_topics(self) -> None:
        """Makes all topics as their files say."""
        connection = self.connection
        apply_topics(self.admin, wanted_topics(load_topics(), prefix=connection.prefix, app=connection.app))

    def apply(self, documents: Iterable[Document]) -> None:
        """Puts subscriptions in force, as `signal-router apply` does."""
        publication = Publication(self.connection, self.admin)
        try:
            publication.publish(plan(documents, publication.standings, now=now_ms()))
        finally:
            publication.close()

    def delete(self) -> None:
        """Deletes the topics and the group of this demo, for a cluster that is not ours alone."""
        futures = [*self.admin.delete_topics(list(self.names.all()), request_timeout=REQUEST_S).values()]
        futures += self.admin.delete_consumer_groups([self.group], request_timeout=REQUEST_S).values()
        for future in futures:
            try:
                future.result(REQUEST_S + 1)
            except KafkaException:
                continue  # gone already, or not permitted: the name says whose it is

    def producer(self) -> Producer:
        """A producer as a team would have it."""
        return Producer(
            self.connection.producer_config({"enable.idempotence": True, "log_level": 0}, defaults={"linger.ms": 5})
        )

    # ---- watching

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic."""
        if topic not in self._tps:
            found = self.admin.list_topics(topic, timeout=REQUEST_S).topics[topic].partitions
            self._tps[topic] = [TopicPartition(topic, number) for number in sorted(found)]
        return self._tps[topic]

    def ends(self, topics: Iterable[str], *, committed: bool) -> int:
        """The sum of the ends of topics: of what is committed, or of everything that was written."""
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {
            KafkaTopicPartition(*tp): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for topic in topics
            for tp in self.partitions(topic)
        }
        try:
            futures = self.admin.list_offsets(wanted, isolation_level=isolation, request_timeout=REQUEST_S)
            return sum(future.result(REQUEST_S + 1).offset for future in futures.values())
        except KafkaException as error:
            raise BrokerError(f"log ends cannot be read: {error.args[0].str()}") from error

    def uncommitted(self) -> int:
        """How many records stand on the worker's output topics that no committed transaction covers yet."""
        topics = (self.names.candidates, self.names.changelog, self.names.triggers, self.names.lineage)
        committed = self.ends(topics, committed=True)
        return self.ends(topics, committed=False) - committed

    def taken(self) -> int:
        """How many positions of the signals topic the worker has taken, for good."""
        offsets = stable_offsets(
            self.connection, self.group, self.partitions(self.names.signals), deadline_s=REQUEST_S * 2
        )
        return sum(next_offset.offset for next_offset in offsets.values() if next_offset is not None)

    def all_decided(self) -> Callable[[], bool]:
        """A condition: every signal now on the topic was matched, and every candidate of it joined."""
        signals, candidates = self.partitions(self.names.signals), self.partitions(self.names.candidates)
        wanted = end_offsets(self.admin, signals)
        matched = False

        def decided() -> bool:
            nonlocal matched
            offsets = stable_offsets(self.connection, self.group, wanted, deadline_s=REQUEST_S * 2)
            if any(found is None or found.offset < wanted[tp] for tp, found in offsets.items()):
                return False
            if not matched:  # their candidates lie before the ends of now
                matched = True
                wanted.clear()
                wanted.update(end_offsets(self.admin, candidates))
                return decided()
            return True

        return decided

    # ---- reading

    def read(self, topic: str) -> Iterator[tuple[TopicPartition, InputRecord]]:
        """Reads a topic from its start to its end as every consumer of triggers should: read_committed."""
        left = self.partitions(topic)
        consumer = Consumer(reader_settings(self.connection, f"{self.group}-reader"))
        try:
            consumer.assign([KafkaTopicPartition(tp.topic, tp.partition, 0) for tp in left])
            open_ends = len(left)
            until = time.monotonic() + REQUEST_S * 3
            while open_ends:
                for message in consumer.consume(5_000, 0.1):
                    if message.error() is None:
                        yield TopicPartition(topic, message.partition() or 0), input_record(message)
                    else:
                        open_ends -= 1
                if time.monotonic() > until:
                    raise BrokerError(f'topic "{topic}" was not read to its end within {REQUEST_S * 3:.0f} s')
        finally:
            consumer.close()


def wait_for(condition: Callable[[], bool], *, within_s: float, what: str, check: Callable[[], None]) -> None:
    """Waits until a condition holds; `check` raises what makes waiting pointless, BrokerError comes when it is late."""
    until = time.monotonic() + within_s
    while not condition():
        check()
        if time.monotonic() > until:
            raise BrokerError(f"{what} took longer than {within_s:.0f} s", hint="is the machine very busy? try again")
        time.sleep(_LOOK_EVERY_S)


def flush(producer: Producer) -> None:
    """Waits until everything is delivered. Raises BrokerError if it is not."""
    if producer.flush(REQUEST_S * 3):
        raise BrokerError(f"{len(producer)} records were not delivered within {REQUEST_S * 3:.0f} s")


def documents() -> Sequence[Document]:
    """The demo's subscriptions, read from their files."""
    folder = resources.files("signal_router.demo").joinpath("subscriptions")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return read_documents([(file.name, file.read_text(encoding="utf-8")) for file in files]).documents
