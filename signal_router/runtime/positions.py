"""The position record: what ties a table to the offsets its changes were committed with.

It is the last record of every transaction in a changelog partition, and the last entry of every local write.
"""

from __future__ import annotations

import msgspec

from signal_router.errors import StateError
from signal_router.state.keys import FORMAT


class TablePosition(msgspec.Struct, frozen=True, gc=False):
    """Up to where a table has been decided: `next_offset` and `sequence` (of the next input) of its candidates
    partition.

    `topic_id`, `partitions` tell the candidates topic apart from a re-created or enlarged one.
    """

    format: int
    next_offset: int
    sequence: int
    topic_id: str
    partitions: int


class LocalPosition(msgspec.Struct, frozen=True, gc=False):
    """What the local store holds of a changelog partition, and of which one. `written_at`: wall clock, epoch ms."""

    changelog_offset: int
    cluster: str
    app: str
    topic_id: str
    written_at: int


def encode_position(position: TablePosition) -> bytes:
    """Writes a position record's value."""
    return msgspec.json.encode(position)


def decode_position(value: bytes) -> TablePosition:
    """Reads a position record's value. Raises `StateError` for a newer format."""
    try:
        position = msgspec.json.decode(value, type=TablePosition)
    except msgspec.DecodeError as error:
        raise StateError(f"a changelog position cannot be read: {error}") from error
    if position.format > FORMAT:
        raise StateError(
            f"the changelog is of format {position.format}, this program reads up to {FORMAT}",
            hint="run the newer program version, or use a new --prefix",
        )
    return position


def encode_local(position: LocalPosition) -> bytes:
    """Writes the local position's value."""
    return msgspec.json.encode(position)


def decode_local(value: bytes) -> LocalPosition | None:
    """Reads the local position's value; None where it cannot be read, which means: rebuild."""
    try:
        return msgspec.json.decode(value, type=LocalPosition)
    except msgspec.DecodeError:
        return None
