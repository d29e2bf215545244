"""What the fields of a Subscription mean together: aliases, join names, durations, placeholders, and warnings.

These checks read the values as written and step over what has the wrong shape, so that one run reports everything: a
mistyped field in one place does not hide a mistyped alias in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from signal_router.model.comparisons import read_comparisons
from signal_router.model.durations import duration_ms
from signal_router.model.placeholders import Field, Scope, nearest
from signal_router.model.subscriptions import Member, Operator, Predicate, Subscription
from signal_router.model.templates import read_template

Finding = tuple[Field, str, str | None]
"""Where, what, and the hint."""

_VALUED = frozenset({Operator.EQ, Operator.IN})
_RANGED = frozenset({Operator.LT, Operator.LE, Operator.GT, Operator.GE, Operator.PREFIX})


def meaning_problems(spec: Mapping[str, object]) -> Iterator[Finding]:
    """Finds everything wrong with a spec that its shape alone does not show."""
    members = [each for each in _list(spec.get("members")) if isinstance(each, Mapping)]
    join_names = _join_names(spec.get("join"))
    yield from _aliases(spec.get("members"))
    for index, member in enumerate(_list(spec.get("members"))):
        if isinstance(member, Mapping):
            yield from _member(member, ("spec", "members", index), join_names)
    yield from _durations(spec)
    yield from _template(spec.get("trigger"), members, join_names)


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _join_names(value: object) -> frozenset[str]:
    return frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list | dict) else frozenset()


def _aliases(members: object) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, member in enumerate(_list(members)):
        alias = member.get("alias") if isinstance(member, Mapping) else None
        if isinstance(alias, str) and first.setdefault(alias, index) != index:
            message = f'the alias "{alias}" is taken by members[{first[alias]}]'
            yield ("spec", "members", index, "alias"), message, "each member has its own"


def _member(member: Mapping[str, object], where: Field, join_names: frozenset[str]) -> Iterator[Finding]:
    match, join = member.get("match"), member.get("join")
    for parameter, written in match.items() if isinstance(match, Mapping) else ():
        for problem in read_comparisons(parameter, written)[1]:
            yield (*where, "match", parameter, *problem.field), problem.message, problem.hint
    for name in join if isinstance(join, Mapping) else ():
        if name not in join_names:
            known = f"known are {', '.join(sorted(join_names))}" if join_names else "declare it in spec.join"
            yield (*where, "join", name), f'unknown join name "{name}"', nearest(name, join_names) or known


def _durations(spec: Mapping[str, object]) -> Iterator[Finding]:
    within, dedupe = spec.get("within"), spec.get("dedupe")
    if not isinstance(dedupe, str):
        return
    try:
        too_short = duration_ms(dedupe) < duration_ms(within if isinstance(within, str) else "7d")
    except ValueError:  # reported by the shape
        return
    if too_short:
        message = f"dedupe {dedupe} is shorter than within {within or '7d (the default)'}"
        yield ("spec", "dedupe"), message, "a signal must be remembered at least as long as its set can wait for it"


def _template(trigger: object, members: list[Mapping[str, object]], join_names: frozenset[str]) -> Iterator[Finding]:
    params = trigger.get("params") if isinstance(trigger, Mapping) else None
    if not isinstance(params, Mapping):
        return
    aliases = {str(each.get("alias")): each for each in members}
    payloads = frozenset(alias for alias, each in aliases.items() if each.get("payload") is True)
    _, problems = read_template(params, Scope(frozenset(aliases), payloads, join_names))
    for problem in problems:
        yield ("spec", "trigger", "params", *problem.field), problem.message, problem.hint


def warnings(subscription: Subscription) -> Iterator[Finding]:
    """Finds what is allowed and probably not meant, or costs more than it seems."""
    if len(subscription.members) > 1 and not subscription.join_names:
        message = "several members and no join: all signals, of whatever day or country, make one set"
        yield ("spec", "members"), message, "declare what the members agree on in spec.join"
    for index, member in enumerate(subscription.members):
        where: Field = ("spec", "members", index, "match")
        needed = {*subscription.template.requires.get(member.alias, ()), *(part.parameter for part in member.join)}
        for parameter in sorted(_never(member.predicates, needed)):
            message = f'"{parameter}" must be absent and present at once: nothing matches'
            yield (*where, parameter), message, "the template, the join and every comparison need the parameter"
        yield from _costs(member, where)


def _never(predicates: Sequence[Predicate], needed: set[str]) -> set[str]:
    absent = {each.parameter for each in predicates if each.operator is Operator.EXISTS and each.operand is False}
    present = {each.parameter for each in predicates if each.operator is not Operator.EXISTS or each.operand is True}
    return absent & (present | needed)


def _costs(member: Member, where: Field) -> Iterator[Finding]:
    operators = {each.operator for each in member.predicates}
    if operators & _VALUED or not operators - {Operator.EXISTS}:
        return
    if operators & _RANGED:
        message = f'"{member.alias}" is matched by ranges or prefixes only, which costs more than a value'
    else:
        message = f'"{member.alias}" only excludes: it is looked at for every signal of its name that has the parameter'
    yield where, message, "add a parameter with = or in where there is one"
