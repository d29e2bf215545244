"""A builder for tests: signals, definitions and marks as a story, and what the reference evaluation makes of it.

    story = (
        Scenario()
        .subscription("team/pair", members={"a": "A", "b": "B"}, join=["k"])
        .signal("A", id="A1", k=1)
        .signal("B", id="B1", k=1)
    )
    assert story.fired() == [{"a": "A1", "b": "B1"}]

Everything goes to one candidates partition, in the order of the calls; every document is in force at once for both
stages. The logs it builds (`definitions`, `signals`, `inputs`) can be fed to an engine as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from signal_router.testing.reference import (
    CandidateInput,
    DefinitionRecord,
    Evaluation,
    Evidence,
    ExpectedCandidate,
    Input,
    Limits,
    MarkInput,
    Position,
    SignalRecord,
    View,
    ViewInput,
    evaluate,
    matched_candidates,
)
from signal_router.testing.reference_values import Json, canonical, duration_ms, time_text

START_MS: Final = 1_773_100_800_000
"""2026-03-10T00:00:00Z: times in a scenario are counted from here."""

TOPIC: Final = "signals"
TOPIC_ID: Final = "mR1rq1K5SoCzXUK0fYqDuw"

_AUTOMATIC: Final = "an id of its own"


@dataclass(frozen=True, slots=True)
class _Applied:
    birth: int
    join_generation: int
    deleted: bool
    spec: Mapping[str, Json]


@dataclass(slots=True)
class Scenario:
    """One story; see the module. Times are milliseconds or durations (`"90s"`) after `START_MS`."""

    app: str = "test"
    limits: Limits = field(default_factory=Limits)
    definitions: list[DefinitionRecord] = field(default_factory=list)
    signals: dict[tuple[str, int], list[SignalRecord]] = field(default_factory=dict)
    views: dict[tuple[str, int], list[View]] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    undeliverable: dict[str, str] = field(default_factory=dict)
    _applied: dict[str, _Applied] = field(default_factory=dict)
    _held: list[tuple[ExpectedCandidate, int, int]] = field(default_factory=list)
    _labels: dict[Position, str] = field(default_factory=dict)
    _now: int = 0

    def subscription(
        self,
        identity: str,
        *,
        members: Mapping[str, str | Mapping[str, Json]],
        join: Sequence[str] | Mapping[str, str] = (),
        within: str = "1h",
        dedupe: str = "2h",
        policy: str = "fifo",
        params: Mapping[str, Json] | None = None,
        topic: str = "triggers",
    ) -> Self:
        """Applies a subscription or an edit: members map an alias to a signal name, or to the rest of the member."""
        declared: list[Json] = []
        for alias, member in members.items():
            rest: Mapping[str, Json] = {"signal": member} if isinstance(member, str) else member
            declared.append({"alias": alias, **rest})
        spec: dict[str, Json] = {
            "join": dict(join) if isinstance(join, Mapping) else [*join],
            "policy": policy,
            "within": within,
            "dedupe": dedupe,
            "members": declared,
            "trigger": {"topic": topic, "params": dict(params or {})},
        }
        return self._apply(identity, spec, deleted=False)

    def delete(self, identity: str) -> Self:
        """Deletes a subscription."""
        return self._apply(identity, self._applied[identity].spec, deleted=True)

    def document(self, value: bytes | None) -> Self:
        """Appends a record to the definitions log as it is; the view that holds it is in force at once."""
        revision = len(self.definitions)
        self.definitions.append(DefinitionRecord(revision, value))
        for partition, views in self.views.items():
            views.append(View(len(self.signals[partition]), revision))
        self.inputs.append(ViewInput(self._next(), revision))
        return self

    def signal(
        self,
        name: str,
        *,
        id: str | None = _AUTOMATIC,  # noqa: A002 (the signal's own word)
        source: str | None = "source",
        at: int | str | None = None,
        partition: int = 0,
        payload: Json = None,
        time: str | None = None,
        params: Mapping[str, Json] | None = None,
        in_transit: bool = False,
        **more_params: Json,
    ) -> Self:
        """Publishes a signal, by default a second after the last one; its candidates join at once, or (`in_transit`)
        later.

        Without an `id` of its own it gets the next of `A1`, `A2`, …, after its name; `id=None` leaves it out.
        """
        if id == _AUTOMATIC:
            id = f"{name}{1 + sum(label.startswith(name) for label in self._labels.values())}"  # noqa: A001
        wire: dict[str, Json] = {
            "name": name,
            "source": source,
            "id": id,
            "time": time,
            "payload": payload,
            "params": {**(params or {}), **more_params},
        }
        value = json.dumps({field: part for field, part in wire.items() if part is not None}).encode()
        return self.record(value, at=at, partition=partition, in_transit=in_transit, label=id)

    def record(
        self,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes | None]] = (),
        at: int | str | None = None,
        partition: int = 0,
        in_transit: bool = False,
        label: str | None = None,
    ) -> Self:
        """Publishes a record as it is."""
        self._now = self._now + 1_000 if at is None else _milliseconds(at)
        records = self._partition(partition)
        record = SignalRecord(len(records), START_MS + self._now, None, value, headers)
        records.append(record)
        position = Position(TOPIC, partition, record.offset)
        label = label or f"{partition}/{record.offset}"
        while label in self._labels.values():
            label += "'"  # a repeat
        self._labels[position] = label
        revision = len(self.definitions) - 1
        for candidate in matched_candidates(self.definitions, record, position, TOPIC_ID, revision):
            self._held.append((candidate, revision, record.timestamp))
        return self if in_transit else self.arrive()

    def arrive(self) -> Self:
        """Lets all candidates that are in transit join, in the order of their signals."""
        for candidate, revision, recorded_at in self._held:
            self.inputs.append(
                CandidateInput(
                    self._next(),
                    candidate.position,
                    candidate.subscription,
                    candidate.join_key_hash,
                    revision,
                    recorded_at,
                )
            )
        self._held.clear()
        return self

    def mark(
        self,
        at: int | str,
        *,
        partitions: Sequence[int] | None = None,
        unannounced: Sequence[int] = (),
        retired: Sequence[int] = (),
    ) -> Self:
        """Announces a time for signals partitions (default: all there are); `unannounced` ones are inputs, too."""
        named = sorted(number for _, number in self.signals) if partitions is None else partitions
        announced = {f"{TOPIC}/{number}": START_MS + _milliseconds(at) for number in named}
        inputs = [*announced, *(f"{TOPIC}/{number}" for number in unannounced)]
        self.inputs.append(MarkInput(self._next(), announced, inputs, [f"{TOPIC}/{number}" for number in retired]))
        return self

    def evidence(self) -> Evidence:
        """All that the reference evaluation needs of this story."""
        return Evidence(
            app=self.app,
            definitions=self.definitions,
            signals=self.signals,
            topic_ids={TOPIC: TOPIC_ID},
            views=self.views,
            inputs={0: self.inputs},
            limits=self.limits,
            undeliverable=self.undeliverable,
        )

    def evaluate(self) -> Evaluation:
        """What the contract demands of this story."""
        return evaluate(self.evidence())

    def fired(self) -> list[dict[str, str]]:
        """The sets that fired, in order: alias → label of the signal (its id, primed for a repeat)."""
        sets = []
        for trigger in self.evaluate().triggers:
            bound: dict[str, str] = {}
            signals = trigger.value["signals"]
            for signal in signals if isinstance(signals, list) else []:
                if isinstance(signal, dict) and isinstance(signal["position"], dict):
                    position = signal["position"]
                    where = (position["topic"], position["partition"], position["offset"])
                    bound[str(signal["alias"])] = self._label(where)
            sets.append(bound)
        return sets

    def outcomes(self, subscription: str | None = None) -> dict[str, str]:
        """What became of each signal, by label: `fired`, `pending` or `outcome/reason`; of one subscription or all."""
        evaluation = self.evaluate()
        found: dict[str, str] = {}
        for ended in evaluation.ended:
            if subscription in (None, ended.subscription):
                text = "fired" if ended.outcome == "fired" else f"{ended.outcome}/{ended.reason}"
                found[self._label(ended.position)] = text
        for pending in evaluation.pending:
            if subscription in (None, pending.subscription):
                found[self._label(pending.position)] = "pending"
        return found

    def _label(self, where: object) -> str:
        return next(label for position, label in self._labels.items() if position == where)

    def _apply(self, identity: str, spec: Mapping[str, Json], *, deleted: bool) -> Self:
        before = self._applied.get(identity)
        applied = _Applied(1, 1, deleted, spec) if before is None else _successor(before, spec, deleted=deleted)
        self._applied[identity] = applied
        document: dict[str, Json] = {
            "format": 1,
            "kind": "Subscription",
            "id": identity,
            "birth": applied.birth,
            "join_generation": applied.join_generation,
            "version": f"sha256:{hashlib.sha256(canonical(dict(spec)).encode()).hexdigest()}",
            "contact": None,
            "deleted": deleted,
            "spec": dict(spec),
            "applied_at": time_text(START_MS + self._now),
        }
        return self.document(json.dumps(document).encode())

    def _partition(self, number: int) -> list[SignalRecord]:
        partition = (TOPIC, number)
        self.views.setdefault(partition, [View(0, len(self.definitions) - 1)])
        return self.signals.setdefault(partition, [])

    def _next(self) -> int:
        return len(self.inputs) + 1


def _successor(before: _Applied, spec: Mapping[str, Json], *, deleted: bool) -> _Applied:
    """The integers that `apply` gives: a birth more after a delete, a join generation more for another shape."""
    if before.deleted:
        return _Applied(before.birth + 1, 1, deleted, spec)
    reshaped = _shape(spec) != _shape(before.spec)
    return _Applied(before.birth, before.join_generation + reshaped, deleted, spec)


def _shape(spec: Mapping[str, Json]) -> Json:
    members = spec["members"]
    return [spec["join"], *([_member_shape(member) for member in members] if isinstance(members, list) else [])]


def _member_shape(member: Json) -> Json:
    return [member["alias"], member["signal"], member.get("join")] if isinstance(member, dict) else None


def _milliseconds(time: int | str) -> int:
    return time if isinstance(time, int) else duration_ms(time)
