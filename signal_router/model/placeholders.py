"""Reading the strings of a trigger template: where the placeholders stand, what they name, what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple, TypeAlias

Field: TypeAlias = tuple[str | int, ...]
"""Where something stands in a document: keys and indexes from its root."""

NESTING_BOUND = 32
"""Levels of lists and objects in a template: far beyond use, far below Python's recursion limit."""

JOIN = "join"
ATTRIBUTES = ("name", "source", "id", "time")
_ROOTS = ("params", "payload", *ATTRIBUTES)

_SEGMENT = r'\.[A-Za-z0-9_-]+|\["(?:[^"\\]|\\.)*"\]|\[[0-9]{1,9}\]'
_PLACEHOLDER = re.compile(rf"\{{(?P<path>[A-Za-z][A-Za-z0-9_-]*(?:{_SEGMENT})*)\}}")
_SEGMENTS = re.compile(_SEGMENT)
_BRACES = re.compile(r"[{}]")


class TemplateProblem(NamedTuple):
    """One thing wrong in a template; `field` is relative to the template's root."""

    field: Field
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Path:
    """One placeholder: `text` as written between the braces, its first word, and the keys and indexes after it."""

    text: str
    head: str
    keys: Field


@dataclass(frozen=True, slots=True)
class Literal:
    """A value without placeholders."""

    value: object


