"""The rounds of the long proof (`make prove`) in their short form: what has no test of its own elsewhere."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from prove import clocks, compaction, formats, kills, poison, routers, wire
from prove.rounds import Brokers, Round
from signal_router.testing.wire_proxy import FETCH, INIT_PRODUCER_ID, PRODUCE

pytestmark = pytest.mark.kafka

SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("brokers")) as own:
        yield own


@pytest.mark.parametrize(
    ("scenario", "size"),
    [(compaction, 0.15), (clocks, 0.2), (poison, 0.1), (routers, 0.25), (formats, 0.2)],
    ids=lambda each: each.__name__.rpartition(".")[2] if hasattr(each, "play") else None,
)
def test_a_short_round_holds(scenario, size: float, brokers: Brokers, tmp_path: Path) -> None:
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    name = scenario.__name__.rpartition(".")[2]
    round_ = Round(name, 0, SEED, tmp_path, brokers, size)

    scenario.play(round_)

    assert not [fault for fault in scenario.FAULTS if not round_.faults[fault]]
    assert round_.reports


def test_a_short_round_holds_whatever_the_way_to_the_broker_does(brokers: Brokers, tmp_path: Path) -> None:
    """At requests that no test above the log breaks."""
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    round_ = Round("wire", 0, SEED, tmp_path, brokers)
    blows = [blow for blow in wire.BLOWS if blow.request in {FETCH, INIT_PRODUCER_ID, PRODUCE}]

    wire.play(round_, blows)

    assert round_.faults == {blow.name: 1 for blow in blows}
    assert round_.reports


def test_a_short_round_holds_where_workers_die_in_take_overs_and_revokes(brokers: Brokers, tmp_path: Path) -> None:
    print(f"\nseed {SEED} (SIGNAL_ROUTER_SEED={SEED} runs it again)")
    round_ = Round("kills", 0, SEED, tmp_path, brokers)
    points = ("restored", "announce", "revoke")

    kills.play(round_, points)

    assert set(points) <= set(round_.kills)
    assert round_.reports
