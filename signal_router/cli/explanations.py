"""How `subscriptions test` tells what a subscription makes of a signal, predicate by predicate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from signal_router.cli.tested_signals import FileSignal
from signal_router.core.explain import Explanation, JoinExplanation, MemberExplanation, PredicateExplanation, explain
from signal_router.core.index import MatchIndex
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import Subscription


@dataclass(frozen=True, slots=True)
class Told:
    """One signal: what each member makes of it, and the join keys (as canonical JSON) it is a candidate for."""

    where: str
    signal: Signal | None
    refusal: str | None
    explanation: Explanation | None
    join_keys: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether it becomes a candidate."""
        return self.explanation is not None and self.explanation.matches


def tell_all(subscription: Subscription, signals: list[FileSignal]) -> Iterator[Told]:
    """Explains every signal; the join keys come from the index itself, so that nothing is told twice differently."""
    index = MatchIndex()
    index.add(subscription)
    for each in signals:
        if each.signal is None:
            refusal = "a null value is a tombstone" if each.refusal is None else _refusal(each)
            yield Told(each.where, None, refusal, None, ())
            continue
        keys = () if subscription.by_identity else tuple(match.key_text for match in index.match(each.signal))
        yield Told(each.where, each.signal, None, explain(subscription, each.signal), keys)


def _refusal(each: FileSignal) -> str:
    return "" if each.refusal is None else f"{each.refusal.message} (reason {each.refusal.reason})"


def lines(told: Told) -> Iterator[str]:
    """The text for people."""
    if told.explanation is None or told.signal is None:
        yield f"{told.where}: no signal, it would become a dead letter: {told.refusal}"
        return
    identity = "" if told.signal.id is None else f" (source {told.signal.source}, id {told.signal.id})"
    yield f"{told.where}: {told.signal.name}{identity}"
    width = max(len(member.alias) for member in told.explanation.members)
    for member in told.explanation.members:
        yield f"  {member.alias:<{width}}  {_verdict(member)}"
        yield from (f"    {_mark(each.holds)} {_predicate(each)}" for each in member.predicates)
        yield from (f"    {_mark(not each.reason)} join {each.text}" for each in member.join)
    yield f"  {_result(told)}"


def _verdict(member: MemberExplanation) -> str:
    if not member.name_fits:
        return f"other signal: it asks for {member.signal}"
    if member.matches:
        return "matches"
    return "no match: " + {"predicate": "a predicate does not hold", "join": "no join key"}[member.reason]


def _mark(holds: bool) -> str:  # noqa: FBT001
    return "ok" if holds else "NO"


def _predicate(each: PredicateExplanation) -> str:
    return f"{each.text} (the trigger template needs it)" if each.from_template else each.text


def _result(told: Told) -> str:
    if not told.matches:
        return "result: no match"
    keys = " and ".join(told.join_keys)
    return f"result: a candidate for join key {keys}" if keys else "result: matches, and fires by itself"


def as_row(told: Told) -> dict[str, object]:
    """The same for programs."""
    return {
        "where": told.where,
        "signal": None if told.signal is None else told.signal.name,
        "refusal": told.refusal,
        "matches": told.matches,
        "join_keys": list(told.join_keys),
        "members": [] if told.explanation is None else [_member(each) for each in told.explanation.members],
    }


def _member(member: MemberExplanation) -> dict[str, object]:
    return {
        "alias": member.alias,
        "signal": member.signal,
        "matches": member.matches,
        "reason": member.reason or None,
        "predicates": [_plain(each) for each in member.predicates],
        "join": [_plain(each) for each in member.join],
    }


def _plain(each: PredicateExplanation | JoinExplanation) -> dict[str, object]:
    fields = asdict(each)
    if isinstance(each, PredicateExplanation):
        fields["operator"] = each.operator.value
    else:
        fields["type"] = each.type.value
    return fields
