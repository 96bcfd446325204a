"""How long a connection waits for another process's lock: each time so long, and never beyond an end of all waiting."""

from __future__ import annotations

import math
import sqlite3
import time

__all__ = ["Patience"]

STEP_S = 0.1
"""Longest wait inside SQLite, which hears of nothing meanwhile; between two of them the end may have come nearer."""


class Patience:
    """Waits of one connection. Only `begin` and `allow` belong to the connection's thread."""

    def __init__(self, each_s: float) -> None:
        self._each_s = each_s
        self._ends_at = math.inf
        self._allowed_ms = -1

    def set_each(self, seconds: float) -> None:
        """Each wait takes at most so long, one that has begun included."""
        self._each_s = seconds

    def end_in(self, seconds: float) -> None:
        """After so many seconds nothing is waited for any more; an earlier end stays."""
        self._ends_at = min(self._ends_at, time.monotonic() + seconds)

    def left(self, since: float | None = None) -> float:
        """Seconds that a wait may still take which began at `since`, or begins now."""
        now = time.monotonic()
        return max(0.0, min((now if since is None else since) + self._each_s, self._ends_at) - now)

    def opened(self, seconds: float) -> None:
        """A connection was opened with this timeout."""
        self._allowed_ms = int(seconds * 1000)

    def allow(self, db: sqlite3.Connection, seconds: float) -> None:
        """Lets the statements that follow wait inside SQLite, for so long."""
        allowed_ms = int(seconds * 1000)
        if self._allowed_ms != allowed_ms:
            self._allowed_ms = allowed_ms
            db.execute(f"PRAGMA busy_timeout = {allowed_ms}")

    def begin(self, db: sqlite3.Connection) -> None:
        """Begins a transaction that writes. Raises: `sqlite3.Error`, such as that the file is locked."""
        since = time.monotonic()
        while True:
            left = self.left(since)
            self.allow(db, min(STEP_S, left))
            try:
                # Always IMMEDIATE: a transaction that begins by reading may not be able to write later.
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as exc:
                if left <= STEP_S or getattr(exc, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
