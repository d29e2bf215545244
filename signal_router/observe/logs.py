"""Log lines: for people on a terminal, as JSON elsewhere; those of Faust and of Kafka's client go the same way."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_LIBRARIES = ("faust", "mode", "aiohttp", "asyncio", "signal_router.runtime.transport")
"""What they say below WARNING is of use to their authors only. Faust's services log under the name of our transport."""

_CLIENTS = "signal_router.kafka"
"""Where the lines of Kafka's client arrive. It calls errors what it mends itself by the next try."""


def configure_logs(level: int = logging.INFO, *, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Sends all log lines of the process to one stream (stderr as it is now), from a level on. Idempotent.

    `json` None: JSON lines unless the stream is a terminal. From DEBUG on Kafka's client and the libraries speak, too.
    """
    target = sys.stderr if stream is None else stream
    as_json = not target.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True) if as_json else _clock(),
    ]
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendered(target, as_json=as_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    verbose = level <= logging.DEBUG
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET if verbose else logging.WARNING)
    logging.getLogger(_CLIENTS).setLevel(logging.NOTSET if verbose else logging.ERROR)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _clock() -> Processor:
    return structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


def _rendered(target: TextIO, *, as_json: bool) -> list[Processor]:
    if as_json:
        return [
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    # The short traceback: a long one would show local values, which may be secrets.
    colours = target.isatty() and not os.environ.get("NO_COLOR")
    plain = structlog.dev.ConsoleRenderer(
        colors=colours, pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
    )
    return [_without_logger, plain]


def _in_order(_logger: object, _method: str, line: EventDict) -> EventDict:
    """When, how bad, what; then the fields."""
    return {**{name: line[name] for name in ("timestamp", "level", "event")}, **line}


def _without_logger(_logger: object, _method: str, line: EventDict) -> EventDict:
    """People know the line by its words."""
    line.pop("logger", None)
    return line
