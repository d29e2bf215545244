"""Consumer groups in memory: members, generations, range assignment, and which group metadata the coordinator
accepts.

Both protocols: *classic* (every member gives everything up and rejoins; one generation for all) and *consumer*
(KIP-848: a member's epoch moves alone, only what changes hands is revoked). What a member *knows* lags behind what
the coordinator decided until it polls, so a zombie is simply a member that does not poll.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from signal_router.model.group_metadata import GroupMetadata
from signal_router.model.log import AbortableError, NextOffset, TopicPartition

GroupProtocol = Literal["classic", "consumer"]
PartitionCounts = Callable[[], Mapping[str, int]]


class Rebalance(NamedTuple):
    """What a consumer's callback is called with. The partitions stay the member's until its next poll (revoked
    only).
    """

    kind: Literal["assigned", "revoked", "lost", "fenced"]
    partitions: tuple[TopicPartition, ...]


@dataclass(slots=True, eq=False)
class _Seat:
    """A member as the coordinator sees it. `assigned` maps a partition to the epoch it was assigned in."""

    member_id: str
    topics: tuple[str, ...]
    instance: str | None
    epoch: int = 0
    rejoined: bool = True
    assigned: dict[TopicPartition, int] = field(default_factory=dict)
    revoking: set[TopicPartition] = field(default_factory=set)

    @property
    def rank(self) -> tuple[bool, str, str]:
        """The order of range assignment: static members by instance first, then by member id."""
        return (self.instance is None, self.instance or "", self.member_id)


class Group:
    """A consumer group at its coordinator, with the offsets it has committed and those that wait for a marker."""

    def __init__(self, name: str, protocol: GroupProtocol, counts: PartitionCounts) -> None:
        self.name = name
        self.protocol = protocol
        self.generation = 0
        self.committed: dict[TopicPartition, NextOffset] = {}
        self.pending: dict[int, dict[TopicPartition, tuple[int, NextOffset]]] = {}
        self._sent_at: dict[TopicPartition, int] = {}
        self._counts = counts
        self._seats: dict[str, _Seat] = {}
        self._preparing = False
        self._joined = 0

    # --- offsets

    def validate(self, offsets: Iterable[TopicPartition], metadata: GroupMetadata) -> None:
        """Refuses a transactional offset commit as Kafka 4.4 does.

        Raises:
            AbortableError: naming UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION or FENCED_INSTANCE_ID.
        """
        if metadata.generation < 0 and not metadata.member and metadata.instance is None:
            return  # nobody claims to be a member: accepted without any fencing
        seat = self._seats.get(metadata.member)
        if metadata.instance is not None and (seat is None or seat.instance != metadata.instance):
            self._refuse(
                "FENCED_INSTANCE_ID" if self.instance_taken(metadata.instance) else "UNKNOWN_MEMBER_ID", metadata
            )
        if seat is None:
            # A generation of a group that never had one is refused for that (Kafka: the group does not exist).
            self._refuse("UNKNOWN_MEMBER_ID" if self._joined else "ILLEGAL_GENERATION", metadata)
        elif self.protocol == "classic":
            if metadata.generation != self.generation:
                self._refuse("ILLEGAL_GENERATION", metadata)
        elif metadata.generation != seat.epoch:
            # KIP-1251: an older epoch still speaks for partitions the member has kept since, each checked by itself.
            kept = all(tp in seat.assigned and seat.assigned[tp] <= metadata.generation for tp in offsets)
            if metadata.generation > seat.epoch or not kept:
                self._refuse("ILLEGAL_GENERATION", metadata)

    def _refuse(self, code: str, metadata: GroupMetadata) -> None:
        raise AbortableError(
            f'{code}: group "{self.name}" is at generation {self.generation}, '
            f'member "{metadata.member}" spoke for generation {metadata.generation}',
            membership=True,
        )

    def resolve(self, producer_id: int, *, commit: bool) -> None:
        """Ends what the producer's transaction has pending: the marker reached the offsets partition."""
        pending = self.pending.pop(producer_id, {})
        for tp, (sent_at, next_offset) in pending.items() if commit else ():
            self.commit(tp, next_offset, sent_at)

    def commit(self, tp: TopicPartition, next_offset: NextOffset, sent_at: int) -> None:
        """Takes a next offset whose record stands at `sent_at` in the offsets partition: what was sent last counts, not
        what was committed last.
        """
        if sent_at >= self._sent_at.get(tp, -1):
            self.committed[tp] = next_offset
            self._sent_at[tp] = sent_at

    def forget_topic(self, topic: str) -> None:
        """Drops all offsets of a deleted topic."""
        self.committed = {tp: offset for tp, offset in self.committed.items() if tp.topic != topic}
        self._sent_at = {tp: sent_at for tp, sent_at in self._sent_at.items() if tp.topic != topic}
        for producer_id, pending in self.pending.items():
            self.pending[producer_id] = {tp: sent for tp, sent in pending.items() if tp.topic != topic}

    # --- membership

    def join(self, topics: tuple[str, ...], instance: str | None) -> _Seat:
        """Seats a member. A static one takes its predecessor's seat over, without a rebalance if the group is
        stable.
        """
        if instance is not None and self.protocol == "consumer":
            raise ValueError(f'instance "{instance}": static members are modelled for the classic protocol only')
        self._joined += 1
        member_id = f"{instance or 'member'}-{self._joined:04d}"
        before = next(
            (seat for seat in self._seats.values() if instance is not None and seat.instance == instance), None
        )
        if before is not None:
            del self._seats[before.member_id]
        if before is not None and before.topics == topics and not self._preparing:
            seat = _Seat(member_id, topics, instance, before.epoch, assigned=dict(before.assigned))
            self._seats[member_id] = seat
            return seat
        seat = self._seats[member_id] = _Seat(member_id, topics, instance)
        self.rebalance(joined=seat)
        return seat

    def remove(self, member_id: str) -> None:
        """Unseats a member that left, or that the coordinator takes for dead."""
        if self._seats.pop(member_id, None) is not None:
            self.rebalance()

    @property
    def occupied(self) -> bool:
        """Says whether the group has members."""
        return bool(self._seats)

    def reads(self, topic: str) -> bool:
        """Says whether a member subscribes to the topic."""
        return any(topic in seat.topics for seat in self._seats.values())

    def seat(self, member_id: str) -> _Seat | None:
        """Returns the member's seat, None when the group does not know it (any more)."""
        return self._seats.get(member_id)

    def instance_taken(self, instance: str) -> bool:
        """Says whether a member sits under this instance id."""
        return any(seat.instance == instance for seat in self._seats.values())

    def rebalance(self, *, joined: _Seat | None = None) -> None:
        """Makes the group assign anew: a member came or went, or a topic changed."""
        if self.protocol == "consumer":
            self.generation += 1
            return
        if not self._preparing:
            self._preparing = True
            for seat in self._seats.values():
                seat.rejoined = seat is joined
        self._complete_join()

    def rejoin(self, seat: _Seat) -> None:
        """Takes a member's JoinGroup: it has given up what it owned."""
        seat.rejoined = True
        self._complete_join()

    def preparing(self, seat: _Seat) -> bool:
        """Says whether the group waits for this member to rejoin."""
        return self._preparing and not seat.rejoined

    @property
    def stable(self) -> bool:
        """Says whether no rebalance is under way (classic)."""
        return not self._preparing

    def _complete_join(self) -> None:
        if not all(seat.rejoined for seat in self._seats.values()):
            return
        self._preparing = False
        self.generation += 1
        for member_id, owned in self.target().items():
            seat = self._seats[member_id]
            seat.epoch = self.generation
            seat.assigned = dict.fromkeys(owned, self.generation)

    # --- assignment

    def target(self) -> dict[str, list[TopicPartition]]:
        """Range assignment: per topic a run of neighbouring partitions each, so equal numbers of joined topics stay
        together.
        """
        counts = self._counts()
        result: dict[str, list[TopicPartition]] = {member_id: [] for member_id in self._seats}
        for topic in sorted({topic for seat in self._seats.values() for topic in seat.topics}):
            seats = sorted((seat for seat in self._seats.values() if topic in seat.topics), key=lambda seat: seat.rank)
            share, extra = divmod(counts.get(topic, 0), len(seats))
            first = 0
            for index, seat in enumerate(seats):
                width = share + (index < extra)
                result[seat.member_id] += [TopicPartition(topic, number) for number in range(first, first + width)]
                first += width
        return result

    def reconcile(self, seat: _Seat) -> Rebalance | None:
        """One heartbeat under KIP-848: first what must go, then, once that is acknowledged, what has become free."""
        target = self.target()[seat.member_id]
        going = tuple(sorted(tp for tp in seat.assigned if tp not in target))
        seat.revoking.clear()  # this heartbeat acknowledges what the one before took away
        if going:
            seat.revoking.update(going)
            for tp in going:
                del seat.assigned[tp]
            return Rebalance("revoked", going)
        seat.epoch = self.generation
        taken = {tp for other in self._seats.values() if other is not seat for tp in (*other.assigned, *other.revoking)}
        coming = tuple(tp for tp in target if tp not in seat.assigned and tp not in taken)
        seat.assigned.update(dict.fromkeys(coming, seat.epoch))
        return Rebalance("assigned", coming) if coming else None


