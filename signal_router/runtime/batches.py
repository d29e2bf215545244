"""A batch: records of one partition as they were read, and what they belong to."""

from __future__ import annotations

from typing import Protocol

from signal_router.model.log import InputRecord, TopicPartition


class Batch(Protocol):
    """Records of one partition, in order.

    `next_offset` is the offset to read behind it, past markers where the end was met; `at` how many records have been
    staged, since a batch may take several stages.
    """

    tp: TopicPartition
    records: list[InputRecord]
    next_offset: int
    at: int
