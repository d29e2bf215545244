import threading
import time

import pytest

from signal_router.kafka.bounded_calls import BoundedCalls, CallAbandonedError


@pytest.fixture
def calls():
    calls = BoundedCalls("test-bounded-calls")
    yield calls
    calls.close()


def test_a_call_is_made_in_another_thread_and_in_order(calls):
    made = []

    for number in (1, 2):
        calls(lambda number=number: made.append((number, threading.current_thread().name)), 5)

    assert made == [(1, "test-bounded-calls"), (2, "test-bounded-calls")]


def test_a_calls_error_is_raised(calls):
    def fail():
        raise LookupError("what the call says")

    with pytest.raises(LookupError, match="what the call says"):
        calls(fail, 5)
    calls(lambda: None, 5)


def test_a_call_that_does_not_return_is_left_behind(calls):
    released = threading.Event()
    started = time.monotonic()

    with pytest.raises(CallAbandonedError):
        calls(lambda: released.wait(30), 0.05)

    assert time.monotonic() - started < 5
    released.set()


def test_the_thread_ends_when_it_is_closed(calls):
    thread = [each for each in threading.enumerate() if each.name == "test-bounded-calls"][-1]

    calls.close()
    thread.join(5)

    assert not thread.is_alive()


def test_nothing_is_kept_alive_between_calls(calls):
    class Held:
        ended = threading.Event()

        def __del__(self):
            self.ended.set()

        def call(self):
            pass

    calls(Held().call, 5)

    assert Held.ended.wait(5)
