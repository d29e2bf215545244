"""A guard process: stops the broker's JVM when the process that started it dies, however it dies (kill -9 too).

Run as a script by its path, so that it starts in a few milliseconds: `lifeline.py JVM_PID OWNER_PID FOLDER|-` (the
folder is removed at the end).
Its stdin is a pipe that only the owner holds open; it ends with the owner. Imports nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time

_LOOK_EVERY_S = 0.5
_CLEAN_STOP_S = 10.0


def main(jvm: int, owner: int, folder: str) -> None:
    """Waits for the owner's end or its word that all is well ("done"), then stops the JVM and removes the folder."""
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], _LOOK_EVERY_S)
        if readable:
            if os.read(0, 16).startswith(b"done"):
                return
            break
    _stop(jvm)
    if folder != "-":
        shutil.rmtree(folder, ignore_errors=True)


def _stop(jvm: int) -> None:
    deadline = time.monotonic() + _CLEAN_STOP_S
    try:
        os.kill(jvm, signal.SIGCONT)  # a paused JVM would never see the next one
        os.kill(jvm, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(jvm, 0)
            time.sleep(0.1)
        os.kill(jvm, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
