"""`signal-router verify`: checks what stands on the topics, invariant by invariant."""

from __future__ import annotations

import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from signal_router.cli.connection import connection_options
from signal_router.cli.output import Output, output_option
from signal_router.cli.progress import progress_bar, quiet_clients, waiting
from signal_router.cli.tailing import DurationType
from signal_router.errors import ConfigurationError
from signal_router.kafka.admin_client import connect
from signal_router.kafka.offsets import topic_names
from signal_router.model.records import DEFAULT_SIGNAL_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka.admin import AdminClient

    from signal_router.kafka.settings import Connection
    from signal_router.verify.report import Report

EXIT_BROKEN = 1
EXIT_UNJUDGED = 2
"""As `topics diff`: 1 the answer is no, 2 it cannot be told."""

RECORD_BYTES = 4_000
"""What a record takes while its shard is judged, over all topics together; 3,600 were measured."""
SPOOLED_BYTES = 500
"""Room for a record in the spool: 134 were measured of signals without payload, what they carry comes on top."""
BASE_BYTES = 200 << 20
"""What the program takes for itself, and for reading."""


@click.command()
@connection_options
@click.option(
    "--signals",
    multiple=True,
    metavar="TOPIC|^PATTERN",
    help="The topics that the workers read; repeatable. Default: those that they say they read.",
)
@click.option(
    "--within",
    "within_ms",
    type=DurationType(),
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long workers may take to read what is there when the check begins.",
)
@click.option(
    "--memory",
    "memory_mb",
    type=click.IntRange(min=300),
    default=1_000,
    show_default=True,
    metavar="MB",
    help="About how much memory may be taken; the less, the more often marks are gone through.",
)
@click.option(
    "--spool-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True, writable=True),
    metavar="DIR",
    help="Where what was read is kept while it is judged. Default: the system's directory for temporary files.",
)
@click.option(
    "--signal-bytes",
    type=click.IntRange(min=1),
    default=DEFAULT_SIGNAL_BYTES,
    show_default=True,
    metavar="N",
    help="As the workers have it.",
)
@output_option
@click.pass_context
def cli(
    context: click.Context,
    connection: Connection,
    signals: tuple[str, ...],
    within_ms: int,
    memory_mb: int,
    spool_dir: Path | None,
    signal_bytes: int,
    output: Output,
) -> None:
    """Checks what stands on the topics: every invariant holds, is broken, or cannot be judged, and why.

    Reads everything and writes nothing; workers may run meanwhile. Exit code 0: all hold; 1: one is broken; 2: none is
    broken, but not all can be judged. To judge everything it takes workers that have run with --lineage all from the
    start, and topics of which nothing has been deleted.
    """
    from signal_router.verify.check import check  # noqa: PLC0415  --help does without
    from signal_router.verify.cluster import take_logs  # noqa: PLC0415
    from signal_router.verify.report import Verdict  # noqa: PLC0415
    from signal_router.verify.shards import HeldShards  # noqa: PLC0415
    from signal_router.verify.spool import Spool, SpooledShards  # noqa: PLC0415

    quiet_clients()
    admin = connect(connection)
    with tempfile.TemporaryDirectory(prefix="signal-router-verify-", dir=spool_dir) as folder:
        spool = Spool(Path(folder))
        with waiting("waiting for the workers") as say:
            logs = take_logs(
                connection,
                admin,
                spool,
                inputs=_inputs(admin, signals),
                value_limit_bytes=signal_bytes,
                within_s=within_ms / 1000,
                before=partial(_say_size, folder=Path(folder), output=output),
                say=say,
            )
        count = shard_count(logs.total, memory_mb << 20)
        spooled = partial(SpooledShards, spool=spool, count=count, value_limit_bytes=signal_bytes)
        with progress_bar("reading") as tell:
            logs.progress = tell
            report = check(logs, shards=HeldShards if count == 1 else spooled)
    about = {"app": connection.app, "signals": list(logs.app.inputs), "records": logs.done, "shards": count}
    print_report(report, about, output)
    context.exit({Verdict.HOLDS: 0, Verdict.BROKEN: EXIT_BROKEN, Verdict.UNJUDGED: EXIT_UNJUDGED}[report.verdict])


def _inputs(admin: AdminClient, signals: Sequence[str]) -> list[str]:
    """The topics that names and patterns give. Raises `ConfigurationError` where a pattern is none."""
    plain = [name for name in signals if not name.startswith("^")]
    try:
        patterns = [re.compile(name) for name in signals if name.startswith("^")]
    except re.error as error:
        raise ConfigurationError(f"signals pattern is no regular expression: {error}") from error
    matching = [topic for topic in topic_names(admin) if any(pattern.match(topic) for pattern in patterns)]
    return sorted({*plain, *matching})


def shard_count(records: int, memory_bytes: int) -> int:
    """Into how many parts records are divided, so that one of them fits into memory."""
    return max(1, -(-records * RECORD_BYTES // (memory_bytes - BASE_BYTES)))


def _say_size(records: int, *, folder: Path, output: Output) -> None:
    """Says how much there is to read, and refuses what does not fit on the disk."""
    needed, free = records * SPOOLED_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigurationError(
            f'{records:,} records may take {needed >> 20:,} MB in "{folder.parent}", which has {free >> 20:,} MB',
            hint="--spool-dir DIR, a directory with more room",
        )
    if not output.for_programs:
        output.say(f"reading {records:,} records; they may take {needed >> 20:,} MB in {folder.parent}")


def print_report(report: Report, about: Mapping[str, object], output: Output) -> None:
    """Prints every finding, and below the table what is broken, and each thing that is missing with what it leaves
    open; `about` goes into the JSON.
    """
    from signal_router.verify.report import Verdict  # noqa: PLC0415

    if output.for_programs:
        output.record({"verdict": report.verdict.value, **about, "findings": report.as_json()})
        return
    rows = [
        {
            "invariant": each.invariant.value,
            "verdict": each.verdict.value,
            "examined": each.examined,
            "meaning": each.invariant.meaning,
        }
        for each in report
    ]
    output.rows(("invariant", "verdict", "examined", "meaning"), rows)
    for each in report:
        if each.verdict is Verdict.BROKEN:
            output.say(f"\n{each.invariant.value}: broken")
            for detail in each.details:
                output.say(f"  {detail}")
            if each.more:
                output.say(f"  and {each.more} more")
    missing: dict[str, list[str]] = {}
    for each in report:
        for detail in each.details if each.verdict is Verdict.UNJUDGED else ():
            missing.setdefault(detail, []).append(each.invariant.value)
    for detail, invariants in missing.items():
        output.say(f"\ncannot judge {', '.join(invariants)}:\n  {detail}")
    output.say(f"\n{_SAID[report.verdict.value]}")


_SAID = {
    "holds": "everything holds",
    "broken": "broken: the topics do not hold what they should",
    "cannot judge": "nothing is broken, but not everything can be judged",
}
