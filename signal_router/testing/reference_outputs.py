"""What the reference evaluation expects on the topics: triggers and lineage, with their keys."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from urllib.parse import quote

from signal_router.testing.reference_joins import Ended, Firing, Taken
from signal_router.testing.reference_template import Bound, render
from signal_router.testing.reference_types import EndedCandidate, Evidence, ExpectedTrigger, Position
from signal_router.testing.reference_values import Json, canonical, time_text

TRIGGER_ID_NAMESPACE = uuid.UUID("6f0c5f5e-7d0b-5c8e-9a57-3f5d2b8f6c11")


def trigger_of(firing: Firing, partition: int, evidence: Evidence) -> ExpectedTrigger:
    """The trigger of a complete set."""
    document, bound = firing.document, firing.bound
    key: dict[str, Json] = dict(firing.completing.match.key)
    payload_aliases = {member.alias for member in document.members if member.payload}
    template_sees = {alias: Bound(taken.signal, taken.match.keeps_payload) for alias, taken in bound.items()}
    params, missing = render(document.params, key, template_sees)
    trigger_id = trigger_id_of(firing)
    fired_at = time_text(firing.completing.recorded_at)
    value: dict[str, Json] = {
        "trigger_id": trigger_id,
        "kind": "fired",
        "attempt": 1,
        "idempotency_key": f"{trigger_id}/1",
        "subscription": {"id": document.id, "version": document.version, "revision": document.revision},
        "join_key": key,
        "params": params,
        "opened_at": time_text(min(taken.recorded_at for taken in bound.values())),
        "fired_at": fired_at,
        "order": {"partition": partition, "sequence": firing.completing.sequence},
        "missing": [*missing],
        "signals": [_bound_signal(alias, taken, alias in payload_aliases) for alias, taken in bound.items()],
    }
    kafka_key = _kafka_key(firing, key)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": trigger_id,
        "ce_source": f"/signal-router/{evidence.app}",
        "ce_type": "signal-router.trigger.v1",
        "ce_subject": document.id,
        "ce_time": fired_at,
        "ce_partitionkey": kafka_key,
        "content-type": "application/json",
    }
    return ExpectedTrigger(trigger_id, document.topic or evidence.default_topic, kafka_key, value, headers)


def trigger_id_of(firing: Firing) -> str:
    """UUIDv5 of what the set is: subscription, birth, join generation, join key, and who is bound to which alias."""
    members: list[Json] = [
        [alias, taken.signal.name, taken.signal.source, taken.signal.identity_tail]
        for alias, taken in sorted(firing.bound.items(), key=lambda item: item[0])
    ]
    document = firing.document
    key: dict[str, Json] = dict(firing.completing.match.key)
    name = canonical([document.id, document.birth, document.join_generation, key, members])
    return str(uuid.uuid5(TRIGGER_ID_NAMESPACE, name))


def _kafka_key(firing: Firing, key: dict[str, Json]) -> str:
    parts: list[Json] = [firing.document.id, key]
    if firing.document.fires_each:
        signal = firing.completing.signal
        parts.append([signal.name, signal.source, signal.identity_tail])
    return canonical(parts)


def _bound_signal(alias: str, taken: Taken, shows_payload: bool) -> Json:  # noqa: FBT001 (a local of its one caller)
    signal = taken.signal
    said: dict[str, Json] = {
        "alias": alias,
        "name": signal.name,
        "source": signal.source,
        "id": signal.id,
        "params": dict(signal.params),
        "time": signal.time,
        "recorded_at": time_text(taken.recorded_at),
        "position": signal.position.as_json(),
        "sequence": taken.sequence,
    }
    if shows_payload and taken.match.keeps_payload and signal.payload is not None:
        said["payload"] = signal.payload.value
    return said


def lineage_key(position: Position, subscription: str, join_key_hash: str) -> str:
    """The key of a candidate's `signal/…` lineage."""
    parts = (position.topic, str(position.partition), str(position.offset), subscription, join_key_hash)
    return "signal/" + "/".join(quote(part, safe="") for part in parts)


def ended_candidate(ended: Ended, partition: int) -> EndedCandidate:
    """A candidate that ended without a trigger, with its lineage."""
    cause: Json = None if ended.cause is None else {"position": ended.cause.as_json()}
    return _candidate(
        ended.taken,
        partition,
        ended.outcome,
        ended.reason,
        aliases=ended.aliases,
        cause=cause,
        cause_position=ended.cause,
    )


def fired_candidate(taken: Taken, partition: int, trigger_id: str) -> EndedCandidate:
    """A candidate that was consumed by a trigger."""
    match = taken.match
    return EndedCandidate(
        taken.signal.position,
        match.document.id,
        match.key_hash,
        partition,
        taken.sequence,
        "fired",
        "completed",
        trigger_id=trigger_id,
    )


def undeliverable_candidate(taken: Taken, partition: int, trigger_id: str, reason: str) -> EndedCandidate:
    """A candidate whose trigger went to the dead letters."""
    cause: Json = {"trigger_id": trigger_id}
    aliases = taken.match.aliases
    return _candidate(taken, partition, "undeliverable", reason, aliases=aliases, cause=cause, trigger_id=trigger_id)


def _candidate(
    taken: Taken,
    partition: int,
    outcome: str,
    reason: str,
    *,
    aliases: tuple[str, ...],
    cause: Json,
    cause_position: Position | None = None,
    trigger_id: str | None = None,
) -> EndedCandidate:
    signal, match = taken.signal, taken.match
    lineage: Mapping[str, Json] = {
        "format": 1,
        "kind": "signal",
        "position": signal.position.as_json(),
        "subscription": match.document.id,
        "join_key": dict(match.key),
        "join_key_hash": match.key_hash,
        "aliases": [*aliases],
        "name": signal.name,
        "source": signal.source,
        "id": signal.id,
        "outcome": outcome,
        "reason": reason,
        "cause": cause,
        "recorded_at": time_text(taken.recorded_at),
        "order": {"partition": partition, "sequence": taken.sequence},
    }
    return EndedCandidate(
        signal.position,
        match.document.id,
        match.key_hash,
        partition,
        taken.sequence,
        outcome,
        reason,
        cause=cause_position,
        trigger_id=trigger_id,
        lineage=lineage,
    )
