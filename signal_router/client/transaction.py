"""What a handler writes exactly once: collected while it runs, written with the trigger's offset, or not at all."""

from __future__ import annotations

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
            RecordError: it is larger than any client may send.
        """
        value = value.encode() if isinstance(value, str) else value
        if value is not None and len(value) > _LARGEST_BYTES:
            raise RecordError("too-large", f'a record for topic "{topic}" has {len(value)} bytes')
        key = key.encode() if isinstance(key, str) else key
        self.records.append(OutputRecord(topic, key, value, partition, tuple(headers)))

    def send(self, record: SignalRecord, key: Key) -> str:
        self.records.append(output_record(self._topic, record, key))
        return record.id
