"""Log lines: one way for all of them, and a fixed list that the code keeps to."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from signal_router.observe.events import LINES
from signal_router.observe.logs import configure_logs

PROGRAM = Path(__file__).parents[2] / "signal_router"


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Puts back what a test changes for the whole process."""
    root = logging.getLogger()
    names = ("faust", "mode", "aiohttp", "asyncio", "signal_router.runtime.transport", "signal_router.kafka")
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_where_nobody_looks():
    stream = io.StringIO()
    configure_logs(stream=stream)

    structlog.get_logger("signal_router.runtime").info("took partitions over", partitions={"signals": [0]}, restored=3)

    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["event"] == "took partitions over"
    assert line["level"] == "info"
    assert line["partitions"] == {"signals": [0]}
    assert line["logger"] == "signal_router.runtime"


def test_lines_are_for_people_on_a_terminal():
    stream = Terminal()
    configure_logs(stream=stream)

    structlog.get_logger("signal_router.runtime").info("took partitions over", restored=3)

    text = stream.getvalue()
    assert "took partitions over" in text
    assert "restored" in text
    assert not text.lstrip().startswith("{")


def test_json_can_be_had_on_a_terminal_too():
    stream = Terminal()
    configure_logs(json=True, stream=stream)

    structlog.get_logger("x").warning("waiting to go on", attempt=1)

    assert lines(stream)[0]["attempt"] == 1


def test_the_libraries_lines_come_the_same_way_from_warnings_on():
    stream = io.StringIO()
    configure_logs(stream=stream)

    logging.getLogger("faust.app").info("starting")
    logging.getLogger("signal_router.runtime.transport").info("[^-BatchConsumer]: Starting...")
    logging.getLogger("mode.worker").warning("crashed %s", "twice")

    (line,) = lines(stream)
    assert line["event"] == "crashed twice"
    assert line["logger"] == "mode.worker"


def test_what_kafkas_client_mends_itself_is_shown_on_request_only():
    quiet, verbose = io.StringIO(), io.StringIO()

    configure_logs(stream=quiet)
    logging.getLogger("signal_router.kafka.consume").warning("FAIL [rdkafka#consumer-1]: connection refused")
    configure_logs(logging.DEBUG, stream=verbose)
    logging.getLogger("signal_router.kafka.consume").warning("FAIL [rdkafka#consumer-1]: connection refused")

    assert quiet.getvalue() == ""
    assert lines(verbose)[0]["level"] == "warning"


def fail(secret: str) -> None:
    raise ValueError(len(secret))


def test_a_failure_carries_its_traceback_and_no_local_values():
    as_json, for_people = io.StringIO(), Terminal()

    for stream in (as_json, for_people):
        configure_logs(stream=stream)
        try:
            fail("-".join(["open", "sesame"]))
        except ValueError:
            structlog.get_logger("x").exception("worker failed")

    for text in (str(lines(as_json)[0]["exception"]), for_people.getvalue()):
        assert "ValueError: 11" in text
        assert "open-sesame" not in text


def test_configuring_twice_writes_each_line_once():
    stream = io.StringIO()
    configure_logs(stream=stream)
    configure_logs(stream=stream)

    structlog.get_logger("x").info("throughput")

    assert len(lines(stream)) == 1


def _written() -> Iterator[tuple[str, str, frozenset[str], str]]:
    """Every line that the program writes through structlog: text, level, fields, and where."""
    for path in sorted(PROGRAM.rglob("*.py")):
        source = path.read_text()
        if "structlog.get_logger" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "_log":
                text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
                assert isinstance(text, str), f"{path}:{node.lineno} logs a text that is not fixed"
                level = {"exception": "error"}.get(node.func.attr, node.func.attr)
                fields = frozenset(keyword.arg or "**" for keyword in node.keywords)
                yield text, level, fields, f"{path.relative_to(PROGRAM)}:{node.lineno}"


def test_every_line_that_is_written_stands_in_the_list():
    written = list(_written())

    for text, level, fields, where in written:
        assert text in LINES, f"{where}: {text!r} is not in observe/events.py"
        assert LINES[text].level == level, where
        assert fields <= set(LINES[text].fields), where
    assert {text for text, *_ in written} == set(LINES), "a line of the list is not written any more"
