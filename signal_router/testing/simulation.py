"""A simulation: does a schedule's actions to workers in memory, then lets everything come to its end."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from signal_router.model.definitions import definition, definition_key, deletion, encode_definition
from signal_router.model.documents import Document, read_documents
from signal_router.model.log import AbortableError, LogError, ProducerFencedError, TopicPartition, UnknownOutcomeError
from signal_router.state.store import MemoryStore
from signal_router.testing.clock import START_AT
from signal_router.testing.driver import DELETE_RETENTION_MS, MemoryWorker
from signal_router.testing.memory_faults import Call, Effect
from signal_router.testing.memory_log import OFFSETS_PARTITION
from signal_router.testing.plant import APP, Plant
from signal_router.testing.schedules import Action, Schedule, Setup

SESSION_MS = 6_000
"""So long the group waits for a member that died."""
ROUNDS = 600
"""Everything must have come to its end in so many rounds of 100 ms, or the workers hang."""

_GHOST_POLLS = 0.3
"""So often a process hears of the group while another one has its slot."""

_ERRORS: Mapping[object, type[LogError]] = {
    "abortable": AbortableError,
    "unknown": UnknownOutcomeError,
    "fenced": ProducerFencedError,
}


@dataclass(slots=True)
class _Dead:
    """A process that is gone, and when the group will know."""

    worker: MemoryWorker
    noticed_at: int


class Simulation:
    """One run of a schedule. `workers` are made by the given class; those of mutants leave a rule out."""

    def __init__(self, setup: Setup, worker: type[MemoryWorker] = MemoryWorker) -> None:
        self.setup = setup
        self.plant = Plant(setup.signals_partitions, setup.candidates_partitions, setup.timestamps, setup.per_key)
        self.workers: dict[str, MemoryWorker] = {}
        self.stores = {slot: MemoryStore() for slot in setup.names}
        self.lives: Counter[str] = Counter()
        self.ghosts: dict[str, MemoryWorker] = {}
        self.left_unread: tuple[TopicPartition, ...] = ()
        self._dead: list[_Dead] = []
        self._worker = worker
        for name in setup.subscriptions:
            self._apply(name, "fifo", 0, 1, 1, False)

    def run(self, schedule: Schedule) -> None:
        """Does all actions, and then what is left to do. A `StateError` of the engine's own checks passes through."""
        for action in schedule.actions:
            self.do(action)
        self.drain()

    def do(self, action: Action) -> None:
        """Does one action; nothing where what it speaks of is not there."""
        self._move_to(START_AT + action.at)
        getattr(self, f"_{action.what}")(*action.args)

    def happened(self) -> Counter[str]:
        """Counts what struck: what befell workers, their transactions and requests."""
        time_outs = Counter({"time-out": self.plant.broker.expired})
        return self.plant.happened + self.plant.faults.fired + time_outs

    def drain(self) -> None:
        """Lets everything that is under way come to its end, without any more faults."""
        plant = self.plant
        plant.faults.disarm()
        plant.faults.release()
        plant.broker.write_markers()
        for ghost in self.ghosts.values():
            ghost.member.expire()
        self.ghosts.clear()
        for slot in self.setup.names:
            self._start(slot)
        for number in range(ROUNDS):
            self._move_to(plant.clock() + 100)
            for slot, worker in list(self.workers.items()):
                worker.draining = True
                worker.rng = random.Random(number)
                worker.poll(finish=number % 2 == 0)
                for _ in range(6):
                    worker.step()
                self._bury(slot)
                self._start(slot)
            committing = any(worker.committing for worker in self.workers.values())
            if not committing and not plant.unread() and not plant.broker.open_transactions():
                return
        self.left_unread = tuple(plant.unread())

    def _move_to(self, at: int) -> None:
        clock = self.plant.clock
        clock.advance(max(0, at - clock()))
        self._notice()

    def _notice(self) -> None:
        clock = self.plant.clock
        for dead in [dead for dead in self._dead if dead.noticed_at <= clock()]:
            dead.worker.member.expire()
            self._dead.remove(dead)

    # ---- workers

    def _start(self, slot: str) -> None:
        if slot in self.workers or slot not in self.stores:
            return
        self.lives[slot] += 1
        self.workers[slot] = self._worker(
            self.plant,
            slot,
            incarnation=self.lives[slot],
            store=self.stores[slot],
            static=self.setup.protocol == "static",
            incremental=self.setup.protocol == "consumer",
            local=self.setup.local,
        )

    def _kill(self, slot: str, wiped: bool, noticed: bool) -> None:  # noqa: FBT001 - as the action has it
        worker = self.workers.pop(slot, None)
        if worker is None:
            return
        self.plant.happened[f"crash at {worker.at}"] += 1
        self._dead.append(_Dead(worker, self.plant.clock() + SESSION_MS))
        if wiped:
            self.plant.happened["disk lost"] += 1
            self.stores[slot] = MemoryStore()
        if noticed and self.setup.protocol != "static":
            worker.member.expire()

    def _leave(self, slot: str, seed: int) -> None:
        worker = self.workers.pop(slot, None)
        if worker is not None:
            self.plant.happened["clean stop"] += 1
            worker.rng = random.Random(seed)
            worker.leave()

    def _double(self, slot: str) -> None:
        worker = self.workers.pop(slot, None)
        if worker is None:
            return
        self.plant.happened["second process"] += 1
        before = self.ghosts.pop(slot, None)
        if before is not None:
            before.member.expire()
        self.ghosts[slot] = worker
        self.stores[slot] = MemoryStore()  # only one process opens the directory
        self._start(slot)

    def _haunt(self, slot: str, count: int, seed: int) -> None:
        ghost = self.ghosts.get(slot)
        if ghost is None:
            return
        ghost.rng = random.Random(seed)
        for _ in range(count):
            ghost.step()
        if ghost.rng.random() < _GHOST_POLLS:
            ghost.poll()
        if ghost.ended is not None:
            ghost.member.expire()
            del self.ghosts[slot]

    def _step(self, slot: str, count: int, seed: int) -> None:
        worker = self.workers.get(slot)
        if worker is None:
            return
        worker.rng = random.Random(seed)
        for _ in range(count):
            worker.step()
        self._bury(slot)

    def _poll(self, slot: str, finish: bool, seed: int) -> None:  # noqa: FBT001 - as the action has it
        worker = self.workers.get(slot)
        if worker is not None:
            worker.rng = random.Random(seed)
            worker.poll(finish=finish)
            self._bury(slot)

    def _bury(self, slot: str) -> None:
        worker = self.workers.get(slot)
        if worker is not None and worker.ended is not None:
            del self.workers[slot]

    def _expire(self, slot: str) -> None:
        for dead in self._dead:
            if dead.worker.slot == slot:
                dead.noticed_at = 0
        self._notice()
        worker = self.workers.get(slot)
        if worker is not None:
            self.plant.happened["zombie"] += 1
            worker.member.expire()

    def _rebalance(self) -> None:
        self.plant.broker.rebalance(APP)

    # ---- the broker and the way to it

    def _fault(self, call: Call, error: str, effect: str) -> None:
        self.plant.faults.fail(call, _ERRORS[error], effect=Effect(effect))

    def _straggle(self, call: Literal["send_offsets", "commit", "abort"], slot: str) -> None:
        self.plant.faults.straggle(call, transactional_id=f"{APP}-{slot}")

    def _release(self) -> None:
        self.plant.faults.release()

    def _hold(self, topic: str, partition: int) -> None:
        self.plant.happened[f"marker held: {topic}"] += 1
        self.plant.broker.delayed_markers.add(self._partition(topic, partition))

    def _markers(self, topic: str, partition: int) -> None:
        self.plant.broker.write_markers(None if partition < 0 else self._partition(topic, partition))

    def _partition(self, topic: str, partition: int) -> TopicPartition:
        if topic == "offsets":
            return OFFSETS_PARTITION
        name: str = getattr(self.plant.names, topic)
        return TopicPartition(name, partition % self.plant.broker.topics()[name])

    def _compact(self, topic: str, tail: int) -> None:
        self.plant.happened[f"compacted: {topic}"] += 1
        self.plant.broker.compact(getattr(self.plant.names, topic), tail=tail, drop_tombstones=DELETE_RETENTION_MS)

    def _purge(self) -> None:
        self.plant.happened["candidates deleted"] += 1
        for tp, committed in self.plant.broker.committed(APP, self.plant.inputs).items():
            if tp.topic == self.plant.names.candidates and committed is not None:
                self.plant.broker.delete_records(tp, committed.offset)

    # ---- records

    def _publish(self, partition: int, value: str | None, skew_ms: int) -> None:
        self.plant.broker.append(
            self.plant.names.signals,
            None if value is None else value.encode(errors="surrogateescape"),
            partition=partition % self.setup.signals_partitions,
            timestamp=self.plant.clock() + skew_ms,
        )

    def _apply(
        self,
        name: str,
        policy: str,
        edit: int,
        birth: int,
        generation: int,
        deleted: bool,  # noqa: FBT001
    ) -> None:
        made = document(name, policy, generation, edit, self.setup.within, self.setup.dedupe)
        each = definition(made, birth=birth, join_generation=generation, applied_at=0)
        if deleted:
            each = deletion(each, applied_at=0)
        self._define(each.id, encode_definition(each))

    def _blank(self, name: str) -> None:
        self._define(f"team/{name}", None)

    def _garble(self) -> None:
        self._define("team/garbled", b"no document")

    def _define(self, subscription: str, value: bytes | None) -> None:
        self.plant.broker.append(self.plant.names.definitions, value, key=definition_key(subscription))


