"""How far a group is behind: what is committed, and where the logs end."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka.admin import AdminClient

from signal_router.kafka.offsets import committed_offsets, end_offsets, start_offsets
from signal_router.kafka.settings import Connection
from signal_router.model.log import TopicPartition


def gaps(
    connection: Connection, admin: AdminClient, group: str, tps: Iterable[TopicPartition]
) -> dict[TopicPartition, range]:
    """Gives the offsets between the committed one and the end of each log, transaction markers included.

    Where nothing is committed, the gap begins at the log's start. Does not wait for open transactions. Raises
    `BrokerError`.
    """
    wanted = sorted(set(tps))
    if not wanted:
        return {}
    committed = committed_offsets(connection, group, wanted)
    starts, ends = start_offsets(admin, wanted), end_offsets(admin, wanted)
    begins = {tp: starts[tp] if (known := committed[tp]) is None else max(known.offset, starts[tp]) for tp in wanted}
    return {tp: range(begins[tp], ends[tp]) for tp in wanted}


def lag(
    connection: Connection, admin: AdminClient, group: str, tps: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Counts the offsets of each gap (see `gaps`): no more wait than that. Raises `BrokerError`."""
    return {tp: len(gap) for tp, gap in gaps(connection, admin, group, tps).items()}
