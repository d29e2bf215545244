"""`validate` and `subscriptions test` without a cluster; definitions as text that is read back to the same version."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from signal_router.cli.definition_text import definition_text
from signal_router.cli.main import main
from signal_router.model.documents import read_documents

PAIR = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: content/pair}
spec:
  join: {k: any}
  members:
    - {alias: a, signal: A, match: {country: {in: [US, CA]}, rows: {">": 1}}}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}", note: "{a.params.note}"}}
"""
EACH = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: ops/each}
spec: {members: [{alias: a, signal: A}]}
"""


def run(*arguments: str, stdin: str | None = None):
    return CliRunner().invoke(main, [*arguments], input=stdin)


@pytest.fixture
def pair(tmp_path):
    file = tmp_path / "pair.yaml"
    file.write_text(PAIR)
    return str(file)


# ---- validate


def test_valid_definitions_are_named(pair):
    answer = run("validate", "-f", pair)

    assert (answer.exit_code, answer.stdout) == (0, "content/pair: valid\n")


def test_a_folder_stands_for_its_files_without_hidden_ones(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yml").write_text(PAIR)
    (tmp_path / "b.json").write_text(json.dumps({"kind": "Nonsense"}))
    (tmp_path / ".hidden.yaml").write_text("rubbish: [")
    (tmp_path / "notes.txt").write_text("rubbish: [")

    problems = json.loads(run("validate", "-f", str(tmp_path), "-o", "json").stdout)["problems"]

    assert {problem["file"] for problem in problems} == {str(tmp_path / "b.json")}


def test_definitions_come_from_stdin():
    assert run("validate", "-f", "-", stdin=PAIR).stdout == "content/pair: valid\n"


def test_every_problem_has_file_line_and_field(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(PAIR.replace("signal: B", "signal: NO").replace("{k: any}", "{k: anything}"))

    answer = run("validate", "-f", str(file))

    assert answer.exit_code == 2
    assert answer.stderr.count(f"error: {file}:") == 2
    assert f"error: {file}:6: spec.join.k: " in answer.stderr
    assert answer.stdout == "2 problems\n"


def test_warnings_are_said_and_do_not_fail(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(EACH.replace("signal: A", 'signal: A, match: {team: {"!=": x}}'))

    answer = run("validate", "-f", str(file))
    told = json.loads(run("validate", "-f", str(file), "-o", "json").stdout)

    assert answer.exit_code == 0
    assert answer.stderr.startswith(f"warning: {file}:5: spec.members[0].match: ")
    assert [each["line"] for each in told["warnings"]] == [5]


def test_a_file_that_is_not_there_is_named():
    answer = run("validate", "-f", "nowhere.yaml")

    assert answer.exit_code == 2
    assert 'error: file "nowhere.yaml" cannot be read' in answer.stderr


def test_an_empty_folder_is_no_success(tmp_path):
    assert run("validate", "-f", str(tmp_path)).exit_code == 2


def test_a_file_given_twice_is_read_once(pair):
    assert run("validate", "-f", pair, "-f", pair).stdout == "content/pair: valid\n"


# ---- subscriptions test


def told(pair: str, *signals: dict) -> list[dict]:
    lines = "\n".join(json.dumps(each) for each in signals)
    answer = run("subscriptions", "test", "-f", pair, "--signal", "-", "-o", "json", stdin=lines)
    return json.loads(answer.stdout)


def test_a_matching_signal_is_a_candidate_for_its_join_key(pair):
    signal = {"name": "A", "params": {"k": 1, "country": "US", "rows": 2, "note": "x"}}

    answer = run("subscriptions", "test", "-f", pair, "--signal", "-", stdin=json.dumps(signal))

    assert answer.exit_code == 0
    assert 'result: a candidate for join key {"k":1}' in answer.stdout
    assert 'ok country in ["US", "CA"]: holds, found "US" (string)' in answer.stdout


def test_every_predicate_is_told_with_value_and_type(pair):
    signal = {"name": "A", "params": {"k": 1, "country": "DE", "rows": "2"}}

    answer = run("subscriptions", "test", "-f", pair, "--signal", "-", stdin=json.dumps(signal))

    assert answer.exit_code == 1
    assert 'NO country in ["US", "CA"]: found "DE" (string)' in answer.stdout
    assert 'NO rows > 1: found "2" (string), which is never compared with a number' in answer.stdout
    assert "NO note exists true: the signal has no such parameter (the trigger template needs it)" in answer.stdout


def test_a_parameter_that_joins_nothing_is_told(pair):
    (found,) = told(pair, {"name": "B", "params": {"k": None}})

    assert [(each["alias"], each["reason"]) for each in found["members"]] == [("a", "name"), ("b", "join")]
    assert found["join_keys"] == []


def test_what_would_become_a_dead_letter_says_so(pair):
    answer = run("subscriptions", "test", "-f", pair, "--signal", "-", stdin='{"name": 7}\nrubbish')

    assert answer.exit_code == 1
    assert answer.stdout.count("it would become a dead letter") == 2


def test_signals_are_told_one_by_one_with_their_lines(pair):
    found = told(pair, {"name": "B", "params": {"k": 1}}, {"name": "B"}, {"name": "C"})

    assert [(each["where"], each["matches"]) for each in found] == [
        ("<stdin>:1", True),
        ("<stdin>:2", False),
        ("<stdin>:3", False),
    ]


def test_one_signal_may_span_lines_and_several_stand_in_an_array(pair):
    one = json.dumps({"name": "B", "params": {"k": 1}}, indent=2)
    array = json.dumps([{"name": "B", "params": {"k": 1}}, {"name": "B", "params": {"k": 2}}], indent=2)

    for text, keys in ((one, [['{"k":1}']]), (array, [['{"k":1}'], ['{"k":2}']])):
        answer = run("subscriptions", "test", "-f", pair, "--signal", "-", "-o", "json", stdin=text)
        assert [each["join_keys"] for each in json.loads(answer.stdout)] == keys


def test_numbers_are_read_exactly(pair):
    text = '{"name": "B", "params": {"k": 9007199254740993}}'

    answer = run("subscriptions", "test", "-f", pair, "--signal", "-", stdin=text)

    assert '{"k":9007199254740993}' in answer.stdout


def test_a_cloudevent_is_read_as_one(pair):
    event = {"specversion": "1.0", "type": "B", "source": "s", "id": "1", "data": {"params": {"k": 3}}}

    (found,) = told(pair, event)

    assert (found["signal"], found["join_keys"]) == ("B", ['{"k":3}'])


def test_a_subscription_without_join_fires_by_itself(tmp_path):
    file = tmp_path / "each.yaml"
    file.write_text(EACH)

    answer = run("subscriptions", "test", "-f", str(file), "--signal", "-", stdin='{"name": "A"}')

    assert (answer.exit_code, answer.stdout.splitlines()[-1]) == (0, "  result: matches, and fires by itself")


def test_either_an_id_or_a_file_is_tested(pair):
    neither = run("subscriptions", "test", "--signal", "-", stdin="{}")
    both_from_stdin = run("subscriptions", "test", "-f", "-", "--signal", "-", stdin="{}")

    assert (neither.exit_code, both_from_stdin.exit_code) == (2, 2)


# ---- definitions as text

traps = st.sampled_from(["NO", "y", "on", "null", "~", "12:30", "007", "0x1f", ".inf", "1e3", "2026-03-10", "a: b"])
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | traps
templates = words.map(lambda text: text.replace("{", "{{").replace("}", "}}"))
numbers = st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(templates | numbers | st.booleans() | st.none(), st.lists, max_leaves=8)


@given(
    contact=st.none() | words,
    values=st.lists(words | numbers | st.booleans(), min_size=1, max_size=5),
    parameters=st.lists(words.filter(lambda name: not name.startswith("$")), min_size=1, max_size=3, unique=True),
    params=st.dictionaries(words, json_values),
)
def test_a_shown_definition_is_read_back_to_the_same_version(contact, values, parameters, params):
    match = {parameter: {"in": values} for parameter in parameters}
    members = [{"alias": "a", "signal": "A", "match": match}]
    document = {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": "t/any"} | ({} if contact is None else {"contact": contact}),
        "spec": {"members": members, "trigger": {"params": params}},
    }
    try:
        (given_document,) = read_documents([("given.json", json.dumps(document))]).documents
    except Exception:
        return

    text = definition_text(given_document.id, given_document.contact, given_document.spec)

    (shown,) = read_documents([("shown.yaml", text)]).documents
    assert (shown.version, shown.contact) == (given_document.version, given_document.contact)
