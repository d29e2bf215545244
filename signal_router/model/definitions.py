"""The definitions topic: which document is in force, in which life of its id, and its wire form (format 1).

Key: `subscription/<id>`. Value: JSON with `format, kind, id, birth, join_generation, version, contact, deleted,
applied_at, spec`. A deletion is a record with `deleted: true`. It keeps the last spec and stays for ever, so that a
worker that was away never joins old sets to a new subscription of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from signal_router.errors import DefinitionError, NewerFormatError, RecordError
from signal_router.model.documents import Document, compile_subscription, read_document
from signal_router.model.json_values import decode_json
from signal_router.model.schema import API_VERSION, KIND
from signal_router.model.subscriptions import Subscription
from signal_router.model.times import epoch_ms, rfc3339

FORMAT = 1

_KEY_PREFIX = "subscription/"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Definition:
    """One record of the definitions topic. `document` is None where it is `deleted`; `spec` then is the last one."""

    id: str
    birth: int
    join_generation: int
    version: str
    contact: str | None
    deleted: bool
    applied_at: int
    spec: Mapping[str, object]
    document: Document | None

    def subscription(self, revision: int) -> Subscription | None:
        """The compiled subscription as of `revision`, the record's offset; None where it is deleted."""
        if self.document is None:
            return None
        return compile_subscription(
            self.document, birth=self.birth, join_generation=self.join_generation, revision=revision
        )


def definition(document: Document, *, birth: int, join_generation: int, applied_at: int) -> Definition:
    """Puts a document in force."""
    return Definition(
        id=document.id,
        birth=birth,
        join_generation=join_generation,
        version=document.version,
        contact=document.contact,
        deleted=False,
        applied_at=applied_at,
        spec=document.spec,
        document=document,
    )


def deletion(last: Definition, *, applied_at: int) -> Definition:
    """Ends the life of a subscription id; what comes after it has a higher birth."""
    return Definition(
        id=last.id,
        birth=last.birth,
        join_generation=last.join_generation,
        version=last.version,
        contact=last.contact,
        deleted=True,
        applied_at=applied_at,
        spec=last.spec,
        document=None,
    )


def definition_key(subscription_id: str) -> bytes:
    """The record key of a subscription's definitions."""
    return f"{_KEY_PREFIX}{subscription_id}".encode()


def encode_definition(each: Definition) -> bytes:
    """Writes the record value."""
    return _encode(
        {
            "format": FORMAT,
            "kind": KIND,
            "id": each.id,
            "birth": each.birth,
            "join_generation": each.join_generation,
            "version": each.version,
            "contact": each.contact,
            "deleted": each.deleted,
            "applied_at": rfc3339(each.applied_at),
            "spec": each.spec,
        }
    )


def decode_definition(key: bytes | None, value: bytes | None) -> Definition | None:
    """Reads one record of the definitions topic; a tombstone gives None: absence is never a delete.

    Raises NewerFormatError where a newer program wrote it (the worker must stop), RecordError with reason `definition`
    for everything else that cannot be read (the definition before it stays in force).
    """
    if value is None:
        return None
    try:
        record = decode_json(value, what="definition")
    except RecordError as error:
        raise RecordError("definition", error.message, hint=_HINT) from None
    if not isinstance(record, dict):
        raise _unreadable("is no object")
    _check_format(record)
    each = _definition(record)
    if key != definition_key(each.id):
        raise _unreadable(f'of "{each.id}" stands under the key {key!r}')
    return each


_HINT = "write definitions with signal-router apply"
_FIELDS = ("format", "kind", "id", "birth", "join_generation", "version", "contact", "deleted", "applied_at", "spec")


def _unreadable(what: str) -> RecordError:
    return RecordError("definition", f"definition {what}", hint=_HINT)


def _check_format(record: dict[str, object]) -> None:
    number = record.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise _unreadable(f"has no format number, but {number!r}")
    if number > FORMAT:
        hint = "run a newer signal-router here, or apply the definition with this one"
        raise NewerFormatError(
            f"definition of {record.get('id')!r} has format {number}, newer than {FORMAT}", hint=hint
        )


def _definition(record: dict[str, object]) -> Definition:
    if unknown := sorted(record.keys() - set(_FIELDS)):
        raise _unreadable(f'has an unknown field "{unknown[0]}"')
    if record.get("kind") != KIND:
        raise _unreadable(f"is of kind {record.get('kind')!r}")
    spec = record.get("spec")
    if not isinstance(spec, dict):
        raise _unreadable("has no spec")
    contact = record.get("contact")
    deleted = record.get("deleted")
    if not isinstance(deleted, bool):
        raise _unreadable(f"has deleted {deleted!r}")
    if not isinstance(contact, str | None):
        raise _unreadable(f"has contact {contact!r}")
    identity, version = _text(record, "id"), _text(record, "version")
    return Definition(
        id=identity,
        birth=_count(record, "birth"),
        join_generation=_count(record, "join_generation"),
        version=version,
        contact=contact,
        deleted=deleted,
        applied_at=_time(record),
        spec=spec,
        document=None if deleted else _document(identity, contact, version, spec),
    )


def _document(identity: str, contact: str | None, version: str, spec: Mapping[str, object]) -> Document:
    metadata = {"id": identity, "contact": contact}
    try:
        document = read_document({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec})
    except DefinitionError as error:
        raise _unreadable(f'of "{identity}" is not valid: {error.problems[0]}') from None
    if document.version != version:
        raise _unreadable(f'of "{identity}" has version {version}, its spec is {document.version}')
    return document


def _text(record: dict[str, object], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value:
        raise _unreadable(f"has {field} {value!r}")
    return value


def _count(record: dict[str, object], field: str) -> int:
    value = record.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _unreadable(f"has {field} {value!r}")
    return value


def _time(record: dict[str, object]) -> int:
    text = _text(record, "applied_at")
    try:
        return epoch_ms(text)
    except (ValueError, OverflowError):
        raise _unreadable(f'has applied_at "{text}"') from None
