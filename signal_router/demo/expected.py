"""What must come of the story: the complete sets, computed from what the producers sent and from nothing else.

Written down by hand for the three subscriptions, on purpose without any code of the engine: where no signal fits two
aliases of one set and nothing expires, a key has as many complete sets as its scarcest member has distinct signals.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from signal_router.demo.story import Fact

SetKey = tuple[str, ...]
"""The subscription's id, and the values all members agree on, in order of their names; for a signal that fires by
itself, its identity."""

_KeyOf = Callable[[Fact], SetKey | None]


def _day(value: str | int) -> str:
    return date.fromisoformat(str(value)[:10]).isoformat()


def _titles(fact: Fact) -> SetKey | None:
    params = fact.params
    wanted = params["state"] == "final" and int(params["rows"]) > 1000
    return (str(params["country"]), _day(params["date"])) if wanted else None


def _plays(fact: Fact) -> SetKey | None:
    return (str(fact.params["cc"]), _day(fact.params["dateint"]))


def _us_plays(fact: Fact) -> SetKey | None:
    return (_day(fact.params["dateint"]),) if fact.params["cc"] == "US" else None


def _severe(fact: Fact) -> SetKey | None:
    return fact.identity if int(fact.params["severity"]) >= 4 else None


_MEMBERS: Mapping[str, Mapping[str, _KeyOf]] = {
    "content-ml/decision-model": {"warehouse/titles.ready": _titles, "streaming/plays.ready": _plays},
    "finance/daily-report": {
        "ledger/day.closed": lambda fact: (_day(fact.params["day"]),),
        "fx/rates.published": lambda fact: (_day(fact.params["as_of"]),),
        "streaming/plays.ready": _us_plays,
    },
    "ops/page-on-failure": {"quality/check.failed": _severe},
}


def complete_sets(facts: Iterable[Fact]) -> Counter[SetKey]:
    """Counts the complete sets by subscription and key; a fact that was sent several times counts once."""
    distinct = {fact.identity: fact for fact in facts}.values()
    sets: Counter[SetKey] = Counter()
    for subscription, members in _MEMBERS.items():
        there: defaultdict[SetKey, Counter[str]] = defaultdict(Counter)
        for fact in distinct:
            key_of = members.get(fact.name)
            key = None if key_of is None else key_of(fact)
            if key is not None:
                there[key][fact.name] += 1
        for key, by_name in there.items():
            if count := min(by_name[name] for name in members):
                sets[(subscription, *key)] = count
    return sets


@dataclass(frozen=True, slots=True)
class Verdict:
    """How triggers compare with complete sets."""

    complete: int
    triggers: int
    missing: tuple[SetKey, ...]
    twice: tuple[SetKey, ...]

    @property
    def good(self) -> bool:
        """Whether every complete set has exactly one trigger."""
        return not self.missing and not self.twice


def compare(complete: Counter[SetKey], triggers: Iterable[tuple[SetKey, str]]) -> Verdict:
    """Compares complete sets with triggers, given by the key of their set and their trigger id."""
    records: Counter[SetKey] = Counter()
    ids: defaultdict[SetKey, set[str]] = defaultdict(set)
    for key, trigger_id in triggers:
        records[key] += 1
        ids[key].add(trigger_id)
    missing: list[SetKey] = []
    twice: list[SetKey] = []
    for key in sorted(complete.keys() | records.keys()):
        distinct = len(ids[key])
        missing += [key] * max(0, complete[key] - distinct)
        twice += [key] * (records[key] - distinct + max(0, distinct - complete[key]))
    return Verdict(complete.total(), records.total(), tuple(missing), tuple(twice))
