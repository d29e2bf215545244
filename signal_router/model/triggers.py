"""Triggers: the record published when a set is complete, its key, its id, and how it is written.

The same set is the same trigger on every replay and every cluster: the id is made of what the set is, the times are
those of its signals, and nothing else goes in.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import msgspec

from signal_router.model.candidates import SignalCopy
from signal_router.model.canonical import canonical_json, canonical_text
from signal_router.model.signals import Position
from signal_router.model.subscriptions import Subscription
from signal_router.model.times import rfc3339
from signal_router.model.values import Value

NAMESPACE = uuid.UUID("6f0c5f5e-7d0b-5c8e-9a57-3f5d2b8f6c11")
"""The UUID namespace of trigger ids; part of the public contract."""
_SEED = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
EVENT_TYPE = "signal-router.trigger.v1"
CONTENT_TYPE = "application/json"

Headers: TypeAlias = tuple[tuple[str, bytes], ...]
_FIRST_HEADER = ("ce_specversion", b"1.0")
_LAST_HEADER = ("content-type", CONTENT_TYPE.encode())

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Value]).decode
"""For objects of scalars that we wrote ourselves, canonically."""
_NO_PARAMS: dict[str, Value] = {}


class Bound(msgspec.Struct, frozen=True, gc=False):
    """A signal bound to an alias, with its place in the joining order."""

    alias: str
    sequence: int
    signal: SignalCopy
    with_payload: bool


class _Order(msgspec.Struct, frozen=True, gc=False):
    partition: int
    sequence: int


class _Subscription(msgspec.Struct, frozen=True, gc=False):
    id: str
    version: str
    revision: int


class TriggerSignal(msgspec.Struct, frozen=True, gc=False):
    """One signal of a trigger, as JSON."""

    alias: str
    name: str
    source: str | None
    id: str | None
    params: msgspec.Raw
    time: str | None
    recorded_at: str
    position: Position
    sequence: int
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """A trigger, as JSON (format: `signal-router.trigger.v1`). `by_position`: it was too large; params are left out."""

    trigger_id: str
    kind: str
    attempt: int
    idempotency_key: str
    subscription: _Subscription
    join_key: msgspec.Raw
    params: msgspec.Raw
    opened_at: str
    fired_at: str
    order: _Order
    missing: list[str]
    signals: list[TriggerSignal]
    by_position: bool | msgspec.UnsetType = msgspec.UNSET


class _View:
    """What a template reads of a bound signal; params are decoded when asked for."""

    __slots__ = ("_params", "_signal")

    def __init__(self, signal: SignalCopy) -> None:
        self._signal = signal
        self._params: Mapping[str, Value] | None = None

    @property
    def name(self) -> str:
        return self._signal.name

    @property
    def source(self) -> str | None:
        return self._signal.source

    @property
    def id(self) -> str | None:
        return self._signal.id

    @property
    def time(self) -> str | None:
        return self._signal.time

    @property
    def params(self) -> Mapping[str, Value]:
        if self._params is None:
            self._params = params_of(self._signal)
        return self._params

    @property
    def payload(self) -> bytes | None:
        return self._signal.payload


def scalars(text: str) -> Mapping[str, Value]:
    """Decodes an object of scalars that we wrote ourselves."""
    return _decode(text) if text != "{}" else _NO_PARAMS


def params_of(signal: SignalCopy) -> Mapping[str, Value]:
    """Decodes the params that a candidate carries."""
    return _decode(signal.params) if signal.params != b"{}" else _NO_PARAMS


def trigger_id(subscription: Subscription, join_key: str, members: Sequence[Bound]) -> str:
    """UUIDv5 of the canonical JSON of what the set is.

    That is `[subscription id, birth, join generation, join key, [[alias, name, source, id], … sorted by alias]]`.
    """
    parts = ",".join(sorted([f"[{_quoted(member.alias)},{member.signal.identity[1:]}" for member in members]))
    name = f"[{_quoted(subscription.id)},{subscription.birth},{subscription.join_generation},{join_key},[{parts}]]"
    return id_of(name)


def id_of(name: str) -> str:
    """What `uuid.uuid5` makes of a name (RFC 9562), without its checks: this is done for every trigger."""
    digest = _SEED.copy()
    digest.update(name.encode())
    text = digest.hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


_quoted = lru_cache(maxsize=65_536)(canonical_text)


def build(subscription: Subscription, key: str, members: Sequence[Bound], completing: Bound, partition: int) -> Trigger:
    """Builds the trigger of a complete set; `members` stand in declaration order. Cannot fail."""
    join_key = "{}" if subscription.by_identity else key
    params, missing = subscription.template.render(
        scalars(join_key), {member.alias: _View(member.signal) for member in members}
    )
    identifier = trigger_id(subscription, join_key, members)
    return Trigger(
        trigger_id=identifier,
        kind="fired",
        attempt=1,
        idempotency_key=f"{identifier}/1",
        subscription=_Subscription(subscription.id, subscription.version, subscription.revision),
        join_key=msgspec.Raw(join_key.encode()),
        params=msgspec.Raw(canonical_json(params)),
        opened_at=rfc3339(min([member.signal.recorded_at for member in members])),
        fired_at=rfc3339(completing.signal.recorded_at),
        order=_Order(partition, completing.sequence),
        missing=missing,
        signals=[_signal(member) for member in members],
    )


def _signal(member: Bound) -> TriggerSignal:
    signal = member.signal
    # A payload that is absent, or null, is left out, as the template sees it: missing.
    payload = msgspec.UNSET if signal.payload is None or not member.with_payload else msgspec.Raw(signal.payload)
    return TriggerSignal(
        member.alias,
        signal.name,
        signal.source,
        signal.id,
        msgspec.Raw(signal.params),
        signal.time,
        rfc3339(signal.recorded_at),
        signal.position,
        member.sequence,
        payload,
    )


def key_of(subscription: Subscription, key: str) -> bytes:
    """The Kafka key: canonical JSON `["ns/name", join key]`, with the identity where every signal fires by itself."""
    join_key = f"{{}},{key}" if subscription.by_identity else key
    return f"[{_quoted(subscription.id)},{join_key}]".encode()


def encode(trigger: Trigger) -> bytes:
    """The record's value."""
    return _encode(trigger)


