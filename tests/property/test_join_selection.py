"""Which signals fire: the queues' search gives what the reference finds by trying everything in order."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from signal_router.core.join_sets import OpenSet
from signal_router.core.selection import choose
from signal_router.core.tables import Pending
from signal_router.model.candidates import SignalCopy
from signal_router.model.subscriptions import Member, Policy, Subscription
from signal_router.model.templates import parse_template
from signal_router.state.store import MemoryStore
from signal_router.state.tables import PartitionTable
from signal_router.testing import reference_choice

EXAMPLES = 5 * int(os.environ.get("SIGNAL_ROUTER_JOIN_EXAMPLES", "300"))


@dataclass(frozen=True)
class Joining:
    sequence: int
    recorded_at: int
    aliases: frozenset[str]


_signals = st.tuples(st.integers(1, 15), st.integers(0, 30))


@given(
    waiting=st.lists(_signals, max_size=14),
    arriving=_signals,
    count=st.integers(2, 4),
    within_ms=st.sampled_from((3, 8, 15, 60)),
    latest=st.booleans(),
)
@example(waiting=[(2, 0), (4, 9), (2, 9)], arriving=(1, 5), count=3, within_ms=5, latest=False)
@example(waiting=[(2, 0), (4, 10), (2, 2), (4, 3)], arriving=(1, 5), count=3, within_ms=5, latest=False)
@example(waiting=[(3, 5), (1, 5), (2, 5)], arriving=(4, 5), count=3, within_ms=5, latest=False)
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_search_finds_what_trying_everything_in_order_finds(
    waiting: list[tuple[int, int]], arriving: tuple[int, int], count: int, within_ms: int, latest: bool
) -> None:
    signals = [(sequence, mask & (1 << count) - 1, at) for sequence, (mask, at) in enumerate([*waiting, arriving], 1)]
    *others, last = [one for one in signals if one[1]] or [(1, 1, 5)]
    aliases = [f"m{number}" for number in range(count)]
    join_set = OpenSet(PartitionTable(MemoryStore(), 1), "ns/one", "{}")
    for one in others:
        join_set.add(_pending(*one))

    found = choose(join_set, _pending(*last), _subscription(count, within_ms, latest))

    expected = reference_choice.choose(
        _joining(*last), [_joining(*one) for one in others], aliases, within_ms, newest_first=latest
    )
    assert (found and [one.sequence for one in found]) == (expected and [one.sequence for one in expected.values()])


def _pending(sequence: int, mask: int, at: int) -> Pending:
    signal = SignalCopy(f'["s","x","{sequence}"]', "s", "x", str(sequence), b"{}", None, None, at, "t", 0, 0, b"")
    return Pending(sequence, mask, at + 100, signal)


def _joining(sequence: int, mask: int, at: int) -> Joining:
    return Joining(sequence, at, frozenset(f"m{bit}" for bit in range(4) if mask >> bit & 1))


def _subscription(count: int, within_ms: int, latest: bool) -> Subscription:
    return Subscription(
        id="ns/one",
        birth=1,
        join_generation=1,
        revision=0,
        version="",
        contact=None,
        members=tuple(Member(f"m{number}", "s", (), (), False) for number in range(count)),
        join_names=(),
        policy=Policy.LATEST if latest else Policy.FIFO,
        within_ms=within_ms,
        dedupe_ms=within_ms,
        topic="triggers",
        template=parse_template({}),
    )
