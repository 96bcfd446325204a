"""Durable logs of rooms: what carries out a hub's store asks."""

from vixws_core.log import BatchResult, Page, Position, Redacted
from vixws_core.message import StoredMessage
from vixws_core.protocols import MessageStore, Outbox, OutboxEntry
from vixws_core.retention import Retention

from .memory import MemoryMessageStore
from .outbox import OutboxLimits, SqliteOutbox
from .sqlite import Limits, SqliteMessageStore
from .urls import open_store

__all__ = [
    "BatchResult",
    "Limits",
    "MemoryMessageStore",
    "MessageStore",
    "Outbox",
    "OutboxEntry",
    "OutboxLimits",
    "Page",
    "Position",
    "Redacted",
    "Retention",
    "SqliteMessageStore",
    "SqliteOutbox",
    "StoredMessage",
    "open_store",
]
