"""Where a tail begins, and a line per record that no record can break."""

from __future__ import annotations

import time

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.cli.given_signals import signal_of_options
from signal_router.cli.tailing import StartType, TimeType, bound, document_of, line, malformed, pairs, printable, who
from signal_router.errors import RecordError
from signal_router.kafka.tail import Beginning, End, Last, Read, Since
from signal_router.model.json_values import decode_json
from signal_router.model.log import InputRecord, TopicPartition


def start(text: str) -> object:
    return StartType().convert(text, None, None)


def test_a_tail_begins_where_it_is_told():
    assert start("beginning") == Beginning()
    assert start("end") == End()
    assert start("-7") == Last(7)
    assert start("2026-03-10T06:00:00.250+01:00") == Since(1_773_118_800_250)
    assert start("2026-03-10T05:00:00") == start("2026-03-10T05:00:00Z")
    assert start("2026-03-10") == start("2026-03-10T00:00:00Z")


def test_a_duration_is_that_long_ago():
    before = int(time.time() * 1000) - 7_200_000

    at = TimeType().convert("2h", None, None)

    assert before <= at <= before + 5_000


@pytest.mark.parametrize("text", ["", "-0", "0", "--1", "yesterday", "-", "2026-13-01", "last", "99999-01-01"])
def test_another_beginning_is_refused(text):
    with pytest.raises(click.BadParameter):
        start(text)


def test_a_line_is_plain_and_whole_in_a_pipe():
    assert line([("a", "red"), "b" * 300, ("c", "cyan")]) == f"a  {'b' * 300}  c"


def test_what_a_terminal_could_take_for_a_command_is_spelled_out():
    assert printable("a\x1b[31m\nb\u202e") == r"a\x1b[31m\nb\u202e"
    assert printable("Größe ☃ 数") == "Größe ☃ 数"


def test_parameters_are_written_as_they_are_given():
    params = {"k": 1, "c": "US", "one": "1", "none": None, "t": True, "text": "a b", "empty": "", "date": "2026-03-10"}

    assert pairs(params) == 'k=1 c=US one="1" none=null t=true text="a b" empty="" date=2026-03-10'
    assert pairs({}) == "-"


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.none()))
def test_a_parameter_as_written_reads_as_the_same_parameter(value):
    written = pairs({"k": value})

    document = decode_json(signal_of_options("A", None, None, (written,), None, None), what="signal")

    assert document["params"] == {"k": value}


def test_signals_are_named_by_who_announced_them_and_in_which_run():
    position = {"topic": "signals", "partition": 0, "offset": 7}

    assert who({"source": "wf", "id": "1"}) == "wf#1"
    assert who({"source": "wf", "id": None}) == "wf"
    assert who({"source": None, "id": None}) == "-"
    assert bound([{"alias": "a", "source": "wf", "id": "1"}, {"alias": "b", "position": position}]) == (
        "a: wf#1, b: signals/0/7"
    )


def test_a_malformed_record_is_shown_with_the_reason_and_its_bytes():
    record = InputRecord(5, 0, b"\xff", b"\x00{", [("h", b"\xfe"), ("n", None)])
    read = Read(TopicPartition("signals", 2), record)

    with pytest.raises(RecordError) as caught:
        document_of(read, "record")
    shown = malformed(read, caught.value)

    assert shown["position"] == {"topic": "signals", "partition": 2, "offset": 5}
    assert shown["key"] == "\ufffd"
    assert shown["headers"] == {"h": r"\xfe", "n": None}
    assert shown["error"]["reason"] == "not-json"
    assert shown["value"] == "AHs="


def test_a_record_without_a_value_is_malformed_too():
    with pytest.raises(RecordError):
        document_of(Read(TopicPartition("t", 0), InputRecord(0, 0, None, None)), "trigger")
