"""What the logs and tables of a simulation say of each invariant, once everything has come to its end.

That is what a check says of any logs, and what only a broker in memory can tell: which producer wrote what, committed
or not, and what the clock of the broker was when it took a signal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from signal_router.model.log import TopicPartition
from signal_router.testing.plant import Plant
from signal_router.testing.reference import CandidateInput, Evaluation, Input, Limits, MarkInput, evidence_from_lineage
from signal_router.testing.simulation import Simulation
from signal_router.verify.check import evaluate_and_check
from signal_router.verify.report import Finding, Invariant, Report, Verdict


def judge(simulation: Simulation) -> Report:
    """Says of every invariant whether it holds. `STRUCK` is judged over many schedules, not here."""
    plant = simulation.plant
    report, evaluation = evaluate_and_check(plant.logs(), limits=Limits(per_key=plant.per_key))
    if evaluation is not None:
        _count(evaluation, plant.happened)
    more = {
        Invariant.ORDER: _marks_ahead(plant),
        Invariant.FENCED: _fenced(plant),
        Invariant.CAUGHT_UP: (f"unread: {tp}" for tp in simulation.left_unread),
    }
    return Report(tuple(_with(each, more.get(each.invariant, ())) for each in report))


def _with(found: Finding, violations: Iterable[str]) -> Finding:
    """A finding with what was found besides."""
    details = tuple(violations)
    if not details:
        return found
    broken = found.details if found.verdict is Verdict.BROKEN else ()
    return replace(found, verdict=Verdict.BROKEN, details=(*details, *broken))


def _count(evaluation: Evaluation, happened: Counter[str]) -> None:
    happened["triggers"] += len(evaluation.triggers)
    happened["dead letter"] += len(evaluation.dead_letters)
    for ended in evaluation.ended:
        happened[f"outcome {ended.outcome}"] += 1
        happened["over the limit"] += ended.reason == "limit"


def _marks_ahead(plant: Plant) -> Iterator[str]:
    """No candidate comes after a mark that says its signals partition was read beyond it.

    That can be judged only where the broker stamps the records; the reference evaluation takes marks as they are.
    """
    if plant.timestamps == "CreateTime":
        return
    recorded = {
        (tp.topic, tp.partition, record.offset): record.timestamp
        for tp, records in plant.broker.read_all(plant.names.signals).items()
        for record in records
    }
    for number, inputs in sorted(_inputs(plant).items()):
        announced: dict[str, int] = {}
        for given in inputs:
            if isinstance(given, MarkInput):
                for name, until in given.announced.items():
                    announced[name] = max(until, announced.get(name, -1))
            elif isinstance(given, CandidateInput):
                topic, partition, _ = given.position
                until = announced.get(f"{topic}/{partition}", -1)
                at = recorded.get((*given.position,), until)
                if at < until:
                    where = f"candidates partition {number}, sequence {given.sequence}"
                    yield f"{where}: {given.position} of {at} comes after the mark of {until}"


def _inputs(plant: Plant) -> dict[int, list[Input]]:
    lineage = plant.broker.read_all(plant.names.lineage).values()
    return evidence_from_lineage(
        (each.key, each.value, tuple(each.headers or ())) for records in lineage for each in records
    )[1]


def _fenced(plant: Plant) -> Iterator[str]:
    """Nothing of an earlier life stands behind something of a later one, not even aborted: a fenced producer cannot
    write. A process that does not know of its successor may take the transactional id back, and then writes anew.
    """
    names = plant.names
    for topic in (names.candidates, names.changelog, names.triggers, names.lineage, names.dead_letters):
        for number in range(plant.broker.topics()[topic]):
            newest: dict[str, tuple[int, str, int]] = {}
            for entry in plant.broker.entries(TopicPartition(topic, number)):
                transaction = dict(entry.headers).get("sr_txn")
                if transaction is None or entry.run is None:
                    continue
                slot, incarnation, _ = transaction.decode().split("/")
                written = int(incarnation), entry.run.transactional_id, entry.run.epoch
                life, transactional_id, epoch = newest.get(slot, written)
                took_it_back = transactional_id == written[1] and epoch < written[2]
                if written[0] < life and not took_it_back:
                    where = f"{topic}/{number}/{entry.offset}"
                    yield f"{where} is of {transaction.decode()}, behind life {life}"
                newest[slot] = written
