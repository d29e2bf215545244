"""Schedules: all that happens in a simulation, as a list that can be written down, read back, and made shorter.

A seed gives one. Nothing in it depends on what the workers make of it: every action says when it happens, and carries
the number from which the choices inside the worker follow that it lets go on. So an action that is left out leaves all
others as they are, and an action on a worker that is not there does nothing.

    schedule = schedule_of(17)
    assert Schedule.read(schedule.text()) == schedule
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from signal_router.testing.memory_faults import Effect

Argument: TypeAlias = str | int | bool | None
Protocol: TypeAlias = Literal["static", "classic", "consumer"]
Timestamps: TypeAlias = Literal["CreateTime", "LogAppendTime"]

TURNS = 160
"""About as many actions has a schedule."""
SUBSCRIPTIONS = ("pair", "each", "one", "three", "both")


class Action(NamedTuple):
    """One thing that happens. `at` counts milliseconds from the schedule's begin.

    publish partition value skew_ms           a record (null: a tombstone), by a producer whose clock is off
    apply name policy edit birth generation deleted     a document
    blank name | garble                       a tombstone, or no document at all, on the definitions topic
    step slot count seed | poll slot seed     a worker does so many effects; its consumer polls
    kill slot wiped noticed | start slot      kill -9, its disk lost, its seat in the group free at once; a new life
    leave slot seed                           a clean stop
    double slot | haunt slot count seed       a second process under the slot; the first one goes on
    expire slot | rebalance                   the group takes the member for dead; assigns anew without a reason
    fault call error effect | straggle call slot    what becomes of the next such call (of a slot)
    release                                   lets requests that are still on their way reach the broker
    hold topic partition | markers topic partition      markers of a partition wait; are written (-1: all)
    compact topic tail                        cleans all but the last so many offsets
    """

    at: int
    what: str
    args: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """What stands fast for a whole schedule. Times in ms; `per_key` is the limit of what may wait for one key."""

    signals_partitions: int = 2
    candidates_partitions: int = 2
    slots: int = 2
    protocol: Protocol = "static"
    local: bool = True
    timestamps: Timestamps = "LogAppendTime"
    within: int = 30_000
    dedupe: int = 60_000
    per_key: int = 100_000
    subscriptions: tuple[str, ...] = ("pair",)
    """Those that are there from the begin."""

    @property
    def names(self) -> tuple[str, ...]:
        """The slots."""
        return tuple(f"w{number}" for number in range(1, self.slots + 1))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A setup, and what happens."""

    setup: Setup
    actions: tuple[Action, ...]

    def text(self) -> str:
        """One line of JSON for the setup, and one for each action."""
        lines = [json.dumps(asdict(self.setup)), *(json.dumps([at, what, *args]) for at, what, args in self.actions)]
        return "\n".join(lines) + "\n"

    @staticmethod
    def read(text: str) -> Schedule:
        """Reads what `text` gives. Raises ValueError, TypeError."""
        setup, *actions = (json.loads(line) for line in text.splitlines() if line.strip())
        setup["subscriptions"] = tuple(setup["subscriptions"])
        return Schedule(Setup(**setup), tuple(Action(at, what, tuple(args)) for at, what, *args in actions))


def schedule_of(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)
    profile = PROFILES[rng.choice(sorted(PROFILES))]
    setup = Setup(
        signals_partitions=rng.randint(2 if profile.moving else 1, 3),
        candidates_partitions=rng.randint(2 if profile.moving else 1, 3),
        slots=rng.choice((2, 2, 3)),
        protocol="consumer" if profile.moving else rng.choice(("static", "classic", "consumer")),
        local=profile.moving or rng.random() < 0.7,
        timestamps="CreateTime" if rng.random() < 0.2 else "LogAppendTime",
        within=profile.within,
        dedupe=2 * profile.within,
        per_key=rng.choice((3, 100_000, 100_000, 100_000)),
        subscriptions=tuple(sorted({"pair", *rng.sample(SUBSCRIPTIONS, rng.randint(0, 2))})),
    )
    return Schedule(setup, tuple(_Author(setup, profile, rng).write()))


