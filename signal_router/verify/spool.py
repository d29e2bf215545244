"""Shards on disk: what was read once, divided by join sets, so that a log of any size is judged in bounded memory.

Files are appended to in turns from one buffer, so that no more than one is ever open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from struct import Struct
from typing import Any

import msgspec

from signal_router.testing.reference import (
    BadRecord,
    CandidateInput,
    Definitions,
    Input,
    MarkInput,
    Matched,
    Position,
    read_input,
)
from signal_router.verify.shards import (
    Bad,
    Entry,
    Part,
    Shard,
    Signal,
    Taken,
    Transit,
    Written,
    match,
    sequence_of,
    shard_of,
    taken,
)

BUFFER_BYTES = 8 << 20
"""What is held before it is written."""

_LENGTH = Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_decode: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()
_decode_item = msgspec.msgpack.Decoder(Signal | Written | Entry | Transit | Taken | Bad)


class Spool:
    """Frames of bytes in named files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffers: dict[str, bytearray] = {}
        self._held = 0
        self.written_bytes = 0

    def append(self, name: str, frame: bytes) -> None:
        """Adds a frame to a file."""
        buffer = self._buffers.get(name)
        if buffer is None:
            buffer = self._buffers[name] = bytearray()
        buffer += _LENGTH.pack(len(frame))
        buffer += frame
        self._held += len(frame) + _LENGTH.size
        if self._held >= BUFFER_BYTES:
            self._flush()

    def frames(self, name: str) -> Iterator[bytes]:
        """The frames of a file in order; none where nothing was added."""
        self._flush()
        path = self._folder / name
        if not path.exists():
            return
        with path.open("rb") as file:
            while head := file.read(_LENGTH.size):
                yield file.read(_LENGTH.unpack(head)[0])

    def remove(self, name: str) -> None:
        """Deletes a file."""
        self._flush()
        (self._folder / name).unlink(missing_ok=True)

    def _flush(self) -> None:
        for name, buffer in self._buffers.items():
            with (self._folder / name).open("ab") as file:
                file.write(buffer)
            self.written_bytes += len(buffer)
        self._buffers.clear()
        self._held = 0


class SpooledShards:
    """Shards in files."""

    def __init__(self, definitions: Definitions, spool: Spool, count: int, value_limit_bytes: int) -> None:
        self.count = count
        self.replayed: dict[tuple[Position, str], str] = {}
        self._definitions = definitions
        self._spool = spool
        self._value_limit_bytes = value_limit_bytes
        self._orders: dict[int, set[int]] = {}
        self._common: set[int] = set()

    def signal(self, signal: Signal, value_limit_bytes: int) -> BadRecord | None:
        """Writes a signal to every shard in which it has a candidate."""
        bad, names = match(Matched(self._definitions), signal, value_limit_bytes, self.replayed)
        if names:
            frame = _encode(signal)
            for shard in {shard_of(subscription, key_hash, self.count) for _, subscription, key_hash in names}:
                self._spool.append(f"shard-{shard}", frame)
        return bad

    def put(self, shard: int | None, item: Part) -> None:
        """Writes an item."""
        self._spool.append("waiting" if shard is None else f"shard-{shard}", _encode(item))

    def add_input(self, partition: int, order: int, given: Mapping[str, object]) -> None:
        """Writes a decision input."""
        self._orders.setdefault(partition, set()).add(order)
        self._spool.append(f"given-{partition}-{order}", _encode(given))

    def input_partitions(self) -> Sequence[int]:
        """The candidates partitions that have inputs."""
        return sorted(self._orders)

    def inputs_in_order(self, partition: int) -> Iterator[Mapping[str, object]]:
        """The decision inputs of a candidates partition by their numbers: in each lineage partition they ascend."""
        names = [f"given-{partition}-{order}" for order in sorted(self._orders[partition])]
        yield from merge(*(map(_decode.decode, self._spool.frames(name)) for name in names), key=sequence_of)
        for name in names:
            self._spool.remove(name)

    def take_input(self, partition: int, given: Input) -> None:
        """Writes a decision input: to the shard of its candidate, or for all."""
        if isinstance(given, CandidateInput):
            shard = shard_of(given.subscription, given.join_key_hash, self.count)
            self._spool.append(f"shard-{shard}", _encode(taken(partition, given)))
        else:
            self._common.add(partition)
            self._spool.append(f"common-{partition}", _encode(_raw(given)))

    def waiting(self) -> Iterator[Written]:
        """What was put without a shard."""
        for frame in self._spool.frames("waiting"):
            item = _decode_item.decode(frame)
            if isinstance(item, Written):
                yield item
        self._spool.remove("waiting")

    def shards(self) -> Iterator[Shard]:
        """Loads the shards one after the other."""
        for number in range(self.count):
            yield self._load(number)
            self._spool.remove(f"shard-{number}")

    def _load(self, number: int) -> Shard:
        own: dict[int, list[CandidateInput]] = {}
        matched = Matched(self._definitions)
        shard = Shard(matched, {})
        for frame in self._spool.frames(f"shard-{number}"):
            item = _decode_item.decode(frame)
            if isinstance(item, Signal):
                _, names = match(matched, item, self._value_limit_bytes, self.replayed)
                for name in names:
                    if shard_of(name[1], name[2], self.count) != number:
                        del matched.candidates[name]
            elif isinstance(item, Taken):
                own.setdefault(item.partition, []).append(_candidate(item))
            else:
                shard.take(item)
        shard.inputs = {
            partition: _Merged(self._spool, partition, own.get(partition, []))
            for partition in sorted(own.keys() | self._common)
        }
        return shard


@dataclass(frozen=True, slots=True)
class _Merged:
    """The inputs of a candidates partition that concern a shard, read anew each time."""

    spool: Spool
    partition: int
    own: Sequence[CandidateInput]

    def __iter__(self) -> Iterator[Input]:
        common = (read_input(_decode.decode(frame)) for frame in self.spool.frames(f"common-{self.partition}"))
        both: Iterable[Input] = merge(common, self.own, key=_number)
        return iter(both)


def _number(given: Input) -> int:
    return given.sequence


def _candidate(item: Taken) -> CandidateInput:
    return CandidateInput(
        item.sequence,
        Position(*item.position),
        item.subscription,
        item.join_key_hash,
        item.revision,
        item.recorded_at,
    )


def _raw(given: Input) -> Mapping[str, object]:
    """A mark or a view as lineage has it."""
    if isinstance(given, MarkInput):
        return {
            "sequence": given.sequence,
            "kind": "mark",
            "announced": dict(given.announced),
            "inputs": list(given.inputs),
            "retired": list(given.retired),
        }
    return {"sequence": given.sequence, "kind": "view", "revision": getattr(given, "revision", -1)}
