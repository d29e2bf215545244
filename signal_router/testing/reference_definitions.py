"""Subscriptions, for the reference evaluation: reading the definitions log, matching signals, join keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from signal_router.testing.reference_signals import Absent, Signal
from signal_router.testing.reference_template import named_parameters
from signal_router.testing.reference_types import DefinitionRecord
from signal_router.testing.reference_values import (
    Json,
    Scalar,
    UnreadableError,
    canonical,
    date_as_written,
    duration_ms,
    equal,
    join_key_hash,
    read_json,
    type_of,
)

VIEWS = 64
"""So many views are kept sorted by signal name."""

DEFAULT_WITHIN = "7d"
DEFAULT_DEDUPE = "14d"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a subscription; `match` maps a parameter to its operators, `join` a join name to a parameter."""

    alias: str
    signal: str
    match: Mapping[str, Mapping[str, Json]]
    join: Mapping[str, str]
    payload: bool
    named: frozenset[str]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the definitions log, as far as joining needs it. A deleted one has no members."""

    id: str
    birth: int
    join_generation: int
    revision: int
    version: str
    deleted: bool
    members: tuple[Member, ...] = ()
    join_types: Mapping[str, str] | None = None
    policy: str = "fifo"
    within_ms: int = 0
    dedupe_ms: int = 0
    topic: str | None = None
    params: Json = None

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases in declaration order."""
        return tuple(member.alias for member in self.members)

    @property
    def fires_each(self) -> bool:
        """Whether every signal fires by itself: one member without join."""
        return len(self.members) == 1 and not self.join_types


@dataclass(frozen=True, slots=True)
class Match:
    """One signal for one (subscription, join key): a candidate. `keeps_payload`: a fitting member asks for it."""

    document: Document
    key: Mapping[str, Json]
    key_text: str
    aliases: tuple[str, ...]
    keeps_payload: bool

    @property
    def key_hash(self) -> str:
        """The join key hash of lineage keys."""
        return join_key_hash(self.key_text)


class Definitions:
    """The definitions log: what was in force as of any revision."""

    def __init__(self, records: Sequence[DefinitionRecord]) -> None:
        self._documents: dict[str, list[Document]] = {}
        self.ignored: list[int] = []
        self._by_signal: dict[int, Mapping[str, list[Document]]] = {}
        for record in sorted(records):
            if record.value is None:
                continue  # a tombstone says nothing: absence is never a delete
            try:
                document = _document(record)
            except (UnreadableError, KeyError, TypeError, AttributeError):
                self.ignored.append(record.revision)
            else:
                self._documents.setdefault(document.id, []).append(document)

    def in_force(self, subscription: str, revision: int) -> Document | None:
        """The latest document of a subscription up to a revision, a deleted one too."""
        until = [document for document in self._documents.get(subscription, []) if document.revision <= revision]
        return until[-1] if until else None

    def ids(self) -> list[str]:
        """All subscription ids, in order."""
        return sorted(self._documents)

    def documents(self) -> Iterator[Document]:
        """Every document that can be read, of each subscription in the order of revisions."""
        for identity in self.ids():
            yield from self._documents[identity]

    def matches(self, signal: Signal, revision: int) -> Iterator[Match]:
        """All candidates that a signal gives under a revision."""
        for document in self._listening(signal.name, revision):
            yield from matches(document, signal)

    def _listening(self, name: str, revision: int) -> list[Document]:
        if revision not in self._by_signal:
            if len(self._by_signal) >= VIEWS:
                self._by_signal.clear()
            listening: dict[str, list[Document]] = {}
            for subscription in self.ids():
                document = self.in_force(subscription, revision)
                if document is not None:
                    for signal_name in {member.signal for member in document.members}:
                        listening.setdefault(signal_name, []).append(document)
            self._by_signal[revision] = listening
        return self._by_signal[revision].get(name, [])


def matches(document: Document, signal: Signal) -> Iterator[Match]:
    """The candidates that a signal gives for one subscription: one per join key, with all members it fits there."""
    fitting: dict[str, tuple[Mapping[str, Json], list[Member]]] = {}
    for member in document.members:
        if member.signal != signal.name or not satisfies(member, signal):
            continue
        key = join_key(document, member, signal)
        if key is not None:
            key_text = signal.identity if document.fires_each else canonical(dict(key))
            fitting.setdefault(key_text, (key, []))[1].append(member)
    for key_text, (key, members) in fitting.items():
        keeps_payload = any(member.payload for member in members)
        yield Match(document, key, key_text, tuple(member.alias for member in members), keeps_payload)


def satisfies(member: Member, signal: Signal) -> bool:
    """Whether all predicates of a member hold, those included that its template asks for."""
    named_are_there = all(not isinstance(signal.value_of(parameter), Absent) for parameter in member.named)
    return named_are_there and all(
        holds(operator, signal.value_of(parameter), operand)
        for parameter, operators in member.match.items()
        for operator, operand in operators.items()
    )


