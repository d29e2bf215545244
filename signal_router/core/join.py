"""The join: decides what becomes of each candidate, and what ends when time passes or a definition changes.

One `Joiner` decides for one candidates partition. Its inputs are numbered: a candidate, a mark, a change of the definitions in
force; the same inputs in the same order give the same decisions. Before any input the work that earlier ones left (what is
due, sets of an edited subscription) is finished; `work` does it piece by piece, so that a transaction stays bounded.

    input       state of the identity / set           → outcome (reason)
    candidate   subscription deleted or reborn        → discarded (deleted)
                older join generation                 → superseded (edit)
                identity pending or remembered        → duplicate (repeat | conflict)
                completes a set                       → fired, with the signals it is bound to
                policy latest                         → pending; superseded (newer): what is newest for no alias any more
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
from typing import Protocol

import msgspec

from signal_router.core.join_sets import OpenSet
from signal_router.core.selection import choose
from signal_router.core.tables import Change, Due, Life, Pending, Progress, Table
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
        """The subscription in force; None if its last document deletes it. Raises `KeyError` where there never was one."""

    def changed_since(self, revision: int) -> Iterable[str]:
        """The ids whose documents came after a revision."""

    def birth(self, subscription: str) -> int:
        """The birth that the last document of an id carries, a delete's too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most signals that may be pending for one key, for one subscription in a partition, and in a partition."""

    per_key: int = 100_000
    per_subscription: int = 2_000_000
    per_partition: int = 20_000_000


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A candidate that ended without a trigger. `aliases` names the members it fitted; `cause` is the first copy's or the newer signal's position."""

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


Decision = Ended | Fired | Waiting


class Joiner:
    """Decides for one candidates partition, reading and writing its table. A table whose writes were undone needs a new one."""

    def __init__(self, table: Table, definitions: Definitions, limits: Limits) -> None:
        self._table = table
        self._definitions = definitions
        self._limits = limits
        self._swept = ("", "")

    def candidate(self, sequence: int, candidate: Candidate) -> list[Decision]:
        """Decides on a candidate. Raises `StateError` if its subscription is unknown or the definitions are older than it."""
        subscription = self._in_force(candidate)
        if subscription is None or subscription.birth > candidate.birth:
            return [_refused(candidate, sequence, Outcome.DISCARDED, Reason.DELETED)]
        join_set = OpenSet(self._table, candidate.subscription, candidate.key)
        clock = self._table.progress().clock
        signal = candidate.signal
        known = join_set.find(signal.identity)
        if known is not None:
            digest, first = known
            reason = Reason.REPEAT if digest == signal.digest else Reason.CONFLICT
            cause = Position(first.topic, first.partition, first.offset)
            arriving = _arriving(candidate, sequence, 0)
            return [self._ended(subscription, candidate.key, arriving, Outcome.DUPLICATE, reason, cause)]
        self._begin_life(subscription)
        if subscription.join_generation > candidate.join_generation:
            join_set.remember(signal, _forget_at(signal, subscription, clock))
            join_set.save()
            return [_refused(candidate, sequence, Outcome.SUPERSEDED, Reason.EDIT)]
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
        """Takes the definitions as they are now: sets of deleted or reshaped subscriptions must end. That is `work`."""
        progress = self._table.progress()
        changes = [
            change
            for subscription in sorted(set(self._definitions.changed_since(progress.revision)))
            if (change := self._change(subscription)) is not None
        ]
        self._table.put_progress(Progress(self._definitions.revision, tuple(changes), progress.announced))

    @property
    def behind(self) -> bool:
        """Whether the definitions in force are newer than the ones this partition last decided with."""
        return self._definitions.revision > self._table.progress().revision

    def work(self) -> Iterator[Decision]:
        """Finishes what earlier inputs left, one decision at a time; may be given up and begun anew at any point."""
        progress = self._table.progress()
        while progress.changes:
            change = progress.changes[0]
            yield from self._carry_out(change, progress.clock)
            progress = Progress(progress.revision, progress.changes[1:], progress.announced)
            self._table.put_progress(progress)
        if progress.clock >= 0:
            for due in self._table.due(progress.clock):
                yield from self._end_due(due, progress.clock)

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
            self._table.put_life(subscription.id, _life(subscription))

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
        if self._over_limit(join_set, subscription):
            join_set.remember(arriving.signal, _forget_at(arriving.signal, subscription, clock))
            return [*decisions, self._ended(subscription, key, arriving, Outcome.DISCARDED, Reason.LIMIT)]
        if arriving.deadline < clock:
            join_set.remember(arriving.signal, _forget_at(arriving.signal, subscription, clock))
            return [*decisions, self._ended(subscription, key, arriving, Outcome.EXPIRED, Reason.WITHIN)]
        join_set.add(arriving)
        self._count(subscription.id, 1)
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
            self._count(subscription.id, 1 - len(members))

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
            self._count(subscription.id, -1)
            cause = next(other.signal.position for other in newest if other.aliases & pending.aliases)
            yield self._ended(subscription, key, pending, Outcome.SUPERSEDED, Reason.NEWER, cause)

    def _over_limit(self, join_set: OpenSet, subscription: Subscription) -> bool:
        limits = self._limits
        return (
            join_set.pending_count >= limits.per_key
            or self._table.pending_count(subscription.id) >= limits.per_subscription
            or self._table.pending_count("") >= limits.per_partition
        )

    def _count(self, subscription: str, by: int) -> None:
        table = self._table
        table.put_pending_count(subscription, table.pending_count(subscription) + by)
        table.put_pending_count("", table.pending_count("") + by)

    def _change(self, subscription: str) -> Change | None:
        """What the present document of an id asks of the sets here; None if they may stay as they are."""
        life = self._table.life(subscription)
        if life is None:
            return None
        now = self._definitions.find(subscription)
        if now is None or now.birth > life.birth:
            return Change(subscription, now is None, _life(now) if now is not None else life)
        if now.join_generation > life.join_generation:
            return Change(subscription, False, _life(now))
        return None

    def _carry_out(self, change: Change, clock: int) -> Iterator[Decision]:
        table = self._table
        life = table.life(change.subscription)
        if life is None:
            return
        reborn = change.deleted or change.life.birth > life.birth
        outcome, reason = (Outcome.DISCARDED, Reason.DELETED) if reborn else (Outcome.SUPERSEDED, Reason.EDIT)
        now = None if reborn else self._definitions.find(change.subscription)
        after = self._swept[1] if self._swept[0] == change.subscription else ""
        for key in table.keys_of(change.subscription, after):
            join_set = OpenSet(table, change.subscription, key)
            for pending in join_set.all_arrivals():
                if now is None:
                    join_set.drop(pending)
                else:
                    join_set.end(pending, _forget_at(pending.signal, now, clock))
                join_set.save()
                self._count(change.subscription, -1)
                yield Ended(
                    change.subscription,
                    key,
                    _names(life.aliases, pending.aliases),
                    pending.sequence,
                    pending.signal,
                    outcome,
                    reason,
                )
            if reborn:
                join_set.forget_all()
                join_set.save()
            self._swept = (change.subscription, key)
        self._swept = ("", "")
        table.put_life(change.subscription, None if reborn else change.life)

    def _end_due(self, due: Due, clock: int) -> Iterator[Decision]:
        self._table.drop_due(due)
        if due.kind == 2:
            self._forget(due)
            return
        join_set = OpenSet(self._table, due.subscription, due.key)
        if due.kind == 1:
            pending = self._table.queued(due.subscription, due.key, due.aliases, due.index)
            overdue = [] if pending is None or pending.deadline != due.at else [pending]
        elif join_set.due != due.at:
            return
        else:
            join_set.left_index()
            overdue = join_set.overdue(clock)
            join_set.forget_before(clock)
        subscription = self._definitions.find(due.subscription) if overdue else None
        dedupe_ms = subscription.dedupe_ms if subscription is not None else 0
        for pending in overdue:
            join_set.end(pending, max(clock, pending.signal.recorded_at) + dedupe_ms)
            self._count(due.subscription, -1)
        join_set.save()
        life = self._table.life(due.subscription)
        names = life.aliases if life is not None else ()
        for pending in overdue:
            yield Ended(
                due.subscription,
                due.key,
                _names(names, pending.aliases),
                pending.sequence,
                pending.signal,
                Outcome.EXPIRED,
                Reason.WITHIN,
            )

    def _forget(self, due: Due) -> None:
        noted = self._table.noted(due.subscription, due.key, due.identity)
        if noted is None or noted.forget_at != due.at:
            return
        join_set = OpenSet(self._table, due.subscription, due.key)
        join_set.forget_noted(due.identity)
        join_set.save()

    @staticmethod
    def _ended(
        subscription: Subscription,
        key: str,
        pending: Pending,
        outcome: Outcome,
        reason: Reason,
        cause: Position | None = None,
    ) -> Ended:
        names = tuple(member.alias for bit, member in enumerate(subscription.members) if pending.aliases >> bit & 1)
        return Ended(subscription.id, key, names, pending.sequence, pending.signal, outcome, reason, cause)


def _refused(candidate: Candidate, sequence: int, outcome: Outcome, reason: Reason) -> Ended:
    """Ends a candidate of a shape that is no longer in force; its aliases may mean something else by now, so none is named."""
    return Ended(candidate.subscription, candidate.key, (), sequence, candidate.signal, outcome, reason)


def _arriving(candidate: Candidate, sequence: int, within_ms: int) -> Pending:
    return Pending(sequence, candidate.aliases, candidate.signal.recorded_at + within_ms, candidate.signal)


def _forget_at(signal: SignalCopy, subscription: Subscription, clock: int) -> int:
    return max(clock, signal.recorded_at) + subscription.dedupe_ms


def _life(subscription: Subscription) -> Life:
    aliases = tuple(member.alias for member in subscription.members)
    return Life(subscription.birth, subscription.join_generation, subscription.revision, aliases)


def _names(aliases: tuple[str, ...], mask: int) -> tuple[str, ...]:
    return tuple(alias for bit, alias in enumerate(aliases) if mask >> bit & 1)
