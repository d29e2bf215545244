from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.core.tables import SET_DUE, Due, Progress
from signal_router.errors import StateError
from signal_router.state import keys
from signal_router.state.restore import local_entries

_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=6)
_dues = st.builds(
    Due,
    at=st.integers(0, 2**53),
    kind=st.sampled_from((0, 1, 2)),
    subscription=_texts,
    key=_texts,
    aliases=st.integers(0, 2**32 - 1),
    place=st.integers(0, 2**63),
    identity=_texts,
)


@given(_dues)
def test_entry_of_the_time_index_is_read_back_from_its_key(due: Due) -> None:
    assert keys.due_of(keys.due_key(due)) == due


@given(st.integers(0, 2**53), _texts, _texts)
def test_key_of_a_set_in_the_time_index_is_made_of_its_head_s_key(at: int, subscription: str, key: str) -> None:
    assert keys.set_due_key(at, keys.set_key(subscription, key)) == keys.due_key(Due(at, SET_DUE, subscription, key))


@given(_dues, _dues)
def test_time_index_is_ordered_by_time(one: Due, other: Due) -> None:
    if one.at < other.at:
        assert keys.due_key(one) < keys.due_bound(other.at) <= keys.due_key(other)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_queue_is_ordered_by_index(one: int, other: int) -> None:
    first, second = (keys.queued_key("a/b", "{}", 7, index) for index in (one, other))

    assert (first < second) == (one < other)


def test_sets_of_a_subscription_lie_together() -> None:
    prefix = keys.set_key("a/b", "")

    assert prefix <= keys.set_key("a/b", "é") < keys.after(prefix)
    assert not prefix <= keys.set_key("a/bc", "{}") < keys.after(prefix)


def test_clock_is_the_smallest_time_announced() -> None:
    assert Progress().clock == -1
    assert Progress(0, (), {"t/0": 5, "t/1": 3}).clock == 3
    assert Progress(0, (), {"t/0": 5, "t/1": -1}).clock == -1


def test_records_without_a_time_add_nothing_to_the_index() -> None:
    assert local_entries(b"Nteam/job", b"\x05") == []
    assert local_entries(keys.PROGRESS, b"\x90") == []
    assert local_entries(keys.POSITION, b"") == []


@pytest.mark.parametrize("key", [b"Sa/b\0{}", keys.queued_key("a/b", "{}", 1, 0), keys.noted_key("a/b", "{}", "[]")])
def test_damaged_changelog_record_is_named(key: bytes) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        local_entries(key, b"\xc1garbage")