@dataclass(frozen=True, slots=True)
class _Profile:
    """How often what happens, in thousandths of the turns; the rest are steps.

    `effects` in a step at most; `moving`: partitions change hands one by one, and candidates are local where they may
    be; `pauses` between turns, in ms.
    """

    publish: int = 120
    poll: int = 110
    apply: int = 8
    crash: int = 15
    double: int = 3
    expire: int = 12
    rebalance: int = 5
    answers: int = 0
    markers: int = 50
    compact: int = 12
    outage: int = 3
    handover: int = 3
    freeze: int = 4
    effects: int = 12
    moving: bool = False
    pauses: tuple[int, ...] = (0, 1, 5, 50, 300)
    long_pauses: float = 0.005
    within: int = 30_000


PROFILES = {
    "calm": _Profile(crash=3, double=0, expire=2, outage=0, handover=0, freeze=0),
    "crashes": _Profile(crash=30, double=6, handover=8),
    "answers": _Profile(answers=35),
    "everything": _Profile(answers=20),
    "edits": _Profile(apply=30, answers=15),
    "groups": _Profile(expire=25, rebalance=15, poll=160, answers=10, effects=5, freeze=20),
    "moves": _Profile(publish=180, crash=10, moving=True, handover=25, double=0),
    "time": _Profile(pauses=(0, 50, 300, 2_000), long_pauses=0.02, within=6_000, outage=10),
}
"""What schedules dwell on."""


