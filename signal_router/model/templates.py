"""Trigger templates: paths into the joined signals, no expressions, so that firing a trigger cannot fail.

A template is any JSON object. In its strings `{path}` is a placeholder:

    {join.X}                      a part of the join key
    {ALIAS.params.X}              a parameter of the signal bound to ALIAS; odd names as {ALIAS.params["a.b"]}
    {ALIAS.name|source|id|time}   what the signal says of itself
    {ALIAS.payload.X.Y[0]}        a place in its payload (the member needs `payload: true`)

A placeholder that is the whole string keeps its JSON type. Inside longer text scalars are canonical JSON, strings
without quotes, lists and objects canonical JSON. `{{` and `}}` give braces; any other lone brace is refused. What is
absent becomes null (in text: empty) and is listed as missing. Own code, because template languages evaluate expressions
and can raise. How the strings are read stands in `placeholders`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from signal_router.errors import DefinitionError, Problem, RecordError
from signal_router.model.canonical import canonical_text
from signal_router.model.json_values import decode_json
from signal_router.model.placeholders import (
    JOIN,
    Field,
    Fields,
    Items,
    Literal,
    Node,
    Path,
    Scope,
    TemplateProblem,
    Text,
    field_text,
    read_nodes,
)
from signal_router.model.values import Value


class BoundSignal(Protocol):
    """What a template reads of the signal bound to an alias; `payload` is JSON text, None where it was not kept."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str | None: ...
    @property
    def id(self) -> str | None: ...
    @property
    def time(self) -> str | None: ...
    @property
    def params(self) -> Mapping[str, Value]: ...
    @property
    def payload(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Template:
    """A template ready to render; see the module for its language."""

    root: Fields
    paths: tuple[Path, ...]

    @property
    def requires(self) -> dict[str, list[str]]:
        """The parameters that the template names, by alias, sorted: each counts as `exists` in its member's match."""
        named: dict[str, set[str]] = {}
        for path in self.paths:
            if path.head != JOIN and path.keys[0] == "params":
                named.setdefault(path.head, set()).add(str(path.keys[1]))
        return {alias: sorted(names) for alias, names in sorted(named.items())}

    def render(
        self, join: Mapping[str, Value], signals: Mapping[str, BoundSignal]
    ) -> tuple[dict[str, object], list[str]]:
        """Fills in the placeholders. Never raises.

        Returns the params and the placeholders (as written, sorted, each once) that found nothing: these are null, in
        text empty.
        """
        rendering = _Rendering(join, signals)
        params = {key: rendering.render(node) for key, node in self.root.nodes}
        return params, sorted(rendering.missing)


class _Absent:
    """The type of `_ABSENT`, which is no JSON value, so that a null can be told from nothing."""


_ABSENT = _Absent()


class _Rendering:
    """One rendering: decodes each payload at most once and only when a path leads into it."""

    def __init__(self, join: Mapping[str, Value], signals: Mapping[str, BoundSignal]) -> None:
        self._join = join
        self._signals = signals
        self._payloads: dict[str, object] = {}
        self.missing: set[str] = set()

    def render(self, node: Node) -> object:
        if isinstance(node, Path):
            value = self._find(node)
            return None if value is _ABSENT else value
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Text):
            return "".join(part if isinstance(part, str) else self._as_text(part) for part in node.parts)
        if isinstance(node, Items):
            return [self.render(item) for item in node.nodes]
        return {key: self.render(item) for key, item in node.nodes}

    def _as_text(self, path: Path) -> str:
        value = self._find(path)
        if value is _ABSENT:
            return ""
        return value if isinstance(value, str) else canonical_text(value)

    def _find(self, path: Path) -> object:
        value = self._look_up(path)
        if value is _ABSENT:
            self.missing.add(path.text)
        return value

    def _look_up(self, path: Path) -> object:
        if path.head == JOIN:
            return self._join.get(str(path.keys[0]), _ABSENT)
        signal = self._signals.get(path.head)
        if signal is None:
            return _ABSENT
        root = path.keys[0]
        if root == "params":
            return signal.params.get(str(path.keys[1]), _ABSENT)
        if root == "payload":
            return _walk(self._payload(path.head, signal), path.keys[1:])
        attribute = {"name": signal.name, "source": signal.source, "id": signal.id, "time": signal.time}[str(root)]
        return _ABSENT if attribute is None else attribute

    def _payload(self, alias: str, signal: BoundSignal) -> object:
        if alias not in self._payloads:
            self._payloads[alias] = _decoded(signal.payload)
        return self._payloads[alias]


def _decoded(payload: bytes | None) -> object:
    if payload is None:
        return _ABSENT
    try:
        return decode_json(payload, what="payload")
    except RecordError:  # bytes kept by an older program; firing goes on, and the path is listed as missing
        return _ABSENT


def _walk(value: object, keys: Field) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, _ABSENT)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return _ABSENT
    return value


def parse_template(params: Mapping[str, object], scope: Scope | None = None) -> Template:
    """Reads a template; without a `scope` any alias or join name will do. Raises DefinitionError with all problems."""
    template, problems = read_template(params, scope)
    if problems:
        raise DefinitionError([Problem("", 0, field_text(each.field), each.message, each.hint) for each in problems])
    return template


def read_template(params: Mapping[str, object], scope: Scope | None) -> tuple[Template, list[TemplateProblem]]:
    """Reads as much of a template as can be read, and names everything that cannot."""
    root, paths, problems = read_nodes(params, scope)
    return Template(root, paths), problems
