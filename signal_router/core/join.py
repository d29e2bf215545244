"""The join: decides what becomes of each candidate, and what ends when time passes or a definition changes.

One `Joiner` decides for one candidates partition. Its inputs are numbered: a candidate, a mark, a change of the
definitions in force; the same inputs in the same order give the same decisions. Before any input the work that earlier
ones left (what is due, sets of an edited subscription) is finished; `work` does it piece by piece, so that a
transaction stays bounded.

    input       state of the identity / set           → outcome (reason)
    candidate   subscription deleted or reborn        → discarded (deleted)
                identity pending or remembered        → duplicate (repeat | conflict)
                older join generation                 → superseded (edit)
                completes a set                       → fired, with the signals it is bound to
                policy latest                         → pending; superseded (newer): what is newest for no alias now
                too many pending                      → discarded (limit)
                deadline before the clock             → expired (within)
                otherwise                             → pending
    mark        deadline before the clock             → expired (within)
                forget time before the clock          → forgotten
    view        deleted or reborn                     → discarded (deleted), identities forgotten
                newer join generation                 → superseded (edit), identities kept
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgspec

from signal_router.core.join_sets import OpenSet, arrived_in_head, fired_in_head
from signal_router.core.selection import UNCLEAR, choose, choose_in_head
from signal_router.core.tables import (
    NOTED_DUE,
    QUEUED_DUE,
    Change,
    Due,
    Life,
    Pending,
    Progress,
    Remembered,
    Table,
)
from signal_router.errors import StateError
from signal_router.model.candidates import Candidate, Mark, SignalCopy
from signal_router.model.outcomes import Outcome, Reason
from signal_router.model.signals import Position
from signal_router.model.subscriptions import Policy, Subscription


class Definitions(Protocol):
    """The subscriptions in force, as of a revision."""

    @property
    def revision(self) -> int:
        """The offset of the newest document seen."""

    def find(self, subscription: str) -> Subscription | None:
        """The subscription in force; None if its last document deletes it. Raises `KeyError` where none ever was."""

    def changed_since(self, revision: int) -> Iterable[str]:
        """The ids whose documents came after a revision."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most signals that may be pending for one key, for one subscription in a partition, and in a partition."""

    per_key: int = 100_000
    per_subscription: int = 2_000_000
    per_partition: int = 20_000_000


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A candidate that ended without a trigger.

    `aliases` names the members it fitted (none, where it was matched under a shape no longer in force); `cause` is the
    position of the first copy or of the newer signal.
    """

    subscription: str
    key: str
    aliases: tuple[str, ...]
    sequence: int
    signal: SignalCopy
    outcome: Outcome
    reason: Reason
    cause: Position | None = None


class Fired(msgspec.Struct, frozen=True, gc=False):
    """A complete set: `members` in the aliases' order of declaration, `completing` the one that arrived last."""

    subscription: Subscription
    key: str
    members: tuple[Pending, ...]
    completing: Pending


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A candidate that waits for its set."""

    subscription: str
    key: str
    pending: Pending


class Chore(msgspec.Struct, frozen=True, gc=False):
    """A piece of work that ended no candidate, such as forgetting an identity: a place to stop."""

    subscription: str


Decision: TypeAlias = Ended | Fired | Waiting | Chore


class Joiner:
    """Decides for one candidates partition. All that it knows stands in its table."""

    def __init__(self, table: Table, definitions: Definitions, limits: Limits) -> None:
        self._table = table
        self._definitions = definitions
        self._limits = limits
        self._clock_of: Progress | None = None
        self._clock = -1

    def candidate(self, sequence: int, candidate: Candidate) -> list[Decision]:
        """Decides on a candidate. Raises `StateError` if its subscription is unknown or newer than the definitions."""
        subscription = self._in_force(candidate)
        if subscription is None or subscription.birth > candidate.birth:
            return [_refused(candidate, sequence, _DELETED)]
        decision = self._in_head(subscription, sequence, candidate)
        if decision is not None:
            return [decision]
        clock = self._now()
        join_set = OpenSet(self._table, candidate.subscription, candidate.key)
        signal = candidate.signal
        known = join_set.find(signal.identity)
        if known is not None:
            return [_duplicate(candidate, sequence, subscription, known)]
        self._begin_life(subscription)
        if subscription.join_generation > candidate.join_generation:
            join_set.remember(signal, _forget_at(signal, subscription, clock))
            join_set.save()
            return [_refused(candidate, sequence, _EDIT)]
        decisions = self._join(
            join_set, subscription, candidate.key, _arriving(candidate, sequence, subscription.within_ms), clock
        )
        join_set.save()
        return decisions

    def mark(self, mark: Mark) -> None:
        """Takes a mark: the clock may move. What is due then is `work`."""
        progress = self._table.progress()
        announced = dict(progress.announced)
        for name in mark.inputs:
            announced.setdefault(name, -1)
        for name, time in mark.announced.items():
            if time > announced.get(name, -1):
                announced[name] = time
        for name in mark.retired:
            announced.pop(name, None)
        self._table.put_progress(Progress(progress.revision, progress.changes, announced))

    def change_view(self) -> None:
        """Takes the definitions as they are now: sets of deleted or reshaped subscriptions must end. That is `work`.

        Raises `StateError` where the work of the last change is not finished.
        """
        progress = self._table.progress()
        if progress.changes:
            raise StateError(f"the definitions of revision {progress.revision} are still being carried out")
        # An empty table has no sets that could change; a million subscriptions need not be looked at.
        changed = self._definitions.changed_since(progress.revision) if progress.revision >= 0 else ()
        changes = [
            change for subscription in sorted(set(changed)) if (change := self._change(subscription)) is not None
        ]
        self._table.put_progress(Progress(self._definitions.revision, tuple(changes), progress.announced))

    @property
    def behind(self) -> bool:
        """Whether the definitions in force are newer than the ones this partition last decided with."""
        return self._definitions.revision > self._table.progress().revision

    def work(self) -> Iterator[Decision]:
        """Finishes what earlier inputs left, piece by piece; may be given up and begun anew at any point."""
        table = self._table
        while (progress := table.progress()).changes:
            yield from self._carry_out(progress)
        clock = self._now()
        if clock >= 0:
            for due in table.due(clock):
                yield from self._end_due(due, clock)

    def _now(self) -> int:
        progress = self._table.progress()
        if progress is not self._clock_of:
            self._clock_of, self._clock = progress, progress.clock
        return self._clock

    def _in_force(self, candidate: Candidate) -> Subscription | None:
        definitions = self._definitions
        if candidate.revision > definitions.revision:
            raise StateError(
                f"a candidate of revision {candidate.revision} met definitions of revision {definitions.revision}"
            )
        try:
            return definitions.find(candidate.subscription)
        except KeyError:
            raise StateError(
                f'subscription "{candidate.subscription}" of a candidate is not on the definitions topic',
                hint="signal-router subscriptions list; was the definitions topic emptied or re-created?",
            ) from None

    def _begin_life(self, subscription: Subscription) -> None:
        if self._table.life(subscription.id) is None:
            self._table.put_life(subscription.id, _life_of(subscription))

    def _in_head(  # noqa: PLR0911, PLR0912 - the whole common case in one place, as each call costs what it saves
        self, subscription: Subscription, sequence: int, candidate: Candidate
    ) -> Fired | Waiting | None:
        """Decides where the set is only a head, policy fifo, and nothing but "fired" or "pending" can be the outcome.

        That is so nearly always, and takes half to two thirds of the time of the general way below, which decides the
        same; None where that one has to.
        """
        key, signal, aliases = candidate.key, candidate.signal, candidate.aliases
        if (
            aliases & (aliases - 1)
            or subscription.policy is not _FIFO
            or subscription.join_generation != candidate.join_generation
        ):
            return None
        table, identifier, count = self._table, subscription.id, len(subscription.members)
        head = table.join_set(identifier, key)
        arriving = Pending(sequence, aliases, signal.recorded_at + subscription.within_ms, signal)
        pending: tuple[Pending, ...] = ()
        members: tuple[Pending, ...] | None = None
        due = 0
        if head is not None:
            if head.queued or head.noted:
                return None
            pending, due, identity = head.pending, head.due, signal.identity
            for one in pending:
                if one.signal.identity == identity:
                    return None
            for remembered in head.remembered:
                if remembered.identity == identity:
                    return None
            if pending and count > 1:
                members = choose_in_head(pending, arriving, count, subscription.within_ms, newest_first=False)
                if members is UNCLEAR:
                    return None
        if count == 1:
            members = (arriving,)
        if members is not None:
            changed = fired_in_head(head, members, self._now(), subscription.dedupe_ms)
        elif arriving.deadline < self._now() or self._full(identifier, len(pending)):
            return None
        else:
            changed = arrived_in_head(head, arriving)
        if changed is None:
            return None
        if head is None and table.life(identifier) is None:  # where there is a set there is a life
            table.put_life(identifier, _life_of(subscription))
        table.replace_join_set(identifier, key, due, changed)
        if members is None:
            table.add_pending(identifier, 1)
            return Waiting(identifier, key, arriving)
        if count > 1:
            table.add_pending(identifier, 1 - count)
        return Fired(subscription, key, members, arriving)

    def _join(
        self, join_set: OpenSet, subscription: Subscription, key: str, arriving: Pending, clock: int
    ) -> list[Decision]:
        decisions: list[Decision] = []
        latest = subscription.policy is Policy.LATEST
        if latest:
            # A set from before an edit fifo → latest may hold more than the newest of each alias.
            decisions.extend(self._supersede(join_set, subscription, key, None, clock))
        members = choose(join_set, arriving, subscription)
        if members is not None:
            self._fire(join_set, subscription, members, arriving, clock)
            return [*decisions, Fired(subscription, key, members, arriving)]
        if latest:
            decisions.extend(self._supersede(join_set, subscription, key, arriving, clock))
        if self._full(subscription.id, join_set.pending_count):
            join_set.remember(arriving.signal, _forget_at(arriving.signal, subscription, clock))
            return [*decisions, _ended(subscription.id, key, _aliases(subscription), arriving, _LIMIT)]
        if arriving.deadline < clock:
            join_set.remember(arriving.signal, _forget_at(arriving.signal, subscription, clock))
            return [*decisions, _ended(subscription.id, key, _aliases(subscription), arriving, _WITHIN)]
        join_set.add(arriving)
        self._table.add_pending(subscription.id, 1)
        return [*decisions, Waiting(subscription.id, key, arriving)]

    def _fire(
        self, join_set: OpenSet, subscription: Subscription, members: tuple[Pending, ...], arriving: Pending, clock: int
    ) -> None:
        for member in members:
            forget_at = _forget_at(member.signal, subscription, clock)
            if member is arriving:
                join_set.remember(member.signal, forget_at)
            else:
                join_set.end(member, forget_at)
        if len(members) > 1:
            self._table.add_pending(subscription.id, 1 - len(members))

    def _supersede(
        self, join_set: OpenSet, subscription: Subscription, key: str, arriving: Pending | None, clock: int
    ) -> Iterator[Ended]:
        """Ends what is the newest arrival for no alias; the cause is the newest one that shares an alias."""
        newest = [] if arriving is None else [arriving]
        covered = 0 if arriving is None else arriving.aliases
        for pending in join_set.all_arrivals(newest_first=True):
            if pending.aliases & ~covered:
                covered |= pending.aliases
                newest.append(pending)
                continue
            join_set.end(pending, _forget_at(pending.signal, subscription, clock))
            self._table.add_pending(subscription.id, -1)
            cause = next(other.signal.position for other in newest if other.aliases & pending.aliases)
            yield _ended(subscription.id, key, _aliases(subscription), pending, _NEWER, cause=cause)

    def _full(self, subscription: str, pending_for_key: int) -> bool:
        limits, table = self._limits, self._table
        return (
            pending_for_key >= limits.per_key
            or table.pending_count(subscription) >= limits.per_subscription
            or table.pending_count("") >= limits.per_partition
        )

    def _change(self, subscription: str) -> Change | None:
        """What the present document of an id asks of the sets here; None if they may stay as they are."""
        life = self._table.life(subscription)
        if life is None:
            return None
        now = self._definitions.find(subscription)
        if now is None:
            return Change(subscription, True, life)
        present = _life_of(now)
        if present.birth > life.birth or present.join_generation > life.join_generation:
            return Change(subscription, False, present)
        if present != life:
            self._table.put_life(subscription, present)
        return None

    def _carry_out(self, progress: Progress) -> Iterator[Decision]:
        """Ends the sets of the first changed subscription, and notes each key that is done with."""
        table, (change, *others), clock = self._table, progress.changes, progress.clock
        subscription = change.subscription
        life = self._life(subscription)
        reborn = change.deleted or change.life.birth > life.birth
        for key in table.keys_of(subscription, change.swept):
            join_set = OpenSet(table, subscription, key)
            for pending in join_set.all_arrivals():
                if reborn:
                    join_set.drop(pending)
                else:
                    join_set.end(pending, max(clock, pending.signal.recorded_at) + change.life.dedupe_ms)
                join_set.save()
                self._table.add_pending(subscription, -1)
                yield _ended(subscription, key, life.aliases, pending, _DELETED if reborn else _EDIT)
            if reborn:
                for _ in join_set.forget_all():
                    yield Chore(subscription)
            swept = Change(subscription, change.deleted, change.life, key)
            table.put_progress(Progress(progress.revision, (swept, *others), progress.announced))
            yield Chore(subscription)
        table.put_life(subscription, None if reborn else change.life)
        table.put_progress(Progress(progress.revision, tuple(others), progress.announced))

    def _end_due(self, due: Due, clock: int) -> Iterator[Decision]:
        table = self._table
        if due.kind == NOTED_DUE:
            noted = table.noted(due.subscription, due.key, due.identity)
            if noted is None or noted.forget_at != due.at:
                table.drop_due(due)
                return
            join_set = OpenSet(table, due.subscription, due.key)
            join_set.forget_noted(noted)
            join_set.save()
            yield Chore(due.subscription)
        elif due.kind == QUEUED_DUE:
            pending = table.queued(due.subscription, due.key, due.aliases, due.place)
            if pending is None or pending.deadline != due.at:
                table.drop_due(due)
                return
            yield self._expire(OpenSet(table, due.subscription, due.key), due, pending, clock)
        else:
            yield from self._look_at_set(due, clock)

    def _look_at_set(self, due: Due, clock: int) -> Iterator[Decision]:
        join_set = OpenSet(self._table, due.subscription, due.key)
        if join_set.due != due.at:
            self._table.drop_due(due)
            return
        for pending in join_set.overdue(clock):
            yield self._expire(join_set, due, pending, clock)
        join_set.forget_before(clock)
        join_set.leave_index()
        join_set.save()
        yield Chore(due.subscription)

    def _expire(self, join_set: OpenSet, due: Due, pending: Pending, clock: int) -> Ended:
        life = self._life(due.subscription)
        join_set.end(pending, clock + life.dedupe_ms)  # its deadline, so its own time too, lies before the clock
        join_set.save()
        self._table.add_pending(due.subscription, -1)
        return _ended(due.subscription, due.key, life.aliases, pending, _WITHIN)

    def _life(self, subscription: str) -> Life:
        life = self._table.life(subscription)
        if life is None:
            raise StateError(f'sets of subscription "{subscription}" are here, but not which shape of it they have')
        return life


_FIFO = Policy.FIFO
_Why: TypeAlias = tuple[Outcome, Reason]
_DELETED = (Outcome.DISCARDED, Reason.DELETED)
_LIMIT = (Outcome.DISCARDED, Reason.LIMIT)
_EDIT = (Outcome.SUPERSEDED, Reason.EDIT)
_NEWER = (Outcome.SUPERSEDED, Reason.NEWER)
_WITHIN = (Outcome.EXPIRED, Reason.WITHIN)


def _ended(
    subscription: str, key: str, aliases: tuple[str, ...], pending: Pending, why: _Why, *, cause: Position | None = None
) -> Ended:
    fitting = _chosen(aliases, pending.aliases)
    return Ended(subscription, key, fitting, pending.sequence, pending.signal, *why, cause)


def _duplicate(
    candidate: Candidate, sequence: int, subscription: Subscription, known: tuple[bytes, SignalCopy | Remembered]
) -> Ended:
    digest, first = known
    signal = candidate.signal
    # Under another shape the bits of the mask may mean other aliases, so none is named.
    mask = candidate.aliases if candidate.join_generation == subscription.join_generation else 0
    return Ended(
        candidate.subscription,
        candidate.key,
        _chosen(_aliases(subscription), mask),
        sequence,
        signal,
        Outcome.DUPLICATE,
        Reason.REPEAT if digest == signal.digest else Reason.CONFLICT,
        Position(first.topic, first.partition, first.offset),
    )


def _refused(candidate: Candidate, sequence: int, why: _Why) -> Ended:
    """Ends a candidate of a shape that is no longer in force; its aliases may mean something else, so none is named."""
    return Ended(candidate.subscription, candidate.key, (), sequence, candidate.signal, *why)


def _arriving(candidate: Candidate, sequence: int, within_ms: int) -> Pending:
    return Pending(sequence, candidate.aliases, candidate.signal.recorded_at + within_ms, candidate.signal)


def _forget_at(signal: SignalCopy, subscription: Subscription, clock: int) -> int:
    return max(clock, signal.recorded_at) + subscription.dedupe_ms


def _life_of(subscription: Subscription) -> Life:
    return Life(
        subscription.birth,
        subscription.join_generation,
        subscription.revision,
        _aliases(subscription),
        subscription.dedupe_ms,
    )


def _aliases(subscription: Subscription) -> tuple[str, ...]:
    return tuple(member.alias for member in subscription.members)


def _chosen(aliases: tuple[str, ...], mask: int) -> tuple[str, ...]:
    return tuple(alias for bit, alias in enumerate(aliases) if mask >> bit & 1)
