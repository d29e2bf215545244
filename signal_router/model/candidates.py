"""Candidates and marks: what travels on the candidates topic from the match stage to the join stage.

Internal wire form: MessagePack arrays whose first element is the record's kind and format in one number (1 = candidate,
2 = mark, both of format 1). A number this program does not know is a newer format.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import msgspec

from signal_router.model.canonical import canonical_strings, canonical_text
from signal_router.model.signals import REPLAY_OF, Position, Signal


class SignalCopy(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a candidate carries of its signal.

    `identity` is the identity's canonical JSON; `params` and `payload` are JSON text (params canonical); `digest`
    covers both, so that a repeat with other content is told from a plain one. `recorded_at` is the record's timestamp,
    capped by the reader's clock. `traceparent` is the W3C trace context that the trigger goes on with if this signal
    completes it.
    """

    identity: str
    name: str
    source: str | None
    id: str | None
    params: bytes
    payload: bytes | None
    time: str | None
    recorded_at: int
    topic: str
    partition: int
    offset: int
    digest: bytes
    traceparent: str | None = None

    @property
    def position(self) -> Position:
        """Where the signal's record stands."""
        return Position(self.topic, self.partition, self.offset)


class Candidate(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """One signal for one (subscription, join key), with a bit in `aliases` for each member it fits there.

    `key` is the canonical JSON of the join key, or the identity where every signal fires by itself. `birth`,
    `join_generation` and `revision` are those of the subscription when the signal was matched.
    """

    subscription: str
    birth: int
    join_generation: int
    revision: int
    key: str
    aliases: int
    signal: SignalCopy


class Mark(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """How far signals partitions have been read, in time.

    `announced`: `topic/partition` → time; no signal recorded before it will come. `inputs` names every signals
    partition there is, so that one nobody has announced yet holds the clock; `retired` names those that are inputs no
    longer.
    """

    worker: str
    announced: Mapping[str, int]
    inputs: tuple[str, ...]
    retired: tuple[str, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Candidate | Mark] = msgspec.msgpack.Decoder(Candidate | Mark)

encode = _encoder.encode


def decode(value: bytes) -> Candidate | Mark:
    """Reads a record of the candidates topic. Raises `msgspec.DecodeError`, of which a newer format is a subclass:
    `msgspec.ValidationError`.
    """
    return _decoder.decode(value)


def partition_of(subscription: str, key: str, partitions: int) -> int:
    """The candidates partition of a join set. Internal to one app: changing it needs new topics."""
    return zlib.crc32(f"{subscription}\0{key}".encode()) % partitions


_FIRST_POSITION = re.compile(r'\{"position":\["[A-Za-z0-9_-]{1,64}",(?:0|[1-9][0-9]{0,9}),(?:0|[1-9][0-9]{0,18})\]\}')


def position_text(topic_id: str, partition: int, offset: int) -> str:
    """What stands for the id of a signal that has none; the value of the header `sr_replay_of` as well."""
    return canonical_text({"position": [topic_id, partition, offset]})


def identity_of(signal: Signal, topic_id: str, partition: int, offset: int) -> str:
    """The identity's canonical JSON: `[name, source, id]`; without an id the position stands for it.

    A replayed signal names the position at which it stood first, so that its identity holds. What is not exactly such
    a text is passed over.
    """
    if signal.id is not None:
        return canonical_strings((signal.name, signal.source, signal.id))
    first = signal.context.get(REPLAY_OF)
    if first is None or not _FIRST_POSITION.fullmatch(first):
        first = position_text(topic_id, partition, offset)
    return f"[{canonical_text(signal.name)},{canonical_text(signal.source)},{first}]"
