"""What `signals publish` is given becomes the bytes that were written, each with its line; what is wrong is named."""

from __future__ import annotations

import io
import json

import pytest
from click.testing import CliRunner

from signal_router.cli.given_signals import check_all, header_pairs, read_signals, signal_of_options
from signal_router.cli.main import main
from signal_router.errors import ConfigurationError


def given(text: str, *, force: bool = False) -> list[tuple[str, bytes]]:
    return [(each.where, each.value) for each in read_signals(io.BytesIO(text.encode()), "f", (), force=force)]


def test_lines_keep_their_bytes_and_their_numbers():
    assert given('{"name": "A",  "params":{"k":1.0}}\n\n  {"name":"B"}  ') == [
        ("f:1", b'{"name": "A",  "params":{"k":1.0}}'),
        ("f:3", b'{"name":"B"}'),
    ]


def test_an_array_gives_its_elements_with_the_lines_they_begin_on():
    text = '[{"name": "A"},\n {"name":\n "B"}\n, {"name": "C"}]\n'

    assert given(text) == [("f:1", b'{"name": "A"}'), ("f:2", b'{"name":\n "B"}'), ("f:4", b'{"name": "C"}')]


def test_objects_over_several_lines_are_read_as_they_stand():
    assert given('{\n"name": "A"\n}\n{"name": "B"}') == [("f:1", b'{\n"name": "A"\n}'), ("f:4", b'{"name": "B"}')]


@pytest.mark.parametrize("text", ["", "\n \n", "[]", "[ \n ]"])
def test_nothing_is_no_signal(text):
    assert given(text) == []


def test_an_array_without_an_end_is_refused():
    with pytest.raises(ConfigurationError, match="line 2 has no end"):
        given('\n[{"name": "A"}')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "A"}\n{"nam": "B"}', r"f:2: record has no name"),
        ('{"name": "A"}\nrubbish', r"f:2: record is not JSON"),
        ('[{"name": "A"},\n {"name": ""}]', r"f:2: name of record is empty"),
        ('[{"name": "A"},\n 17]', r"f:2: record is a JSON number"),
        ('{"name": "A", "id": "1"}', r'f:1: signal "A" has the id "1" but no source'),
        ('{"name": "A", "params": {"k": NaN}}', r"f:1: "),
    ],
)
def test_what_is_no_signal_is_named_by_its_line(text, said):
    with pytest.raises(ConfigurationError, match=said):
        given(text)


def test_signals_before_a_wrong_one_are_given_at_once():
    signals = read_signals(io.BytesIO(b'{"name": "A"}\nrubbish\n'), "stdin", (), force=False)

    assert next(signals).value == b'{"name": "A"}'
    with pytest.raises(ConfigurationError):
        next(signals)


def test_with_force_every_line_goes_out_as_it_is():
    assert given('[\nrubbish\n{"name": "A"}', force=True) == [
        ("f:1", b"["),
        ("f:2", b"rubbish"),
        ("f:3", b'{"name": "A"}'),
    ]


def test_a_file_is_checked_whole_and_the_first_problems_are_named():
    text = "\n".join(['{"name": "A"}', *["rubbish"] * 12]).encode()

    with pytest.raises(ConfigurationError) as caught:
        check_all(io.BytesIO(text), "f", ())

    lines = caught.value.message.splitlines()
    assert lines[0] == "nothing was sent:"
    assert lines[1].startswith("f:2: ")
    assert lines[-1] == "… and 2 more"
    assert check_all(io.BytesIO(b'{"name": "A"}\n{"name": "B"}'), "f", ()) == 2


def test_parameters_are_typed_as_json_where_they_are_json_scalars():
    options = ("n=1", "f=1.50", "t=true", "z=null", 's="1"', "c=US", "d=2026-03-10", "e=", 'o={"a":1}', "eq=a=b")

    document = json.loads(signal_of_options("A", "s", "1", options, '{"x": [1]}', None))

    assert document == {
        "name": "A",
        "source": "s",
        "id": "1",
        "params": {
            "n": 1,
            "f": 1.5,
            "t": True,
            "z": None,
            "s": "1",
            "c": "US",
            "d": "2026-03-10",
            "e": "",
            "o": '{"a":1}',
            "eq": "a=b",
        },
        "payload": {"x": [1]},
    }


@pytest.mark.parametrize("option", ["k", "=1", "k=" + "1" * 65])
def test_a_parameter_that_cannot_be_read_is_refused(option):
    with pytest.raises(ConfigurationError):
        signal_of_options("A", None, None, (option,), None, None)


def test_headers_are_names_and_bytes():
    assert header_pairs(["traceparent=00-a", "x==y"]) == (("traceparent", b"00-a"), ("x", b"=y"))
    with pytest.raises(ConfigurationError):
        header_pairs(["nothing"])


@pytest.mark.parametrize(
    "options",
    [[], ["--name", "A", "-f", "x"], ["-f", "x", "--param", "k=1"], ["--name", "A", "--rate", "fast"]],
)
def test_options_that_contradict_are_refused_before_anything_is_asked(options):
    answer = CliRunner().invoke(main, ["signals", "publish", "--bootstrap", "127.0.0.1:1", *options])

    assert answer.exit_code == 2
    assert "127.0.0.1:1" not in answer.output


def test_a_wrong_file_is_refused_before_a_broker_is_asked(tmp_path):
    file = tmp_path / "signals.ndjson"
    file.write_text('{"name": "A"}\n{"name": 7}\n')

    answer = CliRunner().invoke(main, ["signals", "publish", "--bootstrap", "127.0.0.1:1", "-f", str(file)])

    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[1] == f"{file}:2: name of record is a number, not a string"
