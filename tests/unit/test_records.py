from __future__ import annotations

import base64
import json

import pytest

from signal_router.errors import RecordError
from signal_router.model.records import REASONS, decode_signal
from signal_router.model.signals import Signal

LIMIT = 10_000
TIME = "2026-03-10T04:05:06.5+01:00"


def decoded(value, headers=None, *, limit_bytes=LIMIT) -> Signal:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    signal = decode_signal(data, headers, limit_bytes=limit_bytes)
    assert signal is not None
    return signal


def refusal(value, headers=None, *, limit_bytes=LIMIT) -> RecordError:
    with pytest.raises(RecordError) as caught:
        decoded(value, headers, limit_bytes=limit_bytes)
    assert caught.value.reason in REASONS
    assert caught.value.hint
    return caught.value


def binary(*extra, **attributes):
    given = {"specversion": "1.0", "type": "titles.ready", "source": "/wf/titles", "id": "run-7"} | attributes
    return [(f"ce_{name}", text.encode()) for name, text in given.items() if text is not None] + list(extra)


def structured(content_type=b"application/cloudevents+json", **members):
    given = {"specversion": "1.0", "type": "titles.ready", "source": "/wf/titles", "id": "run-7"} | members
    return json.dumps({k: v for k, v in given.items() if v is not ...}).encode(), [("content-type", content_type)]


JSON = ("content-type", b"application/json; charset=utf-8")


