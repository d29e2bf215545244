"""What the SDK writes is what a worker reads; what a worker would make a dead letter of is refused with its reason."""

from __future__ import annotations

import enum
import math
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signal_router.client import Trigger, decode_trigger
from signal_router.client.signal_writer import SignalWriter, known_traceparent
from signal_router.errors import RecordError
from signal_router.kafka.topics import topic_text
from signal_router.model.json_values import decode_json
from signal_router.model.records import REASONS, decode_signal
from signal_router.model.signals import Signal

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRIGGER_ID = "1f0e7a3c-52a4-5b1d-9c3e-0a6f4f1f9d27"


def read(writer: SignalWriter, name: str = "A", **said: object) -> Signal:
    record = writer.write(name, **said)  # type: ignore[arg-type]
    signal = decode_signal(record.value, record.headers, limit_bytes=1 << 20)
    assert signal is not None
    return signal


@pytest.mark.parametrize("form", ["json", "cloudevents"])
def test_a_worker_reads_what_was_said(form):
    writer = SignalWriter(source="wf/titles", form=form)

    signal = read(
        writer,
        "titles.ready",
        params={"ds": "2026-03-10", "rows": 1500, "share": 0.5, "full": True, "none": None},
        payload={"tables": ["f"], "n": [1, 2.5]},
        id="run-7",
        time="2026-03-10T06:00:00Z",
    )

    assert (signal.name, signal.source, signal.id) == ("titles.ready", "wf/titles", "run-7")
    assert signal.params == {"ds": "2026-03-10", "rows": 1500, "share": 0.5, "full": True, "none": None}
    assert decode_json(signal.payload or b"", what="") == {"tables": ["f"], "n": [1, 2.5]}
    assert signal.time == "2026-03-10T06:00:00Z"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**64) + 1, 10**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
names = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(params=st.dictionaries(names, scalars), form=st.sampled_from(["json", "cloudevents"]))
def test_every_scalar_arrives_as_the_value_that_it_was(params, form):
    found = read(SignalWriter(source="s", form=form), params=params).params

    assert found == params
    assert {name: type(value) is bool for name, value in found.items()} == {
        name: type(value) is bool for name, value in params.items()
    }


@settings(deadline=None)
@given(
    payload=st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=10).filter(
        lambda value: value is not None
    )
)
def test_every_payload_arrives_as_the_value_that_it_was(payload):
    signal = read(SignalWriter(source="s"), payload=payload)

    assert signal.payload is not None
    assert decode_json(signal.payload, what="") == payload


def test_a_call_makes_an_id_and_no_two_calls_or_producers_make_the_same():
    writers = [SignalWriter(source="s") for _ in range(20)]

    ids = [writer.write("A").id for writer in writers for _ in range(50)]

    assert len(set(ids)) == len(ids)
    assert read(writers[0]).id not in ids


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"params": {"n": math.nan}}, "number"),
        ({"params": {"n": math.inf}}, "number"),
        ({"params": {"n": 10**64}}, "number"),
        ({"params": {"o": {"a": 1}}}, "params"),
        ({"params": {"o": [1]}}, "params"),
        ({"params": {"d": date(2026, 3, 10)}}, "params"),
        ({"params": {"b": b"x"}}, "params"),
        ({"params": {1: "x"}}, "params"),
        ({"params": {"s": "\ud800"}}, "surrogate"),
        ({"payload": {"s": "\ud800"}}, "surrogate"),
        ({"payload": [math.nan]}, "number"),
        ({"payload": {"n": 10**64}}, "number"),
        ({"payload": object()}, "not-json"),
        ({"time": "yesterday"}, "time"),
        ({"time": datetime(2026, 3, 10)}, "time"),
        ({"id": ""}, "id"),
        ({"name": ""}, "name"),
        ({"params": {"s": "x" * 300_000}}, "too-large"),
    ],
)
def test_what_a_worker_would_refuse_is_refused_with_its_reason(said, reason):
    said = {"name": "A", **said}

    with pytest.raises(RecordError) as caught:
        SignalWriter(source="s").write(**said)

    assert caught.value.reason == reason
    assert reason in REASONS


