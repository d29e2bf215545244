"""What the transactions of a partition's records say: no life writes behind a later one, and what was aborted came
again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from signal_router.model.log import InputRecord

Headers = Sequence[tuple[str, bytes | None]]
REDOABLE = 100_000
"""The most aborted records whose return is looked for; one is enough."""


class Fence:
    """Follows the transactions of one partition: within a slot incarnations never fall, nor numbers within one.

    Numbers may fall once: two processes that began at once under one slot have the same incarnation, and the one that
    goes on counts from 1. Should they write by turns, numbers fall again. Slots in `left_out` are not followed.
    """

    __slots__ = ("_last", "_left_out", "_reached", "_shared")

    def __init__(self, left_out: Collection[str] = ()) -> None:
        self._left_out = left_out
        self._reached: dict[str, tuple[int, int]] = {}
        self._shared: set[tuple[str, int]] = set()
        self._last: bytes | None = None

    def take(self, headers: Headers | None) -> str | None:
        """Takes the next record; says what is wrong with its place."""
        written = _transaction(headers)
        if written is None or written == self._last:
            return None
        self._last = written
        slot, incarnation, number = _parts(written)
        if number < 0 or slot in self._left_out:
            return None  # a replay has no lives
        before = self._reached.get(slot, (0, 0))
        if (incarnation, number) < before:
            if incarnation < before[0] or (slot, incarnation) in self._shared:
                return self._behind(written, slot, before)
            self._shared.add((slot, incarnation))
        self._reached[slot] = (incarnation, number)
        return None

    @staticmethod
    def _behind(written: bytes, slot: str, before: tuple[int, int]) -> str:
        return f"transaction {written.decode(errors='replace')} behind {slot}/{before[0]}/{before[1]}"


def _transaction(headers: Headers | None) -> bytes | None:
    for name, value in headers or ():
        if name == "sr_txn":
            return value
    return None


def _parts(transaction: bytes) -> tuple[str, int, int]:
    slot, _, rest = transaction.decode(errors="replace").partition("/")
    incarnation, _, number = rest.partition("/")
    if not incarnation.isdecimal() or not number.isdecimal() or slot == "replay":
        return slot, -1, -1
    return slot, int(incarnation), int(number)


@dataclass(frozen=True, slots=True)
class Struck:
    """The faults that a run was to suffer: at least how often each, and how often each came."""

    expected: Mapping[str, int]
    fired: Mapping[str, int]

    def lacking(self) -> Iterator[str]:
        """Which came too seldom."""
        for name, least in sorted(self.expected.items()):
            came = self.fired.get(name, 0)
            if came < least:
                yield f"{name}: {came} times, at least {least} were to be"


def aborted_and_redone(committed: Iterable[InputRecord], everything: Iterable[InputRecord]) -> tuple[int, int]:
    """How many records of aborted transactions a partition holds, and how many of them came again and were committed.

    What is the same is told by the key, or by the value where there is no key.
    """
    visible = iter(committed)
    at = next(visible, None)
    aborted: set[bytes] = set()
    count = redone = 0
    for record in everything:
        while at is not None and at.offset < record.offset:
            at = next(visible, None)
        what = _what(record)
        if at is None or at.offset != record.offset:
            count += 1
            if len(aborted) < REDOABLE:
                aborted.add(what)
        elif what in aborted:
            aborted.discard(what)
            redone += 1
    return count, redone


def _what(record: InputRecord) -> bytes:
    return blake2b(record.key or record.value or b"", digest_size=8).digest()
