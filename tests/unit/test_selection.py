from __future__ import annotations

import pytest
from join_cases import ID, KEY, signal, subscription

from signal_router.core.join_sets import OpenSet
from signal_router.core.selection import choose
from signal_router.core.tables import Pending
from signal_router.model.subscriptions import Policy
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable


def chosen(aliases: str, *arrivals: str, latest: bool = False) -> str | None:
    """Each arrival says which aliases it fits and when it came, as in `ab@20`; the last one is the arriving one.

    Gives the arrivals by number, in the aliases' order of declaration.
    """
    document = subscription(aliases, policy=Policy.LATEST if latest else Policy.FIFO)
    join_set = OpenSet(PartitionTable(MemoryStore(), 1), ID, KEY)
    signals = []
    for number, text in enumerate(arrivals, 1):
        fits, _, at = text.partition("@")
        mask = sum(1 << aliases.index(alias) for alias in fits)
        signals.append(Pending(number, mask, 9_000, signal(str(number), 1_000 + int(at or 0))))
    for one in signals[:-1]:
        join_set.add(one)
    found = choose(join_set, signals[-1], document)
    return None if found is None else " ".join(str(one.sequence) for one in found)


@pytest.mark.parametrize(
    ("aliases", "arrivals", "expected"),
    [
        ("a", ["a"], "1"),
        ("ab", ["a", "a"], None),
        ("ab", ["a", "a", "b"], "1 3"),
        ("ab", ["ab", "ab"], "1 2"),
        ("ab", ["ab", "a"], "2 1"),
        ("abc", ["ab", "ab", "ab"], None),
        ("abc", ["ab", "ab", "ab", "c"], "1 2 4"),
        # 1 fits only a: 2 must give a up for it
        ("ab", ["a", "ab"], "1 2"),
        # the earliest that can still be bound go first, although 3 and 4 fit better
        ("abc", ["abc", "ab", "a", "b", "c"], "2 1 5"),
        # those with fewer aliases are bound first
        ("abc", ["abc", "b", "ac"], "3 2 1"),
        # two that need the same alias: the second is no help
        ("abc", ["a", "a", "bc", "b"], "1 4 3"),
    ],
)
def test_earlier_arrivals_then_fewer_aliases_then_declaration(
    aliases: str, arrivals: list[str], expected: str | None
) -> None:
    assert chosen(aliases, *arrivals) == expected


@pytest.mark.parametrize(
    ("aliases", "arrivals", "expected"),
    [
        ("ab", ["a@0", "b@100"], "1 2"),
        ("ab", ["a@0", "b@101"], None),
        ("ab", ["a@101", "b@0"], None),
        ("ab", ["a@0", "a@150", "b@101"], "2 3"),
        # spread too wide: the oldest is passed over, the next of its alias tried
        ("abc", ["a@0", "a@50", "b@150", "c@90"], "2 3 4"),
        # passing over the oldest finds none: every stretch of time is tried
        ("abc", ["b@190", "b@10", "a@20", "c@95"], "3 2 4"),
        # the arriving one is the oldest
        ("abc", ["a@100", "b@101", "c@0"], None),
        ("abc", ["a@100", "b@101", "b@100", "c@0"], "1 3 4"),
    ],
)
def test_signals_of_a_set_lie_within_reach_of_each_other(
    aliases: str, arrivals: list[str], expected: str | None
) -> None:
    assert chosen(aliases, *arrivals) == expected


def test_latest_takes_the_newest_arrivals() -> None:
    assert chosen("ab", "a", "a", "b", latest=True) == "2 3"
    assert chosen("abc", "ab", "a", "b", "c", latest=True) == "2 3 4"
