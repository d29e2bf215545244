"""Listens to a client's own log for the moments at which a request's fate became uncertain.

No client usable from Python speaks the repaired transaction protocol (KIP-890 part 2): an EndTxn or TxnOffsetCommit
that is still on its way can take effect in a *later* transaction of the same producer epoch, and the client hides it
by retrying on its own. What does not hide is the connection: it drops, or a request on it times out, and librdkafka
logs both before the call returns. Statistics know it too, but only in a report newer than the call, for which one
would have to wait.

Measured against Kafka 4.4.0 with librdkafka 2.16.0 (400 transactions of 10 records each way, taking turns on a busy
machine): 0.90 ms of CPU per transaction with the log lines, 0.91 without them, 1.08 with statistics every 10 ms.
Three lines come per clean transaction; 0 false alarms in 400.
"""

from __future__ import annotations

import logging
import re

_STATE = re.compile(r" in state ([A-Z_]+)")

# A connection that was still being made carried no transactional request. Without this a client that first tries an
# address nobody listens on (IPv6 before IPv4) would be replaced for ever.
_NOT_YET_CONNECTED = frozenset({
    "INIT", "DOWN", "TRY_CONNECT", "CONNECT", "SSL_HANDSHAKE", "AUTH_LEGACY", "AUTH_HANDSHAKE", "AUTH_REQ",
    "APIVERSION_QUERY",
})  # fmt: skip


class ConnectionWatch:
    """The `logger=` of a client created with `debug=broker` and `log_level=7`; it is called from the client's
    `poll`.

    `trouble` is the first line that speaks of a dropped connection or a timed-out request since the last `reset`.
    `heard` counts debug lines: a watch that hears none at all is deaf, and what it does not say means nothing.
    Warnings and errors go on to `logger` as warnings.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.trouble: str | None = None
        self.heard = 0
        self._logger = logger

    def reset(self) -> None:
        """Forgets the trouble; what was heard still counts."""
        self.trouble = None

    def log(self, level: int, template: str, *parts: object) -> None:
        """Takes one line: facility, client name and text are the three parts."""
        self.heard += level < logging.INFO
        if self.trouble is None and len(parts) == 3 and troubling(str(parts[0]), str(parts[2])):
            self.trouble = str(parts[2])
        if level >= logging.WARNING:  # the client calls errors what a retry or a new producer mends
            self._logger.warning(template, *parts)


def troubling(facility: str, text: str) -> bool:
    """Says whether a log line means that a request may have been received by the broker without being answered."""
    if facility == "REQTMOUT":
        return True
    if facility != "FAIL":
        return False
    state = _STATE.search(text)
    return state is None or state[1] not in _NOT_YET_CONNECTED
