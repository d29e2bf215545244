"""When fetching begins anew, and when signals wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace

import pytest

from signal_router.model.log import TopicPartition
from signal_router.runtime import fetching
from signal_router.runtime.fetching import Fetching

SIGNALS, CANDIDATES = TopicPartition("signals", 0), TopicPartition("candidates", 1)


class Given:
    """A signals partition at 5 and a candidates partition at 7; `behind` says whether the latter is."""

    def __init__(self) -> None:
        self.asked: list[Mapping[TopicPartition, int]] = []
        self.local = SimpleNamespace(behind=frozenset())
        match = SimpleNamespace(partitions={SIGNALS: SimpleNamespace(next_offset=5)})
        join = SimpleNamespace(partitions={1: SimpleNamespace(next_offset=7)})
        self.fetching = Fetching(match, join, self.local, "candidates")  # type: ignore[arg-type]
        self.fetching.consume = SimpleNamespace(  # type: ignore[assignment]
            start_fetching=lambda _assignment, offsets: self.asked.append(offsets),
            stop_fetching=lambda _assignment: self.asked.append({}),
        )

    def behind(self, *partitions: int) -> None:
        self.local.behind = frozenset(partitions)


def play(story: Callable[[Given], Awaitable[None]]) -> None:
    async def told() -> None:
        await story(Given())

    asyncio.run(told())


def test_everything_is_fetched_where_nothing_is_behind() -> None:
    async def story(given: Given) -> None:
        given.fetching.begin(1)

        assert given.asked == [{CANDIDATES: 7, SIGNALS: 5}]
        assert given.fetching.epoch == -1
        given.fetching.told(3)
        assert given.fetching.epoch == 3

    play(story)


def test_only_the_answer_to_the_last_call_counts() -> None:
    async def story(given: Given) -> None:
        given.fetching.begin(1)
        given.fetching.stop(1)
        given.fetching.begin(1)

        epochs = []
        for epoch in (3, 4, 5):
            given.fetching.told(epoch)
            epochs.append(given.fetching.epoch)

        assert epochs == [-1, -1, 5]

    play(story)


def test_what_a_former_assignment_waits_for_is_forgotten() -> None:
    async def story(given: Given) -> None:
        given.fetching.begin(1)
        given.fetching.leave()
        given.fetching.begin(3)
        given.fetching.told(4)

        assert given.fetching.epoch == 4

    play(story)


def test_signals_wait_for_what_is_behind_and_are_taken_again() -> None:
    async def story(given: Given) -> None:
        given.behind(1)
        given.fetching.begin(1)
        given.fetching.told(3)
        given.fetching.look()
        given.behind()
        given.fetching.look()
        given.fetching.look()

        assert given.asked == [{CANDIDATES: 7}, {CANDIDATES: 7, SIGNALS: 5}]

    play(story)


def test_what_falls_behind_later_makes_signals_wait_too() -> None:
    async def story(given: Given) -> None:
        given.fetching.begin(1)
        given.fetching.told(3)
        given.behind(1)
        given.fetching.look()

        assert given.asked == [{CANDIDATES: 7, SIGNALS: 5}, {CANDIDATES: 7}]
        assert given.fetching.epoch == -1

    play(story)


def test_signals_wait_only_for_a_while_and_not_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "CATCH_UP_S", 0.01)

    async def story(given: Given) -> None:
        given.behind(1)
        given.fetching.begin(1)
        async with asyncio.timeout(5):
            while len(given.asked) < 2:
                await asyncio.sleep(0.001)
        given.fetching.told(3)
        given.fetching.told(4)
        given.fetching.look()
        assert given.asked == [{CANDIDATES: 7}, {CANDIDATES: 7, SIGNALS: 5}]

        monkeypatch.setattr(given.fetching, "_again_at", 0.0)
        given.fetching.look()
        assert given.asked[2:] == [{CANDIDATES: 7}]
        given.fetching.leave()

    play(story)
