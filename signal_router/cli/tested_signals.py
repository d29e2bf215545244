"""Signals to be tested, out of a file or stdin: an object, an array, or one per line; read as workers read them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from signal_router.errors import ConfigurationError, RecordError
from signal_router.model.records import decode_signal
from signal_router.model.signals import Signal

_STRUCTURED = (("content-type", b"application/cloudevents+json"),)
_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileSignal:
    """One record of a file. `signal` is None where it would become a dead letter; `refusal` then says why."""

    where: str
    signal: Signal | None
    refusal: RecordError | None = None


def read_signals(name: str) -> list[FileSignal]:
    """Reads the signals of a file, `-` for stdin. Raises `ConfigurationError` where it cannot be read or has none."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f'signal file "{name}" cannot be read: {error.strerror}') from error
    where = "<stdin>" if name == "-" else name
    records = _records(content)
    if not records:
        raise ConfigurationError(f'signal file "{where}" holds no signal', hint='{"name": "…", "params": {…}}')
    return [_read(f"{where}:{line}", record) for line, record in records]


def _records(content: bytes) -> list[tuple[int, bytes]]:
    """The records with the lines they begin in: the bytes as they stand, so that no number changes."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if isinstance(whole, list):
        return [(1, json.dumps(each, ensure_ascii=False).encode()) for each in whole]
    return [(1, content)]


def _read(where: str, record: bytes) -> FileSignal:
    headers = _STRUCTURED if b'"specversion"' in record else None
    try:
        return FileSignal(where, decode_signal(record, headers, limit_bytes=_LIMIT_BYTES))
    except RecordError as error:
        return FileSignal(where, None, error)