_ALIASES = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def holds(operator: str, value: Scalar | Absent, operand: Json) -> bool:  # noqa: PLR0911 (one per operator)
    """Whether one predicate holds. On a missing parameter or across types neither it nor its negation does."""
    operator = _ALIASES.get(operator, operator)
    if operator == "exists":
        there = not isinstance(value, Absent)
        return there == operand
    if isinstance(value, Absent):
        return False
    if operator in ("in", "not-in"):
        elements = [element for element in _list(operand) if not isinstance(element, list | dict)]
        found = any(equal(value, element) for element in elements)
        if operator == "in":
            return found
        return not found and type_of(value) in {type_of(element) for element in elements}
    if isinstance(operand, list | dict) or type_of(value) != type_of(operand):
        return False
    if operator == "=":
        return equal(value, operand)
    if operator == "!=":
        return not equal(value, operand)
    if operator == "prefix":
        return isinstance(value, str) and isinstance(operand, str) and value.startswith(operand)
    return _ordered(operator, value, operand)


def _ordered(operator: str, value: Scalar, operand: Scalar) -> bool:
    if isinstance(value, str) and isinstance(operand, str):
        less, same = value < operand, value == operand  # Python orders strings by code point
    elif type_of(value) == type_of(operand) == "number":
        # int and float compare by exact value in Python, of any size
        less, same = value < operand, value == operand  # type: ignore[operator]
    else:
        return False
    return {"<": less, "<=": less or same, ">": not (less or same), ">=": not less}[operator]


def join_key(document: Document, member: Member, signal: Signal) -> Mapping[str, Json] | None:
    """The values on which the members of a set agree; None where a join parameter is missing or of another type."""
    key: dict[str, Json] = {}
    for name, join_type in (document.join_types or {}).items():
        value = join_value(join_type, signal.value_of(member.join.get(name, name)))
        if value is None:
            return None
        key[name] = value
    return key


def join_value(join_type: str, value: Scalar | Absent) -> Scalar:
    """Reads a join parameter as its type wants it; None where it cannot be one."""
    if isinstance(value, Absent | float):  # integral numbers are integers here; what is still a double has a fraction
        return None
    if join_type == "date":
        return date_as_written(value)
    if join_type == "string":
        return value if isinstance(value, str) else None
    if join_type == "integer":
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    return value


def _document(record: DefinitionRecord) -> Document:
    document = _mapping(read_json(record.value or b""))
    if document["format"] != 1 or document["kind"] != "Subscription":
        raise UnreadableError("not a subscription of format 1")
    identity = _string(document["id"])
    birth, join_generation = _integer(document["birth"]), _integer(document["join_generation"])
    version = _string(document.get("version") or "")
    if document.get("deleted"):
        return Document(identity, birth, join_generation, record.revision, version, deleted=True)
    spec = _mapping(document["spec"])
    trigger = _mapping(spec.get("trigger") or {})
    params = trigger.get("params") or {}
    named = named_parameters(params)
    topic = trigger.get("topic")
    within_ms = duration_ms(_string(spec.get("within") or DEFAULT_WITHIN))
    dedupe = spec.get("dedupe")
    return Document(
        id=identity,
        birth=birth,
        join_generation=join_generation,
        revision=record.revision,
        version=version,
        deleted=False,
        members=tuple(_member(_mapping(member), named) for member in _list(spec["members"])),
        join_types=_join_types(spec.get("join")),
        policy=_string(spec.get("policy") or "fifo"),
        within_ms=within_ms,
        dedupe_ms=duration_ms(_string(dedupe)) if dedupe else max(duration_ms(DEFAULT_DEDUPE), within_ms),
        topic=None if topic is None else _string(topic),
        params=params,
    )


def _member(member: Mapping[str, Json], named: Mapping[str, frozenset[str]]) -> Member:
    alias = _string(member["alias"])
    return Member(
        alias=alias,
        signal=_string(member["signal"]),
        match={name: _operators(wanted) for name, wanted in _mapping(member.get("match") or {}).items()},
        join={name: _string(parameter) for name, parameter in _mapping(member.get("join") or {}).items()},
        payload=member.get("payload") is True,
        named=named.get(alias, frozenset()),
    )


def _operators(wanted: Json) -> Mapping[str, Json]:
    return wanted if isinstance(wanted, dict) else {"=": wanted}


def _join_types(join: Json) -> Mapping[str, str]:
    if isinstance(join, list):
        return {_string(name): "any" for name in join}
    return {name: _string(join_type) for name, join_type in _mapping(join or {}).items()}


def _mapping(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise UnreadableError("no object")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise UnreadableError("no list")
    return value


def _string(value: Json) -> str:
    if not isinstance(value, str):
        raise UnreadableError("no string")
    return value


def _integer(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UnreadableError("no integer")
    return value