class TestPlainForm:
    def test_a_full_signal_is_read(self):
        signal = decoded(
            b'{"name":"titles.ready","source":"wf","id":"1","params":{"ds":"2026-03-10","rows":15e2,"x":0.5,"y":null,'
            b'"z":true},"payload": {"a": [1.50, "\\u00e9"]} ,"time":"%s"}' % TIME.encode()
        )

        assert signal == Signal(
            name="titles.ready",
            source="wf",
            id="1",
            params={"ds": "2026-03-10", "rows": 1500, "x": 0.5, "y": None, "z": True},
            payload=b'{"a": [1.50, "\\u00e9"]}',
            time=TIME,
            context={"type": "titles.ready", "source": "wf", "id": "1", "time": TIME},
        )
        assert type(signal.params["rows"]) is int

    def test_a_name_is_enough(self):
        signal = decoded(b'{"name":"x"}')

        assert signal == Signal("x", None, None, {}, None, None, {"type": "x"})

    def test_null_fields_are_the_same_as_none(self):
        nulls = decoded({"name": "x", "source": None, "id": None, "params": None, "payload": None, "time": None})

        assert nulls == decoded({"name": "x"})

    def test_a_source_needs_no_id(self):
        assert decoded({"name": "x", "source": "wf"}).context == {"type": "x", "source": "wf"}

    def test_unknown_fields_are_ignored(self):
        assert decoded({"name": "x", "payload": [1], "subject": 5, "more": {"deep": [{}]}}) == decoded(
            {"name": "x", "payload": [1]}
        )

    def test_integers_stay_exact_up_to_64_digits(self):
        big = 10**64 - 1

        assert decoded({"name": "x", "params": {"a": big, "b": 2**53 + 1, "c": -big}}).params == {
            "a": big,
            "b": 2**53 + 1,
            "c": -big,
        }

    def test_of_a_key_given_twice_the_last_wins(self):
        signal = decoded(b'{"name":5,"payload":1,"params":{"a":[],"a":2},"name":"x","payload":2}')

        assert (signal.name, signal.params, signal.payload) == ("x", {"a": 2}, b"2")

    @pytest.mark.parametrize("payload", [b"0", b"false", b'""', b"[]", b'"\\ud83d\\ude00"', b" { } "])
    def test_every_payload_but_null_is_one(self, payload):
        assert decoded(b'{"name":"x","payload":%s}' % payload).payload == payload.strip()
        assert decoded(b'{"name":"x","more":1,"payload":%s}' % payload).payload == payload.strip()

    def test_the_trace_and_what_a_replay_repeats_are_kept_from_the_headers(self):
        headers = [("traceparent", b"00-a-b-01"), ("sr_replay_of", b'["u",0,1]'), ("other", b"\xff"), ("none", None)]

        assert decoded({"name": "x"}, headers).context == {
            "type": "x",
            "traceparent": "00-a-b-01",
            "sr_replay_of": '["u",0,1]',
        }

    def test_a_broken_trace_is_no_reason_to_refuse(self):
        assert decoded({"name": "x"}, [("traceparent", b"\xff"), ("tracestate", None)]).context == {"type": "x"}

    def test_a_tombstone_is_no_signal(self):
        assert decode_signal(None, None, limit_bytes=LIMIT) is None
        assert decode_signal(None, binary(), limit_bytes=LIMIT) is None

    def test_the_size_limit_is_inclusive(self):
        assert decoded(b'{"name":"x"}', limit_bytes=12).name == "x"

    @pytest.mark.parametrize(
        ("value", "reason", "text"),
        [
            (b"", "not-json", "record is empty"),
            (b"hello", "not-json", "line 1 column 1"),
            (b'{"name":"x"', "not-json", "line 1 column 12"),
            (b'{"name":"x"} {}', "not-json", "column 14"),
            (b'{"name":"\xff"}', "not-json", "byte 0xff at 9"),
            (b'{"name":"x","more":"\xff"}', "not-json", "byte 0xff"),
            (b'\xef\xbb\xbf{"name":"x"}', "not-json", "not JSON"),
            (b"[]", "not-object", "array"),
            (b'"x"', "not-object", "string"),
            (b"null", "not-object", "null"),
            (b"{}", "name", "no name"),
            (b'{"name":null}', "name", "no name"),
            (b'{"name":""}', "name", "empty"),
            (b'{"name":5}', "name", "number"),
            (b'{"name":["x"]}', "name", "array"),
            (b'{"name":"x","source":7}', "source", 'source of signal "x" is a number'),
            (b'{"name":"x","source":""}', "source", "empty"),
            (b'{"name":"x","source":"s","id":7}', "id", "number"),
            (b'{"name":"x","source":"s","id":""}', "id", "empty"),
            (b'{"name":"x","id":"7"}', "id-without-source", 'id "7"'),
            (b'{"name":"x","id":"7","source":null}', "id-without-source", "no source"),
            (b'{"name":"x","time":1773115506}', "time", "number"),
            (b'{"name":"x","time":"2026-02-30T00:00:00Z"}', "time", "2026-02-30"),
            (b'{"name":"x","time":"yesterday"}', "time", "yesterday"),
            (b'{"name":"x","time":""}', "time", "empty"),
            (b'{"name":"x","params":[]}', "params", "array"),
            (b'{"name":"x","params":"a=b"}', "params", "string"),
            (b'{"name":"x","params":{"a":{}}}', "params", 'parameter "a"'),
            (b'{"name":"x","params":{"a":1,"b":[1]}}', "params", 'parameter "b"'),
            (b'{"name":"x","params":{"a":NaN}}', "number", "NaN"),
            (b'{"name":"x","params":{"a":-Infinity}}', "number", "-Infinity"),
            (b'{"name":"x","params":{"a":1e400}}', "number", "1e400"),
            (b'{"name":"x","params":{"a":%s}}' % (b"1" * 65), "number", "1111"),
            (b'{"name":"x","payload":{"a":1e400}}', "number", "1e400"),
            (b'{"name":"x","payload":[%s]}' % (b"1" * 65), "number", "1111"),
            (b'{"name":"x","payload":[NaN]}', "number", "NaN"),
            (b'{"name":"x","more":1e400}', "number", "1e400"),
            (b'{"name":"\\ud800"}', "surrogate", "surrogate"),
            (b'{"name":"x","params":{"a":"\\udc00"}}', "surrogate", "surrogate"),
            (b'{"name":"x","payload":["\\ud800x"]}', "surrogate", "surrogate"),
            (b'{"name":"x","params":{"a":%s1%s}}' % (b"[" * 63, b"]" * 63), "nesting", "64 levels"),
            (b'{"name":"x","payload":%s1%s}' % (b"[" * 64, b"]" * 64), "nesting", "levels"),
            (b'{"name":"x","more":%s1%s}' % (b"[" * 64, b"]" * 64), "nesting", "levels"),
            (b'{"name":"x","payload":%s%s}' % (b"[" * 4900, b"]" * 4900), "nesting", "levels"),
            (b'{"name":"x","params":%s1%s}' % (b'{"a":' * 1500, b"}" * 1500), "nesting", "levels"),
            (b'{"name":"%s"}' % (b"x" * LIMIT), "too-large", f"at most {LIMIT}"),
        ],
    )
    def test_bad_input_is_refused_with_its_reason(self, value, reason, text):
        error = refusal(value)

        assert error.reason == reason
        assert text in error.message

    def test_a_payload_may_be_nested_as_deep_as_a_record_allows(self):
        payload = b"[" * 63 + b"]" * 63

        assert decoded(b'{"name":"x","payload":%s}' % payload).payload == payload
        assert decoded(b'{"name":"x","more":1,"payload":%s}' % payload).payload == payload