def test_deep_payloads_are_refused():
    payload: object = 1
    for _ in range(64):
        payload = [payload]

    with pytest.raises(RecordError) as caught:
        SignalWriter(source="s").write("A", payload=payload)

    assert caught.value.reason == "nesting"


def test_a_loop_in_a_payload_is_refused():
    payload: list[object] = []
    payload.append(payload)

    with pytest.raises(RecordError):
        SignalWriter(source="s").write("A", payload=payload)


def test_a_signal_without_a_source_is_refused_with_what_to_do():
    with pytest.raises(RecordError, match="has no source") as caught:
        SignalWriter().write("A")

    assert "source=" in str(caught.value.hint)


def test_enums_and_scalars_of_other_libraries_are_the_values_behind_them():
    class Country(enum.StrEnum):
        US = "US"

    class Count(int):
        pass

    class Kind(enum.Enum):
        DAILY = "daily"

    params = {"country": Country.US, "rows": Count(3), "kind": Kind.DAILY}

    assert read(SignalWriter(source="s"), params=params).params == {"country": "US", "rows": 3, "kind": "daily"}


def test_a_datetime_with_a_zone_is_a_time():
    assert read(SignalWriter(source="s"), time=datetime(2026, 3, 10, tzinfo=UTC)).time == "2026-03-10T00:00:00+00:00"


def test_subject_and_context_are_attributes_of_cloudevents():
    signal = read(
        SignalWriter(source="s", form="cloudevents"), subject="tables/f", context={"region": "eu"}, params={"k": 1}
    )

    assert signal.context["subject"] == "tables/f"
    assert signal.context["region"] == "eu"


@pytest.mark.parametrize("said", [{"subject": "x"}, {"context": {"region": "eu"}}])
def test_plain_json_cannot_say_a_context(said):
    with pytest.raises(RecordError, match="which plain JSON cannot say"):
        SignalWriter(source="s").write("A", **said)


@pytest.mark.parametrize("context", [{"Region": "eu"}, {"id": "x"}, {"a_b": "x"}, {"": "x"}, {"region": 1}])
def test_a_context_that_cloudevents_does_not_know_is_refused(context):
    with pytest.raises(RecordError):
        SignalWriter(source="s", form="cloudevents").write("A", context=context)


# ---- trace and cause


def trigger(traceparent: str | None) -> Trigger:
    headers = [("traceparent", traceparent.encode())] if traceparent else []
    return decode_trigger(topic_text("examples/trigger.json").encode(), headers)  # type: ignore[arg-type]


def test_the_trace_of_the_call_stands_before_that_of_the_environment_and_that_before_the_trigger_s():
    other = TRACE.replace("4bf9", "5bf9")
    third = TRACE.replace("4bf9", "6bf9")
    traced, untraced = SignalWriter(source="s", traceparent=other), SignalWriter(source="s")

    assert read(traced, traceparent=TRACE, caused_by=trigger(third)).context["traceparent"] == TRACE
    assert read(traced, caused_by=trigger(third)).context["traceparent"] == other
    assert read(untraced, caused_by=trigger(third)).context["traceparent"] == third
    assert "traceparent" not in read(untraced, caused_by=trigger(None)).context


def test_the_cause_is_a_header():
    for cause in (TRIGGER_ID, trigger(None)):
        record = SignalWriter(source="s").write("A", caused_by=cause)

        assert ("sr_caused_by", TRIGGER_ID.encode()) in record.headers


@pytest.mark.parametrize("cause", ["", "run-7", TRIGGER_ID.upper(), TRIGGER_ID + "/1"])
def test_what_is_no_trigger_is_no_cause(cause):
    with pytest.raises(RecordError, match="is no id of a trigger"):
        SignalWriter(source="s").write("A", caused_by=cause)


@pytest.mark.parametrize("text", ["", "x", TRACE.upper(), TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32)])
def test_a_wrong_trace_is_refused_in_a_call_and_passed_over_in_the_environment(text):
    with pytest.raises(RecordError, match="is no trace context"):
        SignalWriter(source="s").write("A", traceparent=text)

    assert known_traceparent(text) is None
    assert known_traceparent(TRACE) == TRACE