class MemoryMember:
    """One consumer's membership as that consumer knows it. Made by `MemoryBroker.join`.

    `partitions` and `group_metadata` change only in `poll`: a member that does not poll goes on believing what it knew.
    """

    def __init__(self, group: Group, topics: Iterable[str], instance: str | None) -> None:
        self.partitions: tuple[TopicPartition, ...] = ()
        self.generation = -1
        self.member_id = ""
        self._group = group
        self._topics = tuple(topics)
        self._instance = instance
        self._seat: _Seat | None = group.join(self._topics, instance)
        self._left = False

    def poll(self) -> Rebalance | None:
        """Returns the next callback's argument, None when there is nothing to do now.

        A *revoked* one is acknowledged by the next poll; until then the old metadata is still accepted. After *fenced*
        (another process took this instance) the member stays dead, as the client does.
        """
        if self._left:
            return None
        if self._seat is None:
            self._seat = self._group.join(self._topics, self._instance)
        seat = self._seat
        if self._group.seat(seat.member_id) is not seat:
            return self._lose()
        if self._group.protocol == "consumer":
            return self._heartbeat(seat)
        if self._group.preparing(seat):
            if self.partitions:
                return Rebalance("revoked", self._give_up())
            self._group.rejoin(seat)
        if self._group.stable and (self.generation, self.member_id) != (seat.epoch, seat.member_id):
            self.generation, self.member_id = seat.epoch, seat.member_id
            self.partitions = tuple(seat.assigned)
            return Rebalance("assigned", self.partitions)
        return None

    def settle(self) -> list[Rebalance]:
        """Polls until there is nothing to do and returns what happened (another member may have to poll, too)."""
        happened = []
        while (rebalance := self.poll()) is not None:
            happened.append(rebalance)
        return happened

    def group_metadata(self) -> bytes:
        """Returns what `consumer_group_metadata()` of the client would: before joining and after a loss generation
        −1, no member.
        """
        return GroupMetadata(self._group.name, self.generation, self.member_id, self._instance).encode()

    def leave(self) -> None:
        """Leaves the group at once (a static member too); the member is over."""
        self.expire()
        self._left, self.partitions = True, ()

    def expire(self) -> None:
        """Makes the coordinator take this member for dead (session or rebalance time-out). The member learns of it
        in `poll`.
        """
        if self._seat is not None:
            self._group.remove(self._seat.member_id)

    def _heartbeat(self, seat: _Seat) -> Rebalance | None:
        rebalance = self._group.reconcile(seat)
        self.generation, self.member_id = seat.epoch, seat.member_id
        self.partitions = tuple(sorted(seat.assigned))
        return rebalance

    def _give_up(self) -> tuple[TopicPartition, ...]:
        owned, self.partitions = self.partitions, ()
        return owned

    def _lose(self) -> Rebalance | None:
        fenced = self._instance is not None and self._group.instance_taken(self._instance)
        owned = self._give_up()
        self._seat, self.generation, self.member_id = None, -1, ""
        if fenced:
            self._left = True
            return Rebalance("fenced", owned)
        return Rebalance("lost", owned) if owned else self.poll()
