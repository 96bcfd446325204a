"""The write-ahead log's size: kept small, told where a long read makes it grow, and bounded."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from typing import Final

from vixws_core.codes import STORE_FULL
from vixws_core.errors import StoreError

from .files import Files
from .patience import Patience

__all__ = ["LOG_BYTES_MAX", "WriteAheadLog"]

LOGGER = logging.getLogger("vixws.store")

LOG_BYTES, RESTART_WAIT_S, RESTART_PAUSE_S = 5 << 20, 1.0, 4.0
"""A write-ahead log of this size is emptied; how long readers are waited for, and it is not tried again in vain."""

TOLD_BYTES: Final = 16 << 20
"""A log of this size that cannot be emptied is told."""

LOG_BYTES_MAX: Final = 1 << 30
"""How large it may be, unless told otherwise."""

READ_LOCKS: Final = range(123, 128)
"""The bytes of the log's index of which a reader locks one: `WAL_READ_LOCK` of SQLite."""


class WriteAheadLog:
    """Empties the log, which SQLite can do only while nobody reads in it. Belongs to the connection's thread."""

    def __init__(self, files: Files, patience: Patience, bytes_max: int) -> None:
        self._files = files
        self._patience = patience
        self._bytes_max = bytes_max
        self._empty_at = min(LOG_BYTES, bytes_max // 2)
        self._tell_at = min(TOLD_BYTES, bytes_max // 2)
        self._again_at = 0.0
        self._told = False

    def bound(self, db: sqlite3.Connection) -> None:
        """Empties a log that readers, one behind the other, kept growing (threat 28); after a commit.

        SQLite's own checkpoints wait for nobody, and our readers' trips are short.
        """
        if self._files.log_bytes < self._empty_at or time.monotonic() < self._again_at:
            return
        try:
            emptied = self.empty(db, RESTART_WAIT_S)
        except (sqlite3.Error, OSError, StoreError):  # What was committed is committed.
            emptied = False
        if emptied:
            return
        self._again_at = time.monotonic() + RESTART_PAUSE_S
        if not self._told and self._files.log_bytes >= self._tell_at:
            self._told = True
            LOGGER.warning(
                "the write-ahead log of %s has %d bytes and cannot be emptied: %s; at %d bytes nothing more is stored",
                self._files.path,
                self._files.log_bytes,
                self._cause(),
                self._bytes_max,
            )

    def make_room(self, db: sqlite3.Connection) -> None:
        """Empties a log that is as large as it may be; before a transaction that writes.

        Raises: `StoreError` where that cannot be done now, `sqlite3.Error`.
        """
        if self._files.log_bytes < self._bytes_max or self.empty(db, 0.0):
            return
        size = self._files.log_bytes
        message = f"{self._files.path}-wal has {size} bytes, {self._bytes_max} are allowed: {self._cause()}"
        raise StoreError(STORE_FULL, message, retry=True)

    def empty(self, db: sqlite3.Connection, wait_s: float) -> bool:
        """Copies the log into the database and empties it; False where others kept it from that for `wait_s`.

        Raises: `StoreError` where the log is not whole, `sqlite3.Error`.
        """
        self._files.check_whole()
        self._patience.allow(db, min(wait_s, self._patience.left()))
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            return False
        self._files.emptied()
        self._again_at = 0.0
        if self._told:
            self._told = False
            LOGGER.warning("the write-ahead log of %s is emptied again", self._files.path)
        return True

    def _cause(self) -> str:
        """Who reads, and what to do."""
        pids = _readers(f"{self._files.path}-shm")
        others = [pid for pid in pids if pid != os.getpid()]
        if others:
            who = ", ".join(f"the process {pid} ({_name(pid)})" for pid in others[:5])
        elif pids:
            who = "another connection of this process"
        else:
            who = "another connection"
        return f"{who} has not ended a read that it began before; end that read, or the process"


def _readers(path: str) -> list[int]:
    """The processes that read from the log with this index, each once, as far as the system tells (Linux)."""
    try:
        inode = str(os.stat(path).st_ino)
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            fields = [line.split() for line in lines]
    except OSError:
        return []
    found: list[int] = []
    for held in fields:
        # 7: POSIX ADVISORY READ 4242 fe:00:1234 124 124; one that only waits has "->" behind its number.
        if len(held) != 8 or held[1] != "POSIX" or held[3] != "READ" or held[5].rpartition(":")[2] != inode:
            continue
        if held[4].isdigit() and held[6].isdigit() and int(held[6]) in READ_LOCKS:
            found.append(int(held[4]))
    return list(dict.fromkeys(found))


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            name = comm.read(64).strip()
    except OSError:
        return "?"
    return name if name.isprintable() else ascii(name)
