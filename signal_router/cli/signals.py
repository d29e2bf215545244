"""`signal-router signals`: publishing signals as any producer may, and following them."""

from __future__ import annotations

import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from signal_router.cli import given_signals, tailing
from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.cli.progress import progress_bar
from signal_router.cli.tailing import envelope, malformed, pairs, place, tail_options, who
from signal_router.errors import ConfigurationError, RecordError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.offsets import describe
from signal_router.kafka.publish import Publisher, Sent
from signal_router.kafka.tail import Read, Start, tail
from signal_router.kafka.topics import resolve
from signal_router.model.candidates import identity_of
from signal_router.model.json_values import decode_json
from signal_router.model.log import OutputRecord
from signal_router.model.records import DEFAULT_SIGNAL_BYTES, decode_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from signal_router.cli.given_signals import Given, Headers
    from signal_router.kafka.settings import Connection

SHOWN = 10
"""How many published signals people see a line of."""

WORTH_A_RATE = 1_000
"""Below it the time is that of connecting."""


@click.group()
def cli() -> None:
    """Publishes and follows signals."""


@cli.command()
@connection_options
@click.option("-f", "--file", help="A file, or - for stdin: one signal per line (NDJSON), or a JSON array of them.")
@click.option("--name", help="Publishes one signal of this name, made of the following options.")
@click.option("--source", help="Who announces it; needed with --id.")
@click.option("--id", "id_", help="Unique within the source: a repeat is a duplicate.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="Typed as JSON where it is a JSON scalar.")
@click.option("--payload", metavar="JSON", help="Anything that subscribers with `payload: true` get.")
@click.option("--time", "time_", metavar="RFC3339", help="The producer's time; decides nothing.")
@click.option("--key", help="The records' key; without it they are spread over the partitions.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of every record; repeatable.")
@click.option("--topic", help="Instead of the topic `signals`.")
@click.option("--rate", metavar="N/s", help="At most so many a second.")
@click.option("--force", "--raw", is_flag=True, help="Sends what is no signal, too, each line as it is.")
@output_option
def publish(
    connection: Connection,
    file: str | None,
    name: str | None,
    source: str | None,
    id_: str | None,
    params: tuple[str, ...],
    payload: str | None,
    time_: str | None,
    key: str | None,
    headers: tuple[str, ...],
    topic: str | None,
    rate: str | None,
    *,
    force: bool,
    output: Output,
) -> None:
    """Publishes signals and waits until the brokers have them; says where each stands and what identifies it.

    Every signal is checked first, as a worker would. A file with a wrong one is not sent at all; from stdin signals go
    out as they come, up to the first wrong one.
    """
    pairs_of_headers = given_signals.header_pairs(headers)
    if (file is None) == (name is None):
        raise click.UsageError("give either -f FILE (or -f -) or --name")
    if file is not None and (source or id_ or params or payload or time_):
        raise click.UsageError("--source, --id, --param, --payload and --time go with --name, not with -f")
    pace = _Pace(rate)
    if name is not None:
        value = given_signals.signal_of_options(name, source, id_, params, payload, time_)
        given: Iterable[Given] = [given_signals.checked("signal", value, pairs_of_headers, force=force)]
        _publish(connection, given, 1, _How(topic, key, pairs_of_headers, pace), output)
    elif file == "-":
        stream = click.get_binary_stream("stdin")
        if stream.isatty():
            output.say("reading signals from the terminal: a line of JSON each, Ctrl-D ends")
        given = given_signals.read_signals(stream, "stdin", pairs_of_headers, force=force)
        _publish(connection, given, None, _How(topic, key, pairs_of_headers, pace), output)
    elif file is not None:
        total = None
        if not force:
            with _opened(file) as opened:
                total = given_signals.check_all(opened, file, pairs_of_headers)
        with _opened(file) as opened:
            given = given_signals.read_signals(opened, file, pairs_of_headers, force=force)
            _publish(connection, given, total, _How(topic, key, pairs_of_headers, pace), output)


class _How:
    """Where and how signals go out."""

    def __init__(self, topic: str | None, key: str | None, headers: Headers, pace: _Pace) -> None:
        self.topic = topic
        self.key = None if key is None else key.encode()
        self.headers = headers
        self.pace = pace


class _Pace:
    """Holds the sending to a rate."""

    def __init__(self, rate: str | None) -> None:
        self._per_second: float | None = None
        if rate is not None:
            with suppress(ValueError):
                self._per_second = float(rate.removesuffix("/s"))
            if self._per_second is None or not 0 < self._per_second < float("inf"):
                raise ConfigurationError(f'rate "{rate}" is none', hint="--rate 100/s")
        self._began = time.monotonic()
        self._count = 0

    def wait(self, poll: Callable[[float], None]) -> None:
        """Waits until the next one may go out; reports of earlier ones are taken meanwhile."""
        if self._per_second is None:
            return
        if self._count == 0:
            self._began = time.monotonic()
        due = self._began + self._count / self._per_second
        self._count += 1
        while (left := due - time.monotonic()) > 0:
            poll(min(left, 0.2))


def _publish(connection: Connection, given: Iterable[Given], total: int | None, how: _How, output: Output) -> None:
    admin = connect(connection)
    topic = how.topic or resolve(connection.prefix, connection.app).signals
    found = describe(admin, [topic]).get(topic)
    if found is None:
        raise ConfigurationError(f'topic "{topic}" does not exist', hint="signal-router topics apply")
    told = _Told(topic, found.id, output)
    began = time.monotonic()
    try:
        with progress_bar("publishing") as tell, Publisher(connection) as publisher:
            try:
                for each in given:
                    how.pace.wait(publisher.poll)
                    record = OutputRecord(topic, how.key, each.value, headers=how.headers)
                    publisher.publish(record, lambda sent, each=each: told.sent(each, sent))  # type: ignore[misc]
                    if total is not None:
                        tell(told.count, total)
            except (ConfigurationError, KeyboardInterrupt):
                publisher.flush()  # what went out before is acknowledged and told
                raise
    finally:
        told.end(time.monotonic() - began)


class _Told:
    """Says what was published: every signal to programs, the first few and a sum to people."""

    def __init__(self, topic: str, topic_id: str, output: Output) -> None:
        self.count = 0
        self._topic = topic
        self._topic_id = topic_id
        self._output = output
        self._emit = output.stream(_published_line)

    def sent(self, given: Given, sent: Sent) -> None:
        """Takes the place of one signal."""
        self.count += 1
        if self.count > SHOWN and not self._output.for_programs:
            return
        identity = None
        if given.signal is not None:
            identity = identity_of(given.signal, self._topic_id, sent.partition, sent.offset)
        position = {"topic": self._topic, "partition": sent.partition, "offset": sent.offset}
        self._emit(
            {"position": position, "identity": None if identity is None else decode_json(identity.encode(), what="")}
        )

    def end(self, seconds: float) -> None:
        """Says how many it were."""
        if self.count > SHOWN:
            self._output.say(f"… and {self.count - SHOWN} more" if not self._output.for_programs else "")
        if self.count != 1:
            rate = f", {self.count / seconds:,.0f} per second" if self.count >= WORTH_A_RATE else ""
            self._output.say(f'published {self.count} signals to "{self._topic}"{rate}')


def _published_line(record: Mapping[str, object]) -> str:
    match record["identity"]:
        case [name, _, {"position": _}]:
            identity: list[tailing.Part] = [str(name), ("no id: known by its position", "bright_black")]
        case [name, source, id_]:
            identity = [str(name), f"{source}#{id_}"]
        case _:
            identity = [("no signal: it becomes a dead letter", "red")]
    return tailing.line([(place(record["position"]), "cyan"), *identity])


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigurationError(f'file "{file}" cannot be read: {error.strerror}') from None


@cli.command("tail")
@connection_options
@click.option("--name", help="Only signals of this name; * stands for anything.")
@click.option("--source", help="Only signals of this source; * stands for anything.")
@click.option("--topic", "topics", multiple=True, help="Instead of the topic `signals`; repeatable.")
@tail_options
@output_option
def tail_(
    connection: Connection,
    name: str | None,
    source: str | None,
    topics: tuple[str, ...],
    start: Start,
    *,
    follow: bool,
    output: Output,
) -> None:
    """Follows the signals as they are published; records that are no signals are shown with the reason."""
    admin = connect(connection)
    wanted = topics or (resolve(connection.prefix, connection.app).signals,)
    emit = output.stream(_tail_line)
    records = tail(
        connection,
        admin,
        wanted,
        start,
        lambda read: _record(read, name, source),
        follow=follow,
        say=tailing.say,
    )
    for record in records:
        emit(record)


def _record(read: Read, name: str | None, source: str | None) -> dict[str, object] | None:
    try:
        signal = decode_signal(read.record.value, read.record.headers, limit_bytes=DEFAULT_SIGNAL_BYTES)
    except RecordError as error:
        return None if name or source else malformed(read, error)
    if signal is None:
        return None if name or source else malformed(read, RecordError("tombstone", "null value: passed over"))
    if name is not None and not fnmatchcase(signal.name, name):
        return None
    if source is not None and not fnmatchcase(signal.source or "", source):
        return None
    payload = None if signal.payload is None else decode_json(signal.payload, what="payload")
    return envelope(read) | {
        "signal": {
            "name": signal.name,
            "source": signal.source,
            "id": signal.id,
            "params": dict(signal.params),
            "payload": payload,
            "time": signal.time,
        }
    }


def _tail_line(record: Mapping[str, object]) -> str:
    at = (str(record["timestamp"]), "bright_black")
    match record:
        case {"signal": dict(signal)}:
            what: list[tailing.Part] = [(str(signal["name"]), "cyan"), who(signal), pairs(signal["params"])]
        case {"error": {"reason": reason, "message": message}}:
            what = [(str(reason), "red"), str(message)]
        case _:
            what = []
    return tailing.line([at, *what, (place(record["position"]), "bright_black")])
