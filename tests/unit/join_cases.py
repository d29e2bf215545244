"""Small words for tests of the join: subscriptions, candidates, a partition that takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from signal_router.core.join import Decision, Ended, Fired, Joiner, Limits, Waiting
from signal_router.core.tables import Pending
from signal_router.model.candidates import Candidate, Mark, SignalCopy
from signal_router.model.subscriptions import JoinParameter, JoinType, Member, Policy, Subscription
from signal_router.model.templates import parse_template
from signal_router.state.store import MemoryStore, Store
from signal_router.state.tables import PartitionTable

ID = "team/job"
KEY = '{"ds":"2026-03-10"}'
WITHIN_MS = 100
DEDUPE_MS = 1_000


def subscription(aliases: str = "ab", **changes: object) -> Subscription:
    """A subscription with a member for each letter, all joined on `ds`."""
    join = (JoinParameter("ds", JoinType.DATE, "ds"),)
    value = Subscription(
        id=ID,
        birth=1,
        join_generation=1,
        revision=0,
        version="sha256:0",
        contact=None,
        members=tuple(Member(alias, f"{alias}.ready", (), join, False) for alias in aliases),
        join_names=("ds",),
        policy=Policy.FIFO,
        within_ms=WITHIN_MS,
        dedupe_ms=DEDUPE_MS,
        topic="triggers",
        template=parse_template({}),
    )
    return replace(value, **changes)  # type: ignore[arg-type]


def signal(
    name: str, at: int = 1_000, *, offset: int = 0, content: str = "", payload: bytes | None = None
) -> SignalCopy:
    """A signal known by its name: the same name is the same identity."""
    return SignalCopy(
        f'["s","team","{name}"]', "s", "team", name, b"{}", payload, None, at, "signals", 0, offset, content.encode()
    )


@dataclass
class Definitions:
    """The definitions as a dict; a document that deletes is None."""

    documents: dict[str, Subscription | None] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    @property
    def revision(self) -> int:
        return len(self.changes) - 1

    def put(self, id_: str, value: Subscription | None) -> None:
        self.documents[id_] = value
        self.changes.append(id_)

    def find(self, subscription: str) -> Subscription | None:
        return self.documents[subscription]

    def changed_since(self, revision: int) -> Iterable[str]:
        return self.changes[revision + 1 :]


class Partition:
    """A candidates partition that finishes all work after each input."""

    def __init__(self, *subscriptions: Subscription, limits: Limits | None = None, store: Store | None = None) -> None:
        self.definitions = Definitions()
        self.store = MemoryStore() if store is None else store
        self.limits = limits or Limits()
        self.sequence = 0
        self.open()
        for each in subscriptions:
            self.applies(each.id, each)

    def open(self) -> None:
        """Begins with the store as it is, as after a restart."""
        self.table = PartitionTable(self.store, 1)
        self.joiner = Joiner(self.table, self.definitions, self.limits)

    def commit(self) -> None:
        """Makes what is staged durable."""
        self.table.apply([*self.table.staged(), *self.table.staged_locally()])

    def applies(self, id_: str, value: Subscription | None) -> list[str]:
        """The partition sees a new document."""
        self.definitions.put(id_, value)
        self.joiner.change_view()
        return self.works()

    def takes(
        self, copy: SignalCopy, aliases: str, *, of: Subscription | None = None, key: str = KEY
    ) -> list[Decision]:
        """A candidate comes that fits these aliases."""
        self.sequence += 1
        document = of or self.definitions.documents[ID] or subscription()
        mask = sum(1 << bit for bit, member in enumerate(document.members) if member.alias in aliases)
        candidate = Candidate(
            document.id, document.birth, document.join_generation, self.definitions.revision, key, mask, copy
        )
        return self.joiner.candidate(self.sequence, candidate)

    def becomes(self, copy: SignalCopy, aliases: str, *, of: Subscription | None = None, key: str = KEY) -> list[str]:
        """As `takes`, in words."""
        return [said(decision) for decision in self.takes(copy, aliases, of=of, key=key)]

    def clock(self, at: int) -> list[str]:
        """A mark moves the clock; everything due ends."""
        self.joiner.mark(Mark("w", {"signals/0": at}, ("signals/0",)))
        return self.works()

    def works(self) -> list[str]:
        """Finishes what is left to do."""
        return [text for decision in self.joiner.work() if (text := said(decision))]


def said(decision: Decision) -> str:
    """A decision in words: `a1 b1 fire`, `a1 waits`, `a1 expired within`, `b2 superseded newer`."""
    match decision:
        case Fired():
            return f"{names(decision.members)} fire"
        case Waiting():
            return f"{decision.pending.signal.id} waits"
        case Ended():
            return f"{decision.signal.id} {decision.outcome.value} {decision.reason.value}"
    return ""


def names(members: Sequence[Pending]) -> str:
    """The names of signals."""
    return " ".join(str(member.signal.id) for member in members)
