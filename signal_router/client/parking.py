"""Where a trigger goes that could not be handled, so that those behind it go on and nobody forgets it.

A parked record is the trigger's own record, byte for byte with its key and headers, and headers that say why. To have
it handled again, consume the parking topic (with another one to park to), or write the record back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signal_router.model.log import OutputRecord

if TYPE_CHECKING:
    from signal_router.client.trigger import Trigger
    from signal_router.model.signals import Position

BEGINS = "sr_parked_"
"""What the names of the headers of a parked record begin with."""

_ERROR_CHARACTERS = 2_000


class Park(Exception):  # noqa: N818  raised by handlers, as a decision
    """Raised by a handler for a trigger that another attempt cannot help: it is parked at once, with this reason."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A record that was given up: `reason` is `failed`, `refused` (the handler raised `Park`) or `unreadable`.

    `trigger` is None where the record could not be read as one. `attempts` counts the calls of the handler.
    """

    position: Position
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    reason: str
    error: str
    attempts: int
    group: str
    trigger: Trigger | None

    def record(self, topic: str) -> OutputRecord:
        """The record as it stands on a parking topic."""
        place = self.position
        why = {
            "reason": self.reason,
            "error": self.error[:_ERROR_CHARACTERS],
            "attempts": str(self.attempts),
            "from": f"{place.topic}/{place.partition}/{place.offset}",
            "group": self.group,
        }
        kept = [(name, content) for name, content in self.headers if not name.startswith(BEGINS)]
        added = [(f"{BEGINS}{name}", text.encode(errors="replace")) for name, text in why.items()]
        # A header without a value stays one: the client writes None as it is.
        return OutputRecord(topic, self.key, self.value, headers=(*kept, *added))  # type: ignore[arg-type]


Parking = str | Callable[[Parked], object]
"""A topic, or something that is called with what could not be handled and keeps it."""
