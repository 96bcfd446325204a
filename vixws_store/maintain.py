"""Changing a SQLite store's file while no server has it: trimming, on which `upkeep` builds.

Plain functions that block. They take the store's lock, so that they and a server never meet.
"""

from __future__ import annotations

import os
import sqlite3

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import LocalError, StoreError

from .inspect import stats
from .sqlite.damage import FileDamaged
from .sqlite.failures import opening_error, store_error
from .sqlite.lock import FileLock
from .sqlite.writer import LogWriter

__all__ = ["trim"]

BUSY_TIMEOUT_S = 5.0
"""How long the lock of another program, such as the `sqlite3` shell, is waited for."""


def trim(path: str | os.PathLike[str], room: str, upto: int) -> int:
    """Forgets the entries of `room` up to the offset `upto`, and their keys; returns how many.

    Durable when it returns, as far as it came: it works in transactions of 5,000 entries. The room's head, and
    the id at its new floor, stay known. Members that come back from below are told.

    Raises: `StoreError`, one line, where the file is served, cannot be written or is no store of this version;
    `LocalError` for a room that is not there, or an offset that is none.
    """
    if upto < 0:
        raise LocalError(f"the offset must be 0 or more, got {upto}")
    name = os.path.realpath(path)
    if not os.path.isfile(name):
        raise StoreError(STORE_UNAVAILABLE, f"{os.fspath(path)}: no such file")
    lock = FileLock(name + ".lock")
    try:
        lock.acquire(os.fspath(path))
        known = {found.room for found in stats(path).rooms}
        if room not in known:
            raise LocalError(f"{os.fspath(path)}: no room {room!r:.140} among its {len(known)} rooms")
        return _trim(LogWriter(name, "FULL", BUSY_TIMEOUT_S, None), room, upto)
    except FileDamaged as exc:
        raise opening_error(exc, os.fspath(path)) from None
    except (sqlite3.Error, OSError) as exc:
        raise store_error(exc, os.fspath(path)) from None
    finally:
        lock.release()


def _trim(writer: LogWriter, room: str, upto: int) -> int:
    db = writer.open()
    try:
        count = 0
        while removed := writer.trim(room, upto):
            count += removed
        writer.checkpoint(BUSY_TIMEOUT_S)
        return count
    finally:
        db.close()
