"""Kafka's murmur2 in Python, for choosing partitions in memory as the Java client and librdkafka's `murmur2_random`
do.
"""

from __future__ import annotations

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Returns the unsigned 32-bit hash (`org.apache.kafka.common.utils.Utils.murmur2`)."""
    result = _SEED ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        result = (result * _MULTIPLIER & _MASK) ^ word
    if rest := data[whole:]:
        result = (result ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _MASK
    result = (result ^ result >> 13) * _MULTIPLIER & _MASK
    return result ^ result >> 15


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Returns the partition of a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
