"""The pages hold: links lead somewhere, commands and options exist, examples are read, settings and topics are told."""

from __future__ import annotations

import json
import re
import shlex
import uuid
from pathlib import Path

import click
import pytest

from signal_router.cli.main import main
from signal_router.kafka.topics import load_topics
from signal_router.model.canonical import canonical_json
from signal_router.model.documents import read_documents
from signal_router.model.records import decode_signal
from signal_router.model.triggers import NAMESPACE
from signal_router.testing.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
CALL = re.compile(r"(?:\.venv/bin/)?signal-router\s+(.+)")
SUBCOMMANDS = {"tail", "list", "show", "publish", "apply", "diff", "replay", "test", "delete"}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(found), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = [target.partition("#")[0] for target in LINK.findall(prose(page)) if "://" not in target]
        waiting += [(page.parent / path).resolve() for path in links if path]

    assert reached == set(PAGES)


def calls() -> list[tuple[str, str]]:
    """Every call of the program on a page, with the page's name: whole ones in blocks, and those in running text."""
    found = []
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text()):
            lines = block.replace("\\\n", " ").splitlines() if language in {"", "sh", "console"} else []
            found += [(ids(page), call[1]) for line in lines if (call := re.match(r"(?:\$ )?" + CALL.pattern, line))]
        found += [(ids(page), call[1]) for text in INLINE.findall(prose(page)) if (call := CALL.fullmatch(text))]
        found += [(ids(page), text) for text in INLINE.findall(prose(page)) if looks_like_a_call(text)]
    return found


def looks_like_a_call(text: str) -> bool:
    first, *rest = text.split()
    nouns = main.list_commands(click.Context(main))
    return first in nouns and bool(rest) and (rest[0].startswith("-") or rest[0] in SUBCOMMANDS)


def test_calls_are_found() -> None:
    assert len(calls()) > 30


@pytest.mark.parametrize(("page", "call"), calls())
def test_commands_and_options_exist(page: str, call: str) -> None:
    words = shlex.split(call, comments=True)
    command: click.Command = main
    while words and isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{page}: signal-router {call}: no command {name}"
        command = found
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
    assert given <= known | {"-h", "--help"}, f"{page}: signal-router {call}"


NAMED_IN_CODE = re.compile(r"signal-router ((?:[a-z-]+ )?[a-z-]+(?: --?[a-z-]+)*)[`\"':; ,.?)]")


def named_in_code() -> list[tuple[str, str]]:
    """Calls that hints and help texts name: whatever follows the program's name and begins with a noun of it."""
    nouns = main.list_commands(click.Context(main))
    texts = {ids(path): path.read_text() for path in (ROOT / "signal_router").rglob("*.py")}
    found = [(page, call) for page, text in sorted(texts.items()) for call in NAMED_IN_CODE.findall(text)]
    return [(page, call) for page, call in found if call.split()[0] in nouns or " -" in call]


@pytest.mark.parametrize(("page", "call"), sorted(set(named_in_code())))
def test_commands_named_in_hints_exist(page: str, call: str) -> None:
    noun, *rest = call.split()
    group = main.get_command(click.Context(main), noun)
    assert group is not None, f"{page}: {call}"
    if isinstance(group, click.Group) and rest and not rest[0].startswith("-"):
        assert group.get_command(click.Context(group), rest[0]) is not None, f"{page}: {call}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {call[1] for page in PAGES for text in code(page) if (call := re.match(r"make ([a-z]+)", text))}

    assert {"demo", "test", "install", "check"} <= named
    assert named <= targets


def code(page: Path) -> list[str]:
    """Lines of blocks of commands, and code in running text."""
    blocks = [block.splitlines() for language, block in FENCE.findall(page.read_text()) if not language]
    return [line for block in blocks for line in block] + INLINE.findall(prose(page))


def test_the_subscription_of_the_readme_is_read_without_a_warning() -> None:
    texts = [block for language, block in FENCE.findall(README) if language == "yaml"]

    assert len(texts) == 1
    assert read_documents([("README.md", text) for text in texts]).warnings == ()


def test_the_json_of_the_readme_is_a_trigger_and_a_signal() -> None:
    trigger, signal = [json.loads(block) for language, block in FENCE.findall(README) if language == "json"]

    assert trigger["idempotency_key"] == f"{trigger['trigger_id']}/{trigger['attempt']}"
    assert decode_signal(json.dumps(signal).encode(), None, limit_bytes=10_000) is not None


def test_the_trigger_id_of_the_readme_follows_from_its_set() -> None:
    trigger = json.loads(next(block for language, block in FENCE.findall(README) if language == "json"))
    members = [[each["alias"], each["name"], each["source"], each["id"]] for each in trigger["signals"]]
    name = canonical_json([trigger["subscription"]["id"], 1, 1, trigger["join_key"], sorted(members)])

    assert str(uuid.uuid5(NAMESPACE, name.decode())) == trigger["trigger_id"]
    assert set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", README)) == {trigger["trigger_id"]}


def test_the_consumer_of_the_readme_reads_committed_records_only() -> None:
    (program,) = [block for language, block in FENCE.findall(README) if language == "python"]

    compile(program, "README.md", "exec")
    assert '"isolation.level": "read_committed"' in program
    assert "read_uncommitted" in README.partition("```python")[0]


def test_every_topic_stands_in_the_operations_guide() -> None:
    for topic in load_topics():
        name = topic.topic_name("", "<app>")
        rows = [line for line in OPERATIONS.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
        assert rows, name
        assert any(str(topic.partitions) in row.split("|")[2] for row in rows), name


def test_every_setting_of_a_worker_stands_in_the_operations_guide() -> None:
    run = main.get_command(click.Context(main), "run")
    assert run is not None
    for parameter in run.params:
        if isinstance(parameter, click.Option) and not {"-X", "--kafka-config", "-v"} & set(parameter.opts):
            assert parameter.opts[0] in OPERATIONS, parameter.opts[0]
            if isinstance(parameter.default, int) and parameter.default > 1:
                assert str(parameter.default) in OPERATIONS, parameter.opts[0]


def test_tests_that_prove_a_guarantee_exist() -> None:
    named = set(re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", GUARANTEES))
    there = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}

    assert len(named) > 8
    for name in named:
        assert (ROOT / name).is_file() if "/" in name else name in there, name


FOLDERS = (
    "signal_router|tests|deploy|docs|topics|benchmarks"
    "|model|core|kafka|runtime|state|cli|observe|testing"  # packages, short
)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_named_on_a_page_exist(page: Path) -> None:
    for text in INLINE.findall(prose(page)):
        if re.fullmatch(rf"({FOLDERS})/[\w/.-]+\.\w+", text):
            assert (ROOT / text).exists() or (ROOT / "signal_router" / text).exists(), text


def test_the_table_of_mutants_is_whole() -> None:
    page = (ROOT / "docs" / "proof.md").read_text()
    table = page[page.index("| left out |") :].partition("\n\n")[0].splitlines()[2:]

    assert table == [f"| {name} | {mutant.fault} | {mutant.broken} |" for name, mutant in MUTANTS.items()]
