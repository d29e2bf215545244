"""The history of a group's committed offsets, from Kafka's internal topic `__consumer_offsets`.

A record's key is int16 version (0 or 1: an offset; 2: the group's members), then group and topic (each an int16 length
and UTF-8) and int32 partition; its value is int16 version and int64 next offset, then what is not needed here. See
`OffsetCommitKey.json` and `OffsetCommitValue.json` in Kafka's group coordinator.
"""

from __future__ import annotations

import struct

from signal_router.model.log import TopicPartition

TOPIC = "__consumer_offsets"
_OFFSET_VERSIONS = (0, 1)
_SHORT, _INT, _LONG = struct.Struct(">h"), struct.Struct(">i"), struct.Struct(">q")


def partition_of_group(group: str, partitions: int) -> int:
    """The partition that holds a group's offsets: Java's hash of the name, made positive, modulo their number."""
    code = 0
    data = group.encode("utf-16-be")
    for at in range(0, len(data), 2):
        code = (31 * code + int.from_bytes(data[at : at + 2], "big")) & 0xFFFFFFFF
    signed = code - (1 << 32) if code >> 31 else code
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


def committed_offset(key: bytes | None, value: bytes | None, group: str) -> tuple[TopicPartition, int] | None:
    """Reads a record: the partition and the next offset, or None where it is of another group or of another kind."""
    if key is None or value is None:
        return None
    try:
        (version,) = _SHORT.unpack_from(key)
        if version not in _OFFSET_VERSIONS:
            return None
        whose, at = _text(key, _SHORT.size)
        topic, at = _text(key, at)
        (partition,) = _INT.unpack_from(key, at)
        (next_offset,) = _LONG.unpack_from(value, _SHORT.size)
    except (struct.error, UnicodeDecodeError):
        return None
    return (TopicPartition(topic, partition), next_offset) if whose == group else None


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _SHORT.unpack_from(data, at)
    end = at + _SHORT.size + length
    return data[at + _SHORT.size : end].decode(), end
