"""The embedded default: rooms' logs in one SQLite file, and a client's outbox in another."""

from .limits import Limits
from .store import SqliteMessageStore

__all__ = ["Limits", "SqliteMessageStore"]
