"""What the demo's producers send: the facts of five teams, and the order in which their records reach the topic.

Everything follows from a seed, so that two runs tell the same story.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product

FIRST_DAY = date(2026, 3, 1)
DAYS = 60
MIN_DAYS = 10
"""The shortest story that still tells of the hero's day."""
COUNTRIES = (
    "US", "CA", "BR", "MX", "AR", "CL", "CO", "PE", "GB", "IE", "FR", "DE", "ES", "PT", "IT", "NL", "BE", "SE", "NO",
    "DK", "FI", "PL", "CZ", "AT", "CH", "GR", "TR", "IN", "JP", "KR", "TW", "TH", "ID", "PH", "VN", "AU", "NZ", "ZA",
    "EG", "NG",
)  # fmt: skip
HERO = (date(2026, 3, 10), "US")
"""The set whose members lie farthest apart: its titles come first of all records, its plays last."""

REPEATED = 0.1
BAD_RECORD = b'{"name": "warehouse/titles.ready", "params": {"date": "2026-03-10", "rows": 15'
"""A record cut off in the middle, as a producer writes it that dies."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One signal as its producer knows it."""

    name: str
    source: str
    id: str
    params: dict[str, str | int]

    @property
    def team(self) -> str:
        """Who announces it."""
        return self.name.partition("/")[0]

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two records the same signal."""
        return (self.name, self.source, self.id)

    def value(self) -> bytes:
        """The signal on the wire."""
        fields = {"name": self.name, "source": self.source, "id": self.id, "params": self.params}
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Sending:
    """One record on its way: which team sends it where. `fact` is None for the bad record."""

    team: str
    partition: int
    value: bytes
    fact: Fact | None


@dataclass(frozen=True, slots=True)
class Story:
    """All records in the order in which they are sent."""

    sendings: tuple[Sending, ...]

    def facts(self) -> list[Fact]:
        """The facts that were sent, each as often as it was sent."""
        return [sending.fact for sending in self.sendings if sending.fact is not None]

    def teams(self) -> list[str]:
        """The teams that send something."""
        return sorted({sending.team for sending in self.sendings})


def write(partitions: int, *, days: int = DAYS, seed: int = 7) -> Story:
    """Writes the story for a signals topic with so many partitions."""
    chance = random.Random(seed)
    facts = list(_facts(days, chance))
    first = next(fact for fact in facts if fact.name == "warehouse/titles.ready" and _is_hero(fact))
    last = next(fact for fact in facts if fact.name == "streaming/plays.ready" and _is_hero(fact))
    middle = [_sending(fact, partitions, chance) for fact in facts if fact not in (first, last)]
    chance.shuffle(middle)
    middle.insert(len(middle) // 3, Sending("warehouse", chance.randrange(partitions), BAD_RECORD, None))
    opening, closing = _sending(first, partitions, chance), _sending(last, partitions, chance)
    sendings = [opening, *_with_repeats(middle, partitions, chance), closing]
    sendings.append(_elsewhere(opening, partitions, chance))  # once more, after its set was complete
    return Story(tuple(sendings))


def _is_hero(fact: Fact) -> bool:
    day, country = HERO
    return (country in {fact.params.get("country"), fact.params.get("cc")}) and (
        day in {_day(fact.params.get("date")), _day(fact.params.get("dateint"))}
    )


def _day(value: str | int | None) -> date | None:
    return None if value is None else date.fromisoformat(str(value))


def _facts(days: int, chance: random.Random) -> Iterator[Fact]:
    for number in range(days):
        day = FIRST_DAY + timedelta(days=number)
        yield Fact("ledger/day.closed", "ledger", f"close-{day}", {"day": day.isoformat()})
        yield Fact("fx/rates.published", "fx-feed", f"rates-{day}", {"as_of": f"{day}T22:00:00Z", "pairs": 31})
        for check in range(5):
            params: dict[str, str | int] = {"table": f"plays_{check}", "severity": chance.randint(1, 5)}
            yield Fact("quality/check.failed", "checks", f"check-{day}-{check}", params)
    for number, country in product(range(days), COUNTRIES):
        yield from _tables_of(FIRST_DAY + timedelta(days=number), country, chance)


def _tables_of(day: date, country: str, chance: random.Random) -> Iterator[Fact]:
    """Titles and plays of one key: mostly one of each, sometimes runs that were made again, sometimes one missing."""
    hero = (day, country) == HERO
    luck = 1.0 if hero else chance.random()
    titles, plays = (2, 2) if luck < 0.04 else (2, 1) if luck < 0.07 else (1, 0) if luck < 0.12 else (1, 1)
    for run in range(1, titles + 1):
        rows = chance.randint(1_001, 9_999) if hero or chance.random() < 0.9 else chance.randint(1, 1_000)
        name = f"titles-{day:%Y%m%d}-{country}-{run}"
        state = "final" if hero or chance.random() < 0.95 else "partial"
        params: dict[str, str | int] = {"date": day.isoformat(), "country": country, "rows": rows, "state": state}
        yield Fact("warehouse/titles.ready", "wf/titles", name, params)
    for run in range(1, plays + 1):
        name = f"plays-{day:%Y%m%d}-{country}-{run}"
        yield Fact("streaming/plays.ready", "wf/plays", name, {"dateint": int(f"{day:%Y%m%d}"), "cc": country})


def _sending(fact: Fact, partitions: int, chance: random.Random) -> Sending:
    return Sending(fact.team, chance.randrange(partitions), fact.value(), fact)


def _elsewhere(sending: Sending, partitions: int, chance: random.Random) -> Sending:
    """The same record again, on another partition: a producer that was not sure and retried."""
    step = chance.randrange(1, partitions) if partitions > 1 else 0
    return Sending(sending.team, (sending.partition + step) % partitions, sending.value, sending.fact)


def _with_repeats(sendings: Sequence[Sending], partitions: int, chance: random.Random) -> list[Sending]:
    """Adds repeats, each anywhere behind its first copy."""
    placed: list[tuple[float, Sending]] = []
    for place, sending in enumerate(sendings):
        placed.append((place, sending))
        if sending.fact is not None and chance.random() < REPEATED:
            placed.append((chance.uniform(place, len(sendings)), _elsewhere(sending, partitions, chance)))
    return [sending for _, sending in sorted(placed, key=lambda each: each[0])]
