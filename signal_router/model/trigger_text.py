"""Triggers written straight as text: the bytes of `triggers.encode(triggers.build(…))` in two thirds of the time.

What is the same in every trigger of a subscription is written once. This is the common case only: no payload in the
trigger, and a template of plain placeholders; `triggers` writes the others from their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import NamedTuple, Protocol

from signal_router.model import triggers
from signal_router.model.candidates import SignalCopy
from signal_router.model.canonical import canonical_text
from signal_router.model.placeholders import ATTRIBUTES, JOIN, Literal, Node, Path
from signal_router.model.subscriptions import Subscription
from signal_router.model.times import rfc3339
from signal_router.model.values import Value


class Arrived(Protocol):
    """A signal of a set, with its place in the joining order."""

    @property
    def sequence(self) -> int: ...
    @property
    def signal(self) -> SignalCopy: ...


class TriggerText(NamedTuple):
    """A trigger as a record: its id, and key, value and CloudEvents headers on the wire."""

    id: str
    key: bytes
    value: bytes
    headers: triggers.Headers


class _Column(NamedTuple):
    """A parameter of the trigger: the text before it, the member it is read from (−1: the join key), and what of it."""

    opening: str
    member: int
    attribute: str
    name: str
    placeholder: str


class TriggerWriter:
    """Writes the triggers of one subscription."""

    def __init__(self, subscription: Subscription, app: str) -> None:
        """The subscription must be of the common kind: see `writer_of`."""
        quoted = [encode_basestring(member.alias) for member in subscription.members]
        identifier = encode_basestring(subscription.id)
        self._subscription = subscription
        self._by_identity = subscription.by_identity
        self._columns, self._constant = _columns(subscription)
        self._reads_join = any(column.member < 0 for column in self._columns)
        self._name = f"[{identifier},{subscription.birth},{subscription.join_generation},"
        self._parts = sorted((f"[{alias},", place) for place, alias in enumerate(quoted))
        self._aliases = [f'{{"alias":{alias},"name":' for alias in quoted]
        self._head = (
            f'/1","subscription":{{"id":{identifier},"version":{encode_basestring(subscription.version)},'
            f'"revision":{subscription.revision}}},"join_key":'
        )
        self._headers = triggers.constant_headers(subscription.id, app)

    def write(self, key: str, members: Sequence[Arrived], completing: Arrived, partition: int) -> TriggerText:
        """Writes the trigger of a complete set; `members` stand in declaration order. Cannot fail."""
        join_key = "{}" if self._by_identity else key
        parts = ",".join([f"{opening}{members[place].signal.identity[1:]}" for opening, place in self._parts])
        identifier = triggers.id_of(f"{self._name}{join_key},[{parts}]]")
        params, missing = self._params(join_key, members)
        fired_at = rfc3339(completing.signal.recorded_at)
        signals = []
        opened = completing.signal.recorded_at
        for opening, member in zip(self._aliases, members, strict=True):
            signal = member.signal
            recorded_at = signal.recorded_at
            if recorded_at < opened:  # noqa: PLR1730 - a call, for every signal
                opened = recorded_at
            source, id_, time = signal.source, signal.id, signal.time
            signals.append(
                f'{opening}{_quoted(signal.name)},"source":{"null" if source is None else _quoted(source)},'
                f'"id":{"null" if id_ is None else _quoted(id_)},"params":{signal.params.decode()},'
                f'"time":{"null" if time is None else _quoted(time)},"recorded_at":"{rfc3339(recorded_at)}",'
                f'"position":{{"topic":{_quoted(signal.topic)},"partition":{signal.partition},'
                f'"offset":{signal.offset}}},"sequence":{member.sequence}}}'
            )
        text = (
            f'{{"trigger_id":"{identifier}","kind":"fired","attempt":1,"idempotency_key":"{identifier}{self._head}'
            f'{join_key},"params":{params},"opened_at":"{rfc3339(opened)}","fired_at":"{fired_at}",'
            f'"order":{{"partition":{partition},"sequence":{completing.sequence}}},"missing":{missing},'
            f'"signals":[{",".join(signals)}]}}'
        )
        record_key = triggers.key_of(self._subscription, key)
        headers = triggers.headers_of(identifier, self._headers, fired_at, record_key, completing.signal.traceparent)
        return TriggerText(identifier, record_key, text.encode(), headers)

    def _params(self, join_key: str, members: Sequence[Arrived]) -> tuple[str, str]:
        """The rendered template and the list of what it missed, as JSON."""
        if not self._columns:
            return self._constant, "[]"
        join: Mapping[str, Value] = triggers.scalars(join_key) if self._reads_join else {}
        read: dict[int, Mapping[str, Value]] = {}
        text = ""
        missing: set[str] = set()
        for opening, member, attribute, name, placeholder in self._columns:
            value: object
            if member < 0:
                value = join.get(name, _ABSENT)
            elif attribute:
                value = getattr(members[member].signal, attribute)
                if value is None:
                    value = _ABSENT
            else:
                params = read.get(member)
                if params is None:
                    params = read[member] = triggers.params_of(members[member].signal)
                value = params.get(name, _ABSENT)
            if value is _ABSENT:
                missing.add(placeholder)
                text += f"{opening}null"
                continue
            write = _WRITERS.get(type(value), canonical_text)
            text += f"{opening}{write(value)}"
        return text + self._constant, f"[{','.join(map(_quoted, sorted(missing)))}]" if missing else "[]"


def writer_of(subscription: Subscription, app: str) -> TriggerWriter | None:
    """The writer for a subscription; None where its triggers carry payloads or its template is more than plain."""
    if any(member.payload for member in subscription.members):
        return None
    if not all(_plain(node) for _, node in subscription.template.root.nodes):
        return None
    return TriggerWriter(subscription, app)


def _plain(node: Node) -> bool:
    if isinstance(node, Literal):
        return True
    return isinstance(node, Path) and (node.head == JOIN or node.keys[0] != "payload")


def _columns(subscription: Subscription) -> tuple[tuple[_Column, ...], str]:
    """The columns in canonical order, and the text behind the last one; literals are part of the texts."""
    places = {member.alias: place for place, member in enumerate(subscription.members)}
    columns = []
    text = "{"
    for number, (key, node) in enumerate(sorted(subscription.template.root.nodes)):
        text += f"{',' if number else ''}{encode_basestring(key)}:"
        if isinstance(node, Literal):
            text += canonical_text(node.value)
        elif isinstance(node, Path):
            columns.append(_column(text, node, places))
            text = ""
    return tuple(columns), text + "}"


def _column(opening: str, path: Path, places: Mapping[str, int]) -> _Column:
    if path.head == JOIN:
        return _Column(opening, -1, "", str(path.keys[0]), path.text)
    root = str(path.keys[0])
    if root in ATTRIBUTES:
        return _Column(opening, places[path.head], root, "", path.text)
    return _Column(opening, places[path.head], "", str(path.keys[1]), path.text)


_ABSENT = object()
_quoted = encode_basestring
_WORDS = {True: "true", False: "false"}
_WRITERS: Mapping[type, Callable[..., str]] = {str: encode_basestring, int: str, bool: _WORDS.__getitem__}
