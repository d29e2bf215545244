"""What a broker's settings say of it."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from signal_router.kafka.admin_client import before_4_3, session_hint

KIP_848 = {"group.consumer.session.timeout.ms": "45000"}
SINCE_4_3 = {"group.consumer.assignment.interval.ms": "1000"}
BOUNDS = {"group.min.session.timeout.ms": "6000", "group.max.session.timeout.ms": "1800000"}


class Admin:
    """Stands where the admin client does: one broker that tells these settings, or nothing."""

    def __init__(self, settings: dict[str, str] | None) -> None:
        self._settings = settings

    def list_topics(self, timeout: float) -> Any:
        assert timeout > 0
        return SimpleNamespace(brokers={1: None})

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        assert request_timeout > 0
        answer: Future[Any] = Future()
        if self._settings is None:
            answer.set_exception(KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED)))
        else:
            answer.set_result({name: SimpleNamespace(value=value) for name, value in self._settings.items()})
        return dict.fromkeys(resources, answer)


@pytest.mark.parametrize(
    ("settings", "older"),
    [(KIP_848, True), (KIP_848 | SINCE_4_3, False), ({"log.dirs": "/data"}, False), (None, False)],
    ids=["4.2", "4.3", "tells something else", "tells nothing"],
)
def test_brokers_are_called_older_than_4_3_only_if_they_say_so(settings: dict[str, str] | None, older: bool) -> None:
    assert before_4_3(Admin(settings)) is older  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [(BOUNDS, "between 6000 and 1800000"), ({}, "between group.min"), (None, "between group.min")],
)
def test_the_session_time_outs_that_would_do_are_named(settings: dict[str, str] | None, bounds: str) -> None:
    assert bounds in session_hint(Admin(settings))  # type: ignore[arg-type]
