"""Sets that wait, as rows: what they have, what they wait for, how old they are and when they expire."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from signal_router.cli.tailing import pairs
from signal_router.errors import RecordError
from signal_router.model.durations import duration_text
from signal_router.model.json_values import decode_json
from signal_router.model.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from signal_router.core.tables import Pending
    from signal_router.runtime.declared import Declared
    from signal_router.runtime.pending_sets import PendingSet

TOO_FAR_APART = "nothing, but its signals lie more than `within` apart"


def pending_row(found: PendingSet, declared: Mapping[str, Declared], *, now: int) -> dict[str, object]:
    """One set with everything known of it, for programs; people get a part of it, see `person_row`."""
    document, filling = declared.get(found.subscription), found.filling
    current = document if document is not None and document.join_generation == found.join_generation else None
    return {
        "subscription": found.subscription,
        "join_key": join_key_of(found.key),
        "partition": found.partition,
        "has": list(filling.has),
        "of": len(found.aliases),
        "waits_for": [
            {"alias": alias, "signal": None if current is None else current.signal_of(alias)}
            for alias in filling.waits_for
        ],
        "pending": len(found.pending),
        "opened_at": rfc3339(found.opened_at),
        "age_ms": max(0, now - found.opened_at),
        "deadline": rfc3339(found.deadline),
        "deleted": document is not None and document.deleted,
        "signals": [_signal(found, each) for each in found.pending],
    }


def person_row(row: Mapping[str, object]) -> dict[str, object]:
    """The part of a row that people read."""
    has, age = row["has"], row["age_ms"]
    return {
        "subscription": row["subscription"],
        "join_key": pairs(row["join_key"]),
        "has": f"{', '.join(has)} ({len(has)} of {row['of']})" if isinstance(has, list) else "",
        "waits_for": waits_for(row),
        "pending": row["pending"],
        "age": age_text(age) if isinstance(age, int) else "",
        "deadline": row["deadline"],
    }


def waits_for(row: Mapping[str, object]) -> str:
    """What a set waits for, in words."""
    wanted = row["waits_for"]
    if not isinstance(wanted, list) or not wanted:
        return TOO_FAR_APART
    return ", ".join(
        each["alias"] if each["signal"] is None else f"{each['alias']} ({each['signal']})" for each in wanted
    )


def age_text(age_ms: int) -> str:
    """An age in its two largest units."""
    for unit in (86_400_000, 3_600_000, 60_000, 1_000):
        if age_ms >= unit:
            finer = {86_400_000: 3_600_000, 3_600_000: 60_000}.get(unit, 1_000)
            return duration_text(age_ms - age_ms % finer)
    return "0s"


def now_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return int(time.time() * 1000)


def join_key_of(key: str) -> object:
    """The join key that a key text stands for; where every signal fires by itself there is none."""
    try:
        value = decode_json(key.encode(), what="join key")
    except RecordError:
        return key
    return value if isinstance(value, dict) else {}


def _signal(found: PendingSet, pending: Pending) -> dict[str, object]:
    signal = pending.signal
    return {
        "aliases": list(found.aliases_of(pending)),
        "name": signal.name,
        "source": signal.source,
        "id": signal.id,
        "params": decode_json(signal.params, what="params"),
        "time": signal.time,
        "recorded_at": rfc3339(signal.recorded_at),
        "deadline": rfc3339(pending.deadline),
        "position": {"topic": signal.topic, "partition": signal.partition, "offset": signal.offset},
        "sequence": pending.sequence,
    }
