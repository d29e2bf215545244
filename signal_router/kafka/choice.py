"""Which broker demo and tests use, in this order and said aloud: a given one, a Docker engine's, the embedded one."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

from signal_router.kafka.docker import IMAGE, PULL_VARIABLE, DockerBroker, usable_engine
from signal_router.kafka.embedded import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

BOOTSTRAP_VARIABLE = "SIGNAL_ROUTER_BOOTSTRAP"


class Startable(Protocol):
    """A broker this process starts and stops."""

    @property
    def bootstrap(self) -> str: ...
    def start(self) -> object: ...
    def stop(self) -> None: ...


@dataclass(slots=True)
class BrokerChoice:
    """The chosen broker; `reason` is a sentence for people. Entering it starts the broker, leaving it stops it."""

    kind: Literal["given", "docker", "embedded"]
    reason: str
    broker: Startable | None = None
    given: str = ""

    @property
    def bootstrap(self) -> str:
        """`host:port`, for one that is started here only once started."""
        return self.given if self.broker is None else self.broker.bootstrap

    def start(self) -> Self:
        """Starts what has to be started. Raises BrokerError."""
        if self.broker is not None:
            self.broker.start()
        return self

    def stop(self) -> None:
        """Stops what was started here; a given broker is left alone."""
        if self.broker is not None:
            self.broker.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def choose_broker(*, say: Callable[[str], None] | None = None) -> BrokerChoice:
    """Chooses the broker and says why; starts nothing yet. Waits up to 2 s for a Docker engine to answer."""
    choice = _choose()
    if say is not None:
        with suppress(BrokenPipeError):
            say(choice.reason)
    return choice


def _choose() -> BrokerChoice:
    if given := os.environ.get(BOOTSTRAP_VARIABLE):
        return BrokerChoice("given", f'broker: "{given}" ({BOOTSTRAP_VARIABLE})', given=given)
    engine = usable_engine()
    if engine.usable:
        return BrokerChoice("docker", f"broker: {IMAGE} in Docker ({engine.reason})", DockerBroker())
    advice = f"; {PULL_VARIABLE}=1 allows a pull" if engine.answers else ""
    return BrokerChoice("embedded", f"broker: embedded Kafka ({engine.reason}{advice})", EmbeddedBroker())
