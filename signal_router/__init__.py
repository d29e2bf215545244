"""Starts workflows from signals on Kafka: one trigger per matching set of signals, with lineage."""

from __future__ import annotations

__version__ = "0.1.0"
