"""What an apply changes: births, join generations, and what would end."""

from __future__ import annotations

import pytest

from signal_router.errors import ConfigurationError
from signal_router.model.definitions import definition, definition_key, deletion, encode_definition
from signal_router.model.documents import read_documents
from signal_router.model.log import InputRecord
from signal_router.runtime.apply import Change, plan, plan_deletion
from signal_router.runtime.await_workers import arrival
from signal_router.runtime.roster import WorkerRecord
from signal_router.runtime.standing import fold

PAIR = """
apiVersion: signal-router/v1
kind: Subscription
metadata: {id: t/pair}
spec:
  join: {k: any}
  within: 7d
  members:
    - {alias: a, signal: A}
    - {alias: b, signal: B}
  trigger: {params: {k: "{join.k}"}}
"""


def document(text: str = PAIR):
    return read_documents([("t.yaml", text)]).documents[0]


def record(offset: int, each) -> InputRecord:
    return InputRecord(offset, 0, definition_key(each.id), encode_definition(each))


def in_force(text: str = PAIR, *, birth: int = 3, join_generation: int = 5):
    return definition(document(text), birth=birth, join_generation=join_generation, applied_at=1_000)


def planned(text: str, *standing):
    (step,) = plan([document(text)], fold([record(at, each) for at, each in enumerate(standing)]), now=2_000)
    return step


def numbers(step) -> tuple[Change, int, int, bool]:
    return step.change, step.definition.birth, step.definition.join_generation, step.ends_pending


def test_a_new_id_begins_its_first_life():
    assert numbers(planned(PAIR)) == (Change.CREATED, 1, 1, False)


def test_the_same_document_is_left_as_it_stands():
    step = planned(PAIR, in_force())

    assert numbers(step) == (Change.UNCHANGED, 3, 5, False)
    assert step.definition.applied_at == 1_000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("within: 7d", "within: 6d"),
        ("signal: A}", "signal: A, match: {x: 1}}"),
        ('{k: "{join.k}"}', "{}"),
        ("within: 7d", "policy: latest"),
        ("spec:", "spec:\n  dedupe: 30d"),
        ("trigger: {", "trigger: {topic: other, "),
    ],
)
def test_what_keeps_the_shape_keeps_what_is_pending(old, new):
    assert numbers(planned(PAIR.replace(old, new), in_force())) == (Change.EDITED, 3, 5, False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{k: any}", "{k: string}"),
        ("{k: any}", "{k: any, l: any}"),
        ("alias: b", "alias: c"),
        ("signal: B", "signal: C"),
        ("signal: B}", "signal: B, join: {k: kk}}"),
    ],
)
def test_another_shape_is_a_new_join_generation_and_ends_what_is_pending(old, new):
    assert numbers(planned(PAIR.replace(old, new), in_force())) == (Change.EDITED, 3, 6, True)


def test_another_contact_is_published_though_the_version_is_the_same():
    step = planned(PAIR.replace("{id: t/pair}", "{id: t/pair, contact: us}"), in_force())

    assert numbers(step) == (Change.EDITED, 3, 5, False)
    assert step.definition.contact == "us"


def test_after_a_delete_the_same_document_begins_another_life():
    last = in_force()

    assert numbers(planned(PAIR, last, deletion(last, applied_at=1_500))) == (Change.CREATED, 4, 1, False)


def test_a_delete_keeps_what_stood_and_ends_what_is_pending():
    standing = fold([record(0, in_force())]).find("t/pair")

    step = plan_deletion(standing, now=2_000)

    assert (step.change, step.ends_pending, step.definition.deleted) == (Change.DELETED, True, True)
    assert (step.definition.birth, step.definition.spec) == (3, standing.definition.spec)


def test_a_delete_of_what_is_deleted_changes_nothing():
    last = in_force()
    standing = fold([record(0, last), record(1, deletion(last, applied_at=1_500))]).find("t/pair")

    assert numbers(plan_deletion(standing, now=2_000))[0] is Change.UNCHANGED


def test_an_id_that_never_was_is_named():
    with pytest.raises(ConfigurationError, match='"t/nothing" does not exist'):
        fold([]).find("t/nothing")


def test_what_is_no_document_leaves_the_one_before_in_force():
    rubbish = InputRecord(1, 0, definition_key("t/pair"), b"rubbish")

    standings = fold([record(0, in_force()), rubbish, InputRecord(2, 0, definition_key("t/pair"), None)])

    assert [each.revision for each in standings.in_force()] == [0]
    assert standings.revision == 2
    assert len(standings.unreadable) == 1


def test_workers_that_have_an_older_revision_are_waited_for():
    def worker(slot: str, revision: int) -> WorkerRecord:
        return WorkerRecord(slot, 1, "0", "host", revision, {"signals": [0]}, 0)

    found = arrival([worker("a", 7), worker("b", 8), worker("c", 6)], 7)

    assert (found.have, dict(found.waiting)) == (("a", "b"), {"c": 6})
