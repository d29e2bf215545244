"""Two workers in memory under random schedules: crashes between any two effects, rebalances, lost and late answers."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from functools import cache

import pytest

from signal_router.errors import SignalRouterError
from signal_router.model.definitions import definition, definition_key, deletion, encode_definition
from signal_router.model.documents import Document, read_documents
from signal_router.model.log import AbortableError, ProducerFencedError, TopicPartition, UnknownOutcomeError
from signal_router.state.store import MemoryStore
from signal_router.testing.driver import APP, MUTANTS, MemoryWorker, Plant
from signal_router.testing.memory_log import Effect

SEED = int(os.environ.get("SIGNAL_ROUTER_SEED", "1"))
SCHEDULES = int(os.environ.get("SIGNAL_ROUTER_SCHEDULES", "250"))
PARTS = 8
"""Each of `SCHEDULES` schedules, so that several processes share the work."""
TURNS = 220

DOCUMENT = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {{id: team/{name}}}
spec:
  join: {{k: any}}
  policy: {policy}
  within: 30s
  dedupe: 60s
  members:
    - {{alias: {alias}, signal: A}}
    - {{alias: b, signal: B}}
  trigger: {{params: {{k: "{{join.k}}", edit: {edit}}}}}
"""


@cache
def document(name: str, policy: str, alias: str, edit: int) -> Document:
    text = DOCUMENT.format(name=name, policy=policy, alias=alias, edit=edit)
    return read_documents([("schedule.yaml", text)]).documents[0]


class Schedule:
    """One run: everything in it follows from its seed."""

    def __init__(self, seed: int, mutants: frozenset[str] = frozenset()) -> None:
        self.rng = rng = random.Random(seed)
        self.mutants = mutants
        self.incremental = rng.random() < 0.5
        self.static = not self.incremental and rng.random() < 0.5
        self.faulty = rng.random() < 0.7
        self.local = rng.random() < 0.7
        self.plant = Plant(rng.randint(1, 3), rng.randint(1, 3))
        self.stores = {"w1": MemoryStore(), "w2": MemoryStore()}
        self.lives: Counter[str] = Counter()
        self.birth, self.shape, self.edits, self.gone = 1, 1, 0, False
        self.apply()
        self.workers = {slot: self.start(slot) for slot in self.stores}

    # ---- what may happen

    def run(self) -> list[str]:
        """Runs the schedule and what is left after it; returns the differences to the reference evaluation."""
        for _ in range(TURNS):
            self.turn()
        self.drain()
        evaluation, differences = self.plant.evaluate()
        self.plant.happened["triggers"] += len(evaluation.triggers)
        for ended in evaluation.ended:
            self.plant.happened[f"outcome {ended.outcome}"] += 1
        return differences

    def turn(self) -> None:
        rng, happened = self.rng, self.plant.happened
        self.plant.clock.advance(rng.choice((0, 1, 5, 50, 300)))
        chance = rng.random()
        slot = rng.choice(("w1", "w2"))
        worker = self.workers[slot]
        if chance < 0.12:
            self.publish()
        elif chance < 0.13:
            self.apply()
        elif chance < 0.145:
            happened[f"crash at {worker.at}"] += 1
            self.restart(slot)
        elif chance < 0.16:
            happened["zombie"] += 1
            worker.member.expire()
        elif chance < 0.165:
            self.plant.broker.rebalance(APP)
        elif chance < 0.17:
            self.plant.clock.advance(rng.choice((11_000, 40_000)))
        elif chance < 0.19 and self.faulty:
            self.fault()
        elif chance < 0.21:
            self.plant.faults.release()
        elif chance < 0.22:
            self.delay_markers()
        elif chance < 0.26:
            self.plant.broker.write_markers()
        elif chance < 0.38:
            worker.poll()
        else:
            for _ in range(rng.randint(1, 12)):
                self.step(worker)
        if worker.ended is not None:
            self.restart(slot)

    @staticmethod
    def step(worker: MemoryWorker) -> None:
        worker.step()

    def publish(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(1, 3)):
            name = rng.choice("AB")
            signal = {
                "name": name,
                "source": "s",
                "id": str(rng.randrange(12)),
                "params": {"k": rng.choice((1, "1", 2))},
            }
            value = b"no json" if rng.random() < 0.04 else json.dumps(signal).encode()
            names, partition = self.plant.names, rng.randrange(self.plant.signals_partitions)
            self.plant.broker.append(names.signals, value, partition=partition)

    def apply(self) -> None:
        """Applies an edit of some kind, a delete, or what makes a new life of the subscription."""
        rng = self.rng
        self.edits += 1
        kind = rng.random()
        if self.gone:
            self.birth, self.shape, self.gone = self.birth + 1, 1, False
        elif kind < 0.3 and self.edits > 1:
            self.gone = True
        elif kind < 0.6 and self.edits > 1:
            self.shape += 1
        alias = "ac"[self.shape % 2]
        made = document("pair", rng.choice(("fifo", "latest")), alias, self.edits % 5)
        each = definition(made, birth=self.birth, join_generation=self.shape, applied_at=0)
        if self.gone:
            each = deletion(each, applied_at=0)
        self.plant.broker.append(self.plant.names.definitions, encode_definition(each), key=definition_key(each.id))

    def fault(self) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            self.plant.faults.straggle(rng.choice(("send_offsets", "commit", "abort")))
            return
        call = rng.choice(("init", "produce", "send_offsets", "commit", "abort"))
        error = rng.choice((AbortableError, UnknownOutcomeError, ProducerFencedError))
        if call in {"init", "abort", "commit"}:
            error = UnknownOutcomeError
        # A late produce is refused for its sequence numbers, a late init fences: only these three can do harm.
        held = (Effect.HELD,) if call in {"send_offsets", "commit", "abort"} else ()
        self.plant.faults.fail(call, error, effect=rng.choice((Effect.NONE, Effect.DONE, *held)))

    def delay_markers(self) -> None:
        """Makes offsets visible before the changelog's marker is written."""
        for number in range(self.plant.candidates_partitions):
            self.plant.broker.delayed_markers.add(TopicPartition(self.plant.names.changelog, number))

    # ---- lives

    def start(self, slot: str) -> MemoryWorker:
        self.lives[slot] += 1
        return MemoryWorker(
            self.plant,
            slot,
            incarnation=self.lives[slot],
            store=self.stores[slot],
            static=self.static,
            incremental=self.incremental,
            local=self.local,
            mutants=self.mutants,
            rng=self.rng,
        )

    def restart(self, slot: str) -> None:
        """Kill -9 and a new life; a third of them on an empty disk."""
        dead = self.workers[slot]
        if not self.static:
            dead.member.expire()
        if self.rng.random() < 0.3:
            self.stores[slot] = MemoryStore()
        self.workers[slot] = self.start(slot)

    def drain(self) -> None:
        """Lets everything that is under way come to its end, without any more faults."""
        plant = self.plant
        plant.faults.disarm()
        plant.faults.release()
        plant.broker.write_markers()
        for worker in self.workers.values():
            worker.draining = True
        for _ in range(3_000):
            plant.clock.advance(100)
            for slot, worker in list(self.workers.items()):
                worker.poll()
                for _ in range(6):
                    worker.step()
                if worker.ended is not None:
                    self.restart(slot)
                    self.workers[slot].draining = True
            if not plant.unread() and not plant.broker.open_transactions():
                return
        raise AssertionError(f"unread: {plant.unread()}, open: {plant.broker.open_transactions()}")


