"""What `verify` prints, and into how many parts it divides what it reads."""

from __future__ import annotations

import json
from collections import Counter

import click
import pytest
from click.testing import CliRunner

from signal_router.cli.output import Output, output_option
from signal_router.cli.verify import BASE_BYTES, RECORD_BYTES, print_report, shard_count
from signal_router.testing.reference_values import join_key_hash
from signal_router.verify.report import Finding, Invariant, Report, Verdict
from signal_router.verify.shards import shard_of

REPORT = Report(
    (
        Finding(Invariant.COMPLETE, Verdict.HOLDS, 7),
        Finding(Invariant.UNIQUE, Verdict.BROKEN, 7, ("trigger x stands there 2 times",), 3),
        Finding(Invariant.ORDER, Verdict.UNJUDGED, 0, ("no decision inputs stand in lineage",)),
        Finding(Invariant.TABLES, Verdict.UNJUDGED, 0, ("no decision inputs stand in lineage", "a gap")),
    )
)


@click.command()
@output_option
def shown(output: Output) -> None:
    print_report(REPORT, {"records": 12}, output)


def test_people_see_every_verdict_and_what_is_behind_it() -> None:
    lines = CliRunner().invoke(shown, []).output.splitlines()

    assert any(line.split()[:3] == ["complete", "holds", "7"] for line in lines)
    assert "unique: broken" in lines
    assert "  trigger x stands there 2 times" in lines
    assert "  and 3 more" in lines
    at = lines.index("cannot judge order, tables:")
    assert lines[at + 1] == "  no decision inputs stand in lineage"
    assert lines[lines.index("cannot judge tables:") + 1] == "  a gap"
    assert lines[-1] == "broken: the topics do not hold what they should"


def test_programs_get_the_same_as_json() -> None:
    found = json.loads(CliRunner().invoke(shown, ["-o", "json"]).output)

    assert (found["verdict"], found["records"]) == ("broken", 12)
    assert [each["verdict"] for each in found["findings"]] == ["holds", "broken", "cannot judge", "cannot judge"]
    assert found["findings"][1]["details"] == ["trigger x stands there 2 times"]


@pytest.mark.parametrize("records", [0, 1_000, 10_000_000])
@pytest.mark.parametrize("memory_mb", [300, 1_000, 8_000])
def test_a_part_fits_into_what_memory_is_left(records: int, memory_mb: int) -> None:
    count = shard_count(records, memory_mb << 20)

    assert records / count * RECORD_BYTES <= (memory_mb << 20) - BASE_BYTES
    assert count == 1 or records / (count - 1) * RECORD_BYTES > (memory_mb << 20) - BASE_BYTES


def test_no_part_is_much_larger_than_the_others() -> None:
    sizes = Counter(shard_of("team/pair", join_key_hash(f'{{"k":{key}}}'), 8) for key in range(8_000))

    assert len(sizes) == 8
    assert max(sizes.values()) < 1.2 * 1_000