def without_payloads(trigger: Trigger) -> Trigger:
    """The form that lineage keeps."""
    if all(signal.payload is msgspec.UNSET for signal in trigger.signals):
        return trigger
    signals = [msgspec.structs.replace(signal, payload=msgspec.UNSET) for signal in trigger.signals]
    return msgspec.structs.replace(trigger, signals=signals)


def by_position(trigger: Trigger) -> Trigger:
    """The form for a topic that cannot hold the whole: signals without params and payload, flagged."""
    signals = [
        msgspec.structs.replace(signal, params=msgspec.Raw(b"{}"), payload=msgspec.UNSET) for signal in trigger.signals
    ]
    return msgspec.structs.replace(trigger, signals=signals, by_position=True)


def headers(trigger: Trigger, app: str, key: bytes, traceparent: str | None = None) -> Headers:
    """CloudEvents 1.0 binary headers (Kafka protocol binding)."""
    return headers_of(
        trigger.trigger_id, constant_headers(trigger.subscription.id, app), trigger.fired_at, key, traceparent
    )


def constant_headers(subscription: str, app: str) -> Headers:
    """The headers that all triggers of a subscription share; they stand behind `ce_specversion` and `ce_id`."""
    return (
        ("ce_source", f"/signal-router/{app}".encode()),
        ("ce_type", EVENT_TYPE.encode()),
        ("ce_subject", subscription.encode()),
    )


def headers_of(identifier: str, constant: Headers, fired_at: str, key: bytes, traceparent: str | None) -> Headers:
    """What `headers` gives, from its parts."""
    pairs = (
        _FIRST_HEADER,
        ("ce_id", identifier.encode()),
        *constant,
        ("ce_time", fired_at.encode()),
        ("ce_partitionkey", key),
        _LAST_HEADER,
    )
    return pairs if traceparent is None else (*pairs, ("traceparent", traceparent.encode()))