class TestBinaryMode:
    def test_attributes_come_from_headers_and_params_from_the_data(self):
        headers = binary(JSON, subject="s3://a", time=TIME, tenant="é")

        signal = decoded(b'{"params":{"rows":2.0},"payload":{ "a":1},"name":"other","id":7}', headers)

        assert signal == Signal(
            name="titles.ready",
            source="/wf/titles",
            id="run-7",
            params={"rows": 2},
            payload=b'{ "a":1}',
            time=TIME,
            context={
                "specversion": "1.0",
                "type": "titles.ready",
                "source": "/wf/titles",
                "id": "run-7",
                "subject": "s3://a",
                "time": TIME,
                "tenant": "é",
                "datacontenttype": "application/json; charset=utf-8",
            },
        )

    def test_other_objects_give_their_scalars_as_params_and_themselves_as_payload(self):
        data = b'{"rows": 2e0, "parts": [1], "params": "text", "deep": {}, "none": null}'

        signal = decoded(data, binary(JSON))

        assert signal.params == {"rows": 2, "params": "text", "none": None}
        assert signal.payload == data

    @pytest.mark.parametrize("data", [b"[1,2]", b"5", b'"text"', b"false"])
    def test_json_that_is_no_object_is_the_payload(self, data):
        assert (decoded(data, binary(JSON)).params, decoded(data, binary(JSON)).payload) == ({}, data)

    @pytest.mark.parametrize("data", [b"", b"null", b'{"params":{},"payload":null}', b'{"params":{}}'])
    def test_no_data_and_null_are_no_payload(self, data):
        assert (decoded(data, binary(JSON)).params, decoded(data, binary(JSON)).payload) == ({}, None)

    @pytest.mark.parametrize("media_type", [b"application/avro", b"text/plain", b"application/xml", b""])
    def test_data_that_is_not_json_gives_neither_params_nor_payload(self, media_type):
        signal = decoded(b'\xff{"a":1}', binary(("content-type", media_type)))

        assert (signal.params, signal.payload) == ({}, None)

    @pytest.mark.parametrize("media_type", [b"application/json", b"TEXT/JSON", b"application/vnd.x+JSON ;v=1"])
    def test_json_has_many_media_types(self, media_type):
        assert decoded(b'{"a":1}', binary(("Content-Type", media_type))).params == {"a": 1}

    def test_data_without_a_media_type_is_json(self):
        assert decoded(b'{"a":1}', binary()).params == {"a": 1}
        assert refusal(b"\x00avro", binary()).reason == "not-json"

    def test_the_trace_of_the_attributes_wins_over_the_one_of_the_last_hop(self):
        hop = ("traceparent", b"hop")

        assert decoded(b"", binary(hop)).context["traceparent"] == "hop"
        assert decoded(b"", binary(hop, traceparent="origin")).context["traceparent"] == "origin"

    def test_of_a_header_given_twice_the_last_counts(self):
        assert decoded(b"", [*binary(), ("ce_id", b"8")]).id == "8"

    @pytest.mark.parametrize("missing", ["specversion", "type", "source", "id"])
    def test_a_required_attribute_that_is_missing_or_empty_is_refused_by_name(self, missing):
        for content in (None, ""):
            error = refusal(b"{}", binary(**{missing: content}))

            assert (error.reason, error.message) == ("cloudevent", f"cloudevent has no {missing}")

    @pytest.mark.parametrize(
        ("data", "headers", "reason"),
        [
            (b"{}", binary(specversion="0.3"), "cloudevent"),
            (b"{}", binary(time="now"), "time"),
            (b"{}", [*binary(), ("ce_tenant", b"\xff")], "cloudevent"),
            (b"{}", [*binary(), ("content-type", b"\xff")], "cloudevent"),
            (b"{", binary(JSON), "not-json"),
            (b'{"params":{"a":[]}}', binary(JSON), "params"),
            (b'{"a":NaN}', binary(JSON), "number"),
            (b'{"a":{"b":"\\ud800"}}', binary(JSON), "surrogate"),
            (b"[" * 65 + b"]" * 65, binary(JSON), "nesting"),
            (b" " * (LIMIT + 1), binary(), "too-large"),
        ],
    )
    def test_bad_events_are_refused_with_their_reason(self, data, headers, reason):
        assert refusal(data, headers).reason == reason


