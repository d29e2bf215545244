"""A match: that a signal is for a subscription, and under which join key."""

from __future__ import annotations

import msgspec

from signal_router.model.subscriptions import Subscription


class Match(msgspec.Struct, frozen=True, gc=False):
    """One subscription and join key that a signal is for, with a bit in `alias_mask` for each member it fits there.

    `key_text` is the canonical JSON of the join key; "" where every signal fires by itself: its identity stands for it.
    """

    subscription: Subscription
    key_text: str
    alias_mask: int
