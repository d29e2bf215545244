"""The match index: which subscriptions a signal is for, without looking at all of them.

Members are kept by signal name. Under a name each is *posted* under one access path (see `access`): under the rarest
value it asks for if it has an `=` or `in`, else under a prefix, an interval, or the presence of a parameter; what only
says `exists: false`, or nothing, is looked at for every signal of the name. A posting list that grows beyond a few
entries becomes a node of its own, which posts the same members again under the rest of their predicates. So a signal
visits about as many members as it matches, however many there are, and what it visits is checked in full.

After Le Subscribe (Fabret and others, SIGMOD 2001: cluster by access predicate, verify the rest) and the BE-tree
(Sadoghi and Jacobsen, SIGMOD 2011: split a cluster by the next predicate). Results never depend on where a member is
posted.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from signal_router.core.access import Access, ByInterval, ByPrefix, ByValues, access_paths
from signal_router.core.join_keys import JoinPlan
from signal_router.core.posting_nodes import Entry, Node
from signal_router.core.predicates import Check, Fields, fields_of
from signal_router.model.matches import Match
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import JoinParameter, Member, Operator, Subscription


class IndexStats(NamedTuple):
    """What the index holds and what it has done since it was made.

    Members by how they are found: `valued` by a value, `ranged` by an interval or a prefix, `present` by the presence
    of a parameter they compare or name, `unconditional` for every signal of their name. `negation_only` counts those,
    among the last two, that have predicates and only exclude. `visited` entries were checked for `signals` matched.
    """

    subscriptions: int
    members: int
    valued: int
    ranged: int
    present: int
    unconditional: int
    negation_only: int
    signals: int
    visited: int
    matched: int


class MatchIndex:
    """All subscriptions in force. Matching is pure: it depends on the subscriptions and the signal only.

    Edits cost microseconds, whatever its size, and are seen by the next match.
    """

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._plans: WeakValueDictionary[tuple[JoinParameter, ...], JoinPlan] = WeakValueDictionary()
        self._kinds: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._signals = self._visited = self._matched = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, subscription_id: object) -> bool:
        return subscription_id in self._entries

    def get(self, subscription_id: str) -> Subscription | None:
        """Gives a subscription in force."""
        entries = self._entries.get(subscription_id)
        return entries[0].subscription if entries else None

    def add(self, subscription: Subscription) -> None:
        """Puts a subscription in force, in place of the one with the same id."""
        self.remove(subscription.id)
        entries = tuple(
            Entry(subscription, member, 1 << position, self._plan(subscription, member))
            for position, member in enumerate(subscription.members)
        )
        self._entries[subscription.id] = entries
        for entry in entries:
            paths = access_paths(entry.member)
            name = self._names.get(entry.member.signal)
            if name is None:
                name = self._names[entry.member.signal] = _Name()
            name.add(entry, paths)
            self._kinds.update(_kinds(entry.member, paths))

    def remove(self, subscription_id: str) -> None:
        """Takes a subscription out; does nothing where there is none."""
        for entry in self._entries.pop(subscription_id, ()):
            name = self._names[entry.member.signal]
            name.remove(entry)
            if not name.root.count:
                del self._names[entry.member.signal]
            self._kinds.subtract(_kinds(entry.member, access_paths(entry.member)))

    def match(self, signal: Signal) -> list[Match]:
        """Gives the subscriptions a signal is for, one match per join key, ordered by subscription id and key text."""
        self._signals += 1
        name = self._names.get(signal.name)
        if name is None:
            return []
        fields = fields_of(signal) if name.context_members else signal.params
        visited: list[Entry] = []
        name.root.visit(fields, visited)
        self._visited += len(visited)
        found = self._only(visited[0], fields) if len(visited) == 1 else self._checked(visited, fields)
        self._matched += len(found)
        return found

    def take_refusals(self) -> dict[str, int]:
        """Gives, and forgets, by subscription how often a signal fitted a member but gave no join key."""
        refusals, self._refusals = self._refusals, Counter()
        return dict(refusals)

    def stats(self) -> IndexStats:
        """Counts what the index holds and has done."""
        kinds = self._kinds
        return IndexStats(
            len(self._entries),
            kinds["members"],
            kinds["valued"],
            kinds["ranged"],
            kinds["present"],
            kinds["unconditional"],
            kinds["negation_only"],
            self._signals,
            self._visited,
            self._matched,
        )

    def _plan(self, subscription: Subscription, member: Member) -> JoinPlan | None:
        if subscription.by_identity:
            return None
        plan = self._plans.get(member.join)
        if plan is None:
            plan = self._plans[member.join] = JoinPlan(member.join)
        return plan

    def _only(self, entry: Entry, fields: Fields) -> list[Match]:
        """Does what `_checked` does, where a signal visits one entry, as most do."""
        check = entry.check
        if check is not None and not check(fields):
            return []
        plan = entry.plan
        key_text = "" if plan is None else plan.key_text(fields)
        if key_text is None:
            self._refusals[entry.subscription.id] += 1
            return []
        return [Match(entry.subscription, key_text, entry.bit)]

    def _checked(self, visited: list[Entry], fields: Fields) -> list[Match]:
        found: list[_Found] = []
        last_plan: JoinPlan | None = None
        key_text: str | None = ""
        last_check: Check | None = None
        holds = True
        for entry in visited:
            # What a signal visits mostly shares its checks and its join: each is asked once in a row.
            check = entry.check
            if check is not last_check:
                last_check = check
                holds = check is None or check(fields)
            if not holds:
                continue
            plan = entry.plan
            if plan is not last_plan:
                last_plan = plan
                key_text = "" if plan is None else plan.key_text(fields)
            subscription = entry.subscription
            if key_text is None:
                self._refusals[subscription.id] += 1
            else:
                found.append((subscription.id, key_text, subscription, entry.bit))
        return _matches(found)


_Found: TypeAlias = tuple[str, str, Subscription, int]
"""Id, key text, subscription, bit: compares without comparing subscriptions, as equal ids hold the same one."""


def _matches(found: list[_Found]) -> list[Match]:
    """Orders what was found and makes one match of what several members of a subscription gave for one join key."""
    if len(found) > 1:
        found.sort()
    matches: list[Match] = []
    last: Subscription | None = None
    last_key, mask = "", 0
    for _, key_text, subscription, bit in found:
        if subscription is last and key_text == last_key:
            mask |= bit
            matches[-1] = Match(subscription, key_text, mask)
        else:
            last, last_key, mask = subscription, key_text, bit
            matches.append(Match(subscription, key_text, bit))
    return matches


def _kinds(member: Member, paths: tuple[Access, ...]) -> list[str]:
    if not paths:
        return ["members", "unconditional", *["negation_only"] * bool(member.predicates)]
    best = paths[0]
    if isinstance(best, ByValues):
        return ["members", "valued"]
    if isinstance(best, ByInterval | ByPrefix):
        return ["members", "ranged"]
    asked = any(each.operator is Operator.EXISTS and each.operand is True for each in member.predicates)
    return ["members", "present", *["negation_only"] * (not asked)]


class _Name:
    """The members that ask for signals of one name; `context_members` says how many of them read a context."""

    __slots__ = ("context_members", "root")

    def __init__(self) -> None:
        self.root = Node(frozenset())
        self.context_members = 0

    def add(self, entry: Entry, paths: tuple[Access, ...]) -> None:
        self.context_members += _reads_context(entry.member)
        self.root.add(entry, paths)

    def remove(self, entry: Entry) -> None:
        self.context_members -= _reads_context(entry.member)
        self.root.remove(entry)


def _reads_context(member: Member) -> bool:
    compared = [each.parameter for each in member.predicates]
    joined = [each.parameter for each in member.join]
    return any(parameter.startswith("$") for parameter in compared + joined)
