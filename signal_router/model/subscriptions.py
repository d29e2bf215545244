"""What a subscriber declares, ready for use: the compiled form of a Subscription document."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from signal_router.model.templates import Template
from signal_router.model.values import Value


class Policy(Enum):
    """Which pending signals a set takes: the earliest (each used once) or only the newest of each alias."""

    FIFO = "fifo"
    LATEST = "latest"


class Operator(Enum):
    """How a parameter is compared. The values are the spellings in documents; aliases are resolved when reading."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"
    NOT_IN = "not-in"
    PREFIX = "prefix"
    EXISTS = "exists"


class JoinType(Enum):
    """What a join parameter must be; see `core.join_keys` for how each is read."""

    ANY = "any"
    STRING = "string"
    INTEGER = "integer"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Predicate:
    """One comparison. `operand` is a scalar, for IN and NOT_IN a tuple of scalars, for EXISTS a bool.

    `parameter` names a parameter of the signal; with a leading `$` it names a context attribute.
    """

    parameter: str
    operator: Operator
    operand: Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class JoinParameter:
    """One part of the join key: its name in the key, its type, and this member's parameter that carries it."""

    name: str
    type: JoinType
    parameter: str


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a subscription. `predicates` include the `exists` that the trigger template asks for."""

    alias: str
    signal: str
    predicates: tuple[Predicate, ...]
    join: tuple[JoinParameter, ...]
    payload: bool


@dataclass(frozen=True, slots=True)
class Subscription:
    """A compiled subscription in force.

    `birth`, `join_generation` are set by `apply`; `revision` is the document's offset on the definitions topic;
    `version` is `sha256:…` of the canonical JSON of its spec. `within_ms`, `dedupe_ms` are durations in milliseconds,
    dedupe ≥ within. `members` stand in declaration order; the position of an alias in it is its bit in every alias
    mask.
    """

    id: str
    birth: int
    join_generation: int
    revision: int
    version: str
    contact: str | None
    members: tuple[Member, ...]
    join_names: tuple[str, ...]
    policy: Policy
    within_ms: int
    dedupe_ms: int
    topic: str
    template: Template

    @property
    def by_identity(self) -> bool:
        """Whether every signal fires by itself: one member without join parameters."""
        return len(self.members) == 1 and not self.join_names
