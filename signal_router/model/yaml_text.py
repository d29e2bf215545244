"""Definition files as values with line numbers: YAML 1.2 core, without what surprises people.

Built on the events of ruamel.yaml instead of its constructor, because the constructor loses what this needs: how a
scalar was written (`NO` or `"NO"`), where every field stands, and keys given twice. JSON is read as the YAML it is.
Anchors, aliases, merge keys and tags are refused: a definition is read by people, and an alias can grow to any size.
What is refused is replaced by the nearest text, so that the rest is still checked and every problem reported at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from signal_router.errors import Problem
from signal_router.model.json_values import INTEGER_DIGITS, normalised_float
from signal_router.model.placeholders import Field, field_text

NESTING_BOUND = 40
"""Levels in a file: the deepest template allowed, and the fields around it."""

SIZE_BOUND_BYTES = 16 * 1024 * 1024
"""A file above this is not a file of definitions; a reader in pure Python would take minutes to say so."""

_QUOTE = 'quote it if it is meant as text: "{}"'
_SPECIAL = 'strings with one of { } [ ] , & * ! | > % @ # or ": " in them need quotes'

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TRAPS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i:yes|no|on|off|y|n)"), "a boolean to some YAML readers and text to others"),
    (
        re.compile(r"[-+]?[0-9]+(?::[0-9]+)+(?:\.[0-9]*)?"),
        "a number in base 60 to some YAML readers and text to others",
    ),
    (re.compile(r"(?i:[-+]?0[xob][0-9a-f_]*)"), "a number in another base to some YAML readers and text to others"),
    (re.compile(r"[-+]?0[0-9_]+(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"), "an octal, a decimal number or text, by reader"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?"), "a number to some YAML readers and text to others"),
    (re.compile(r"(?i:[-+]?\.(?:inf|nan))"), "no number that JSON can hold"),
)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class TextDocument:
    """One document of a file: its JSON value, and the 1-based line of every field (of keys where there are keys)."""

    value: object
    lines: dict[Field, int] = field(repr=False)

    def line(self, where: Field) -> int:
        """The line of a field, or of the nearest field around it."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 0)


def read_yaml(file: str, text: str | bytes) -> tuple[list[TextDocument], list[Problem]]:
    """Reads every document of a file; `file` names it in the problems. Empty documents are skipped. Never raises."""
    reader = _Reader(file)
    try:
        documents = reader.documents(_decoded(text, reader))
    except _UnreadableError:
        documents = reader.finished
    return documents, reader.problems


class _UnreadableError(Exception):
    """The rest of the file cannot be read; the problem is already noted."""


def _decoded(text: str | bytes, reader: _Reader) -> str:
    if len(text) > SIZE_BOUND_BYTES:
        reader.give_up(0, (), f"larger than {SIZE_BOUND_BYTES} bytes", "split it into several files")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        reader.give_up(line, (), f"not UTF-8: byte 0x{text[error.start]:02x}", "save the file as UTF-8")


