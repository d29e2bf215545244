"""Why a signal is, or is not, for a subscription: predicate by predicate, with the values and types compared.

The same tests decide as in the match index; this only takes them one by one and finds words for the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

from signal_router.core.join_keys import READERS, refusal
from signal_router.core.predicates import ABSENT, Absent, Found, look_up, matches
from signal_router.model.comparisons import shown
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import JoinParameter, JoinType, Member, Operator, Predicate, Subscription
from signal_router.model.values import Value, type_name


@dataclass(frozen=True, slots=True)
class PredicateExplanation:
    """One comparison. `type_found` is None where the parameter is missing; `reason` is missing, type or value, "" if it
    holds.

    `from_template`: nobody wrote it in `match`; the trigger template names the parameter.
    """

    parameter: str
    operator: Operator
    operand: Value | tuple[Value, ...]
    present: bool
    found: Value
    type_found: str | None
    holds: bool
    reason: str
    text: str
    from_template: bool


@dataclass(frozen=True, slots=True)
class JoinExplanation:
    """One part of the join key: what the signal has for it and what that is in the key (None: it joins nothing)."""

    name: str
    type: JoinType
    parameter: str
    present: bool
    found: Value
    type_found: str | None
    in_key: Value
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class MemberExplanation:
    """One member; `reason` is name, predicate or join, "" where it matches.

    Predicates and join are told only where the signal's name is the one asked for.
    """

    alias: str
    signal: str
    name_fits: bool
    predicates: tuple[PredicateExplanation, ...]
    join: tuple[JoinExplanation, ...]
    matches: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a subscription makes of a signal."""

    subscription: str
    name: str
    members: tuple[MemberExplanation, ...]
    matches: bool


def explain(subscription: Subscription, signal: Signal) -> Explanation:
    """Tells what every member makes of a signal."""
    members = tuple(_member(subscription, member, signal) for member in subscription.members)
    return Explanation(subscription.id, signal.name, members, any(member.matches for member in members))


def _member(subscription: Subscription, member: Member, signal: Signal) -> MemberExplanation:
    if member.signal != signal.name:
        return MemberExplanation(member.alias, member.signal, False, (), (), False, "name")
    named = subscription.template.requires.get(member.alias, ())
    predicates = tuple(_predicate(each, signal, named) for each in member.predicates)
    join = tuple(_join(part, signal) for part in member.join)
    reason = "predicate" if not all(each.holds for each in predicates) else ""
    reason = reason or ("join" if any(each.reason for each in join) else "")
    return MemberExplanation(member.alias, member.signal, True, predicates, join, not reason, reason)


def _predicate(predicate: Predicate, signal: Signal, named: list[str] | tuple[str, ...]) -> PredicateExplanation:
    found = look_up(predicate.parameter, signal)
    holds = matches(predicate, signal)
    reason = "" if holds else _reason(predicate, found)
    from_template = predicate.operator is Operator.EXISTS and predicate.operand is True and predicate.parameter in named
    return PredicateExplanation(
        parameter=predicate.parameter,
        operator=predicate.operator,
        operand=predicate.operand,
        present=found is not ABSENT,
        found=None if isinstance(found, Absent) else found,
        type_found=None if found is ABSENT else type_name(found),
        holds=holds,
        reason=reason,
        text=_text(predicate, found, reason),
        from_template=from_template,
    )


def _reason(predicate: Predicate, found: Found) -> str:
    if predicate.operator is Operator.EXISTS:
        return "missing" if predicate.operand is True else "value"
    if found is ABSENT:
        return "missing"
    operands = predicate.operand if isinstance(predicate.operand, tuple) else (predicate.operand,)
    return "value" if type_name(found) in {type_name(each) for each in operands} else "type"


def _text(predicate: Predicate, found: Found, reason: str) -> str:
    asked = f"{predicate.parameter} {predicate.operator.value} {_operand(predicate)}"
    value = "nothing" if found is ABSENT else f"{shown(found)} ({type_name(found)})"
    if not reason:
        return f"{asked}: holds, found {value}"
    if reason == "missing":
        kind = "context attribute" if predicate.parameter.startswith("$") else "parameter"
        return f"{asked}: the signal has no such {kind}"
    if reason == "type":
        return f"{asked}: found {value}, which is never compared with {_types(predicate)}"
    return f"{asked}: found {value}"


def _operand(predicate: Predicate) -> str:
    if isinstance(predicate.operand, tuple):
        return f"[{', '.join(shown(each) for each in predicate.operand)}]"
    return shown(predicate.operand)


def _types(predicate: Predicate) -> str:
    operands = predicate.operand if isinstance(predicate.operand, tuple) else (predicate.operand,)
    return " or ".join(f"a {name}" for name in dict.fromkeys(type_name(each) for each in operands))


def _join(part: JoinParameter, signal: Signal) -> JoinExplanation:
    found = look_up(part.parameter, signal)
    in_key = READERS[part.type](found)
    value = "nothing" if found is ABSENT else f"{shown(found)} ({type_name(found)})"
    why = f"{part.name}: {part.parameter} is {value}"
    return JoinExplanation(
        name=part.name,
        type=part.type,
        parameter=part.parameter,
        present=found is not ABSENT,
        found=None if isinstance(found, Absent) else found,
        type_found=None if found is ABSENT else type_name(found),
        in_key=in_key,
        reason="join" if in_key is None else "",
        text=f"{why}: {refusal(part.type, found)}" if in_key is None else f"{why}, in the key {shown(in_key)}",
    )
