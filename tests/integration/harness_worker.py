"""A worker process for the tests: it runs until SIGTERM or a failure, and ends or stands still where it is told to.

Where the file `arm` names an effect of the commit, the process sends itself the signal named there right before that
effect, after the broker has what was produced: only then is a transaction open there. It takes the file away first.
`file_bytes` is the size beyond which no file of the process grows.
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
from pathlib import Path

from signal_router.core.join import Limits
from signal_router.errors import SignalRouterError
from signal_router.kafka.settings import Connection
from signal_router.runtime.app import Application
from signal_router.runtime.settings import Times, WorkerSettings
from signal_router.runtime.state_dir import claim

OPEN = frozenset({"changelog", "offsets", "commit"})
"""The effects before which the client holds records of an open transaction."""
SENT_WITHIN_S = 5.0
"""The client takes its time where it has to register partitions anew; the broker may be away as well."""


def strike(arm: Path, app: Application, effect: str) -> None:
    if not arm.exists():
        return
    orders = json.loads(arm.read_text())
    if orders["effect"] != effect:
        return
    arm.unlink()
    if effect in OPEN:
        app.worker._log._producer._client.flush(SENT_WITHIN_S)  # type: ignore[union-attr]
    print(json.dumps({"struck": effect}), flush=True)
    os.kill(os.getpid(), orders["signal"])


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
    signals = tuple(settings.pop("signals", ()))  # type: ignore[arg-type]
    state_dir = Path(str(settings.pop("state_dir")))
    worker = WorkerSettings(connection, state_dir=state_dir, signals=signals, **{"all_lineage": True, **settings})
    try:
        with claim(worker.state_dir, worker.slot):
            app = Application(worker, observe=lambda effect: strike(arm, app, effect))
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
