"""What is recorded has a format number: a worker refuses a later one by name and loses nothing, the later version reads
the one before, and goes on where the earlier one stopped.

There is one format so far. The later version is this one, which writes another number and reads both.
"""

from __future__ import annotations

import json
import shutil
from unittest.mock import patch

from confluent_kafka import TopicPartition as ClientPartition
from harness import PAIR, QUICK, LiveCluster, announced

from prove.rounds import Round
from signal_router.model import candidates
from signal_router.runtime import positions
from signal_router.state.keys import FORMAT, POSITION
from signal_router.verify.report import Verdict

LATER = FORMAT + 1
HINT = "run the newer program version"
FAULTS = (
    "position of a later format refused",
    "candidate of a later format refused",
    "definition of a later format refused",
    "workers record of a later format refused",
    "format of the version before read",
    "tables of a later format refused, on a kept disk and an empty one",
)


def play(round_: Round) -> None:
    """From this version to a later one, back, and to the later one again."""
    count = round_.few(400, least=60)
    with round_.cluster(round_.brokers.plain, candidates=round_.turn(("local", "topic"))) as cluster:
        cluster.apply(PAIR)
        cluster.publish_many(announced("A", range(2 * count)))
        work(cluster)

        refuse_a_position(round_, cluster)
        cluster.publish_many(announced("B", range(0, count, 2)))
        work(cluster)

        candidate = refuse_a_candidate(round_, cluster)
        cluster.publish_many(announced("B", range(1, count, 2)))
        work(cluster, format=LATER)  # reads what the version before has written
        assert cluster.committed(candidate.topic)[candidate.partition] > candidate.offset
        round_.fired("format of the version before read")

        cluster.publish_many(announced("B", range(count, 2 * count)))
        for empty in (False, True):
            if empty:
                shutil.rmtree(cluster.folder / "state-w1")
            refuse(cluster, f"the changelog is of format {LATER}, this program reads up to {FORMAT}")
        round_.fired("tables of a later format refused, on a kept disk and an empty one")
        cluster.worker("w1", times=QUICK, static_membership=False, format=LATER).await_running()

        with patch.object(positions, "FORMAT", LATER):
            proof = round_.judge(cluster)
        assert cluster.prove().report.verdict is Verdict.UNJUDGED  # this version does not know what stands there
        assert proof.fired() == {json.dumps({"k": key}): 1 for key in range(2 * count)}
    for refusal in (refuse_a_workers_record, refuse_a_definition):
        with round_.cluster(round_.brokers.plain) as cluster:  # of its own: what is once there stays
            cluster.apply(PAIR)
            cluster.publish_many(announced("A", range(count)))
            work(cluster)
            cluster.publish_many(announced("B", range(count)))
            refusal(round_, cluster)


def work(cluster: LiveCluster, **settings: object) -> None:
    """A worker does what there is to do, and stops."""
    worker = cluster.worker("w1", times=QUICK, static_membership=False, **settings).await_running()
    cluster.await_decided()
    worker.stop()


def refuse(cluster: LiveCluster, text: str, hint: str = HINT) -> None:
    """A worker of this version stops, says why, and changes nothing."""

    def standing() -> tuple[object, ...]:
        topics = (cluster.names.triggers, cluster.names.changelog)
        return (*map(cluster.ends, topics), cluster.committed(cluster.names.candidates))

    before = standing()
    worker = cluster.worker("w1", times=QUICK, static_membership=False)
    assert worker.await_end() == 1
    assert text in worker.stopped_with, worker.stopped_with
    assert hint in worker.stopped_with, worker.stopped_with
    assert standing() == before


def refuse_a_position(round_: Round, cluster: LiveCluster) -> None:
    """Until what stood there before is put back."""
    changelog = cluster.names.changelog
    positions = [each for each in cluster.read(changelog) if each.key == POSITION and each.partition == 0]
    present = positions[-1].value
    later = json.dumps({**json.loads(present or b""), "format": LATER}).encode()
    cluster.publish_record(changelog, later, key=POSITION, partition=0)
    refuse(cluster, f"the changelog is of format {LATER}, this program reads up to {FORMAT}")
    round_.fired("position of a later format refused")
    cluster.publish_record(changelog, present, key=POSITION, partition=0)


def refuse_a_candidate(round_: Round, cluster: LiveCluster) -> ClientPartition:
    """An empty mark, as a later version might write it; returns where it stands."""
    topic = cluster.names.candidates
    mark = candidates.encode(candidates.Mark("later", {}, ()))
    kinds = 2  # candidate and mark, whose numbers in a later format stand behind those of this one
    placed = cluster.publish_record(topic, mark[:1] + bytes([mark[1] + kinds]) + mark[2:], partition=0)
    worker = cluster.worker("w1", times=QUICK, static_membership=False)
    assert worker.await_end() == 1
    assert f'record {placed.offset} of "{topic}" is of a newer format' in worker.stopped_with, worker.stopped_with
    assert HINT in worker.stopped_with
    assert cluster.committed(topic)[0] <= placed.offset
    round_.fired("candidate of a later format refused")
    return placed


def refuse_a_workers_record(round_: Round, cluster: LiveCluster) -> None:
    """One that a worker of the later version has written."""
    present = next(each for each in reversed(cluster.read(cluster.names.workers)) if each.key == b"w1")
    later = json.dumps({**present.document, "slot": "w9", "format": LATER}).encode()
    cluster.publish_record(cluster.names.workers, later, key=b"w9")
    refuse(cluster, f'workers record "w9" is of format {LATER}, this program reads up to {FORMAT}')
    round_.fired("workers record of a later format refused")


def refuse_a_definition(round_: Round, cluster: LiveCluster) -> None:
    """Nobody can say what it means."""
    (present,) = cluster.read(cluster.names.definitions)
    later = json.dumps({**present.document, "id": "team/later", "format": LATER}).encode()
    cluster.publish_record(cluster.names.definitions, later, key=b"subscription/team/later")
    text, hint = f"has format {LATER}, newer than {FORMAT}", "run a newer signal-router here"
    refuse(cluster, text, hint)
    round_.fired("definition of a later format refused")
