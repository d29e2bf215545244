"""The one way in which signals are said, whoever takes them: a producer, a block that is not done, a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from signal_router.model.log import OutputRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from signal_router.client.signal_writer import SignalRecord, SignalWriter
    from signal_router.client.trigger import Trigger

Taken = TypeVar("Taken")

Key = str | bytes | None


class Said(TypedDict, total=False):
    """What `publish` takes besides the name."""

    params: Mapping[str, Any] | None
    payload: object
    source: str | None
    id: str | None
    time: str | datetime | None
    subject: str | None
    context: Mapping[str, str] | None
    traceparent: str | None
    caused_by: Trigger | str | None


class Publishing(ABC, Generic[Taken]):
    """Has a `publish`; what it gives back depends on who takes the signal."""

    def __init__(self, writer: SignalWriter) -> None:
        self.writer = writer

    def publish(
        self,
        name: str,
        *,
        params: Mapping[str, Any] | None = None,
        payload: object = None,
        source: str | None = None,
        id: str | None = None,  # noqa: A002  the word of the wire
        time: str | datetime | None = None,
        subject: str | None = None,
        context: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        caused_by: Trigger | str | None = None,
        key: Key = None,
    ) -> Taken:
        """Publishes one signal.

        Args:
            name: what is announced, as subscriptions name it.
            params: scalars that subscriptions match and join on.
            payload: any JSON, for subscribers with `payload: true`.
            source: who announces it; by default the producer's.
            id: unique within the source. Left out, this call announces a new signal; see `signal_router.client.ids`
                for ids that make a re-run a repeat.
            time: the producer's time, RFC 3339 or a datetime with a zone; decides nothing.
            subject: an attribute that `$subject` matches on; in CloudEvents only.
            context: further attributes, by name, that `$…` matches on; in CloudEvents only.
            traceparent: the W3C trace context; by default that of the environment (`TRACEPARENT`), or of `caused_by`.
            caused_by: the trigger that started this program, or its id, for the signal's lineage.
            key: the record's key; without one the signals are spread over the partitions.

        Raises:
            RecordError: it is no signal: what a worker would make a dead letter of is refused here, with the reason.
        """
        record = self.writer.write(  # by position: names would cost a tenth of the time
            name, params, payload, source, id, time, subject, context, traceparent, caused_by
        )
        return self.send(record, key)

    @abstractmethod
    def send(self, record: SignalRecord, key: Key) -> Taken:
        """Takes a signal that is one."""


class Collected(Publishing[str]):
    """Signals that wait for their block to succeed; `publish` gives back the id of each."""

    def __init__(self, writer: SignalWriter, topic: str) -> None:
        super().__init__(writer)
        self._topic = topic
        self.ids: list[str] = []
        self.records: list[OutputRecord] = []

    def send(self, record: SignalRecord, key: Key) -> str:
        self.ids.append(record.id)
        self.records.append(output_record(self._topic, record, key))
        return record.id


def output_record(topic: str, record: SignalRecord, key: Key) -> OutputRecord:
    """The record of a signal as a transactional log takes it."""
    key = key.encode() if isinstance(key, str) else key
    return OutputRecord(topic, key, record.value, headers=tuple(record.headers))
