"""What became of a candidate, and why."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """What a candidate ends in; exactly one each. PENDING is the only one that changes later."""

    PENDING = "pending"
    FIRED = "fired"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    DISCARDED = "discarded"
    UNDELIVERABLE = "undeliverable"


class Reason(Enum):
    """Machine-readable cause of an outcome; part of the public lineage contract."""

    REPEAT = "repeat"  # duplicate: the same identity, the same content
    CONFLICT = "conflict"  # duplicate: the same identity, other params or payload
    WITHIN = "within"  # expired: its set did not complete in time
    NEWER = "newer"  # superseded: policy latest, a later signal took its alias
    EDIT = "edit"  # superseded: aliases, signals or join of the subscription changed
    DELETED = "deleted"  # discarded: the subscription was deleted
    LIMIT = "limit"  # discarded: too many pending for the key, subscription or partition
    DESTINATION = "destination"  # undeliverable: the trigger's topic is missing, denied or not ours to write
    SIZE = "size"  # undeliverable: the trigger does not fit its topic
    COMPLETED = "completed"  # fired
