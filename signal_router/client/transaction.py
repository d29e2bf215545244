"""What a handler writes exactly once: collected while it runs, written with the trigger's offset, or not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from signal_router.client.publishing import Key, Publishing, output_record
from signal_router.errors import RecordError
from signal_router.kafka.transaction import MAX_RECORD_BYTES
from signal_router.model.log import OutputRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signal_router.client.signal_writer import SignalRecord, SignalWriter
    from signal_router.client.trigger import Trigger

_LARGEST_BYTES = MAX_RECORD_BYTES - (1 << 20)
_LAST_PARTITION = (1 << 31) - 1
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Transaction(Publishing[str]):
    """The outputs of one call of a handler. Nothing is sent before it has returned.

    `publish` publishes a signal that names the trigger as its cause, and gives back its id; by default that follows
    from the trigger's idempotency key and the number of the signal.
    """

    def __init__(self, writer: SignalWriter, topic: str, trigger: Trigger) -> None:
        super().__init__(writer.because_of(trigger))
        self._topic = topic
        self.records: list[OutputRecord] = []

    def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: Key = None,
        headers: Iterable[tuple[str, bytes]] = (),
        partition: int = -1,
    ) -> None:
        """Writes one record to any topic; without a partition its key decides, as it does for Java clients.

        Raises:
            RecordError: key, value and headers together are larger than any client may send.
            TypeError, ValueError: the client would refuse it, and the whole transaction with it.
        """
        value = value.encode() if isinstance(value, str) else value
        key = key.encode() if isinstance(key, str) else key
        self._add(OutputRecord(topic, key, value, partition, tuple(headers)))

    def send(self, record: SignalRecord, key: Key) -> str:
        self._add(output_record(self._topic, record, key))
        return record.id

    def _add(self, record: OutputRecord) -> None:
        """Takes a record that the client takes too; what it refuses later, nobody could blame on this handler."""
        _check_types(record)
        size = len(record.value or b"") + len(record.key or b"")
        size += sum(len(name.encode()) + len(content or b"") for name, content in record.headers)
        if size > _LARGEST_BYTES:
            raise RecordError("too-large", f'a record for topic "{record.topic}" has {size} bytes')
        self.records.append(record)


def _check_types(record: OutputRecord) -> None:
    topic, partition = record.topic, record.partition
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise ValueError(f"a record is for topic {topic!r}, which is no name of a topic")
    for what, content in (("key", record.key), ("value", record.value)):
        if not isinstance(content, bytes | None):
            kind = type(content).__name__
            raise TypeError(f'the {what} of a record for topic "{topic}" is a {kind}, not bytes or str')
    if not isinstance(partition, int) or isinstance(partition, bool) or not -1 <= partition <= _LAST_PARTITION:
        raise ValueError(f'the partition of a record for topic "{topic}" is {partition!r}')
    for header in record.headers:
        if not _header(header):
            raise TypeError(f'a header of a record for topic "{topic}" is no pair of str and bytes')


def _header(header: object) -> bool:
    if not isinstance(header, tuple) or len(header) != 2:
        return False
    name, content = header
    return isinstance(name, str) and isinstance(content, bytes | None)
