"""A worker's state directory belongs to one process: two on the same tables would destroy them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TextIO

from signal_router.errors import ConfigurationError
from signal_router.state.disk import refusal

LOCK = "worker.lock"


def claim(state_dir: Path, slot: str) -> TextIO:
    """Makes the directory and takes its lock; it is held until the file returned is closed or the process ends.

    Raises `ConfigurationError` where it cannot be written, or another process has it: slot and process are named.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = (state_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise _unusable(state_dir, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ConfigurationError(
            f'state directory "{state_dir}" is in use by {holder}; this worker is slot "{slot}"',
            hint="every worker needs a --slot and a --state-dir of its own",
        ) from error
    try:
        file.truncate(0)
        file.write(f'slot "{slot}" (process {os.getpid()})\n')
        file.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # it tries to write once more
            file.close()
        raise _unusable(state_dir, error) from error
    return file


def _unusable(state_dir: Path, error: OSError) -> ConfigurationError:
    hint = refusal(error) or "--state-dir DIR, a directory this user may write to"
    return ConfigurationError(f'state directory "{state_dir}" cannot be used: {error.strerror or error}', hint=hint)
