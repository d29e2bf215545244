"""Reading Kafka's internal topic of committed offsets."""

from __future__ import annotations

import struct

import pytest

from signal_router.model.log import TopicPartition
from signal_router.verify.consumer_offsets import committed_offset, partition_of_group


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def key(group: str, *, version: int = 1) -> bytes:
    return struct.pack(">h", version) + text(group) + text("signals") + struct.pack(">i", 3)


def value(offset: int, *, version: int = 3) -> bytes:
    return struct.pack(">hqi", version, offset, -1) + text("w1 5") + struct.pack(">q", 0)


@pytest.mark.parametrize("version", [0, 1])
def test_an_offset_of_the_group_is_read(version: int) -> None:
    assert committed_offset(key("app", version=version), value(17), "app") == (TopicPartition("signals", 3), 17)


def test_other_groups_other_kinds_and_tombstones_are_passed_over() -> None:
    assert committed_offset(key("other"), value(17), "app") is None
    assert committed_offset(key("app", version=2), value(17), "app") is None
    assert committed_offset(key("app"), None, "app") is None
    assert committed_offset(b"\0", value(17), "app") is None


def test_a_group_lives_where_java_puts_it() -> None:
    """`Math.abs("signal-router".hashCode()) % 50` and others, as a Java shell gives them."""
    assert partition_of_group("", 50) == 0
    assert partition_of_group("a", 50) == 97 % 50
    assert partition_of_group("ab", 50) == (97 * 31 + 98) % 50
    assert partition_of_group("polygenelubricants", 50) == 0  # its hash is the smallest integer, which has no absolute
