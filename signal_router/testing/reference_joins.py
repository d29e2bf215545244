"""Join sets, for the reference evaluation: what becomes of each candidate of one candidates partition.

One `Partition` takes the decision inputs in order. Everything is a list that is searched from end to end: the rules
are to be seen, not to be fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from signal_router.testing.reference_choice import choose
from signal_router.testing.reference_definitions import Definitions, Document, Match
from signal_router.testing.reference_signals import Signal
from signal_router.testing.reference_types import CandidateInput, Limits, MarkInput, Position, ViewInput


@dataclass(frozen=True, slots=True)
class Taken:
    """A candidate as it was taken: `sequence` is its place in the order of joining."""

    sequence: int
    recorded_at: int
    signal: Signal
    match: Match

    @property
    def set_name(self) -> tuple[str, str]:
        """Which join set it belongs to."""
        return (self.match.document.id, self.match.key_text)

    @property
    def aliases(self) -> frozenset[str]:
        """The aliases of all members that its signal fits."""
        return frozenset(self.match.aliases)


@dataclass(frozen=True, slots=True)
class Pending:
    """A candidate that waits, with the deadline it got at its arrival."""

    taken: Taken
    deadline: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """An identity that has ended and must not join again until the clock is beyond `forget_at`."""

    set_name: tuple[str, str]
    identity: str
    content: str
    position: Position
    forget_at: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A candidate that ended without a trigger; `aliases` is empty where its subscription has changed its shape."""

    taken: Taken
    outcome: str
    reason: str
    aliases: tuple[str, ...]
    cause: Position | None = None


class Firing(NamedTuple):
    """A complete set: the signal bound to each alias, and the one that completed it."""

    document: Document
    bound: dict[str, Taken]
    completing: Taken


