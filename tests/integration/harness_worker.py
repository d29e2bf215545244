"""A worker process for the tests: it runs until SIGTERM or a failure, and ends or stands still where it is told to.

Where the file `arm` names an effect of the commit, the process sends itself the signal named there right before that
effect, after the broker has what was produced: only then is a transaction open there. It takes the file away first.
So it does before the steps of `STEPS`. `file_bytes` is the size beyond which no file of the process grows; `trusted_ms`
how old tables may be that are believed; `format` the number under which the process writes positions and candidates,
as a later version would, which also reads those of format 1.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from signal_router.core.join import Limits
from signal_router.errors import SignalRouterError
from signal_router.kafka.settings import Connection
from signal_router.kafka.transaction import KafkaTransactionLog
from signal_router.model import candidates
from signal_router.runtime import join, local, match, positions, takeover
from signal_router.runtime.app import Application
from signal_router.runtime.settings import Times, WorkerSettings
from signal_router.runtime.state_dir import claim
from signal_router.runtime.worker import Worker

OPEN = frozenset({"changelog", "offsets", "commit"})
"""The effects before which the client holds records of an open transaction."""
STRUCK_S = 0.5
"""Another thread may be the one that a signal reaches, and this one would go on until the process stands still."""
SENT_WITHIN_S = 5.0
"""The client takes its time where it has to register partitions anew; the broker may be away as well."""

STEPS: dict[str, tuple[object, str]] = {
    "init": (KafkaTransactionLog, "init"),
    "take over": (takeover, "_stable_offsets"),
    "fence": (Worker, "_end_transaction_of"),
    "restore": (takeover, "_restore_tables"),
    "restored": (takeover, "_entries"),
    "announce": (Worker, "_announce"),
    "revoke": (Worker, "revoked"),
}
"""What comes outside of commits: a producer takes its id, committed offsets are asked for, a dead worker's transaction
is ended, tables are restored, what was restored is written, the new owner is announced, and it gives partitions back.
"""
CANDIDATE_KINDS = 2
"""Of format 1; a later format's numbers stand behind them."""


def strike(arm: Path, app: Application, effect: str) -> None:
    try:
        orders = json.loads(arm.read_text())
    except FileNotFoundError:
        return
    if orders["effect"] != effect or (orders["inputs"] and not app.worker._sending.records):  # type: ignore[union-attr]
        return
    arm.unlink(missing_ok=True)
    if effect in OPEN:
        app.worker._log._producer._client.flush(SENT_WITHIN_S)  # type: ignore[union-attr]
    print(json.dumps({"struck": effect}), flush=True)
    os.kill(os.getpid(), orders["signal"])
    time.sleep(STRUCK_S)


def strike_before(told: Callable[[str], object], step: str) -> None:
    place, name = STEPS[step]
    inner = getattr(place, name)

    @wraps(inner)
    def call(*given: object, **more: object) -> object:
        told(step)
        return inner(*given, **more)

    setattr(place, name, call)


def become_format(number: int) -> None:
    """Writes under a later number what is else as it was, and reads both."""
    join.FORMAT = positions.FORMAT = number  # type: ignore[misc]
    written, read = candidates.encode, candidates.decode
    shift = CANDIDATE_KINDS * (number - 1)

    def encode(what: object) -> bytes:
        value = written(what)
        return value[:1] + bytes([value[1] + shift]) + value[2:]

    def decode(value: bytes) -> object:
        return read(value[:1] + bytes([value[1] - shift]) + value[2:] if value[1] > CANDIDATE_KINDS else value)

    local.encode = match.encode = encode  # type: ignore[attr-defined, assignment]
    candidates.decode = decode  # type: ignore[assignment]


def end_with(parent: int) -> None:
    """Leaves no worker behind when the tests are killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


async def main(given: dict[str, object]) -> int:
    settings = dict(given)
    connection = Connection(str(settings.pop("bootstrap")), str(settings.pop("prefix")))
    arm = Path(str(settings.pop("arm")))
    for name, kind in (("times", Times), ("limits", Limits)):
        if name in settings:
            settings[name] = kind(**settings[name])  # type: ignore[arg-type]
    if "file_bytes" in settings:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(str(settings.pop("file_bytes"))), hard))
    takeover.TRUSTED_FOR_MS = int(str(settings.pop("trusted_ms", takeover.TRUSTED_FOR_MS)))  # type: ignore[misc]
    become_format(int(str(settings.pop("format", 1))))
    signals = tuple(settings.pop("signals", ()))  # type: ignore[arg-type]
    state_dir = Path(str(settings.pop("state_dir")))
    worker = WorkerSettings(connection, state_dir=state_dir, signals=signals, **{"all_lineage": True, **settings})
    try:
        with claim(worker.state_dir, worker.slot):
            app = Application(worker, observe=lambda effect: strike(arm, app, effect))
            for step in STEPS:
                strike_before(lambda step: strike(arm, app, step), step)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop)
            error = await app.run()
    except SignalRouterError as failure:
        error = failure
    else:
        taken = {way: count for (name, _, way), count in app.meter.counts.items() if name == "candidates"}
        print(json.dumps({"candidates": taken}), flush=True)
    print(json.dumps({"ended": None if error is None else str(error)}), flush=True)
    return 0 if error is None else 1


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    code = asyncio.run(main(json.loads(sys.argv[1])))
    os._exit(code)  # clients that wait for a broker that is gone must not hold the process