class TestStructuredMode:
    def test_attributes_and_data_come_from_one_document(self):
        value, headers = structured(
            subject="s", time=TIME, tenant="a", urgent=True, priority=7, nothing=None, data={"params": {"rows": 2.0}}
        )

        signal = decoded(value, headers)

        assert signal == Signal(
            name="titles.ready",
            source="/wf/titles",
            id="run-7",
            params={"rows": 2},
            payload=None,
            time=TIME,
            context={
                "specversion": "1.0",
                "type": "titles.ready",
                "source": "/wf/titles",
                "id": "run-7",
                "subject": "s",
                "time": TIME,
                "tenant": "a",
                "urgent": "true",
                "priority": "7",
            },
        )

    @pytest.mark.parametrize(
        "content_type", [b"application/cloudevents", b"Application/CloudEvents+JSON; charset=UTF-8"]
    )
    def test_the_content_type_is_read_without_case_and_parameters(self, content_type):
        value, headers = structured(content_type, data={"a": 1, "b": []})

        signal = decoded(value, headers)

        assert signal.params == {"a": 1}
        assert json.loads(signal.payload) == {"a": 1, "b": []}

    @pytest.mark.parametrize("data", [..., None])
    def test_no_data_and_null_are_no_payload(self, data):
        value, headers = structured(data=data)

        assert (decoded(value, headers).params, decoded(value, headers).payload) == ({}, None)

    def test_data_in_base64_is_read_by_its_media_type(self):
        encoded = base64.b64encode(b'{"params":{"a":1},"payload":[2]}').decode()

        as_json = decoded(*structured(data_base64=encoded))
        as_avro = decoded(*structured(data_base64=encoded, datacontenttype="application/avro"))

        assert (as_json.params, as_json.payload) == ({"a": 1}, b"[2]")
        assert (as_avro.params, as_avro.payload) == ({}, None)

    def test_text_of_another_media_type_gives_neither_params_nor_payload(self):
        signal = decoded(*structured(data="<a/>", datacontenttype="application/xml"))

        assert (signal.params, signal.payload) == ({}, None)

    def test_headers_of_the_binary_mode_do_not_count(self):
        value, headers = structured(data={"a": 1})

        assert decoded(value, [*headers, *binary(id="other")]).id == "run-7"

    @pytest.mark.parametrize(
        ("value", "headers", "reason"),
        [
            (*structured(b"application/cloudevents-batch+json"), "cloudevent"),
            (*structured(b"application/cloudevents+avro"), "cloudevent"),
            (*structured(type=...), "cloudevent"),
            (*structured(id=""), "cloudevent"),
            (*structured(id=7), "cloudevent"),
            (*structured(source=None), "cloudevent"),
            (*structured(specversion="1.1"), "cloudevent"),
            (*structured(subject=True), "cloudevent"),
            (*structured(extension=1.5), "cloudevent"),
            (*structured(extension={}), "cloudevent"),
            (*structured(time="2026-03-10"), "time"),
            (*structured(data=1, data_base64="MQ=="), "cloudevent"),
            (*structured(data_base64="*"), "cloudevent"),
            (*structured(data_base64="é"), "cloudevent"),
            (*structured(data_base64=5), "cloudevent"),
            (*structured(data_base64="/w=="), "not-json"),
            (*structured(data={"params": {"a": {}}}), "params"),
            (b"[]", structured()[1], "not-object"),
            (b"", structured()[1], "not-json"),
            (b'{"data":1e400}', structured()[1], "number"),
        ],
    )
    def test_bad_events_are_refused_with_their_reason(self, value, headers, reason):
        assert refusal(value, headers).reason == reason


def test_the_three_forms_of_one_signal_are_one():
    params, payload = {"ds": "2026-03-10", "rows": 1500}, {"path": "s3://a"}
    plain = decoded(
        {"name": "titles.ready", "source": "/wf/titles", "id": "run-7", "params": params, "payload": payload}
    )
    data = json.dumps({"params": params, "payload": payload}).encode()
    in_headers = decoded(data, binary(JSON))
    in_document = decoded(*structured(data={"params": params, "payload": payload}))

    for signal in (in_headers, in_document):
        assert (signal.name, signal.source, signal.id) == (plain.name, plain.source, plain.id)
        assert (signal.params, signal.payload, signal.time) == (plain.params, plain.payload, plain.time)
        assert plain.context.items() <= signal.context.items()
