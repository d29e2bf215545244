"""Definition documents: from the files people write to the values the program works with.

`read_documents` takes the text of any number of files and gives all documents, or one DefinitionError with every
problem of every file. The wire form on the definitions topic stands in `definitions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from signal_router.errors import DefinitionError, Problem
from signal_router.model.canonical import canonical_json
from signal_router.model.checks import Finding, meaning_problems, warnings
from signal_router.model.comparisons import read_comparisons, shown
from signal_router.model.durations import duration_ms
from signal_router.model.placeholders import field_text, nearest
from signal_router.model.schema import (
    API_VERSION,
    DEFAULT_DEDUPE_MS,
    DEFAULT_WITHIN_MS,
    KIND,
    DocumentModel,
    MemberModel,
    SpecModel,
    shape_problems,
)
from signal_router.model.subscriptions import (
    JoinParameter,
    JoinType,
    Member,
    Operator,
    Policy,
    Predicate,
    Subscription,
)
from signal_router.model.templates import Template, parse_template
from signal_router.model.yaml_text import TextDocument, read_yaml


@dataclass(frozen=True, slots=True)
class Document:
    """One definition as declared. `spec` holds the values as written: defaults are not filled in.

    `version` is `sha256:` and the hexadecimal SHA-256 of the canonical JSON of `spec`.
    """

    kind: str
    id: str
    contact: str | None
    spec: Mapping[str, object]
    version: str
    parsed: SpecModel = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """What files hold: their documents in file order, and what is allowed but probably not meant."""

    documents: tuple[Document, ...]
    warnings: tuple[Problem, ...]


def read_documents(files: Iterable[tuple[str, str | bytes]]) -> Reading:
    """Reads (file name, text) pairs; a file may hold several documents, in YAML or JSON.

    Raises DefinitionError with every problem of every file, in the order of files and lines. A file without a document,
    and an id given twice, are problems too.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    hints: list[Problem] = []
    seen: dict[str, str] = {}
    for file, text in files:
        found, wrong = read_yaml(file, text)
        if not found and not wrong:
            wrong = [
                Problem(file, 0, "", "holds no definition", f"write one that begins with apiVersion: {API_VERSION}")
            ]
        for each in found:
            document, findings = _document(each.value)
            wrong += _placed(file, each, findings)
            if document is not None:
                wrong += _repeated(file, each, document, seen)
                documents.append(document)
                hints += _placed(file, each, list(warnings(compile_subscription(document))))
        problems += _once(wrong)
    if problems:
        raise DefinitionError(problems)
    return Reading(tuple(documents), tuple(hints))


def read_document(value: object) -> Document:
    """Reads one document that is already a JSON value; raises DefinitionError with every problem."""
    document, findings = _document(value)
    if document is None:
        raise DefinitionError([Problem("", 0, field_text(where), message, hint) for where, message, hint in findings])
    return document


def compile_subscription(
    document: Document, *, birth: int = 1, join_generation: int = 1, revision: int = 0
) -> Subscription:
    """Gives the form that matches, joins and fires; `birth`, `join_generation` and `revision` are those in force."""
    spec = document.parsed
    join_types = {name: JoinType(kind) for name, kind in spec.join.items()}
    template = parse_template(spec.trigger.params)
    within_ms = duration_ms(spec.within) if spec.within is not None else DEFAULT_WITHIN_MS
    dedupe_ms = duration_ms(spec.dedupe) if spec.dedupe is not None else max(DEFAULT_DEDUPE_MS, within_ms)
    return Subscription(
        id=document.id,
        birth=birth,
        join_generation=join_generation,
        revision=revision,
        version=document.version,
        contact=document.contact,
        members=tuple(_member(each, join_types, template) for each in spec.members),
        join_names=tuple(join_types),
        policy=Policy(spec.policy),
        within_ms=within_ms,
        dedupe_ms=dedupe_ms,
        topic=spec.trigger.topic,
        template=template,
    )


def join_shape(document: Document) -> object:
    """Gives what decides which signals make a set: a change of it makes `join_generation` rise.

    That is aliases, signals and join, with the order of the members, as an alias's place is its bit in stored masks.
    """
    subscription = compile_subscription(document)
    members = tuple((member.alias, member.signal, frozenset(member.join)) for member in subscription.members)
    return frozenset(document.parsed.join.items()), members


def _document(value: object) -> tuple[Document | None, list[Finding]]:
    foreign = _foreign(value)
    if foreign:
        return None, foreign
    findings: list[Finding] = []
    model = None
    try:
        model = DocumentModel.model_validate(value)
    except ValidationError as error:
        findings += shape_problems(error)
    spec = value.get("spec") if isinstance(value, Mapping) else None
    if isinstance(spec, Mapping):
        findings += meaning_problems(spec)
    if model is None or findings or not isinstance(spec, Mapping):
        return None, findings
    version = f"sha256:{hashlib.sha256(canonical_json(spec)).hexdigest()}"
    return Document(KIND, model.metadata.id, model.metadata.contact, spec, version, model.spec), []


def _foreign(value: object) -> list[Finding]:
    """Refuses at once what is no Subscription of this version: checking its fields would say nothing useful."""
    if not isinstance(value, Mapping):
        return [((), f"a definition is an object, not {shown(value)}", None)]
    findings: list[Finding] = []
    version, kind = value.get("apiVersion"), value.get("kind")
    if version is not None and version != API_VERSION:
        findings.append((("apiVersion",), f"{shown(version)} is not read by this program", f"it reads {API_VERSION}"))
    if kind is not None and kind != KIND:
        near = nearest(kind, (KIND,)) if isinstance(kind, str) else None
        findings.append((("kind",), f"{shown(kind)} is not read by this program", near or f"it reads {KIND}"))
    return findings


def _placed(file: str, document: TextDocument, findings: list[Finding]) -> list[Problem]:
    return [Problem(file, document.line(where), field_text(where), message, hint) for where, message, hint in findings]


def _repeated(file: str, text: TextDocument, document: Document, seen: dict[str, str]) -> list[Problem]:
    where = ("metadata", "id")
    here = f"{file}:{text.line(where)}"
    if (first := seen.setdefault(document.id, here)) == here:
        return []
    return _placed(file, text, [(where, f'"{document.id}" is declared twice', f"the first one stands in {first}")])


def _once(problems: list[Problem]) -> list[Problem]:
    """Orders by line and keeps the first problem of each field: what follows from it would only distract."""
    first: dict[tuple[int, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.line, problem.field), problem)
    return sorted(first.values(), key=lambda problem: problem.line)


def _member(written: MemberModel, join_types: Mapping[str, JoinType], template: Template) -> Member:
    predicates = [each for name, operand in written.match.items() for each in read_comparisons(name, operand)[0]]
    present = {each.parameter for each in predicates if each.operator is not Operator.EXISTS or each.operand is True}
    named = [each for each in template.requires.get(written.alias, ()) if each not in present]
    predicates += [Predicate(parameter, Operator.EXISTS, True) for parameter in named]
    join = tuple(JoinParameter(name, kind, written.join.get(name, name)) for name, kind in join_types.items())
    return Member(written.alias, written.signal, tuple(predicates), join, written.payload)
