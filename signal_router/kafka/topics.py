"""The topics as files: one YAML per topic in `topics/`, read by the program, `topics diff` and `apply`, docs and tests.

The shape is that of a KafkaTopic as operators of Kafka on Kubernetes know it, plus `about`: owner, purpose, key, value,
schema, examples, and how strictly the program holds to the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from signal_router.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

TOPIC_NAME_LIMIT = 249  # Kafka's own

_LEGAL_NAME = re.compile(r"[A-Za-z0-9._-]+")


class _Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    topic_name: str
    partitions: int
    replicas: int
    config: dict[str, str | int]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people and the program have to know of a topic beside its settings.

    `required` are the config keys without which the guarantees fail (checked at every start), `advised` those whose
    difference is said at start. `partitions` fixed: the count is never changed in place. `schema` and `examples` are
    paths below the folder; internal topics with a binary value have neither.
    """

    access: Literal["public", "internal"]
    owner: str
    purpose: str
    key: str
    value: str
    schema: str | None = None
    examples: tuple[str, ...] = ()
    partitions: Literal["growing", "fixed"] = "growing"
    required: tuple[str, ...] = ()
    advised: tuple[str, ...] = ()


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    api_version: Literal["signal-router/v1"]
    kind: Literal["KafkaTopic"]
    metadata: _Metadata
    spec: _Spec
    about: About


@dataclass(frozen=True, slots=True)
class TopicFile:
    """One topic as its file says: `role` names it in the code, `name_pattern` gives its name on a cluster."""

    role: str
    name_pattern: str
    partitions: int
    replicas: int
    config: Mapping[str, str]
    about: About

    def topic_name(self, prefix: str, app: str) -> str:
        """The topic's name under a prefix and an app."""
        return self.name_pattern.replace("{prefix}", prefix).replace("{app}", app)


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The names of all topics of one app under one prefix."""

    signals: str
    definitions: str
    candidates: str
    changelog: str
    workers: str
    triggers: str
    lineage: str
    dead_letters: str

    def all(self) -> tuple[str, ...]:
        """Every name, in the order of the fields."""
        return tuple(getattr(self, field) for field in self.__slots__)

    def own(self) -> frozenset[str]:
        """Every name but that of the signals: what can be no input and no destination but `triggers`."""
        return frozenset(self.all()) - {self.signals}


_FIELD_OF_ROLE = {"join-sets-changelog": "changelog", "dead-letters": "dead_letters"}


def topics_folder() -> Traversable:
    """The folder of the topic files: inside the installed package, or beside it in a checkout."""
    installed = resources.files("signal_router").joinpath("topics")
    if installed.joinpath("signals.yaml").is_file():
        return installed
    return Path(__file__).resolve().parents[2] / "topics"


def load_topics(folder: Path | None = None) -> tuple[TopicFile, ...]:
    """Reads all topic files, ordered by role; `folder` stands for an operator's own copy of them.

    Raises:
        ConfigurationError: a file is missing, is no YAML, or has an unknown or a missing field; the file is named.
    """
    return _shipped() if folder is None else _load(folder)


@cache
def _shipped() -> tuple[TopicFile, ...]:
    return _load(topics_folder())


def topic_text(path: str) -> str:
    """The text of a schema or an example that a shipped topic file names."""
    return topics_folder().joinpath(path).read_text(encoding="utf-8")


@cache
def resolve(prefix: str, app: str) -> TopicNames:
    """Names every topic of one app under one prefix.

    Raises:
        ConfigurationError: a name is longer than Kafka allows or has a character it does not.
    """
    names = {_FIELD_OF_ROLE.get(file.role, file.role): file.topic_name(prefix, app) for file in load_topics()}
    for name in names.values():
        if len(name) > TOPIC_NAME_LIMIT or not _LEGAL_NAME.fullmatch(name):
            raise ConfigurationError(
                f'topic name "{name}" is not allowed by Kafka',
                hint=f"prefix and app: letters, digits, '.', '_' and '-', at most {TOPIC_NAME_LIMIT} characters in all",
            )
    return TopicNames(**names)


def _load(folder: Traversable) -> tuple[TopicFile, ...]:
    files = tuple(
        _read(entry) for entry in sorted(folder.iterdir(), key=lambda entry: entry.name) if entry.name.endswith(".yaml")
    )
    missing = {_role_of(field) for field in TopicNames.__slots__} - {file.role for file in files}
    if missing:
        raise ConfigurationError(
            f'folder "{folder}" has no file for the topics {", ".join(sorted(missing))}',
            hint="copy the folder topics/ of the release and edit the copy",
        )
    return files


def _role_of(field: str) -> str:
    return next((role for role, name in _FIELD_OF_ROLE.items() if name == field), field)


def _read(entry: Traversable) -> TopicFile:
    try:
        content = YAML(typ="safe", pure=True).load(entry.read_text(encoding="utf-8"))
        document = msgspec.convert(content, _Document)
    except (YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigurationError(f'topic file "{entry.name}": {error}', hint="signal-router topics list") from error
    spec, about = document.spec, document.about
    unknown = [key for key in (*about.required, *about.advised) if key not in spec.config]
    if unknown:
        raise ConfigurationError(f'topic file "{entry.name}": "{unknown[0]}" is required, but spec.config lacks it')
    return TopicFile(
        role=document.metadata.name,
        name_pattern=spec.topic_name,
        partitions=spec.partitions,
        replicas=spec.replicas,
        config={key: str(value) for key, value in spec.config.items()},
        about=about,
    )
