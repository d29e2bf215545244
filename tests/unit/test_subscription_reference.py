"""Every example of docs/subscriptions.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from signal_router.core.explain import explain
from signal_router.core.join_keys import READERS
from signal_router.errors import DefinitionError
from signal_router.model.comparisons import OPERATORS
from signal_router.model.documents import compile_subscription, read_document, read_documents
from signal_router.model.schema import MemberModel, MetadataModel, SpecModel, TriggerModel
from signal_router.model.signals import Signal
from signal_router.model.subscriptions import JoinType
from signal_router.model.yaml_text import read_yaml

PAGE = (Path(__file__).parents[2] / "docs" / "subscriptions.md").read_text()
GOOD = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
TOLD = re.findall(r"```yaml (refused|warned)\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
MATCHES = re.findall(r"^\| `(\{.*?\})` \| (`\{.*) \| (`\{.*) \|$", PAGE, re.MULTILINE)
JOINS = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (`.*?`|refused) \|$", PAGE, re.MULTILINE)


def value(text):
    [document], problems = read_yaml("page", text)
    assert not problems
    return document.value


def fits(match, params):
    document = {
        "apiVersion": "signal-router/v1",
        "kind": "Subscription",
        "metadata": {"id": "a/b"},
        "spec": {"members": [{"alias": "a", "signal": "n", "match": value(match)}]},
    }
    signal = Signal("n", None, None, value(params), None, None, {})
    return explain(compile_subscription(read_document(document)), signal).matches


def test_the_page_has_examples_of_every_sort():
    assert len(GOOD) >= 3
    assert {kind for kind, _, _ in TOLD} == {"refused", "warned"}
    assert len(MATCHES) >= 12
    assert len(JOINS) >= 19


@pytest.mark.parametrize("text", GOOD)
def test_a_good_example_is_read_without_warnings(text):
    reading = read_documents([("docs.yaml", text)])

    assert len(reading.documents) == 1
    assert reading.warnings == ()


@pytest.mark.parametrize(("kind", "text", "told"), TOLD)
def test_an_example_gets_exactly_the_words_on_the_page(kind, text, told):
    try:
        said = ("warned", read_documents([("docs.yaml", text)]).warnings)
    except DefinitionError as error:
        said = ("refused", error.problems)

    assert said[0] == kind
    assert "".join(f"{problem}\n" for problem in said[1]) == told


@pytest.mark.parametrize(("match", "fitting", "others"), MATCHES)
def test_the_table_of_matches_is_right(match, fitting, others):
    for params in re.findall(r"`(.*?)`", fitting):
        assert fits(match, params), params
    for params in re.findall(r"`(.*?)`", others):
        assert not fits(match, params), params


@pytest.mark.parametrize(("kind", "taken", "in_key"), JOINS)
def test_the_table_of_join_types_is_right(kind, taken, in_key):
    expected = None if in_key == "refused" else value(in_key.strip("`"))

    read = READERS[JoinType(kind)](value(taken))

    assert (type(read), read) == (type(expected), expected)


def test_every_field_and_operator_is_on_the_page():
    for model, prefix in (
        (MetadataModel, "metadata."),
        (SpecModel, "spec."),
        (MemberModel, "members[]."),
        (TriggerModel, "spec.trigger."),
    ):
        for field in model.model_fields:
            assert f"`{prefix}{field}`" in PAGE or field == "trigger"
    for operator in OPERATORS:
        assert f"`{operator}`" in PAGE
