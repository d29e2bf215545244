"""The shape of a Subscription document: fields, types, defaults. What they mean together is checked in `checks`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from signal_router.model.comparisons import shown
from signal_router.model.durations import UNITS_MS, duration_ms
from signal_router.model.placeholders import Field as FieldPath
from signal_router.model.placeholders import nearest

API_VERSION = "signal-router/v1"
KIND = "Subscription"

MEMBERS_BOUND = 32
"""Members of a subscription: an alias is a bit of a mask, and binding signals to aliases searches among them."""

JOIN_NAMES_BOUND = 16
"""Parts of a join key: the key stands in every candidate, table entry and trigger."""

DEFAULT_WITHIN_MS = 7 * UNITS_MS["d"]
DEFAULT_DEDUPE_MS = 14 * UNITS_MS["d"]
DEFAULT_TOPIC = "triggers"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_CONTEXT = re.compile(r"\$[a-z0-9]{1,64}")

_DURATION_HINT = "whole numbers with units, largest first, as in 7d, 12h 30m or 500ms"


def _refusal(message: str, hint: str | None = None) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "hint": hint or ""})


def _identifier(text: str) -> str:
    if not _ID.fullmatch(text):
        hint = (
            "letters, digits, dots, dashes and underscores on both sides of one slash, as in content-ml/decision-model"
        )
        raise _refusal(f'"{text}" is no id of the form namespace/name', hint)
    return text


def _word(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise _refusal(f'"{text}" is no name', "a letter, then up to 63 letters, digits, dashes or underscores")
    return text


def _alias(text: str) -> str:
    if text == "join":
        raise _refusal('"join" cannot be an alias', "in templates {join.X} is a part of the join key")
    return _word(text)


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise _refusal(f'"{text}" is no topic name', "up to 249 letters, digits, dots, dashes and underscores")
    return text


def _parameter(text: str) -> str:
    if text.startswith("$") and not _CONTEXT.fullmatch(text):
        raise _refusal(f'"{text}" is no context attribute', "lower-case letters and digits, as in $source or $subject")
    return text


def _duration(text: str) -> str:
    try:
        duration_ms(text)
    except ValueError as error:
        raise _refusal(str(error), _DURATION_HINT) from None
    return text


def _policy(value: object) -> object:
    if value not in ("fifo", "latest"):
        hint = nearest(value, ("fifo", "latest")) if isinstance(value, str) else None
        raise _refusal(f"policy is fifo or latest, not {shown(value)}", hint)
    return value


def _join(value: object) -> object:
    """Reads `[ds, country]` as names of type any; a list that names one twice is refused."""
    if not isinstance(value, list):
        return value
    names = dict.fromkeys(each for each in value if isinstance(each, str))
    if len(names) < len(value):
        raise _refusal("join lists a name twice, or something that is no name", "as in [ds, country]")
    return dict.fromkeys(names, "any")


def _join_type(value: object) -> object:
    known = ("any", "string", "integer", "date")
    if value not in known:
        raise _refusal(f"unknown join type {shown(value)}", f"known are {', '.join(known)}")
    return value


Word = Annotated[str, AfterValidator(_word)]
Parameter = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_parameter)]
Duration = Annotated[str, AfterValidator(_duration)]
JoinTypeName = Annotated[Literal["any", "string", "integer", "date"], BeforeValidator(_join_type)]


class _Strict(BaseModel):
    """No conversions and no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class MetadataModel(_Strict):
    """Who declares it."""

    id: Annotated[str, AfterValidator(_identifier)]
    contact: str | None = None


class MemberModel(_Strict):
    """One entry of the subscription; what stands in `match` is read by `comparisons`."""

    alias: Annotated[str, AfterValidator(_alias)]
    signal: Annotated[str, Field(min_length=1, max_length=256)]
    match: dict[Parameter, object] = {}
    join: dict[str, Parameter] = {}
    payload: bool = False


class TriggerModel(_Strict):
    """Where the trigger goes and what it carries; `params` is read by `templates`."""

    topic: Annotated[str, AfterValidator(_topic)] = DEFAULT_TOPIC
    params: dict[str, object] = {}


class SpecModel(_Strict):
    """What is subscribed to."""

    join: Annotated[dict[Word, JoinTypeName], Field(max_length=JOIN_NAMES_BOUND), BeforeValidator(_join)] = {}
    policy: Annotated[Literal["fifo", "latest"], BeforeValidator(_policy)] = "fifo"
    within: Duration | None = None
    dedupe: Duration | None = None
    members: Annotated[list[MemberModel], Field(min_length=1, max_length=MEMBERS_BOUND)]
    trigger: TriggerModel = TriggerModel()


class DocumentModel(_Strict):
    """One document of a definition file."""

    apiVersion: str  # noqa: N815 - the spelling of the document
    kind: str
    metadata: MetadataModel
    spec: SpecModel


_MODELS: dict[FieldPath, type[BaseModel]] = {
    (): DocumentModel,
    ("metadata",): MetadataModel,
    ("spec",): SpecModel,
    ("spec", "members", 0): MemberModel,
    ("spec", "trigger"): TriggerModel,
}

_TYPES = {
    "string_type": "a string",
    "bool_type": "true or false",
    "dict_type": "an object",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_SENTENCES = {
    "missing": "is required",
    "too_long": "has {actual_length} entries, more than {max_length}",
    "too_short": "must not be empty",
    "string_too_long": "is longer than {max_length} characters",
    "string_too_short": "must not be empty",
}


def shape_problems(error: ValidationError) -> list[tuple[FieldPath, str, str | None]]:
    """Turns pydantic's errors into (field, message, hint) in this program's words."""
    return [_problem(each) for each in error.errors(include_url=False)]


def _problem(error: ErrorDetails) -> tuple[FieldPath, str, str | None]:
    where = tuple(key for key in error["loc"] if key != "[key]")
    kind, context = error["type"], error.get("ctx", {})
    if kind == "refused":
        return where, str(context["message"]), str(context["hint"]) or None
    if kind == "extra_forbidden":
        return _unknown_field(where)
    if kind in _TYPES:
        hint = _DURATION_HINT if where[-1] in ("within", "dedupe") else "quote it" if kind == "string_type" else None
        return where, f"must be {_TYPES[kind]}, not {shown(error['input'])}", hint
    if kind in _SENTENCES:
        return where, _SENTENCES[kind].format(**context), None
    return where, error["msg"].lower(), None


def _unknown_field(where: FieldPath) -> tuple[FieldPath, str, str | None]:
    model = _MODELS.get(tuple(0 if isinstance(key, int) else key for key in where[:-1]))
    known = list(model.model_fields) if model else []
    return where, f'unknown field "{where[-1]}"', nearest(str(where[-1]), known) or f"known are {', '.join(known)}"