@dataclass(frozen=True, slots=True)
class Text:
    """A string with placeholders in it."""

    parts: tuple[str | Path, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list with placeholders somewhere below."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """An object with placeholders somewhere below."""

    nodes: tuple[tuple[str, Node], ...]


Node: TypeAlias = Path | Literal | Text | Items | Fields


@dataclass(frozen=True, slots=True)
class Scope:
    """What the placeholders of a template may name."""

    aliases: frozenset[str]
    payloads: frozenset[str]
    join_names: frozenset[str]


def read_nodes(
    params: Mapping[str, object], scope: Scope | None
) -> tuple[Fields, tuple[Path, ...], list[TemplateProblem]]:
    """Reads as much of a template as can be read: its nodes, each placeholder once, and everything that is wrong."""
    reader = _Reader(scope)
    root = Fields(tuple((key, reader.node(value, (key,))) for key, value in params.items() if reader.key(key, ())))
    return root, tuple(reader.paths.values()), reader.problems


def field_text(field: Field) -> str:
    """Writes a field as people read it: `spec.members[0].alias`."""
    text = ""
    for key in field:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def nearest(word: str, known: Collection[str]) -> str | None:
    """The hint that names the known word nearest to a mistyped one."""
    near = get_close_matches(word, sorted(known), n=1)
    return f'did you mean "{near[0]}"?' if near else None


class _Reader:
    """Collects the paths and the problems of one template while its nodes are built."""

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope
        self.paths: dict[str, Path] = {}
        self.problems: list[TemplateProblem] = []

    def key(self, key: str, field: Field) -> bool:
        if _BRACES.search(key):
            self._refuse((*field, key), f'the name "{key}" has a brace in it', "names are fixed; only values take {…}")
            return False
        return True

    def node(self, value: object, field: Field) -> Node:
        if len(field) > NESTING_BOUND:
            self._refuse(field, f"nested deeper than {NESTING_BOUND} levels", None)
            return Literal(None)
        if isinstance(value, str):
            return self._string(value, field)
        if isinstance(value, Mapping):
            return self._object(value, field)
        if isinstance(value, list | tuple):
            nodes = tuple(self.node(item, (*field, index)) for index, item in enumerate(value))
            return _folded(Items(nodes), nodes, lambda: [_value(node) for node in nodes])
        return Literal(value)

    def _object(self, value: Mapping[str, object], field: Field) -> Node:
        nodes = tuple((key, self.node(item, (*field, key))) for key, item in value.items() if self.key(key, field))
        return _folded(Fields(nodes), [node for _, node in nodes], lambda: {key: _value(node) for key, node in nodes})

    def _string(self, text: str, field: Field) -> Node:
        parts: list[str | Path] = []
        at = 0
        while (brace := _BRACES.search(text, at)) is not None:
            parts.append(text[at : brace.start()])
            at = brace.start()
            if text.startswith(("{{", "}}"), at):
                parts.append(text[at])
                at += 2
            elif (match := _PLACEHOLDER.match(text, at)) is not None:
                parts.append(self._path(match["path"], field))
                at = match.end()
            else:
                self._lone_brace(text, at, field)
                return Literal(None)
        parts.append(text[at:])
        return _joined(parts)

    def _lone_brace(self, text: str, at: int, field: Field) -> None:
        if text[at] == "{" and "}" in text[at:]:
            written = text[at : text.index("}", at) + 1]
            hint = "a placeholder is a path like {join.X} or {ALIAS.params.X}; double the braces for plain ones"
            self._refuse(field, f'"{written}" is no placeholder', hint)
        else:
            self._refuse(field, f'lone "{text[at]}" in "{text}"', f'double it for a plain brace: "{text[at] * 2}"')

    def _path(self, text: str, field: Field) -> Path:
        head = re.split(r"[.\[]", text, maxsplit=1)[0]
        keys = tuple(_segment(match.group()) for match in _SEGMENTS.finditer(text, len(head)))
        path = Path(text, head, keys)
        problem = _wrong_shape(path) or (self._scope and _out_of_scope(path, self._scope))
        if problem:
            self._refuse(field, *problem)
        else:
            self.paths.setdefault(text, path)
        return path

    def _refuse(self, field: Field, message: str, hint: str | None) -> None:
        self.problems.append(TemplateProblem(field, message, hint))


def _segment(text: str) -> str | int:
    if text.startswith("."):
        return text[1:]
    if text.startswith('["'):
        return re.sub(r"\\(.)", r"\1", text[2:-2], flags=re.DOTALL)
    return int(text[1:-1])


def _wrong_shape(path: Path) -> tuple[str, str | None] | None:
    named = f"{{{path.text}}}"
    if path.head == JOIN:
        fits = len(path.keys) == 1 and isinstance(path.keys[0], str)
        return None if fits else (f"{named} is no path into the join key", "write {join.X}")
    if not path.keys:
        return f"{named} names a whole signal", f"write {{{path.head}.params.X}} or {{{path.head}.source}}"
    root, rest = path.keys[0], path.keys[1:]
    if root == "params":
        return _wrong_parameter(named, path.head, rest)
    if root == "payload":
        hint = "name a place in it; the trigger's signals carry the whole payload"
        return None if rest else (f"{named} names a whole payload", hint)
    if root in ATTRIBUTES:
        return (f'{named} leads into "{root}", which is a string', None) if rest else None
    hint = nearest(str(root), _ROOTS) or f"after the alias stands one of {', '.join(_ROOTS)}"
    return f'{named}: a signal has no "{root}"', hint


def _wrong_parameter(named: str, alias: str, rest: Field) -> tuple[str, str | None] | None:
    if not rest:
        return f"{named} names all parameters", f"write {{{alias}.params.X}}"
    if len(rest) > 1 or not isinstance(rest[0], str):
        hint = f'for a parameter with a dot in its name write {{{alias}.params["a.b"]}}'
        return f"{named} leads into a parameter, which is a scalar", hint
    if rest[0].startswith("$"):
        return f'{named}: "{rest[0]}" is a context attribute', f"a template reads {{{alias}.source}}, id, name and time"
    return None


def _out_of_scope(path: Path, scope: Scope) -> tuple[str, str | None] | None:
    named = f"{{{path.text}}}"
    if path.head == JOIN:
        name = str(path.keys[0])
        if name in scope.join_names:
            return None
        known = (
            f"known are {', '.join(sorted(scope.join_names))}" if scope.join_names else "the subscription has no join"
        )
        return f'{named}: unknown join name "{name}"', nearest(name, scope.join_names) or known
    if path.head not in scope.aliases:
        hint = nearest(path.head, {*scope.aliases, JOIN}) or f"known are {', '.join(sorted(scope.aliases))}"
        return f'{named}: unknown alias "{path.head}"', hint
    if path.keys[0] == "payload" and path.head not in scope.payloads:
        return f'{named}: the payload of "{path.head}" is not kept', "add payload: true to that member"
    return None


def _joined(parts: list[str | Path]) -> Node:
    merged: list[str | Path] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    if not any(isinstance(part, Path) for part in merged):
        return Literal("".join(part for part in merged if isinstance(part, str)))
    first = merged[0]
    return first if len(merged) == 1 and isinstance(first, Path) else Text(tuple(merged))


def _folded(node: Node, below: Sequence[Node], value: Callable[[], object]) -> Node:
    return Literal(value()) if all(isinstance(each, Literal) for each in below) else node


def _value(node: Node) -> object:
    return node.value if isinstance(node, Literal) else None
