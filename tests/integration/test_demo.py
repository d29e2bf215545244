"""The demo as a newcomer runs it: the good story ends green, a false record on the topic ends red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from signal_router.demo import story
from signal_router.demo.expected import compare, complete_sets
from signal_router.kafka.admin_client import connect
from signal_router.kafka.offsets import topic_names
from signal_router.kafka.settings import Connection


def tell(broker: object, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SIGNAL_ROUTER_BOOTSTRAP": str(broker)}
    command = [sys.executable, "-m", "signal_router", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


def counted(told: subprocess.CompletedProcess[str]) -> dict[str, int]:
    rows = re.findall(r"^  ([a-z ]+?) +([\d,]+)  \S.*$", told.stdout, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in rows}


@pytest.mark.kafka
@pytest.mark.timeout(260)
def test_the_story_ends_green_with_every_trigger_once(broker: object):
    told = tell(broker)

    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stderr == ""
    count = counted(told)
    assert count["signals"] > 5_000
    assert count["repeats"] > 500
    assert count["triggers"] == count["complete sets"] > 2_000
    assert (count["missing"], count["twice"], count["dead letters"]) == (0, 0, 1)
    assert "SIGNAL_ROUTER_BOOTSTRAP" in told.stdout, "it does not say which broker it chose"
    assert re.search(r"kill -9 +process \d+, inside a transaction: [\d,]+ records", told.stdout)
    assert "duplicate, caused nothing" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 110  # commands are not wrapped; everything else fits 80 columns
    prefix = re.search(r"demo-[0-9a-f]{6}-", told.stdout)
    assert prefix is not None
    left = [name for name in topic_names(connect(Connection(str(broker)))) if name.startswith(prefix[0])]
    assert left == [], "it leaves topics on a cluster that is not its own"


@pytest.mark.kafka
@pytest.mark.timeout(260)
@pytest.mark.parametrize(("fault", "missing", "twice"), [("duplicate", 0, 1), ("loss", 1, 0)])
def test_a_false_record_ends_red(broker: object, fault: str, missing: int, twice: int):
    told = tell(broker, "--fault", fault, "--days", "12")

    assert told.returncode == 1, told.stdout + told.stderr
    count = counted(told)
    assert (count["missing"], count["twice"]) == (missing, twice)
    assert count["triggers"] == count["complete sets"] + twice - missing
    assert {"duplicate": "A trigger too many", "loss": "It had been fired: its lineage is there"}[fault] in " ".join(
        told.stdout.replace("│", " ").split()
    )


# ---- the story and the count without a broker


def test_the_same_seed_tells_the_same_story():
    assert story.write(4) == story.write(4)
    assert story.write(4) != story.write(4, seed=8)


def test_the_story_holds_what_it_promises():
    told = story.write(4)

    facts = told.facts()
    first, last = told.sendings[0].fact, told.sendings[-2].fact
    copies = Counter(fact.identity for fact in facts)
    places = {(sending.fact.identity, sending.partition) for sending in told.sendings if sending.fact is not None}
    assert first is not None
    assert last is not None
    assert (first.params["date"], first.params["country"]) == ("2026-03-10", "US")
    assert (last.params["dateint"], last.params["cc"]) == (20260310, "US")
    assert 0.08 < sum(count - 1 for count in copies.values()) / len(copies) < 0.14
    assert len(places) == len(facts), "a repeat stands on the partition of its first copy"
    assert [sending for sending in told.sendings if sending.fact is None] == [
        sending for sending in told.sendings if sending.value == story.BAD_RECORD
    ]
    assert len(told.teams()) == 5


def test_complete_sets_are_those_of_the_scarcest_member():
    def titles(number: int, **changes: str | int) -> story.Fact:
        params: dict[str, str | int] = {"date": "2026-03-10", "country": "US", "rows": 2000, "state": "final"}
        return story.Fact("warehouse/titles.ready", "wf", f"t{number}", params | changes)

    def plays(number: int) -> story.Fact:
        return story.Fact("streaming/plays.ready", "wf", f"p{number}", {"dateint": 20260310, "cc": "US"})

    facts = [titles(1), titles(1), titles(2), titles(3, rows=1000), titles(4, state="partial"), plays(1), plays(2)]
    key = ("content-ml/decision-model", "US", "2026-03-10")

    assert complete_sets(facts) == {key: 2}
    assert complete_sets([*facts, plays(3)]) == {key: 2}
    assert complete_sets(facts[:1]) == {}


def test_missing_and_twice_are_told_apart_within_one_key():
    key = ("team/job", "US")

    good = compare(Counter({key: 2}), [(key, "1"), (key, "2")])
    copied = compare(Counter({key: 2}), [(key, "1"), (key, "1")])
    made_up = compare(Counter({key: 1}), [(key, "1"), (("team/job", "CA"), "2")])

    assert good.good
    assert (copied.missing, copied.twice) == ((key,), (key,))
    assert made_up.twice == (("team/job", "CA"),)