class Partition:
    """The join sets, remembered identities and the clock of one candidates partition."""

    def __init__(self, definitions: Definitions, limits: Limits) -> None:
        self._definitions = definitions
        self._limits = limits
        self._inputs: set[str] = set()
        self._announced: dict[str, int] = {}
        self._remembered: dict[tuple[tuple[str, str], str], Remembered] = {}
        self._sets: dict[tuple[str, str], list[Pending]] = {}
        self._next_due: int | None = None
        self.revision = -1
        self.ended: list[Ended] = []
        self.fired: list[Firing] = []

    @property
    def pending(self) -> list[Pending]:
        """All that is pending, in the order of joining."""
        everything = [pending for waiting in self._sets.values() for pending in waiting]
        return sorted(everything, key=lambda pending: pending.taken.sequence)

    @property
    def remembered(self) -> list[Remembered]:
        """All identities that have ended and are not forgotten yet."""
        return list(self._remembered.values())

    @property
    def clock(self) -> int | None:
        """The time up to which all inputs have been read: the smallest announced; None while one is missing."""
        if not self._inputs or self._inputs - self._announced.keys():
            return None
        return min(self._announced.values())

    @property
    def announced(self) -> dict[str, int]:
        """The largest time announced for each input; −1 where none has been."""
        return {name: self._announced.get(name, -1) for name in sorted(self._inputs)}

    def take_candidate(self, given: CandidateInput, signal: Signal, match: Match) -> None:
        """Decides on a candidate: refused, duplicate, fired, or pending, and what its arrival ends."""
        taken = Taken(given.sequence, given.recorded_at, signal, match)
        document = self._definitions.in_force(match.document.id, self.revision)
        if document is None or document.deleted or document.birth > match.document.birth:
            self._end(taken, "discarded", "deleted", refused=True)
            return
        first = self._first_copy(taken)
        if first is not None:
            reason = "repeat" if first.content == signal.content else "conflict"
            reshaped = document.join_generation > match.document.join_generation
            self._end(taken, "duplicate", reason, cause=first.position, refused=reshaped)
        elif document.join_generation > match.document.join_generation:
            self._remember(taken, document)
            self._end(taken, "superseded", "edit", refused=True)
        else:
            self._join(taken, document)

    def take_mark(self, mark: MarkInput) -> None:
        """Moves the clock, then ends what is due and forgets what may be forgotten."""
        self._inputs |= set(mark.inputs) | set(mark.announced)
        for name, time in mark.announced.items():
            self._announced[name] = max(time, self._announced.get(name, time))
        for name in mark.retired:
            self._inputs.discard(name)
            self._announced.pop(name, None)
        clock = self.clock
        if clock is None or self._next_due is None or clock <= self._next_due:
            return  # nothing is due: most marks, each of which would go through everything
        due = [pending for pending in self.pending if clock > pending.deadline]
        for pending in sorted(due, key=lambda pending: (pending.deadline, pending.taken.sequence)):
            self._end_pending(pending, "expired", "within")
        self._remembered = {name: known for name, known in self._remembered.items() if clock <= known.forget_at}
        times = [*(each.deadline for each in self.pending), *(each.forget_at for each in self.remembered)]
        self._next_due = min(times, default=None)

    def take_view(self, view: ViewInput) -> None:
        """Decides with newer definitions from here on; ends the sets of what was deleted or reshaped."""
        before, self.revision = self.revision, view.revision
        for subscription in self._definitions.ids():
            old = self._definitions.in_force(subscription, before)
            new = self._definitions.in_force(subscription, view.revision)
            if old is None or new is None or old == new:
                continue
            if new.deleted or new.birth > old.birth:
                for pending in self._pending_of(subscription):
                    self._end_pending(pending, "discarded", "deleted")
                self._remembered = {
                    name: known for name, known in self._remembered.items() if known.set_name[0] != subscription
                }
            elif new.join_generation > old.join_generation:
                for pending in self._pending_of(subscription):
                    self._end_pending(pending, "superseded", "edit")

    def _join(self, arriving: Taken, document: Document) -> None:
        latest = document.policy == "latest"
        if latest:  # only an edit fifo → latest leaves anything to end here
            self._supersede(self._waiting(arriving), None)
        waiting = [pending.taken for pending in self._waiting(arriving)]
        bound = choose(arriving, waiting, document.aliases, document.within_ms, newest_first=latest)
        if bound is not None:
            self._fire(arriving, bound, document)
            return
        if latest:
            self._supersede(self._waiting(arriving), arriving)
        deadline = arriving.recorded_at + document.within_ms
        if self._over_the_limit(arriving):
            self._remember(arriving, document)
            self._end(arriving, "discarded", "limit")
        elif self.clock is not None and self.clock > deadline:
            self._remember(arriving, document)
            self._end(arriving, "expired", "within")
        else:
            self._sets.setdefault(arriving.set_name, []).append(Pending(arriving, deadline))
            self._look_at(deadline)

    def _fire(self, arriving: Taken, bound: dict[str, Taken], document: Document) -> None:
        consumed = {taken.sequence for taken in bound.values()}
        self._keep(arriving, [each for each in self._waiting(arriving) if each.taken.sequence not in consumed])
        for taken in bound.values():
            self._remember(taken, document)
        self.fired.append(Firing(document, bound, arriving))

    def _supersede(self, waiting: Sequence[Pending], arriving: Taken | None) -> None:
        """Ends what is the newest arrival of none of its aliases, the arriving signal counted in."""
        arrivals = [pending.taken for pending in waiting] + ([] if arriving is None else [arriving])
        for pending in waiting:
            own = pending.taken
            later = [other for other in arrivals if other.sequence > own.sequence]
            newer = [other for other in later if other.aliases & own.aliases]
            if own.aliases <= union(other.aliases for other in newer):
                self._end_pending(pending, "superseded", "newer", cause=newer[-1].signal.position)

    def _over_the_limit(self, arriving: Taken) -> bool:
        """Whether one more pending would be too many, for the key, the subscription or the partition."""
        subscription = arriving.match.document.id
        limits = self._limits
        return (
            _full(limits.per_key, [self._waiting(arriving)])
            or _full(limits.per_subscription, (self._sets[name] for name in self._sets if name[0] == subscription))
            or _full(limits.per_partition, self._sets.values())
        )

    def _first_copy(self, taken: Taken) -> Remembered | None:
        """The pending or remembered candidate of the same set with the same identity."""
        identity = taken.signal.identity
        for pending in self._waiting(taken):
            first = pending.taken.signal
            if first.identity == identity:
                return Remembered(taken.set_name, identity, first.content, first.position, pending.deadline)
        return self._remembered.get((taken.set_name, identity))

    def _remember(self, taken: Taken, document: Document) -> None:
        """Remembers an identity that ends now, for the horizon in force now."""
        ended_at = taken.recorded_at if self.clock is None else max(self.clock, taken.recorded_at)
        signal, forget_at = taken.signal, ended_at + document.dedupe_ms
        self._remembered[taken.set_name, signal.identity] = Remembered(
            taken.set_name, signal.identity, signal.content, signal.position, forget_at
        )
        self._look_at(forget_at)

    def _look_at(self, due: int) -> None:
        self._next_due = due if self._next_due is None else min(due, self._next_due)

    def _end_pending(self, pending: Pending, outcome: str, reason: str, cause: Position | None = None) -> None:
        taken = pending.taken
        self._keep(taken, [other for other in self._waiting(taken) if other is not pending])
        document = self._definitions.in_force(taken.match.document.id, self.revision)
        if document is not None and not document.deleted:
            self._remember(taken, document)
        self._end(taken, outcome, reason, cause=cause)

    def _end(
        self, taken: Taken, outcome: str, reason: str, *, cause: Position | None = None, refused: bool = False
    ) -> None:
        aliases = () if refused else taken.match.aliases
        self.ended.append(Ended(taken, outcome, reason, aliases, cause))

    def _waiting(self, taken: Taken) -> list[Pending]:
        """What is pending in the set of a candidate, in the order of joining."""
        return self._sets.get(taken.set_name, [])

    def _keep(self, taken: Taken, waiting: list[Pending]) -> None:
        if waiting:
            self._sets[taken.set_name] = waiting
        else:
            self._sets.pop(taken.set_name, None)

    def _pending_of(self, subscription: str) -> list[Pending]:
        """What is pending for a subscription: sets in the order of their keys, signals in the order of joining."""
        names = sorted(name for name in self._sets if name[0] == subscription)
        return [pending for name in names for pending in self._sets[name]]


def union(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    """All that is in any of the parts."""
    return frozenset().union(*parts)


def _full(limit: int | None, sets: Iterable[Sequence[Pending]]) -> bool:
    """Whether as many signals are pending in these sets as a limit allows."""
    return limit is not None and sum(len(waiting) for waiting in sets) >= limit
