"""A consumer process for the tests: it runs until SIGTERM, and dies or stands still where the file `arm` says.

`arm` names a step: `handler` (in the middle of a call), `produced` (its records are with the broker, the offsets are
not), `offsets` (they are sent), `commit` (right before the commit); with `freeze-` before it the process stops itself
(SIGSTOP) there instead of dying. It takes the file away first.

`mutant` takes a rule out: `anonymous` sends offsets under no membership at all, `offsets-outside` commits them beside
the transaction.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from signal_router.client import Connection, Retries, Transaction, Trigger, TriggerConsumer, modes
from signal_router.client.modes import ExactlyOnce
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import NextOffset, TopicPartition


def end_with(parent: int) -> None:
    """Leaves no consumer behind when the tests are killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def strike(arm: Path | None, step: str, sent: Callable[[], object] = lambda: None) -> None:
    """Ends or stops the process if that is ordered for this step; `sent` waits until the broker has what is open."""
    order = arm.read_text() if arm is not None and arm.exists() else ""
    if arm is None or order.removeprefix("freeze-") != step:
        return
    arm.unlink()
    sent()
    print("frozen" if order != step else "struck", step, flush=True)
    os.kill(os.getpid(), signal.SIGSTOP if order != step else signal.SIGKILL)


class Striking(KafkaTransactionLog):
    """A log in the middle of whose transactions the process may end."""

    arm: Path | None = None

    def strike(self, step: str) -> None:
        strike(self.arm, step, lambda: self._producer and self._producer._client.flush(5))

    def send_offsets(self, offsets: Mapping[TopicPartition, NextOffset], group_metadata: bytes) -> None:
        self.strike("produced")
        if offsets:
            super().send_offsets(offsets, group_metadata)
        self.strike("offsets")

    def commit(self, **given: object) -> None:
        self.strike("commit")
        super().commit(**given)  # type: ignore[arg-type]


def commit_by(mutant: str) -> Callable[..., bool]:
    """The commit of `ExactlyOnce` without one of its rules."""
    commit = ExactlyOnce.commit

    def anonymous(mode: ExactlyOnce, consumer: Consumer, offsets: Mapping[TopicPartition, int], given: bytes) -> bool:
        nobody = GroupMetadata(GroupMetadata.decode(given).group, -1, "")
        return commit(mode, consumer, offsets, nobody.encode())

    def outside(mode: ExactlyOnce, consumer: Consumer, next_offsets: Mapping[TopicPartition, int], _: bytes) -> bool:
        commit(mode, consumer, {}, b"")
        places = [ClientPartition(*tp, next_offset) for tp, next_offset in next_offsets.items()]
        with suppress(KafkaException):
            consumer.commit(offsets=places, asynchronous=False)
        return True

    return {"anonymous": anonymous, "offsets-outside": outside}[mutant]


def main(given: dict[str, object]) -> None:
    settings = {"session.timeout.ms": str(given.get("session_ms", 6_000)), "heartbeat.interval.ms": "500"}
    connection = Connection(str(given["bootstrap"]), str(given["prefix"]), overrides=settings)
    consumer = TriggerConsumer(
        connection,
        group=str(given["group"]),
        park_to=str(given["park_to"]),
        retries=Retries(attempts=3, first_s=0.05, longest_s=0.1),
    )
    work_s = float(str(given.get("work_s", 0)))
    arm = Path(str(given["arm"])) if "arm" in given else None

    def handle(trigger: Trigger) -> None:
        print("began", trigger.params["n"], flush=True)
        time.sleep(work_s)
        print("ended", trigger.params["n"], flush=True)

    def write(trigger: Trigger, transaction: Transaction) -> None:
        print("began", trigger.params["n"], flush=True)
        transaction.produce(str(given["outputs"]), json.dumps(dict(trigger.params)), key=str(trigger.params["n"]))
        strike(arm, "handler")
        transaction.publish("run.done", params=trigger.params)

    if given.get("mode") == "at-least-once":
        consumer.run(handle)
        return
    Striking.arm = arm
    modes.KafkaTransactionLog = Striking  # type: ignore[misc]
    if "mutant" in given:
        ExactlyOnce.commit = commit_by(str(given["mutant"]))  # type: ignore[method-assign]
    consumer.run_exactly_once(write, transactional_id=str(given["transactional_id"]), source="wf/test")


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    logging.basicConfig(level=logging.INFO)
    main(json.loads(sys.argv[1]))
