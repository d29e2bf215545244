"""Comparing what stands on the topics with what the reference evaluation expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from signal_router.testing.reference_evidence import Output
from signal_router.testing.reference_outputs import lineage_key
from signal_router.testing.reference_types import EndedCandidate, Evaluation, ExpectedTrigger, Headers, Violation
from signal_router.testing.reference_values import Json, UnreadableError, canonical, read_json
from signal_router.verify.report import Invariant

TRIGGERS, LINEAGE, DEAD_LETTERS = "triggers", "lineage", "dead letters"
"""The roles of the topics on which something may be absent."""


def compare(
    evaluation: Evaluation,
    *,
    triggers: Mapping[str, Sequence[Output]],
    lineage: Sequence[Output],
    dead_letters: Sequence[Output],
) -> list[Violation]:
    """Lists every difference between topics and evaluation; empty means that they agree.

    `triggers` maps each destination to its read_committed records; `lineage` and `dead_letters` are those topics'
    records, lineage compacted or not. Headers other than the CloudEvents ones and `content-type` are not compared,
    nor is `ended_at`. An undeliverable trigger may stand on its topic once, as a replay. Lineage of other kinds
    (`view/…`, `input/…`), and of candidates that fired (written by `lineage: all`), is allowed.
    """
    return [
        *_compare_triggers(evaluation, triggers),
        *_compare_trigger_lineage(evaluation, lineage),
        *_compare_signal_lineage(evaluation, lineage),
        *_compare_dead_letters(evaluation, dead_letters),
    ]


def _compare_triggers(evaluation: Evaluation, topics: Mapping[str, Sequence[Output]]) -> Iterator[Violation]:
    expected = {_firing(trigger.value): trigger for trigger in evaluation.triggers}
    replayable = {_firing(trigger.value): trigger for trigger in evaluation.undelivered}
    seen: Counter[str] = Counter()
    for topic, records in topics.items():
        for key, value, headers in records:
            actual = _document(value)
            if actual is None:
                yield Violation(Invariant.SOUND, f'a record of topic "{topic}" is no JSON object')
                continue
            firing = _firing(actual)
            seen[firing] += 1
            trigger = expected.get(firing) or (replayable.get(firing) if _replayed(headers) else None)
            if trigger is None:
                yield Violation(Invariant.SOUND, f'trigger {_shown(actual)} on "{topic}" is not expected')
                continue
            name = f"trigger {_shown(actual)}"
            if topic != trigger.topic:
                yield Violation(Invariant.SOUND, f'{name} is on "{topic}", not on "{trigger.topic}"')
            if key != trigger.key.encode():
                yield Violation(Invariant.SOUND, f"{name} has the key {key!r}, not {trigger.key}")
            yield from _differences(Invariant.SOUND, name, _in_form(trigger.value, actual), actual)
            carried = dict(headers)
            for header, text in trigger.headers.items():
                if carried.get(header) != text.encode():
                    stands = f"{name} has the header {header}: {carried.get(header)!r}, not {text!r}"
                    yield Violation(Invariant.SOUND, stands)
    for firing, trigger in expected.items():
        if seen[firing] == 0:
            yield Violation(Invariant.COMPLETE, f"trigger {_shown(trigger.value)} is missing", TRIGGERS)
    for firing, trigger in {**expected, **replayable}.items():
        if seen[firing] > 1:
            stands = f"trigger {_shown(trigger.value)} stands there {seen[firing]} times"
            yield Violation(Invariant.UNIQUE, stands)


def _compare_trigger_lineage(evaluation: Evaluation, lineage: Sequence[Output]) -> Iterator[Violation]:
    expected: dict[str, list[ExpectedTrigger]] = {}
    for trigger in evaluation.triggers:
        expected.setdefault(f"trigger/{trigger.trigger_id}", []).append(trigger)
    actual, replayed = _by_key(lineage, b"trigger/"), _by_key(_replays(lineage), b"trigger/")
    for trigger in evaluation.undelivered:
        if f"trigger/{trigger.trigger_id}" in replayed:
            expected.setdefault(f"trigger/{trigger.trigger_id}", []).append(trigger)
    for key in sorted(expected.keys() | actual.keys()):
        written, wanted = actual.get(key, []), expected.get(key, [])
        if not wanted:
            yield Violation(Invariant.LINEAGE, f"lineage {key} is not expected")
        elif not written:
            yield Violation(Invariant.LINEAGE, f"lineage {key} is missing", LINEAGE)
        elif len(written) > len(wanted):
            yield Violation(Invariant.LINEAGE, f"lineage {key} stands there {len(written)} times")
        else:  # the same set may fire again after the horizon; compaction keeps the last
            for value, trigger in zip(written, wanted[-len(written) :], strict=True):
                document = _document(value)
                form = _in_form(trigger.lineage, document or {})
                yield from _differences(Invariant.LINEAGE, f"lineage {key}", form, document)


def _compare_signal_lineage(evaluation: Evaluation, lineage: Sequence[Output]) -> Iterator[Violation]:
    ended = {_key_of(candidate): candidate for candidate in evaluation.ended}
    actual = _by_key(lineage, b"signal/")
    for key in sorted(ended.keys() | actual.keys()):
        written, candidate = actual.get(key, []), ended.get(key)
        wanted = None if candidate is None else candidate.lineage
        if candidate is None:
            yield Violation(Invariant.ONE_OUTCOME, f"lineage {key} is not expected")
        elif wanted is None:
            for value in written:
                outcome = (_document(value) or {}).get("outcome")
                if outcome != "fired":
                    said = f"lineage {key} says {outcome}, but the candidate fired"
                    yield Violation(Invariant.ONE_OUTCOME, said)
        elif not written:
            text = f"lineage {key} is missing: {candidate.outcome}, {candidate.reason}"
            yield Violation(Invariant.CONSERVED, text, LINEAGE)
        elif len(written) > 1:
            yield Violation(Invariant.ONE_OUTCOME, f"lineage {key} stands there {len(written)} times")
        else:
            found = _document(written[0])
            if found is not None:
                found.pop("ended_at", None)
            yield from _differences(Invariant.ONE_OUTCOME, f"lineage {key}", wanted, found)


def _compare_dead_letters(evaluation: Evaluation, records: Sequence[Output]) -> Iterator[Violation]:
    expected = Counter(
        [
            *(("signal", "/".join(map(str, bad.position))) for bad in evaluation.dead_letters),
            *(("trigger", trigger.trigger_id) for trigger in evaluation.undelivered),
        ]
    )
    actual: Counter[tuple[str, str]] = Counter()
    for key, value, _ in records:
        document = _document(value) or {}
        kind = str(document.get("kind"))
        if kind != "definition":  # once per document, but its topic is not part of the evidence
            actual[kind, (key or b"").decode(errors="replace")] += 1
    for name in sorted(expected.keys() | actual.keys()):
        if expected[name] != actual[name]:
            text = f"dead letter {name[0]} {name[1]}: {actual[name]} found, {expected[name]} expected"
            absent = DEAD_LETTERS if actual[name] < expected[name] else None
            yield Violation(Invariant.DEAD_LETTERS, text, absent)


def _by_key(records: Sequence[Output], prefix: bytes) -> dict[str, list[bytes | None]]:
    found: dict[str, list[bytes | None]] = {}
    for key, value, _ in records:
        if key is not None and key.startswith(prefix):
            found.setdefault(key.decode(errors="replace"), []).append(value)
    return found


def _key_of(candidate: EndedCandidate) -> str:
    return lineage_key(candidate.position, candidate.subscription, candidate.join_key_hash)


def _firing(trigger: Mapping[str, Json]) -> str:
    """Names one firing: the same set may fire again after the horizon, under the same id."""
    return canonical([trigger.get("trigger_id"), trigger.get("order")])


def _shown(trigger: Mapping[str, Json]) -> str:
    return f"{trigger.get('trigger_id')} at {canonical(trigger.get('order'))}"


def _in_form(expected: Mapping[str, Json], actual: Mapping[str, Json]) -> Mapping[str, Json]:
    """A trigger too large for its topic carries its signals without params and payload, and says so."""
    signals = expected.get("signals")
    if actual.get("by_position") is not True or not isinstance(signals, list):
        return expected
    bare: list[Json] = []
    for signal in signals:
        if isinstance(signal, dict):
            without: dict[str, Json] = {name: part for name, part in signal.items() if name != "payload"}
            bare.append({**without, "params": {}})
    return {**expected, "signals": bare, "by_position": True}


def _replayed(headers: Headers) -> bool:
    """Whether `dead-letters replay` wrote a record."""
    return (dict(headers).get("sr_txn") or b"").startswith(b"replay/")


def _replays(records: Sequence[Output]) -> list[Output]:
    return [record for record in records if _replayed(record[2])]


def _differences(
    invariant: Invariant, name: str, expected: Mapping[str, Json], actual: Mapping[str, Json] | None
) -> Iterator[Violation]:
    if actual is None:
        yield Violation(invariant, f"{name} is no JSON object")
        return
    for field in sorted(expected.keys() | actual.keys()):
        if field not in actual:
            yield Violation(invariant, f"{name} lacks {field}")
        elif field not in expected:
            yield Violation(invariant, f"{name} has the field {field}, which is not expected")
        elif canonical(expected[field]) != canonical(actual[field]):
            stands = f"{name} has {field} {canonical(actual[field])}, not {canonical(expected[field])}"
            yield Violation(invariant, stands)


def _document(value: bytes | None) -> dict[str, Json] | None:
    try:
        document = read_json(value or b"")
    except UnreadableError:
        return None
    return document if isinstance(document, dict) else None
