"""The SDK: programs that publish signals, and programs that are started by triggers.

    from signal_router.client import SignalProducer, TriggerConsumer

Light to import: no Faust, no RocksDB, no command line.
"""

from __future__ import annotations

from signal_router.client.async_consumer import AsyncTriggerConsumer
from signal_router.client.async_producer import AsyncSignalProducer
from signal_router.client.consumer import TriggerConsumer
from signal_router.client.delivery import Delivery, DeliveryError
from signal_router.client.ids import once_per_attempt, once_per_revision, once_per_run, once_per_task
from signal_router.client.parking import Park, Parked
from signal_router.client.producer import SignalProducer
from signal_router.client.retries import Retries
from signal_router.client.transaction import Transaction
from signal_router.client.trigger import Trigger, TriggerSignal, decode_trigger
from signal_router.errors import BrokerError, ConfigurationError, FencedError, RecordError, SignalRouterError
from signal_router.kafka.settings import Connection

__all__ = [
    "AsyncSignalProducer",
    "AsyncTriggerConsumer",
    "BrokerError",
    "ConfigurationError",
    "Connection",
    "Delivery",
    "DeliveryError",
    "FencedError",
    "Park",
    "Parked",
    "RecordError",
    "Retries",
    "SignalProducer",
    "SignalRouterError",
    "Transaction",
    "Trigger",
    "TriggerConsumer",
    "TriggerSignal",
    "decode_trigger",
    "once_per_attempt",
    "once_per_revision",
    "once_per_run",
    "once_per_task",
]
