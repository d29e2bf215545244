"""Signals as `signals publish` is given them: a line of JSON each, a JSON array, or options; checked before sending.

Unlike what `subscriptions test` reads, a stream may be endless, and the bytes go out as they were written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from signal_router.errors import ConfigurationError, RecordError
from signal_router.model.json_values import decode_json
from signal_router.model.records import DEFAULT_SIGNAL_BYTES, decode_signal
from signal_router.model.signal_fields import SCALARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from signal_router.model.signals import Signal
    from signal_router.model.values import Value

SHOWN_PROBLEMS = 10

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Given:
    """One signal as given: where (`file:line`), its bytes, and what it is (None: it is none, and sent all the same)."""

    where: str
    value: bytes
    signal: Signal | None


def read_signals(stream: BinaryIO, name: str, headers: Headers, *, force: bool) -> Iterator[Given]:
    """Reads signals one by one, as they come. Blank lines are passed over.

    A stream that begins with `[`, or with an object over several lines, is read whole. Raises `ConfigurationError` for
    what is no signal, with its line; with `force` each line is given as it is.
    """
    for number, value in _values(stream, force=force):
        yield checked(f"{name}:{number}", value, headers, force=force)


def checked(where: str, value: bytes, headers: Headers, *, force: bool) -> Given:
    """Reads one value as a worker would. Raises `ConfigurationError` unless `force`."""
    try:
        return Given(where, value, decode_signal(value, headers, limit_bytes=DEFAULT_SIGNAL_BYTES))
    except RecordError as error:
        if force:
            return Given(where, value, None)
        raise ConfigurationError(f"{where}: {error.message}", hint=error.hint) from None


def check_all(stream: BinaryIO, name: str, headers: Headers) -> int:
    """Checks a whole file and counts its signals.

    Raises `ConfigurationError` that names the first problems, each with its line.
    """
    problems: list[str] = []
    hint, count = None, 0
    for number, value in _values(stream, force=False):
        count += 1
        try:
            decode_signal(value, headers, limit_bytes=DEFAULT_SIGNAL_BYTES)
        except RecordError as error:
            problems.append(f"{name}:{number}: {error.message}")
            hint = hint or error.hint
    if problems:
        shown = problems[:SHOWN_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"… and {len(problems) - len(shown)} more")
        raise ConfigurationError("nothing was sent:\n" + "\n".join(shown), hint=hint)
    return count


def signal_of_options(
    name: str, source: str | None, id_: str | None, params: Sequence[str], payload: str | None, time: str | None
) -> bytes:
    """Writes a signal from options. Raises `ConfigurationError` for a `--param` or `--payload` that cannot be read."""
    fields: dict[str, object] = {"name": name, "source": source, "id": id_, "time": time}
    document = {field: value for field, value in fields.items() if value is not None}
    if params:
        document["params"] = dict(map(_param, params))
    text = json.dumps(document, ensure_ascii=False)
    if payload is not None:
        try:
            decode_json(payload.encode(), what="--payload")
        except RecordError as error:
            raise ConfigurationError(error.message, hint="--payload '{\"rows\": [1, 2]}'") from None
        text = f'{text[:-1]}, "payload": {payload}}}'
    return text.encode()


def header_pairs(options: Iterable[str]) -> Headers:
    """Reads `--header NAME=VALUE`. Raises `ConfigurationError`."""
    pairs = [option.partition("=") for option in options]
    for name, equals, value in pairs:
        if not name or not equals:
            raise ConfigurationError(f'"{name}{equals}{value}" is no header', hint="--header traceparent=00-…")
    return tuple((name, value.encode()) for name, _, value in pairs)


def _param(option: str) -> tuple[str, Value]:
    name, equals, text = option.partition("=")
    if not name or not equals:
        raise ConfigurationError(f'"{option}" is no parameter', hint="--param rows=1500 --param country=US")
    try:
        value = decode_json(text.encode(), what=f'parameter "{name}"')
    except RecordError as error:
        words = text.lstrip("-")[:1].isalpha()  # NaN and Infinity are words to JSON, refused numbers to its readers
        if words or error.reason in {"not-json", "nesting"}:
            return name, text
        raise ConfigurationError(error.message, hint=error.hint) from None
    return name, cast("Value", value) if type(value) in SCALARS else text


def _values(stream: BinaryIO, *, force: bool) -> Iterator[tuple[int, bytes]]:
    """Gives each value with the number of its line."""
    first = True
    for number, line in enumerate(iter(stream.readline, b""), 1):
        if not line.strip():
            continue
        if first and not force and _goes_on(line):
            yield from _values_of_whole(number, line + stream.read())
            return
        first = False
        yield number, line.strip()


def _goes_on(line: bytes) -> bool:
    """Whether the first line begins an array, or an object that ends on a later one."""
    if line.lstrip().startswith(b"["):
        return True
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.decode(errors="replace").rstrip())
    except (ValueError, RecursionError):
        return False
    return False


def _values_of_whole(first_line: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    text = data.decode("utf-8", "surrogateescape")
    at = _skip(text, 0, " \t\r\n")
    in_array = text[at] == "["
    if in_array:
        at = _skip(text, at + 1, " \t\r\n")
    decode = json.JSONDecoder().raw_decode
    line, counted = first_line, 0
    while at < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            _, end = decode(text, at)
        except (ValueError, RecursionError):
            end = len(text)  # no end can be told: what is wrong is said of the rest
        yield line, text[at:end].encode("utf-8", "surrogateescape").strip()
        at = _skip(text, end, ", \t\r\n")
    if in_array and at >= len(text):
        raise ConfigurationError(f"the array that begins on line {first_line} has no end", hint="close it with ]")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at
