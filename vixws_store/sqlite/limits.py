"""How much may wait in front of a SQLite store, and for how long."""

from __future__ import annotations

import msgspec

from .wal import LOG_BYTES_MAX

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait in front of a SQLite store, and for how long. Counts, bytes and seconds."""

    batch_rows_max: int = 256
    """Appends of one transaction."""
    batch_bytes_max: int = 4 << 20
    """Payload bytes of one transaction, at least one append."""
    queue_rows_max: int = 65_536
    """Appends that wait; further ones fail at once. Reads that wait have the same bound."""
    queue_bytes_max: int = 64 << 20
    """Payload bytes that wait."""
    busy_timeout_s: float = 5.0
    """How long a transaction waits for another process's lock while the store is ready."""
    retry_timeout_s: float = 0.25
    """The same while the store is not ready: publishers are told soon."""
    probe_s: float = 0.5
    """How often a store that is not ready is tried."""
    log_bytes_max: int = LOG_BYTES_MAX
    """Bytes of the write-ahead log, 64 KiB at least. Where a long read of another process keeps it from being emptied,
    appends fail `store_full` from here on, until that read ends."""
    flush_s: float = 10.0
    """Longest flush at the end."""
