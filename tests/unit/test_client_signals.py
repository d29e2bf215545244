"""A signal stops every consumer of an event loop, and what it did before comes back with the last of them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from signal_router.client.async_consumer import _stopped_by

NUMBER = signal.SIGUSR1


@pytest.fixture(autouse=True)
def heard():
    """Hears the signal where nobody else does, so that none ends the tests."""
    calls: list[int] = []
    before = signal.signal(NUMBER, lambda number, _: calls.append(number))
    yield calls
    signal.signal(NUMBER, before)


async def sent() -> None:
    """Sends the signal and lets the loop serve it."""
    os.kill(os.getpid(), NUMBER)
    for _ in range(10):
        await asyncio.sleep(0.001)


def test_a_signal_stops_all_consumers_of_a_loop_that_run(heard):
    stopped: list[str] = []

    async def main() -> None:
        with _stopped_by([NUMBER], lambda: stopped.append("first")):
            with _stopped_by([NUMBER], lambda: stopped.append("second")):
                await sent()
            assert stopped == ["first", "second"]
            await sent()  # the one that ended took nothing with it
        assert stopped == ["first", "second", "first"]
        await sent()

    asyncio.run(main())

    assert stopped == ["first", "second", "first"]
    assert heard == [NUMBER]


def test_a_consumer_that_ends_before_the_one_that_began_first_leaves_its_handler(heard):
    stopped: list[str] = []

    async def main() -> None:
        first, second = (
            _stopped_by([NUMBER], lambda: stopped.append("1")),
            _stopped_by([NUMBER], lambda: stopped.append("2")),
        )
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        await sent()
        second.__exit__(None, None, None)

    asyncio.run(main())

    assert stopped == ["2"]
    assert heard == []


def test_the_loops_of_other_threads_run_without_signals():
    entered: list[bool] = []

    async def main() -> None:
        with _stopped_by([NUMBER], lambda: None):
            entered.append(True)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(10)

    assert entered == [True]


def test_a_loop_that_cannot_hear_signals_runs_without(monkeypatch):
    async def main() -> None:
        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
        with _stopped_by([NUMBER], lambda: None):
            pass

    asyncio.run(main())