_MEMBERS: Mapping[str, list[dict[str, object]]] = {
    "pair": [{"alias": "{alias}", "signal": "A"}, {"alias": "b", "signal": "B"}],
    "each": [{"alias": "{alias}", "signal": "A", "match": {"n": {"<": 5}}}],
    "one": [{"alias": "{alias}", "signal": "B"}],
    "three": [{"alias": "{alias}", "signal": "A"}, {"alias": "b", "signal": "B"}, {"alias": "z", "signal": "C"}],
    "both": [{"alias": "{alias}", "signal": "A"}, {"alias": "b", "signal": "A", "match": {"n": {">": 3}}}],
}


@cache
def document(name: str, policy: str, generation: int, edit: int, within: int, dedupe: int) -> Document:
    """The document of one of the subscriptions of schedules: "pair", "each" (no join), "one", "three", "both".

    Some edits shorten `within` or lengthen `dedupe`, some narrow the predicates; all change the template.
    """
    alias = "ac"[generation % 2]
    within, dedupe = {3: (within // 3, dedupe), 4: (within, dedupe * 2)}.get(edit, (within, dedupe))
    members = [{**member, "alias": str(member["alias"]).format(alias=alias)} for member in _MEMBERS[name]]
    if edit == 2:
        members[-1] |= {"match": {"n": {">": 1}}}
    spec = {
        **({} if name == "each" else {"join": {"k": "any"}}),
        "policy": policy,
        "within": f"{within}ms",
        "dedupe": f"{dedupe}ms",
        "members": members,
        "trigger": {"params": {"edit": edit, "n": f"{{{alias}.params.n}}"}},
    }
    whole = {"apiVersion": "signal-router/v1", "kind": "Subscription", "metadata": {"id": f"team/{name}"}, "spec": spec}
    return read_documents([("schedule.yaml", json.dumps(whole))]).documents[0]
