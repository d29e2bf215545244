"""A definition as YAML that this program reads back to the same version, for people to edit and apply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from signal_router.model.schema import API_VERSION, KIND

# Plain only where no YAML reader takes it for something else; everything else is quoted.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*|[0-9]+[dhms]|\$[a-z0-9]+")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "null", "true", "false"})
_FLOW_UP_TO = 100  # characters: what fits on a line stands on one, as people write it


def definition_text(subscription: str, contact: str | None, spec: Mapping[str, object]) -> str:
    """Writes a definition as YAML."""
    metadata = {"id": subscription} | ({} if contact is None else {"contact": contact})
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    yaml = YAML()
    yaml.width = 4096  # a folded string would be read back with other blanks
    yaml.indent(mapping=2, sequence=4, offset=2)
    written = StringIO()
    yaml.dump(_styled(document, depth=0), written)
    return written.getvalue()


def _styled(value: object, *, depth: int) -> Any:  # noqa: ANN401  what the YAML library takes
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        mapping = CommentedMap(
            (_styled(key, depth=depth + 1), _styled(each, depth=depth + 1)) for key, each in value.items()
        )
        if depth >= 1 and "members" not in value and len(str(value)) <= _FLOW_UP_TO:
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq(_styled(each, depth=depth + 1) for each in value)
        if len(str(value)) <= _FLOW_UP_TO and not any(isinstance(each, Mapping | list | tuple) for each in value):
            sequence.fa.set_flow_style()
        return sequence
    return value