class _Author:
    """Writes one schedule."""

    def __init__(self, setup: Setup, profile: _Profile, rng: random.Random) -> None:
        self.setup = setup
        self.profile = profile
        self.rng = rng
        self.at = 0
        self.documents = {name: _Document(name) for name in setup.subscriptions}
        self.later: list[tuple[int, Action]] = []

    def write(self) -> Iterator[Action]:
        for slot in self.setup.names:
            yield self._do("start", slot)
        likely: list[tuple[Callable[[], Iterator[Action]], int]] = [
            (self._publish, self.profile.publish),
            (self._poll, self.profile.poll),
            (self._edit, self.profile.apply),
            (self._crash, self.profile.crash),
            (self._double, self.profile.double),
            (self._expire, self.profile.expire),
            (self._rebalance, self.profile.rebalance),
            (self._answer, self.profile.answers),
            (self._release, 20 if self.profile.answers else 0),
            (self._markers, self.profile.markers),
            (self._compact, self.profile.compact),
            (self._outage, self.profile.outage),
            (self._handover, self.profile.handover),
            (self._freeze, self.profile.freeze),
        ]
        likely.append((self._step, 1_000 - sum(weight for _, weight in likely)))
        happenings, weights = zip(*likely, strict=True)
        for turn in range(TURNS):
            self.at += self.rng.choice(self.profile.pauses)
            if self.rng.random() < self.profile.long_pauses:
                self.at += self.rng.choice((11_000, 40_000))
            yield from self._due(turn)
            yield from self.rng.choices(happenings, weights)[0]()
        yield from self._due(TURNS * 2)

    def _do(self, what: str, *args: Argument) -> Action:
        return Action(self.at, what, args)

    def _due(self, turn: int) -> Iterator[Action]:
        due = [action for when, action in self.later if when <= turn]
        self.later = [(when, action) for when, action in self.later if when > turn]
        for action in due:
            yield action._replace(at=self.at)
        if due:
            return
        self.later = [(when if when > turn else turn, action) for when, action in self.later]

    def _slot(self) -> str:
        return self.rng.choice(self.setup.names)

    def _seed(self) -> int:
        return self.rng.getrandbits(24)

    # ---- workers

    def _step(self) -> Iterator[Action]:
        yield self._do("step", self._slot(), self.rng.randint(1, self.profile.effects), self._seed())

    def _poll(self) -> Iterator[Action]:
        yield from self._poll_of(self._slot())

    def _poll_of(self, slot: str, finish: float = 0.6) -> Iterator[Action]:
        yield self._do("poll", slot, self.rng.random() < finish, self._seed())

    def _crash(self) -> Iterator[Action]:
        slot, chance = self._slot(), self.rng.random()
        if chance < 0.1:
            yield self._do("leave", slot, self._seed())
        else:
            yield self._do("kill", slot, self.rng.random() < 0.3, self.rng.random() < 0.7)
        if chance < 0.85:
            yield self._do("start", slot)
        else:
            self.later.append((self._turn_after(), Action(0, "start", (slot,))))

    def _turn_after(self) -> int:
        return self.rng.randint(0, TURNS)

    def _double(self) -> Iterator[Action]:
        """A second process comes up while the first is still at it, which hears of it late."""
        slot = self._slot()
        yield self._do("double", slot)
        for _ in range(self.rng.randint(2, 8)):
            yield from self._publish()
            yield from self._poll_of(slot)
            yield self._do("step", slot, 20, self._seed())
            yield self._do("haunt", slot, self.rng.randint(1, 8), self._seed())

    def _freeze(self) -> Iterator[Action]:
        """A commit stands still while the group gives what it speaks of to others, and goes on then."""
        slot = self._slot()
        yield from self._publish()
        yield self._do("step", slot, self.rng.randint(1, 12), self._seed())
        yield from self.rng.choice((self._rebalance, self._crash, self._crash))()
        if self.rng.random() < 0.3:
            yield self._do("expire", slot)
        for _ in range(3):
            for each in self.setup.names:
                yield from self._poll_of(each, finish=0.6 if each != slot else 0.2)
                if each != slot:
                    yield self._do("step", each, 15, self._seed())
        yield self._do("step", slot, self.rng.randint(4, 20), self._seed())

    def _handover(self) -> Iterator[Action]:
        """A worker goes behind a commit whose markers are late or whose candidates are not read, and others take over
        what it had.
        """
        slot = self._slot()
        for number in range(self.setup.candidates_partitions if self.rng.random() < 0.5 else 0):
            yield self._do("hold", "changelog", number)
        for _ in range(self.rng.randint(1, 5)):
            yield from self._publish()
        yield self._do("step", slot, self.rng.randint(8, 40), self._seed())
        if self.rng.random() < 0.3:
            yield self._do("leave", slot, self._seed())
        else:
            yield self._do("kill", slot, False, True)
            yield self._do("expire", slot)
        yield from self._publish()
        for _ in range(4):
            for other in self.setup.names:
                yield from self._poll_of(other)
                yield self._do("step", other, self.rng.randint(2, 12), self._seed())
        self.later.append((self._turn_after(), Action(0, "start", (slot,))))

    def _expire(self) -> Iterator[Action]:
        yield self._do("expire", self._slot())

    def _rebalance(self) -> Iterator[Action]:
        yield self._do("rebalance")

    def _outage(self) -> Iterator[Action]:
        """Nobody is there for a while, and signals come."""
        for slot in self.setup.names:
            yield self._do("kill", slot, self.rng.random() < 0.2, True)
        for _ in range(self.rng.randint(3, 8)):
            self.at += self.rng.randint(0, self.setup.within // 2)
            yield from self._publish()
        for slot in self.setup.names:
            yield self._do("start", slot)

    # ---- the broker and the way to it

    def _answer(self) -> Iterator[Action]:
        rng = self.rng
        if rng.random() < 0.4:
            slot = self._slot()
            yield self._do("straggle", rng.choice(("send_offsets", "commit", "commit", "abort")), slot)
            yield self._do("step", slot, rng.randint(6, 20), self._seed())
            yield from self._publish()
            yield self._do("step", slot, rng.randint(1, 10), self._seed())
            yield self._do("release")
            return
        call = rng.choice(("init", "begin", "produce", "send_offsets", "commit", "abort"))
        error = rng.choice(("abortable", "unknown", "fenced")) if call in {"produce", "send_offsets"} else "unknown"
        # A late produce is refused for its sequence numbers, a late init fences: only these three can do harm.
        held = (Effect.HELD,) if call in {"send_offsets", "commit", "abort"} else ()
        yield self._do("fault", call, error, rng.choice((Effect.NONE, Effect.DONE, *held)).value)

    def _release(self) -> Iterator[Action]:
        yield self._do("release")

    def _markers(self) -> Iterator[Action]:
        rng, chance = self.rng, self.rng.random()
        number = rng.randrange(self.setup.candidates_partitions)
        topic = rng.choice(("changelog", "changelog", "candidates", "triggers", "lineage", "offsets"))
        single = topic not in {"changelog", "candidates"}
        if chance < 0.25:
            yield self._do("hold", topic, 0 if single else number)
        elif chance < 0.6:
            yield self._do("markers", topic, 0 if single else number)
        else:
            yield self._do("markers", "", -1)

    def _compact(self) -> Iterator[Action]:
        if self.rng.random() < 0.5:
            yield self._do("purge")
            return
        yield self._do(
            "compact", self.rng.choice(("changelog", "changelog", "lineage")), self.rng.choice((0, 0, 3, 20))
        )

    # ---- records

    def _publish(self) -> Iterator[Action]:
        rng = self.rng
        for _ in range(rng.randint(1, 3)):
            skew = rng.choice((0, -3_600_000, 3_600_000, -2_000, 900)) if self.setup.timestamps == "CreateTime" else 0
            partition = rng.randrange(self.setup.signals_partitions)
            yield self._do("publish", partition, self._record(), skew)

    def _record(self) -> str | None:
        rng = self.rng
        if rng.random() < 0.05:
            return rng.choice(POISON)
        name = rng.choice("AAABBBC")
        signal: dict[str, object] = {"name": name, "params": {"k": rng.choice((1, "1", 2)), "n": rng.choice((1, 1, 5))}}
        if rng.random() < 0.97:
            signal |= {"source": "s", "id": str(rng.randrange(10))}
        return json.dumps(signal)

    def _edit(self) -> Iterator[Action]:
        chance = self.rng.random()
        if chance < 0.06:
            yield self._do("blank", self.rng.choice(sorted(self.documents)))
        elif chance < 0.1:
            yield self._do("garble")
        else:
            yield from self._apply(self.rng.choice(sorted(self.documents)))

    def _apply(self, name: str) -> Iterator[Action]:
        """Applies an edit of some kind, a delete, or what makes a new life of the subscription."""
        document = self.documents[name] = self.documents[name].next(self.rng)
        policy = self.rng.choice(("fifo", "fifo", "latest"))
        yield self._do("apply", name, policy, document.edits % 5, document.birth, document.generation, document.deleted)


POISON = (None, "no json", "\udcff\udcfe", "[1]", '{"name": 1}', '{"params": {"k": 1}}', '{"name": "A", "id": "1"}')
"""Records that are no signals; of the bytes that are no UTF-8 each stands as a surrogate."""


@dataclass(frozen=True, slots=True)
class _Document:
    """How far the lives and shapes of a subscription have come."""

    name: str
    birth: int = 1
    generation: int = 1
    edits: int = 0
    deleted: bool = False

    def next(self, rng: random.Random) -> _Document:
        edited = replace(self, edits=self.edits + 1)
        if self.deleted:
            return replace(edited, birth=self.birth + 1, generation=1, deleted=False)
        chance = rng.random()
        if chance > 0.6:
            return edited
        return replace(edited, deleted=True) if chance < 0.3 else replace(edited, generation=self.generation + 1)
