"""Decisions into records: triggers, lineage and dead letters, each checked against where it goes before it is
staged.
"""

from __future__ import annotations

from typing import NamedTuple

from signal_router.core.join import Ended, Fired
from signal_router.errors import RecordError
from signal_router.kafka.topics import TopicNames
from signal_router.model import lineage, triggers
from signal_router.model.dead_letters import Kind, dead_letter, dead_letter_key, encode_dead_letter
from signal_router.model.log import InputRecord, OutputRecord, TopicPartition
from signal_router.model.outcomes import Outcome, Reason
from signal_router.model.signals import Position
from signal_router.model.subscriptions import Subscription
from signal_router.model.trigger_text import TriggerWriter, writer_of
from signal_router.model.triggers import Bound, Trigger
from signal_router.runtime.destinations import Destinations
from signal_router.runtime.stage import Stage

WRITERS = 10_000
"""The most subscriptions whose writers are kept: each takes some two kilobytes, and is made in microseconds."""


class _Writer(NamedTuple):
    """Who writes a subscription's triggers (None: they have to be put together from parts), and which certainly fit."""

    subscription: Subscription
    destinations: Destinations
    writer: TriggerWriter | None
    room: int


class Outputs:
    """Writes decisions as records into a stage. `destinations` may be replaced between batches."""

    def __init__(self, names: TopicNames, app: str, destinations: Destinations, *, all_lineage: bool) -> None:
        self._names = names
        self._app = app
        self._all_lineage = all_lineage
        self.destinations = destinations
        self._writers: dict[str, _Writer] = {}

    def fired(self, fired: Fired, partition: int, stage: Stage) -> None:
        """Stages a trigger and its lineage; where it cannot be written, the dead letter and outcomes that say so."""
        subscription = fired.subscription
        known = self._writers.get(subscription.id)
        if known is None or known.subscription is not subscription or known.destinations is not self.destinations:
            known = self._learn(subscription)
        if known.writer is not None:
            written = known.writer.write(fired.key, fired.members, fired.completing, partition)
            if len(written.value) + 2 * len(written.key) <= known.room:
                headers = stage.headers
                stage.emit(OutputRecord(subscription.topic, written.key, written.value, -1, written.headers + headers))
                lineage_key = lineage.trigger_key(written.id)
                stage.emit(OutputRecord(self._names.lineage, lineage_key, written.value, -1, headers))
                stage.count("fired", subscription.id)
                if self._all_lineage:
                    self._signals(fired, partition, stage, Outcome.FIRED, Reason.COMPLETED, written.id)
                return
        self._fired_from_parts(fired, partition, stage)

    def _learn(self, subscription: Subscription) -> _Writer:
        if len(self._writers) >= WRITERS:
            self._writers.clear()
        destinations = self.destinations
        room = min(destinations.room(subscription.topic), destinations.room(self._names.lineage))
        known = _Writer(subscription, destinations, writer_of(subscription, self._app), room)
        self._writers[subscription.id] = known
        return known

    def _fired_from_parts(self, fired: Fired, partition: int, stage: Stage) -> None:
        subscription = fired.subscription
        bound = [
            Bound(member.alias, pending.sequence, pending.signal, member.payload)
            for member, pending in zip(subscription.members, fired.members, strict=True)
        ]
        completing = next(one for one in bound if one.sequence == fired.completing.sequence)
        trigger = triggers.build(subscription, fired.key, bound, completing, partition)
        key = triggers.key_of(subscription, fired.key)
        headers = triggers.headers(trigger, self._app, key, completing.signal.traceparent) + stage.headers
        refusal = self.destinations.refusal(subscription.topic)
        if refusal is not None:
            error = RecordError(
                "destination", refusal, hint="create the topic or grant WRITE, then dead-letters replay"
            )
            self._undeliverable(fired, trigger, key, partition, stage, error)
            return
        encoded = triggers.encode(trigger)
        kept = triggers.without_payloads(trigger)
        lineage_key = lineage.trigger_key(trigger.trigger_id)
        written = self._fitting(subscription.topic, trigger, encoded, key, headers)
        known = self._fitting(
            self._names.lineage, kept, encoded if kept is trigger else triggers.encode(kept), lineage_key, stage.headers
        )
        if written is None or known is None:
            topic = subscription.topic if written is None else self._names.lineage
            error = RecordError("size", f'trigger does not fit topic "{topic}", not even with its signals by position')
            self._undeliverable(fired, trigger, key, partition, stage, error)
            return
        stage.emit(OutputRecord(subscription.topic, key, written, headers=headers))
        stage.emit(OutputRecord(self._names.lineage, lineage_key, known, headers=stage.headers))
        stage.count("fired", subscription.id)
        if self._all_lineage:
            self._signals(fired, partition, stage, Outcome.FIRED, Reason.COMPLETED, trigger.trigger_id)

    def ended(self, ended: Ended, partition: int, ended_at: int, stage: Stage) -> None:
        """Stages the lineage of a candidate that ended without a trigger."""
        cause: dict[str, object] | None = None if ended.cause is None else {"position": ended.cause}
        value = lineage.signal_value(
            ended.signal,
            ended.subscription,
            ended.key,
            ended.aliases,
            ended.outcome.value,
            ended.reason.value,
            cause,
            ended_at,
            partition,
            ended.sequence,
        )
        key = lineage.signal_key(ended.signal.position, ended.subscription, ended.key)
        stage.emit(OutputRecord(self._names.lineage, key, value, headers=stage.headers))
        stage.count(ended.outcome.value, ended.subscription, ended.reason.value)

    def _fitting(
        self, topic: str, trigger: Trigger, encoded: bytes, key: bytes, headers: tuple[tuple[str, bytes], ...]
    ) -> bytes | None:
        """The form of a trigger that a topic can hold: whole, else with its signals by position; None if neither."""
        if self.destinations.fits(topic, key, encoded, headers):
            return encoded
        encoded = triggers.encode(triggers.by_position(trigger))
        return encoded if self.destinations.fits(topic, key, encoded, headers) else None

    def _undeliverable(
        self,
        fired: Fired,
        trigger: Trigger,
        key: bytes,
        partition: int,
        stage: Stage,
        error: RecordError,
    ) -> None:
        letter = dead_letter(
            kind=Kind.TRIGGER,
            position=fired.completing.signal.position,
            error=error,
            key=key,
            headers=triggers.headers(trigger, self._app, key, fired.completing.signal.traceparent),
            value=triggers.encode(trigger),
            trigger_id=trigger.trigger_id,
            destination=fired.subscription.topic,
        )
        stage.emit(
            OutputRecord(
                self._names.dead_letters, dead_letter_key(letter), encode_dead_letter(letter), headers=stage.headers
            )
        )
        stage.count("dead_letters", fired.subscription.id, error.reason)
        reason = Reason.DESTINATION if error.reason == "destination" else Reason.SIZE
        self._signals(fired, partition, stage, Outcome.UNDELIVERABLE, reason, trigger.trigger_id)
        for _ in fired.members:
            stage.count(Outcome.UNDELIVERABLE.value, fired.subscription.id, reason.value)

    def _signals(
        self, fired: Fired, partition: int, stage: Stage, outcome: Outcome, reason: Reason, trigger_id: str
    ) -> None:
        """Stages the lineage of each signal of a set."""
        subscription, key = fired.subscription, fired.key
        for pending in fired.members:
            signal = pending.signal
            value = lineage.signal_value(
                signal,
                subscription.id,
                key,
                [member.alias for bit, member in enumerate(subscription.members) if pending.aliases >> bit & 1],
                outcome.value,
                reason.value,
                {"trigger_id": trigger_id},
                fired.completing.signal.recorded_at,
                partition,
                pending.sequence,
            )
            record_key = lineage.signal_key(signal.position, subscription.id, key)
            stage.emit(OutputRecord(self._names.lineage, record_key, value, headers=stage.headers))


def refuse(topic: str, kind: Kind, tp: TopicPartition, record: InputRecord, error: RecordError, stage: Stage) -> None:
    """Stages the dead letter of a record that was read."""
    letter = dead_letter(
        kind=kind,
        position=Position(tp.topic, tp.partition, record.offset),
        error=error,
        key=record.key,
        headers=record.headers,
        value=record.value,
    )
    stage.emit(OutputRecord(topic, dead_letter_key(letter), encode_dead_letter(letter), headers=stage.headers))
    stage.count("dead_letters", reason=error.reason)
