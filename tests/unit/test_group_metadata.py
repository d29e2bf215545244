import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_router.model.group_metadata import GroupMetadata

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(names, st.integers(-1, 2**31 - 1), names, st.none() | names.filter(bool))
def test_what_was_encoded_is_decoded(group, generation, member, instance):
    metadata = GroupMetadata(group, generation, member, instance)

    assert GroupMetadata.decode(metadata.encode()) == metadata


def test_the_bytes_are_the_clients():
    assert GroupMetadata("app", 5, "m-1").encode()[11:] == b"app\0m-1\0\x01"
    assert GroupMetadata("app", 5, "m-1", "slot").encode()[11:] == b"app\0m-1\0\0slot\0"


@pytest.mark.parametrize(
    "data", [b"", b"CGMDv1:\0\0\0\0a\0b\0\x01", b"CGMDv2:\0\0", b"CGMDv2:\0\0\0\0a\0b", b"CGMDv2:\0\0\0\0a\0b\0"]
)
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError, match="group metadata"):
        GroupMetadata.decode(data)


@pytest.mark.parametrize(
    ("generation", "member", "fences"),
    [(5, "m", True), (0, "m", False), (-1, "", False), (5, "", False), (-1, "m", False)],
)
def test_only_a_joined_member_is_fenced(generation, member, fences):
    assert GroupMetadata("app", generation, member).fences == fences
