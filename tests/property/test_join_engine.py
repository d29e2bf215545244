"""Whatever happens to the worker, the join decides what the reference evaluation decides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from join_histories import Documents, Engine, Happens, Step, by_reference, histories, inputs_of, limits, pauses

from signal_router.core import join_sets
from signal_router.core.join import Limits
from signal_router.state.keys import partition_prefix
from signal_router.state.rocks import RocksStore
from signal_router.state.store import MemoryStore, Store

EXAMPLES = int(os.environ.get("SIGNAL_ROUTER_JOIN_EXAMPLES", "200"))
"""For each of the four combinations; a long search: SIGNAL_ROUTER_JOIN_EXAMPLES=20000."""

searching = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def rocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RocksStore]:
    store = RocksStore(Path(tmp_path_factory.mktemp("rocks")) / "store")
    yield store
    store.close()


partitions = count(1)


@pytest.fixture(params=[1, 8])
def head_entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(join_sets, "HEAD_ENTRIES", request.param)
    return int(request.param)


@given(steps=histories, at_most=limits, rests=pauses)
@searching
def test_the_engine_agrees_with_the_reference_in_memory(
    head_entries: int, steps: list[Step], at_most: Limits, rests: list[int]
) -> None:
    check(MemoryStore(), 7, steps, at_most, rests)


@given(steps=histories, at_most=limits, rests=pauses)
@searching
def test_the_engine_agrees_with_the_reference_on_disk(
    head_entries: int, rocks: RocksStore, steps: list[Step], at_most: Limits, rests: list[int]
) -> None:
    partition = next(partitions) % 60_000
    rocks.delete_range(partition_prefix(partition), partition_prefix(partition + 1))
    check(rocks, partition, steps, at_most, rests)


def check(store: Store, partition: int, steps: list[Step], at_most: Limits, rests: list[int]) -> None:
    documents = Documents()
    history = list(inputs_of(steps, documents))
    engine = Engine(store, partition, documents, at_most, rests)

    engine.run(history)

    expected = by_reference([each for each in history if not isinstance(each, Happens)], documents, at_most)
    result = engine.result()
    assert result.triggers == expected.triggers
    assert result.ended == expected.ended
    assert result.pending == expected.pending
    assert result.remembered == expected.remembered
    stored = {key: value for key, value in engine.stored().items() if key[:1] != b"L"}
    if engine.restored:  # older records leave entries in the time index that nothing stands behind
        stored = {key: stored[key] for key in engine.restored_store()}
    assert stored == engine.restored_store()