def run(seed: int, mutants: frozenset[str] = frozenset()) -> tuple[Counter[str], list[str]]:
    schedule = Schedule(seed, mutants)
    differences = schedule.run()
    return schedule.plant.happened + schedule.plant.faults.fired, differences


@pytest.mark.parametrize("part", range(PARTS))
def test_every_schedule_gives_what_the_reference_gives(part: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(SEED + part * SCHEDULES, SEED + (part + 1) * SCHEDULES):
        found, differences = run(seed)
        assert not differences, f"SIGNAL_ROUTER_SEED={seed} SIGNAL_ROUTER_SCHEDULES=1: {differences[:5]}"
        happened += found

    print(dict(sorted(happened.items())))
    for what in ("begin", "produce", "changelog", "offsets", "commit", "tables"):
        assert happened[f"crash at {what}"], f"no crash right before {what}"
    for what in (
        *("assigned", "revoked", "lost", "zombie", "waited for stable offsets", "waited for definitions"),
        *("transaction aborted", "transaction unknown", "transaction fenced", "released/applied"),
        *("joined locally", "sent through the topic", "another slot fenced"),
        *("grew", "kept", "taken over beside"),
        *("outcome fired", "outcome duplicate", "outcome expired", "outcome superseded", "outcome discarded"),
    ):
        assert happened[what], f"never: {what}"


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_worker_without_a_rule_is_found_out(mutant: str) -> None:
    for tried, seed in enumerate(range(SEED, SEED + 4 * SCHEDULES), 1):
        try:
            _, differences = run(seed, frozenset({mutant}))
        except (SignalRouterError, AssertionError) as refusal:
            differences = [str(refusal)]
        if differences:
            print(f"{mutant}: found by schedule {tried} (seed {seed}): {differences[0][:200]}")
            return
    raise AssertionError(f"{mutant}: not found in {4 * SCHEDULES} schedules")
