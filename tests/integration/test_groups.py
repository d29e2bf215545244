"""What other workers' coming and going does to the partitions that stay, under KIP-848."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from harness import Proof, Read, live_cluster
from harness_workload import SUBSCRIPTIONS
from test_scaling import SEED, load, proven, settle

pytestmark = pytest.mark.kafka


def test_partitions_that_stay_run_on_when_a_worker_joins_and_leaves(
    broker: object, prefix: str, tmp_path: Path
) -> None:
    with live_cluster(broker, prefix, tmp_path, partitions=6, protocol="consumer") as cluster:
        cluster.apply(SUBSCRIPTIONS)
        stays = cluster.worker("w1").await_running()
        with load(cluster, Random(SEED)) as work:
            settle(cluster)
            leaves = cluster.worker("w2").await_running()
            settle(cluster)
            leaves.stop()
            stays.await_log("took partitions over", times=2)
            settle(cluster)

        proof = proven(cluster, work)
        taken = [line for line in stays.log.splitlines() if "took partitions over" in line]
        assert len(taken) == 2
        moved = {int(number) for number in re.findall(r"candidates': \[(\d), (\d), (\d)\]", taken[1])[0]}
        pauses = {
            "moved": longest_pause(proof, moved),
            "stayed": longest_pause(proof, set(range(6)) - moved),
        }
        print(f"longest pauses of triggers, ms: {pauses}")
        assert len(moved) == 3  # the others never left the first worker


def longest_pause(proof: Proof, partitions: set[int]) -> int:
    """Milliseconds between two triggers of these candidates partitions."""
    times = sorted(each.timestamp for each in proof.triggers if order(each)["partition"] in partitions)
    return max(after - before for before, after in pairwise(times))


def order(trigger: Read) -> Mapping[str, int]:
    return trigger.document["order"]  # type: ignore[return-value]
