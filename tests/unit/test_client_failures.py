"""Failures of deliveries are kept until somebody is told, and no longer than there is room."""

from __future__ import annotations

from signal_router.client.delivery import DeliveryError, Failures


def failure(id_: str) -> DeliveryError:
    return DeliveryError(f'signal "{id_}" was not delivered', reason="denied", ids=(id_,))


def test_all_that_nobody_was_told_of_are_one_error_once():
    failures = Failures()
    told = failure("2")
    for error in (failure("1"), told, failure("3")):
        failures.add(error)
    failures.remove(told)

    joined = failures.take()

    assert joined is not None
    assert (joined.ids, joined.reason) == (("1", "3"), "denied")
    assert failures.take() is None


def test_those_that_there_is_no_room_for_are_counted():
    failures = Failures(at_most=2)
    for number in range(5):
        failures.add(failure(str(number)))

    joined = failures.take()

    assert joined is not None
    assert joined.ids == ("3", "4")
    assert "5 signals were not delivered" in joined.message
    assert "3 before them, whose ids are not kept" in joined.message


def test_one_alone_is_itself():
    failures = Failures()
    error = failure("1")
    failures.add(error)

    assert failures.joined() is error
    assert failures.take() is error
