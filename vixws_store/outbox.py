"""Where a client keeps what it has not been answered: the outboxes there are, each with its limits."""

from .sqlite.outbox import OutboxLimits, SqliteOutbox

__all__ = ["OutboxLimits", "SqliteOutbox"]
