"""The tree of errors, split by whose fault it is. Each text names the object and the value; the hint names the next
command.
"""

from __future__ import annotations

from dataclasses import dataclass


class SignalRouterError(Exception):
    """Base of every error this program raises on purpose.

    `message` is lower case and names the object and the value; `hint`, where there is one, says what to do next.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ConfigurationError(SignalRouterError):
    """The operator's configuration: a setting, a topic, a slot, a destination."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a definition file: `line` is 1-based (0 = unknown), `field` a dotted path."""

    file: str
    line: int
    field: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"
        return text if self.hint is None else f"{text} (hint: {self.hint})"


class DefinitionError(SignalRouterError):
    """A definition that cannot be read; `problems` lists every one found, in file order."""

    def __init__(self, problems: list[Problem], *, hint: str | None = None) -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = problems


class RecordError(SignalRouterError):
    """A record that cannot become what it should be: it becomes a dead letter with this `reason` (machine-readable)."""

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class BrokerError(SignalRouterError):
    """The broker: unreachable, too old, refusing."""


class StateError(SignalRouterError):
    """Our own state: a table, a changelog, a position that contradicts another."""


class DiskError(StateError):
    """The disk under our tables: it is full, or not ours to write to. Nothing is wrong with the tables."""


class FencedError(SignalRouterError):
    """Another process took this worker's place: it must stop."""


class NewerFormatError(SignalRouterError):
    """A record of our own written by a newer program: the worker must stop instead of reading it half."""
