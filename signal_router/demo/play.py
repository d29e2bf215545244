"""The play: broker, topics, subscriptions, a worker; signals, a kill in the middle; then the count."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec
from rich.markup import escape

from signal_router.demo import story
from signal_router.demo.cluster import DemoCluster, documents, wait_for
from signal_router.demo.counting import (
    Fired,
    Lineage,
    count_dead_letters,
    count_signals,
    read_lineage,
    read_triggers,
)
from signal_router.demo.expected import Verdict, compare, complete_sets
from signal_router.demo.faults import Fault, inject
from signal_router.demo.next_steps import from_scratch, while_it_runs
from signal_router.demo.producers import Producers
from signal_router.demo.screen import Screen
from signal_router.demo.worker_process import WorkerProcess
from signal_router.kafka.choice import BrokerChoice, choose_broker
from signal_router.kafka.settings import Connection, load_overrides

_KILLED_AT = 0.4
"""The share of the signals that the worker has taken when it is killed."""
_READY_WITHIN_S = 60.0
_DONE_WITHIN_S = 90.0


class Play:
    """One performance, on a cluster that is there."""

    def __init__(self, cluster: DemoCluster, screen: Screen, folder: Path, *, web_port: int | None = None) -> None:
        self._cluster = cluster
        self._screen = screen
        self._web_port = web_port
        self._worker = WorkerProcess(cluster.connection, folder, web_port=web_port)
        self._hero: str | None = None

    def prepare(self) -> None:
        """Makes the topics, applies the subscriptions, starts the worker."""
        cluster, screen = self._cluster, self._screen
        with screen.step("topics", "making them", lambda: "signals, triggers, lineage, dead-letters and our own"):
            cluster.make_topics()
        wanted = documents()
        cluster.apply(wanted)
        screen.say("waiting", _waiting([(document.id, _names(document.spec)) for document in wanted]))
        with screen.step("worker", "starting", lambda: f"process {self._worker.pid}: signal-router run"):
            self._start_worker()

    def perform(self, fault: Fault | None, *, days: int) -> bool:
        """Tells the story and counts; True if the count is right."""
        told = story.write(len(self._cluster.partitions(self._cluster.names.signals)), days=days)
        self._send(told)
        if fault is not None:
            self._screen.say("fault", f"[bold red]{escape(inject(fault, self._cluster))}[/]")
        return self._count(told)

    def show_next(self) -> None:
        """Says what to type next: now, where the worker has a web server and stays, else on a broker of one's own."""
        if self._web_port is None:
            self._screen.commands("What next? With --keep all this stays, to look around. On your own:", from_scratch())
            return
        commands = while_it_runs(self._cluster.connection, self._hero, self._web_port)
        self._screen.commands("Broker and worker go on until Ctrl-C. What next?", commands)

    def wait(self) -> None:
        """Waits for Ctrl-C; raises StateError if the worker ends before."""
        while True:
            self._worker.check()
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends the worker in good order."""
        self._worker.stop()

    # ---- the acts

    def _send(self, told: story.Story) -> None:
        screen, cluster = self._screen, self._cluster
        screen.say("signals", _sending(told))
        began = time.monotonic()
        with screen.bar(len(told.sendings)) as advance:
            producers = Producers(cluster, told, advance)
            producers.start()
            try:
                self._kill_in_the_middle(len(told.sendings))
                producers.finish()
            finally:
                producers.stop()
        screen.say("signals", "all sent; no producer noticed anything", time.monotonic() - began)
        with screen.step("worker", "deciding what is left", lambda: "has decided every signal"):
            wait_for(cluster.all_decided(), within_s=_DONE_WITHIN_S, what="deciding", check=self._worker.check)

    def _kill_in_the_middle(self, total: int) -> None:
        cluster, worker, screen = self._cluster, self._worker, self._screen
        wait_for(
            lambda: cluster.taken() >= total * _KILLED_AT,
            within_s=_READY_WITHIN_S,
            what="taking the first signals",
            check=worker.check,
        )
        pid = worker.pid
        written = worker.kill_inside(cluster.uncommitted)
        inside = (
            f"inside a transaction: [bold]{written:,}[/] records of it stand on the topics and must count for nothing"
            if written
            else "between two transactions"
        )
        screen.say("kill -9", f"[bold yellow]process {pid}[/], {inside}")
        began = time.monotonic()
        self._start_worker()
        screen.say("worker", f"process {worker.pid} goes on where the last commit was", time.monotonic() - began)

    def _start_worker(self) -> None:
        """Starts the worker and waits until it has announced itself: the first transaction of a life."""
        cluster, worker = self._cluster, self._worker
        before = cluster.ends([cluster.names.workers], committed=True)
        worker.start()
        wait_for(
            lambda: cluster.ends([cluster.names.workers], committed=True) > before,
            within_s=_READY_WITHIN_S,
            what="starting the worker",
            check=worker.check,
        )

    def _count(self, told: story.Story) -> bool:
        cluster, screen = self._cluster, self._screen
        signals, fired, lineage = count_signals(cluster), read_triggers(cluster), read_lineage(cluster)
        letters = count_dead_letters(cluster)
        triggers = [each.trigger for each in fired]
        verdict = compare(complete_sets(told.facts()), [(each.set_key, each.trigger_id) for each in triggers])
        good = verdict.good and letters == signals.bad == 1
        screen.count([
            ("signals", signals.signals, "distinct, on the signals topic", None),
            ("repeats", signals.repeats, "further records of them, on other partitions", None),
            ("complete sets", verdict.complete, "from what the producers sent, by hand", None),
            ("triggers", verdict.triggers, "on the triggers topic, read_committed", verdict.good),
            ("missing", len(verdict.missing), "complete sets without a trigger", not verdict.missing),
            ("twice", len(verdict.twice), "triggers more than complete sets", not verdict.twice),
            ("dead letters", letters, "the record that was cut off", letters == signals.bad == 1),
        ])  # fmt: skip
        self._show_lineage(fired, lineage)
        screen.verdict(_last_word(verdict, letters, lineage), good=good)
        return good

    def _show_lineage(self, fired: list[Fired], lineage: Lineage) -> None:
        day, country = story.HERO
        key = ("content-ml/decision-model", country, day.isoformat())
        hero = next((each for each in fired if each.trigger.set_key == key), None)
        if hero is None:
            return
        trigger = hero.trigger
        self._hero = trigger.trigger_id
        repeats = lineage.repeats_of(trigger)
        branches = []
        for signal in trigger.signals:
            spelt = ", ".join(f"{name} {value}" for name, value in signal.params.items())
            leaves = [f"{signal.name} [dim]from[/] {signal.source}, {signal.id}", f"[dim]{escape(spelt)}[/]"]
            leaves += [
                f"[dim]again at {each.position}: {each.outcome}, caused nothing[/]"
                for each in repeats
                if each.cause is not None and each.cause["position"] == msgspec.to_builtins(signal.position)
            ]
            branches.append((f"[bold]{signal.alias}[/]  {signal.position}", leaves))
        apart = (_time(trigger.fired_at) - _time(trigger.opened_at)).total_seconds()
        self._screen.console.print("  Why did this run start? From the lineage topic, members sent first and last:\n")
        self._screen.tree(
            f"[bold]{trigger.subscription.id}[/] {day} {country}\n"
            f"[dim]trigger {trigger.trigger_id}\n"
            f"members {apart:.1f} s apart, transaction {hero.transaction} (slot/life/number)[/]",
            branches,
        )


@contextmanager
def stage(screen: Screen) -> Iterator[DemoCluster]:
    """A broker, said aloud, and the demo's own topics on it; what was started ends with it.

    Ours alone is the cluster we start. On a given one the topics have a prefix of their own and are deleted at the end.
    """
    choice = choose_broker()
    screen.say("broker", escape(choice.reason.removeprefix("broker: ")))
    began = time.monotonic()
    with choice:
        screen.say("", f"answers at {choice.bootstrap}", time.monotonic() - began)
        cluster = DemoCluster(_connection(choice))
        try:
            yield cluster
        finally:
            if choice.kind == "given":
                cluster.delete()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the worker's tables and log, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="signal-router-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _connection(choice: BrokerChoice) -> Connection:
    prefix = f"demo-{uuid.uuid4().hex[:6]}-" if choice.kind == "given" else ""
    return Connection(choice.bootstrap, prefix, overrides=load_overrides((), environment=os.environ))


def _names(spec: object) -> str:
    members = spec.get("members", []) if isinstance(spec, dict) else []
    return " + ".join(str(member["signal"]) for member in members)


def _waiting(subscriptions: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"[bold]{name}[/]\n  {members}" for name, members in subscriptions)


def _sending(told: story.Story) -> str:
    teams = told.teams()
    return (
        f"{len(teams)} teams send {len(told.sendings):,} records to random partitions: keys interleaved, "
        "repeats, days as 2026-03-10, 20260310 and 2026-03-10T22:00:00Z, one record cut off"
    )


def _last_word(verdict: Verdict, letters: int, lineage: Lineage) -> str:
    if verdict.missing:
        key = verdict.missing[0]
        fired = any(trigger.set_key == key for trigger in lineage.triggers.values())
        word = f"A trigger is missing: {' '.join(key)}."
        return f"{word} It had been fired: its lineage is there." if fired else word
    if verdict.twice:
        return f"A trigger too many: {' '.join(verdict.twice[0])}."
    if letters != 1:
        return f"{letters} dead letters instead of 1."
    return f"{verdict.complete:,} complete sets, {verdict.triggers:,} triggers: each exactly once, kill -9 or not."


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
