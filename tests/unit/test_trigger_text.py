"""A trigger is the same record whichever way it is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from join_cases import subscription

from signal_router.model import triggers
from signal_router.model.candidates import SignalCopy
from signal_router.model.canonical import canonical_json, canonical_text
from signal_router.model.templates import parse_template
from signal_router.model.trigger_text import TriggerWriter, writer_of
from signal_router.model.triggers import Bound

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False).filter(lambda each: not each.is_integer())
params = st.dictionaries(st.sampled_from(["x", "y", "a.b", "é"]), st.none() | st.booleans() | numbers | texts)
templates = st.dictionaries(
    texts.filter(lambda text: "{" not in text and "}" not in text),
    st.sampled_from(["{join.ds}", "{a.params.x}", '{b.params["a.b"]}', "{a.id}", "{b.source}", "{b.name}", "{a.time}"])
    | numbers
    | texts.filter(lambda text: "{" not in text and "}" not in text)
    | st.lists(st.none() | numbers, max_size=2),
    max_size=6,
)


@dataclass(frozen=True)
class Arrived:
    sequence: int
    signal: SignalCopy


@st.composite
def arrivals(draw: st.DrawFn, sequence: int) -> Arrived:
    name, source, id_ = draw(texts), draw(st.none() | texts), draw(st.none() | texts)
    copy = SignalCopy(
        canonical_text([name, source, id_]),
        name,
        source,
        id_,
        canonical_json(draw(params)),
        None,
        draw(st.sampled_from([None, "2026-03-10T06:00:00Z"])),
        draw(st.integers(0, 4_000_000_000_000)),
        "sig.nals",
        draw(st.integers(0, 9)),
        draw(st.integers(0, 2**60)),
        b"digest",
        draw(st.sampled_from([None, "00-aa-bb-01"])),
    )
    return Arrived(sequence, copy)


@given(
    template=templates,
    first=arrivals(11),
    second=arrivals(12),
    day=st.none() | texts | st.integers(),
    alone=st.booleans(),
    completing=st.integers(0, 1),
)
def test_text_is_what_the_parts_give(
    template: dict[str, object], first: Arrived, second: Arrived, day: object, alone: bool, completing: int
) -> None:
    names = () if alone else ("ds",)
    pair = replace(subscription("ba", revision=41), template=parse_template(template), join_names=names)
    key = canonical_text({} if alone else {"ds": day})
    members = (first, second)

    written = writer(pair).write(key, members, members[completing], 3)

    bound = [
        Bound(member.alias, arrived.sequence, arrived.signal, member.payload)
        for member, arrived in zip(pair.members, members, strict=True)
    ]
    built = triggers.build(pair, key, bound, bound[completing], 3)
    assert written.value == triggers.encode(built)
    assert written.id == built.trigger_id
    assert written.key == triggers.key_of(pair, key)
    traceparent = members[completing].signal.traceparent
    assert written.headers == triggers.headers(built, "app", written.key, traceparent)


@given(arrived=arrivals(5))
def test_text_of_a_signal_that_fires_by_itself_is_what_the_parts_give(arrived: Arrived) -> None:
    alone = subscription("a", join_names=())
    bound = Bound("a", 5, arrived.signal, with_payload=False)
    identity = arrived.signal.identity

    written = writer(alone).write(identity, (arrived,), arrived, 0)

    assert written.value == triggers.encode(triggers.build(alone, identity, [bound], bound, 0))
    assert written.key == triggers.key_of(alone, identity)


@pytest.mark.parametrize("template", [{"t": "from {a.id}"}, {"t": "{a.payload.x}"}, {"t": ["{a.id}"]}])
def test_what_is_not_plain_is_left_to_the_parts(template: dict[str, object]) -> None:
    assert writer_of(replace(subscription("ab"), template=parse_template(template)), "app") is None


def test_what_carries_payloads_is_left_to_the_parts() -> None:
    pair = subscription("ab")
    members = (replace(pair.members[0], payload=True), pair.members[1])

    assert writer_of(replace(pair, members=members), "app") is None


def writer(of: object) -> TriggerWriter:
    found = writer_of(of, "app")  # type: ignore[arg-type]
    assert found is not None
    return found
