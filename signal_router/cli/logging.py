"""Logs of a command that runs for long: to stderr, for people on a terminal, else for programs."""

from __future__ import annotations

import logging

from signal_router.observe.logs import configure_logs


def log_to_stderr(*, verbose: bool) -> None:
    """Configures log lines; without `verbose` neither details nor what Kafka's client says of its retries."""
    configure_logs(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        # A client without a broker calls every try an error, thirty a second; what lasts is raised or told otherwise.
        logging.getLogger("signal_router.kafka").setLevel(logging.CRITICAL + 1)
