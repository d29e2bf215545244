"""What the commands that follow a topic share: where to begin, when to end, and a line per record for people."""

from __future__ import annotations

import base64
import functools
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import click

from signal_router.errors import RecordError
from signal_router.kafka.tail import Beginning, End, Last, Since, Start
from signal_router.model.canonical import canonical_text
from signal_router.model.durations import duration_ms
from signal_router.model.json_values import decode_json
from signal_router.model.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from signal_router.kafka.tail import Read

Part = str | tuple[str, str]
"""A piece of a line: a text, or a text and its colour."""


class TimeType(click.ParamType):
    """A time: RFC 3339, a date (midnight UTC), or a duration before now (`2h`). Gives epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Reads the option's text."""
        if isinstance(value, int):
            return value
        try:
            return _time(value)
        except ValueError:
            self.fail(f'"{value}" is no time: 2026-03-10T06:00:00Z, 2026-03-10, or how long ago: 2h', param, ctx)


class StartType(click.ParamType):
    """Where to begin: `beginning`, `end`, `-N` (the last N records), or a time."""

    name = "start"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Start:  # noqa: ANN401
        """Reads the option's text."""
        if not isinstance(value, str):
            return cast("Start", value)
        if value in {"beginning", "end"}:
            return Beginning() if value == "beginning" else End()
        if value[:1] == "-" and value[1:].isdecimal() and int(value):
            return Last(-int(value))
        try:
            return Since(_time(value))
        except ValueError:
            self.fail(f'"{value}" is none of: beginning, end, -10, 2026-03-10T06:00:00Z, 2h (ago)', param, ctx)


class DurationType(click.ParamType):
    """A duration such as `7d` or `1h30m`, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Reads the option's text."""
        if isinstance(value, int):
            return value
        try:
            return duration_ms(value)
        except ValueError as error:
            self.fail(f"{error}: 7d, 1h30m, 90s", param, ctx)


def tail_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--from`, `--follow/--no-follow` and `-e`; its function takes `start` and `follow`."""

    @functools.wraps(command)
    def with_end(*, follow: bool, exit_at_end: bool, **others: Any) -> Any:  # noqa: ANN401
        return command(follow=follow and not exit_at_end, **others)

    for option in (
        click.option("-e", "--exit-at-end", is_flag=True, help="The same as --no-follow."),
        click.option("--follow/--no-follow", default=True, show_default=True, help="Waits for more at the end."),
        click.option(
            "--from",
            "start",
            type=StartType(),
            default="-10",
            show_default=True,
            metavar="START",
            help="beginning, end, -N (the last N), a time (2026-03-10T06:00:00Z) or how long ago (2h).",
        ),
    ):
        with_end = option(with_end)
    return with_end


def envelope(read: Read) -> dict[str, object]:
    """What programs get of every record beside its content."""
    tp, record = read
    return {
        "position": {"topic": tp.topic, "partition": tp.partition, "offset": record.offset},
        "timestamp": rfc3339(record.timestamp),
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "headers": {name: None if content is None else text_of(content) for name, content in record.headers or ()},
    }


def malformed(read: Read, error: RecordError) -> dict[str, object]:
    """What programs get of a record that is not what it should be: the reason, and the value in base64."""
    value = read.record.value
    return envelope(read) | {
        "error": {"reason": error.reason, "message": error.message},
        "value": None if value is None else base64.b64encode(value).decode(),
    }


def document_of(read: Read, what: str) -> dict[str, object]:
    """Reads a record's JSON object. Raises `RecordError`."""
    document = decode_json(read.record.value or b"", what=what)
    if not isinstance(document, dict):
        raise RecordError("not-object", f"{what} is no JSON object")
    return document


def line(parts: Iterable[Part]) -> str:
    """Joins the pieces of a line: on a terminal coloured and cut to its width, elsewhere plain and whole."""
    on_terminal = sys.stdout.isatty()
    left = shutil.get_terminal_size().columns if on_terminal else None
    coloured = on_terminal and not os.environ.get("NO_COLOR")
    pieces: list[str] = []
    for part in parts:
        text, colour = (part, None) if isinstance(part, str) else part
        text = printable(text) + "  "
        if left is not None:
            text = text if len(text) <= left else f"{text[: max(0, left - 1)]}…"
            left -= len(text)
        pieces.append(click.style(text, fg=colour) if coloured and colour else text)
        if left is not None and left <= 0:
            break
    return "".join(pieces).rstrip()


def printable(text: str) -> str:
    """Makes a text harmless for a terminal: what it could take for a command is spelled out."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def pairs(params: object) -> str:
    """Writes parameters as `--param` takes them: `k=1 country=US`, a string that looks like a number in quotes."""
    if not isinstance(params, dict) or not params:
        return "-"
    return " ".join(f"{name}={_scalar(value)}" for name, value in params.items())


def place(position: object) -> str:
    """Writes a position as `topic/partition/offset`."""
    match position:
        case {"topic": topic, "partition": partition, "offset": offset}:
            return f"{topic}/{partition}/{offset}"
        case _:
            return "?"


def who(signal: Mapping[str, object]) -> str:
    """Writes who announced a signal, and in which run: `source#id`."""
    source, id_ = signal.get("source"), signal.get("id")
    return "-" if source is None else f"{source}" if id_ is None else f"{source}#{id_}"


def bound(signals: Iterable[Mapping[str, object]]) -> str:
    """Writes the signals of a trigger: `alias: source#id`, for one without an id its position."""
    return ", ".join(
        f"{signal.get('alias')}: {who(signal) if signal.get('id') else place(signal.get('position'))}"
        for signal in signals
    )


def say(text: str) -> None:
    """Says something to people beside what is followed."""
    click.echo(text, err=True)


def text_of(content: bytes) -> str:
    """Bytes for people: as text, where they are some."""
    return content.decode("utf-8", "backslashreplace")


def _scalar(value: object) -> str:
    text = canonical_text(value)
    if not isinstance(value, str) or not value or " " in value:
        return text
    try:
        decode_json(value.encode(), what="value")
    except (RecordError, UnicodeEncodeError):
        return text[1:-1] if text[1:-1] == value else text
    return text


def _time(text: str) -> int:
    try:
        return int(time.time() * 1000) - duration_ms(text)
    except ValueError:
        at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
