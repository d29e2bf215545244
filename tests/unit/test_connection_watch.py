import logging

import pytest

from signal_router.kafka.connection_watch import ConnectionWatch, troubling

DISCONNECTED = (
    "127.0.0.1:9092/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 41ms in state UP)"
)
TIMED_OUT = "127.0.0.1:9092/1: Timed out 1 in-flight, 0 retry-queued, 0 out-queue, 0 partially-sent requests"


@pytest.mark.parametrize(
    ("facility", "text", "expected"),
    [
        ("FAIL", DISCONNECTED, True),
        (
            "FAIL",
            "127.0.0.1:9092/1: Receive failed: Connection reset by peer (after 5ms in state UP) (_TRANSPORT)",
            True,
        ),
        ("FAIL", "127.0.0.1:9092/1: something new without a place", True),
        ("REQTMOUT", TIMED_OUT, True),
        (
            "FAIL",
            "localhost:9092/1: Connect to ipv6#[::1]:9092 failed: Connection refused (after 0ms in state CONNECT)",
            False,
        ),
        ("FAIL", "127.0.0.1:9092/bootstrap: failed (after 2001ms in state APIVERSION_QUERY) (_TRANSPORT)", False),
        ("STATE", "127.0.0.1:9092/1: Broker changed state INIT -> TRY_CONNECT", False),
        ("WAKEUP", "Wake-up sent to 2 broker threads in state >= UP: flushing", False),
    ],
)
def test_only_a_request_that_may_have_arrived_is_trouble(facility, text, expected):
    assert troubling(facility, text) == expected


def test_the_first_trouble_is_kept_until_it_is_forgotten():
    watch = ConnectionWatch(logging.getLogger("test"))

    watch.log(logging.DEBUG, "%s [%s] %s", "FAIL", "producer-1", DISCONNECTED)
    watch.log(logging.DEBUG, "%s [%s] %s", "REQTMOUT", "producer-1", TIMED_OUT)
    assert watch.trouble == DISCONNECTED

    watch.reset()
    assert watch.trouble is None
    assert watch.heard == 2


def test_the_clients_errors_are_warnings_of_ours(caplog):
    watch = ConnectionWatch(logging.getLogger("test"))

    watch.log(logging.ERROR, "%s [%s] %s", "FAIL", "producer-1", DISCONNECTED)
    watch.log(logging.DEBUG, "%s [%s] %s", "STATE", "producer-1", "quiet")

    assert [(each.levelname, DISCONNECTED in each.getMessage()) for each in caplog.records] == [("WARNING", True)]
    assert watch.heard == 1  # only debug lines prove that the watch is not deaf