class _Reader:
    """Builds values from the events of one file and notes what is wrong on the way."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._text = ""
        self._lines: dict[Field, int] = {}
        self._events: Iterator[Event] = iter(())
        self.finished: list[TextDocument] = []
        self.problems: list[Problem] = []

    def documents(self, text: str) -> list[TextDocument]:
        self._text = self._without_tabs(text)
        self._events = self._parsed(self._text)
        while not isinstance(event := next(self._events), StreamEndEvent):
            if isinstance(event, DocumentStartEvent):
                self._document(event)
        return self.finished

    def give_up(self, line: int, where: Field, message: str, hint: str | None) -> NoReturn:
        self._refuse(line, where, message, hint)
        raise _UnreadableError

    def _refuse(self, line: int, where: Field, message: str, hint: str | None) -> None:
        self.problems.append(Problem(self._file, line, field_text(where), message, hint))

    def _without_tabs(self, text: str) -> str:
        """Checks JSON as JSON; in it tabs are blanks, which YAML's reader does not take everywhere."""
        if not (named := self._file.endswith(".json")) and not text.lstrip().startswith("{"):
            return text
        try:
            json.loads(text, parse_constant=self._refuse_constant)
        except json.JSONDecodeError as error:
            if named:
                self.give_up(error.lineno, (), f"not JSON: {error.msg.lower()}", None)
            return text
        except (ValueError, RecursionError):  # numbers and nesting out of bounds, found again with their line
            return text
        return text.replace("\t", " ")

    def _refuse_constant(self, spelling: str) -> None:
        self._refuse(0, (), f"holds {spelling}, which is no JSON number", _QUOTE.format(spelling))

    def _parsed(self, text: str) -> Iterator[Event]:
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
            self.give_up(line, (), f"not YAML: {error.problem or error.context}", _SPECIAL)
        except YAMLError as error:
            self.give_up(0, (), f"not YAML: {' '.join(str(error).split())}", None)

    def _document(self, start: DocumentStartEvent) -> None:
        self._lines = {}
        if start.version is not None and tuple(start.version) != (1, 2):
            self._refuse(start.start_mark.line + 1, (), "written for another YAML than 1.2", "remove the %YAML line")
        event = next(self._events)
        empty = isinstance(event, ScalarEvent) and not event.style and event.value == "" and event.tag is None
        self._lines[()] = event.start_mark.line + 1
        value = self._value(event, ())
        if not isinstance(next(self._events), DocumentEndEvent):
            raise _UnreadableError
        if not empty:
            self.finished.append(TextDocument(value, self._lines))

    def _value(self, event: Event, where: Field) -> object:
        line = event.start_mark.line + 1
        if len(where) > NESTING_BOUND:
            self.give_up(line, where[:4], f"nested deeper than {NESTING_BOUND} levels", None)
        self._check_node(event, line, where)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, where)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(where)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, where)
        return None

    def _check_node(self, event: Event, line: int, where: Field) -> None:
        if isinstance(event, AliasEvent):
            self._refuse(
                line, where, f'the alias "*{event.anchor}" is not read', "write the value out, or quote the text"
            )
        elif isinstance(event, NodeEvent) and event.anchor is not None:
            self._refuse(line, where, f'the anchor "&{event.anchor}" is not read', "remove it, or quote the text")
        tag = getattr(event, "tag", None)
        if tag is not None:
            written = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._refuse(
                line, where, f'the tag "{written}" is not read', 'remove it, or quote the text, as in {"!=": 1}'
            )

    def _sequence(self, where: Field) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            here = (*where, len(items))
            self._lines[here] = event.start_mark.line + 1
            items.append(self._value(event, here))
        return items

    def _mapping(self, start: MappingStartEvent, where: Field) -> object:
        fields: dict[str, object] = {}
        placeholder = False
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, where)
            here = (*where, key)
            line = event.start_mark.line + 1
            if key in fields:
                self._refuse(line, here, f'"{key}" is given twice', f"the first one stands in line {self._lines[here]}")
            self._lines.setdefault(here, line)
            value_event = next(self._events)
            between = self._text[event.end_mark.index : value_event.start_mark.index]
            placeholder |= start.flow_style is True and ":" not in between and event.end_mark.index > 0
            fields[key] = self._value(value_event, here)
        if placeholder:
            written = "{" + ", ".join(fields) + "}"
            hint = f'a placeholder needs quotes: "{written}"'
            self._refuse(start.start_mark.line + 1, where, f"{written} is a mapping without values", hint)
            return written
        return fields

    def _key(self, event: Event, where: Field) -> str:
        line = event.start_mark.line + 1
        if not isinstance(event, ScalarEvent):
            if isinstance(event, AliasEvent):
                self._check_node(event, line, where)
                return f"*{event.anchor}"
            hint = 'a placeholder needs quotes: "{join.X}"'
            self.give_up(line, where, "a field's name is a string, not a list or a mapping", hint)
        self._check_node(event, line, where)
        key = self._scalar(event, (*where, event.value))
        if isinstance(key, str):
            return key
        self._refuse(line, (*where, event.value), "a field's name is a string", _QUOTE.format(event.value))
        return str(event.value)

    def _scalar(self, event: ScalarEvent, where: Field) -> str | int | float | bool | None:
        text: str = event.value
        line = event.start_mark.line + 1
        if event.style or event.tag is not None:
            return self._string(text, line, where)
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        for pattern, meaning in _TRAPS:
            if pattern.fullmatch(text):
                self._refuse(line, where, f"{text} is {meaning}", _QUOTE.format(text))
                return text
        if _FLOAT.fullmatch(text):
            return self._number(text, line, where)
        return self._string(text, line, where)

    def _number(self, text: str, line: int, where: Field) -> int | float | str:
        digits = sum(character.isdigit() for character in text)
        if _INTEGER.fullmatch(text) and digits <= INTEGER_DIGITS:
            return int(text)
        number = math.inf if _INTEGER.fullmatch(text) else float(text)
        if math.isfinite(number):
            return normalised_float(number)
        message = (
            f"{text[:40]} is out of range: integers have at most {INTEGER_DIGITS} digits, others must fit a double"
        )
        self._refuse(line, where, message, "quote it if it is meant as text")
        return text

    def _string(self, text: str, line: int, where: Field) -> str:
        try:
            # JSON writes a character beyond U+FFFF as two escapes, which YAML's reader leaves as two halves.
            return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._refuse(line, where, "half of a surrogate pair", "write the character itself")
            return text.encode("ascii", "replace").decode()
