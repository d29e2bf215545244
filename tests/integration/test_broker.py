"""The embedded broker is a real Kafka: it keeps its data over a kill, and its life hangs on its owner's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

if TYPE_CHECKING:
    from signal_router.kafka.embedded import EmbeddedBroker

pytestmark = pytest.mark.kafka


def test_shared_broker_runs_transactions(broker, prefix):
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": prefix})

    producer.init_transactions(20)

    assert ":" in broker.bootstrap


def test_own_broker_answers_again_after_kill(own_broker: EmbeddedBroker):
    before = own_broker.bootstrap
    own_broker.kill()
    assert not own_broker.alive

    own_broker.start()

    assert own_broker.alive
    assert own_broker.bootstrap == before
