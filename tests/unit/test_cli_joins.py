"""What is pending, folded from the changelog: the newest entry counts, and its masks say what a set waits for."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.cli.pending_rows import TOO_FAR_APART, age_text, pending_row, person_row
from signal_router.core.tables import JoinSet, Life, Pending
from signal_router.errors import StateError
from signal_router.model.candidates import SignalCopy
from signal_router.runtime.declared import DEFAULT_TOPIC, Declared
from signal_router.runtime.definitions import DEFAULT_TOPIC as TRUE_DEFAULT
from signal_router.runtime.pending_sets import PendingFold, filled_aliases
from signal_router.state.keys import count_key, life_key, noted_key, queued_key, set_key
from signal_router.state.tables import PartitionTable

encode = msgspec.msgpack.encode
PAIR = "t/pair"
KEY = '{"k":1}'


def pending(sequence: int, aliases: int, *, at: int = 1_000, id_: str = "1") -> Pending:
    copy = SignalCopy(f'["A","s","{id_}"]', "A", "s", id_, b'{"k":1}', None, None, at, "signals", 0, sequence, b"")
    return Pending(sequence, aliases, at + 100, copy)


def head(*signals: Pending) -> bytes:
    return encode(JoinSet(pending=signals))


def folded(*records: tuple[bytes, bytes | None], fold: PendingFold | None = None):
    fold = fold or PendingFold()
    life = Life(birth=1, join_generation=3, revision=0, aliases=("a", "b", "c"), dedupe_ms=1)
    fold.take(0, [(life_key(PAIR), encode(life)), *records])
    return list(fold.sets())


def test_the_newest_entry_of_a_set_counts():
    older, newer = head(pending(1, 1)), head(pending(1, 1), pending(2, 2))

    (found,) = folded((set_key(PAIR, KEY), older), (set_key(PAIR, KEY), newer))

    assert [each.sequence for each in found.pending] == [1, 2]
    assert (found.subscription, found.key, found.aliases, found.join_generation) == (PAIR, KEY, ("a", "b", "c"), 3)


@pytest.mark.parametrize("last", [None, encode(JoinSet())])
def test_a_set_that_fired_is_pending_no_more(last):
    assert folded((set_key(PAIR, KEY), head(pending(1, 1))), (set_key(PAIR, KEY), last)) == []


def test_queued_signals_belong_to_their_set_in_joining_order():
    (found,) = folded(
        (queued_key(PAIR, KEY, 1, 1), encode(pending(9, 1, at=900))),
        (set_key(PAIR, KEY), head(pending(3, 2), pending(12, 1))),
        (queued_key(PAIR, KEY, 1, 0), encode(pending(8, 1))),
        (queued_key(PAIR, KEY, 1, 0), None),
    )

    assert [each.sequence for each in found.pending] == [3, 9, 12]
    assert (found.opened_at, found.deadline) == (900, 1_000)


def test_entries_of_other_kinds_are_passed_over():
    assert folded((count_key(PAIR), encode(7)), (noted_key(PAIR, KEY, "x"), b"\xc1"), (b"P", b"{}")) == []


def test_a_queue_index_may_hold_any_byte():
    (found,) = folded((queued_key(PAIR, KEY, 0, 256), encode(pending(1, 1))))

    assert (found.subscription, found.key) == (PAIR, KEY)


def test_partitions_are_told_apart():
    fold = PendingFold()
    fold.take(0, [(set_key(PAIR, KEY), head(pending(1, 1)))])
    fold.take(1, [(set_key(PAIR, KEY), None)])

    assert [each.partition for each in fold.sets()] == [0]


def test_only_what_is_asked_for_is_kept_and_goes_when_it_no_longer_is_there():
    hint = b'["A","s","2"]'
    fold = PendingFold(lambda _name, value: hint in value)
    with_it, without_it = head(pending(1, 1), pending(2, 1, id_="2")), head(pending(1, 1))

    assert len(folded((set_key(PAIR, KEY), with_it), fold=fold)) == 1
    assert folded((set_key(PAIR, KEY), without_it), fold=fold) == []


def test_an_entry_that_cannot_be_read_is_named():
    with pytest.raises(StateError, match="cannot be read"):
        folded((set_key(PAIR, KEY), b"\xc1"))


def test_the_fold_reads_what_tables_write():
    class Nothing:
        def get(self, _key):
            return None

        def scan(self, _start, _end):
            return iter(())

    table = PartitionTable(Nothing(), 0)
    table.put_join_set(PAIR, KEY, JoinSet(pending=(pending(1, 1),), queued=1))
    table.put_queued(PAIR, KEY, 2, 70_000, pending(2, 2))
    table.put_life(PAIR, Life(1, 1, 0, ("a", "b"), 1))
    fold = PendingFold()

    fold.take(0, table.staged())

    (found,) = fold.sets()
    assert [each.sequence for each in found.pending] == [1, 2]
    assert (found.filling.has, found.filling.waits_for) == (("a", "b"), ())


def most_filled(masks: list[int], aliases: int) -> int:
    """By trying every order of binding: slow and plain."""
    best = 0
    for order in permutations(range(aliases), min(aliases, len(masks))):
        for chosen in permutations(masks, len(order)):
            best = max(best, sum(mask >> bit & 1 for bit, mask in zip(order, chosen, strict=True)))
    return best


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(st.lists(st.integers(1, 2**n - 1), max_size=4), st.just(n))))
def test_as_many_aliases_are_filled_as_can_be(case):
    masks, aliases = case

    filled = filled_aliases(masks, aliases)

    assert len(filled) == most_filled(masks, aliases)
    assert all(any(mask >> bit & 1 for mask in masks) for bit in filled)


def test_a_row_says_what_a_set_has_and_what_it_waits_for():
    members = ({"alias": "a", "signal": "A"}, {"alias": "b", "signal": "B"}, {"alias": "c", "signal": "C"})
    declared = msgspec.convert({"id": PAIR, "join_generation": 3, "spec": {"members": members}}, Declared)
    (found,) = folded((set_key(PAIR, KEY), head(pending(1, 0b011), pending(2, 0b001, at=2_000))))

    row = pending_row(found, {PAIR: declared}, now=3_601_000)

    assert row["has"] == ["a", "b"]
    assert row["waits_for"] == [{"alias": "c", "signal": "C"}]
    assert row["signals"][0]["aliases"] == ["a", "b"]
    assert person_row(row) | {"deadline": ""} == {
        "subscription": PAIR,
        "join_key": "k=1",
        "has": "a, b (2 of 3)",
        "waits_for": "c (C)",
        "pending": 2,
        "age": "1h",
        "deadline": "",
    }


def test_names_of_another_shape_are_not_put_to_aliases():
    edited = msgspec.convert({"id": PAIR, "join_generation": 4, "spec": {"members": []}}, Declared)
    (found,) = folded((set_key(PAIR, KEY), head(pending(1, 1))))

    row = pending_row(found, {PAIR: edited}, now=0)

    assert row["waits_for"] == [{"alias": "b", "signal": None}, {"alias": "c", "signal": None}]


def test_a_set_that_waits_for_nothing_lies_too_far_apart():
    (found,) = folded((set_key(PAIR, KEY), head(pending(1, 1), pending(2, 2), pending(3, 4))))

    assert person_row(pending_row(found, {}, now=0))["waits_for"] == TOO_FAR_APART


@pytest.mark.parametrize(
    ("age_ms", "text"),
    [(0, "0s"), (59_999, "59s"), (61_000, "1m1s"), (3_725_000, "1h2m"), (90_061_000, "1d1h")],
)
def test_ages_have_two_units(age_ms, text):
    assert age_text(age_ms) == text


def test_the_default_topic_is_the_engines():
    assert DEFAULT_TOPIC == TRUE_DEFAULT
