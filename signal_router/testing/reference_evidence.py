"""Reading evidence for the reference evaluation from lineage: views, and the order of joining (`lineage: all`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

from signal_router.testing.reference_types import (
    CandidateInput,
    Headers,
    Input,
    MarkInput,
    Position,
    View,
    ViewInput,
)
from signal_router.testing.reference_values import Json, UnreadableError, read_json

Output: TypeAlias = tuple[bytes | None, bytes | None, Headers]
"""A record as read from a topic: key, value, headers."""


def evidence_from_lineage(
    lineage: Iterable[Output],
) -> tuple[dict[tuple[str, int], list[View]], dict[int, list[Input]]]:
    """The views and the decision inputs that stand in lineage (`view/…` and `input/…`), as `Evidence` takes them."""
    views: dict[tuple[str, int], set[View]] = {}
    inputs: dict[int, dict[int, Input]] = {}
    for key, value, _ in lineage:
        if key is None or value is None:
            continue
        if key.startswith(b"view/"):
            record = cast("Mapping[str, Json]", read_json(value))
            partition = (str(record["topic"]), _integer(record["partition"]))
            views.setdefault(partition, set()).add(View(_integer(record["offset"]), _integer(record["revision"])))
        elif key.startswith(b"input/"):
            record = cast("Mapping[str, Json]", read_json(value))
            given = read_input({**cast("Mapping[str, Json]", record["input"]), "sequence": record["sequence"]})
            inputs.setdefault(_integer(record["partition"]), {})[given.sequence] = given
    return (
        {partition: sorted(found) for partition, found in views.items()},
        {partition: [found[sequence] for sequence in sorted(found)] for partition, found in inputs.items()},
    )


def read_input(given: Mapping[str, Json]) -> Input:
    """Reads one decision input from its JSON form. Raises UnreadableError, KeyError.

    {sequence, kind: "candidate", position, subscription, join_key_hash, revision, recorded_at}
    {sequence, kind: "mark", announced: {"topic/partition": time}, inputs, retired}
    {sequence, kind: "view", revision}
    """
    sequence = _integer(given["sequence"])
    kind = given["kind"]
    if kind == "view":
        return ViewInput(sequence, _integer(given["revision"]))
    if kind == "mark":
        announced = cast("Mapping[str, Json]", given["announced"])
        return MarkInput(
            sequence,
            {name: _integer(time) for name, time in announced.items()},
            _names(given.get("inputs")),
            _names(given.get("retired")),
        )
    if kind != "candidate":
        raise UnreadableError(f"{kind!r} is no kind of decision input")
    position = cast("Mapping[str, Json]", given["position"])
    return CandidateInput(
        sequence,
        Position(str(position["topic"]), _integer(position["partition"]), _integer(position["offset"])),
        str(given["subscription"]),
        str(given["join_key_hash"]),
        _integer(given["revision"]),
        _integer(given["recorded_at"]),
    )


def _integer(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UnreadableError(f"{value!r} is no integer")
    return value


def _names(value: Json) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()
