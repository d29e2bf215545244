"""The clusters that the contract is said to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clusters import Cluster, KafkaCluster, MemoryCluster


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """An empty cluster: in memory, and on the run's broker under a prefix of its own."""
    if request.param == "memory":
        yield MemoryCluster()
        return
    opened = KafkaCluster(str(request.getfixturevalue("broker")), request.getfixturevalue("prefix"))
    yield opened
    opened.close()
