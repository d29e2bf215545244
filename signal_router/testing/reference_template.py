"""Trigger templates, for the reference evaluation: which parameters they name, and what they give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from signal_router.testing.reference_signals import ABSENT, Absent, Signal
from signal_router.testing.reference_values import Json, canonical

_PLACEHOLDER = r'\{[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+|\["(?:[^"\\]|\\.)*"\]|\[[0-9]+\])*\}'
_TOKEN = re.compile(rf"\{{\{{|\}}\}}|{_PLACEHOLDER}|[^{{}}]+", re.DOTALL)
_SEGMENT = re.compile(r'\.(?P<plain>[A-Za-z0-9_-]+)|\["(?P<quoted>(?:[^"\\]|\\.)*)"\]|\[(?P<index>[0-9]+)\]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bound:
    """A signal bound to an alias; its payload counts as absent unless it was kept when the signal was matched."""

    signal: Signal
    payload_kept: bool

    @property
    def payload(self) -> Json | Absent:
        """The payload's value."""
        kept = self.signal.payload if self.payload_kept else None
        return ABSENT if kept is None else kept.value


def named_parameters(template: Json) -> dict[str, frozenset[str]]:
    """The parameters that a template names, by alias: `{ALIAS.params.X}`."""
    named: dict[str, set[str]] = {}
    for text in _strings(template):
        for token in _tokens(text):
            head, keys = _path(token)
            if head not in ("", "join") and keys[:1] == ["params"]:
                named.setdefault(head, set()).add(str(keys[1]))
    return {alias: frozenset(names) for alias, names in named.items()}


def render(template: Json, join: Mapping[str, Json], bound: Mapping[str, Bound]) -> tuple[Json, list[str]]:
    """Fills a template in. Gives the result and the placeholders that found nothing, as written, sorted, each once."""
    missing: set[str] = set()

    def value_of(token: str) -> Json | Absent:
        value = _look_up(token, join, bound)
        if isinstance(value, Absent):
            missing.add(token[1:-1])
        return value

    def fill(node: Json) -> Json:
        if isinstance(node, dict):
            return {name: fill(part) for name, part in node.items()}
        if isinstance(node, list):
            return [fill(part) for part in node]
        if not isinstance(node, str):
            return node
        tokens = _tokens(node)
        if len(tokens) == 1 and _is_placeholder(tokens[0]):
            whole = value_of(tokens[0])
            return None if isinstance(whole, Absent) else whole
        return "".join(as_text(token) for token in tokens)

    def as_text(token: str) -> str:
        if token in ("{{", "}}"):
            return token[0]
        if not _is_placeholder(token):
            return token
        value = value_of(token)
        if isinstance(value, Absent):
            return ""
        return value if isinstance(value, str) else canonical(value)

    return fill(template), sorted(missing)


def _look_up(token: str, join: Mapping[str, Json], bound: Mapping[str, Bound]) -> Json | Absent:
    head, keys = _path(token)
    if head == "join":
        return join.get(str(keys[0]), ABSENT)
    if head not in bound:
        return ABSENT
    signal = bound[head].signal
    if keys[0] == "params":
        return signal.params.get(str(keys[1]), ABSENT)
    if keys[0] == "payload":
        return _place(bound[head].payload, keys[1:])
    said = {"name": signal.name, "source": signal.source, "id": signal.id, "time": signal.time}[str(keys[0])]
    return ABSENT if said is None else said


def _place(value: Json | Absent, keys: list[str | int]) -> Json | Absent:
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key, ABSENT)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return ABSENT
    return value


def _strings(node: Json) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for part in node:
            yield from _strings(part)
    elif isinstance(node, dict):
        for part in node.values():
            yield from _strings(part)


def _tokens(text: str) -> list[str]:
    """Splits a string into doubled braces, placeholders and plain text."""
    return _TOKEN.findall(text)


def _is_placeholder(token: str) -> bool:
    return token.startswith("{") and token != "{{"


def _path(token: str) -> tuple[str, list[str | int]]:
    """Splits a placeholder into its first word and the names and indexes after it; ("", []) for other tokens."""
    if not _is_placeholder(token):
        return "", []
    inside = token[1:-1]
    head = re.split(r"[.\[]", inside, maxsplit=1)[0]
    keys: list[str | int] = []
    for found in _SEGMENT.finditer(inside, len(head)):
        if found["plain"] is not None:
            keys.append(found["plain"])
        elif found["quoted"] is not None:
            keys.append(re.sub(r"\\(.)", r"\1", found["quoted"], flags=re.DOTALL))
        else:
            keys.append(int(found["index"]))
    return head, keys
