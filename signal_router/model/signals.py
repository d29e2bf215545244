"""A signal: one immutable announced fact, and where its record stands."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from signal_router.model.values import Value

REPLAY_OF = "sr_replay_of"
"""The header, and its place in a signal's context, by which a replay without an id says where it stood first."""

CAUSED_BY = "sr_caused_by"
"""The header by which a signal says which trigger caused it: the trigger's id."""


class Position(msgspec.Struct, frozen=True, gc=False, order=True):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class Signal(msgspec.Struct, frozen=True, gc=False):
    """One signal as every later step sees it.

    `payload` is the payload's JSON text as it came (None = no payload). `time` is the producer's, as spelled, and
    decides nothing. `context` holds what `$…` names match on: `type`, `source`, `id`, `time`, `subject` and, for
    CloudEvents, every other attribute and extension, all as strings; also what is kept of a record's headers.
    """

    name: str
    source: str | None
    id: str | None
    params: Mapping[str, Value]
    payload: bytes | None
    time: str | None
    context: Mapping[str, str]
