"""A worker in a process of its own, so that it can be killed like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from signal_router.errors import StateError
from signal_router.kafka import lifeline
from signal_router.kafka.settings import Connection

SLOT = "demo-0"
_STOPS_WITHIN_S = 20.0
_SETTLE_S = 0.05
"""A commit that was decided before the stop writes its markers within this time."""


class WorkerProcess:
    """One slot: `start` may be called again after a kill. Its log lines go to a file."""

    def __init__(self, connection: Connection, folder: Path, *, web_port: int | None = None) -> None:
        self._connection = connection
        self._folder = folder
        self._web_port = web_port
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; -1 before the first start."""
        return -1 if self._process is None else self._process.pid

    @property
    def log_file(self) -> Path:
        """What the worker wrote, over all its lives."""
        return self._folder / "worker.log"

    def start(self) -> None:
        """Starts `signal-router run`; returns at once."""
        connection = self._connection
        command = [sys.executable, "-m", "signal_router", "run", "--slot", SLOT]
        command += ["--state-dir", str(self._folder / "state"), "--web-port", str(self._web_port or "off")]
        command += ["--bootstrap", connection.bootstrap, "--prefix", connection.prefix, "--app", connection.app]
        with self.log_file.open("ab") as log:
            # A session of its own: Ctrl-C is for the demo, which stops the worker in good order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", lifeline.__file__, str(self.pid), str(os.getpid()), str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def check(self) -> None:
        """Raises StateError if the worker ended by itself; its last lines are in the text."""
        if self._process is not None and (code := self._process.poll()) is not None:
            lines = self.log_file.read_text(errors="replace").splitlines()[-12:]
            raise StateError(f"the worker ended with exit code {code}; its last lines:\n" + "\n".join(lines))

    def kill_inside(self, uncommitted: Callable[[], int], *, attempts: int = 300) -> int:
        """Kills the worker (SIGKILL) while a transaction of it is open, and returns how many records that had written.

        To be sure, the process is frozen first: if it is inside a transaction then, it is killed, else it goes on for
        a moment. 0: no attempt met one, and it was killed between two.
        """
        written = 0
        for attempt in range(attempts):
            self.check()
            os.kill(self.pid, signal.SIGSTOP)
            written = uncommitted()
            if written:
                time.sleep(_SETTLE_S)
                written = uncommitted()
            if written:
                break
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(0.003 + 0.001 * (attempt % 11))  # in no step with the commits
        os.kill(self.pid, signal.SIGKILL)
        self._ended()
        return written

    def stop(self) -> None:
        """Ends the worker in good order (SIGTERM), by force where that takes too long. Idempotent."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(_STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._ended()

    def _ended(self) -> None:
        process, guard = self._process, self._guard
        self._process = self._guard = None
        if process is not None:
            process.wait()
        if guard is not None and guard.stdin is not None:
            try:
                guard.stdin.write(b"done")
                guard.stdin.close()
            except BrokenPipeError:
                pass
            guard.wait()
