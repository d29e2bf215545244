"""What the logs and tables of a simulation say of each invariant, once everything has come to its end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from signal_router.core.tables import JoinSet, Pending
from signal_router.model.log import TopicPartition
from signal_router.state.keys import LOCAL_POSITION, after, partition_prefix
from signal_router.state.store import MemoryStore
from signal_router.testing.memory_log import OFFSETS_PARTITION
from signal_router.testing.plant import APP, Plant
from signal_router.testing.reference import CandidateInput, Evaluation, Evidence, MarkInput
from signal_router.testing.reference_evidence import Output
from signal_router.testing.simulation import Simulation
from signal_router.verify.report import Invariant, Report, finding

Violation = tuple[Invariant, str]

_PLACES = (
    ("in transit: ", Invariant.CONSERVED),
    ("lineage trigger/", Invariant.LINEAGE),
    ("lineage signal/", Invariant.ONE_OUTCOME),
    ("dead letter ", Invariant.DEAD_LETTERS),
    ("the candidate of ", Invariant.CONSERVED),  # lost
)
_PHRASES = (
    (" is missing", Invariant.COMPLETE),
    (" times", Invariant.UNIQUE),
    (" is matched by nothing", Invariant.CONSERVED),
    (" was taken before", Invariant.ONE_OUTCOME),
)


def invariant_of(difference: str) -> Invariant:
    """Names the invariant that a difference between topics and reference evaluation breaks."""
    for beginning, invariant in _PLACES:
        if difference.startswith(beginning):
            return invariant
    for phrase, invariant in _PHRASES:
        if difference.endswith(phrase):
            return invariant
    return Invariant.SOUND if difference.startswith(("trigger ", "a record of topic ")) else Invariant.ORDER


def judge(simulation: Simulation) -> Report:
    """Says of every invariant whether it holds."""
    plant = simulation.plant
    evidence = plant.evidence()
    evaluation, differences = plant.evaluate(evidence)
    _count(evaluation, plant.happened)
    found: defaultdict[Invariant, list[str]] = defaultdict(list)
    violations = [
        *((invariant_of(difference), difference) for difference in differences),
        *_repeated(evaluation, plant.outputs(plant.names.triggers)),
        *_torn(plant),
        *_unknown_parents(evidence, plant.outputs(plant.names.triggers)),
        *_marks_ahead(evidence, plant),
        *_offsets(plant),
        *_fenced(plant),
        *_tables(simulation, evaluation),
        *((Invariant.CLOSED, f"open: {name} {tps}") for name, tps in plant.broker.open_transactions().items()),
        *((Invariant.CAUGHT_UP, f"unread: {tp}") for tp in simulation.left_unread),
    ]
    for invariant, violation in violations:
        found[invariant].append(violation)
    examined = _examined(simulation, evidence, evaluation)
    return Report(tuple(finding(each, found[each], examined=examined[each]) for each in Invariant if each in examined))


def _examined(simulation: Simulation, evidence: Evidence, evaluation: Evaluation) -> Mapping[Invariant, int]:
    """How much each invariant is judged by. `STRUCK` is judged over many schedules, not here."""
    plant = simulation.plant
    triggers = len(plant.outputs(plant.names.triggers))
    tables = sum(tp.topic == plant.names.candidates for each in simulation.workers.values() for tp in each.running)
    return {
        Invariant.COMPLETE: len(evaluation.triggers),
        Invariant.SOUND: triggers,
        Invariant.UNIQUE: triggers,
        Invariant.ONE_OUTCOME: len(evaluation.expected),
        Invariant.CONSERVED: len(evaluation.expected),
        Invariant.LINEAGE: triggers,
        Invariant.PARENTS: triggers,
        Invariant.OFFSETS: len(plant.broker.entries(OFFSETS_PARTITION)),
        Invariant.ORDER: sum(map(len, evidence.inputs.values())),
        Invariant.TABLES: tables,
        Invariant.FENCED: len(plant.outputs(plant.names.lineage)),
        Invariant.CLOSED: sum(simulation.lives.values()),
        Invariant.CAUGHT_UP: len(plant.inputs),
        Invariant.DEAD_LETTERS: len(evaluation.dead_letters),
    }


def _count(evaluation: Evaluation, happened: Counter[str]) -> None:
    happened["triggers"] += len(evaluation.triggers)
    happened["dead letter"] += len(evaluation.dead_letters)
    for ended in evaluation.ended:
        happened[f"outcome {ended.outcome}"] += 1
        happened["over the limit"] += ended.reason == "limit"


def _repeated(evaluation: Evaluation, triggers: Iterable[Output]) -> Iterator[Violation]:
    """An id may come again after the horizon, which the reference evaluation knows."""
    expected = Counter(trigger.trigger_id for trigger in evaluation.triggers)
    found = Counter(str(json.loads(value or b"{}").get("trigger_id")) for _, value, _ in triggers)
    for trigger_id, count in found.items():
        if count > max(1, expected[trigger_id]):
            yield Invariant.UNIQUE, f"trigger {trigger_id} fired {count} times, not {expected[trigger_id]}"


def _unknown_parents(evidence: Evidence, triggers: Iterable[Output]) -> Iterator[Violation]:
    known = {(*partition, record.offset) for partition, records in evidence.signals.items() for record in records}
    for _, value, _ in triggers:
        for signal in json.loads(value or b"{}").get("signals", ()):
            position = signal["position"]
            if (position["topic"], position["partition"], position["offset"]) not in known:
                yield Invariant.PARENTS, f"no record is at {position}"


def _torn(plant: Plant) -> Iterator[Violation]:
    """A trigger and its lineage carry the same transaction."""
    triggers, lineage = (
        {
            _firing(value): dict(headers).get("sr_txn")
            for key, value, headers in plant.outputs(topic)
            if topic == plant.names.triggers or (key or b"").startswith(b"trigger/")
        }
        for topic in (plant.names.triggers, plant.names.lineage)
    )
    for firing, transaction in triggers.items():
        if lineage.get(firing, transaction) != transaction:
            yield Invariant.LINEAGE, f"trigger {firing} is of {transaction!r}, its lineage of {lineage[firing]!r}"


def _firing(value: bytes | None) -> str:
    trigger = json.loads(value or b"{}")
    return f"{trigger.get('trigger_id')} at {trigger.get('order')}"


def _marks_ahead(evidence: Evidence, plant: Plant) -> Iterator[Violation]:
    """No candidate comes after a mark that says its signals partition was read beyond it.

    That can be judged only where the broker stamps the records; the reference evaluation takes marks as they are.
    """
    if plant.timestamps == "CreateTime":
        return
    recorded = {
        (*partition, record.offset): record.timestamp
        for partition, records in evidence.signals.items()
        for record in records
    }
    for number, inputs in sorted(evidence.inputs.items()):
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
                    yield Invariant.ORDER, f"{where}: {given.position} of {at} comes after the mark of {until}"


def _offsets(plant: Plant) -> Iterator[Violation]:
    """What was committed never goes back, and lies within its partition."""
    at: dict[bytes, int] = {}
    for entry in plant.broker.entries(OFFSETS_PARTITION):
        committed = entry.run is None or entry.run.committed
        if entry.key is None or not committed:
            continue
        next_offset = int(entry.value or b"0")
        if next_offset < at.get(entry.key, 0):
            yield Invariant.OFFSETS, f"{entry.key.decode()} went back from {at[entry.key]} to {next_offset}"
        at[entry.key] = next_offset
    for tp, committed_offset in plant.broker.committed(APP, plant.inputs).items():
        if committed_offset is not None and committed_offset.offset > plant.broker.end_offset(tp):
            yield Invariant.OFFSETS, f"{tp}: {committed_offset.offset} is beyond the end"


def _fenced(plant: Plant) -> Iterator[Violation]:
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
                    yield Invariant.FENCED, f"{where} is of {transaction.decode()}, behind life {life}"
                newest[slot] = written


def _tables(simulation: Simulation, evaluation: Evaluation) -> Iterator[Violation]:
    """Each table is what its changelog adds up to, and holds as pending what the reference evaluation has."""
    plant = simulation.plant
    for slot, worker in simulation.workers.items():
        for tp in sorted(tp for tp in worker.running if tp.topic == plant.names.candidates):
            kept = _entries(simulation.stores[slot], tp.partition)
            folded = _fold(plant, tp.partition)
            for key in sorted(kept.keys() | folded.keys()):
                if kept.get(key) != folded.get(key):
                    yield Invariant.TABLES, f"table {tp.partition} of {slot}: {key!r} differs from the changelog"
            expected = {
                ((*each.position,), each.subscription) for each in evaluation.pending if each.partition == tp.partition
            }
            for position, subscription in sorted(_pending(kept) ^ expected):
                what = "is missing" if (position, subscription) in expected else "is not expected"
                yield Invariant.TABLES, f'table {tp.partition} of {slot}: {position} for "{subscription}" {what}'


def _entries(store: MemoryStore, number: int) -> Mapping[bytes, bytes]:
    prefix = partition_prefix(number)
    entries = ((key[len(prefix) :], value) for key, value in store.scan(prefix, after(prefix)))
    return {key: value for key, value in entries if key != LOCAL_POSITION and key[:1] != b"T"}


def _fold(plant: Plant, number: int) -> Mapping[bytes, bytes]:
    tp = TopicPartition(plant.names.changelog, number)
    folded = {each.key or b"": each.value for each in plant.broker.read_all(tp.topic)[tp]}
    return {key: value for key, value in folded.items() if value is not None}


def _pending(entries: Mapping[bytes, bytes]) -> set[tuple[tuple[str, int, int], str]]:
    found = set()
    for key, value in entries.items():
        waiting: Iterable[Pending] = ()
        if key[:1] == b"S":
            waiting = msgspec.msgpack.decode(value, type=JoinSet).pending
        elif key[:1] == b"Q":
            waiting = (msgspec.msgpack.decode(value, type=Pending),)
        subscription = key[1:].split(b"\0", 1)[0].decode()
        for each in waiting:
            found.add(((each.signal.topic, each.signal.partition, each.signal.offset), subscription))
    return found
