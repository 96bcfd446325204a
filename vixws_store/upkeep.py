"""Changing a SQLite store's file while no server has it: what `vixws store trim|redact|rotate-epoch` do.

Plain functions that block. They take the store's lock, so that they and a server never meet.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import LocalError, StoreError
from vixws_core.log import Redacted

from . import maintain
from .inspect import RoomStats, stats
from .sqlite.epochs import renew_all, renew_room
from .sqlite.failures import store_error
from .sqlite.lock import FileLock
from .sqlite.redacting import purge
from .sqlite.redacting import redact as redact_row
from .sqlite.writer import LogWriter

__all__ = ["redact", "rotate_epoch", "trim_before", "trim_to"]

BUSY_TIMEOUT_S = 5.0
"""How long other programs, such as the `sqlite3` shell, are waited for."""


def trim_before(path: str | os.PathLike[str], room: str, off: int) -> int:
    """Forgets the entries of `room` before the offset `off`; returns how many. Raises: as `maintain.trim`."""
    return maintain.trim(path, room, max(0, off - 1))


def trim_to(path: str | os.PathLike[str], room: str, keep: int) -> int:
    """Forgets all entries of `room` but the newest `keep`; returns how many. Raises: as `maintain.trim`."""
    if keep < 0:
        raise LocalError(f"the count must be 0 or more, got {keep}")
    return maintain.trim(path, room, max(0, _room(path, room).head - keep))


def redact(path: str | os.PathLike[str], room: str, off: int) -> Redacted:
    """Replaces the payload of the entry at `off` by `{"$redacted":true}`, for ever; may be repeated.

    Durable when it returns, and the old bytes are neither in the file nor in its write-ahead log.

    Raises: `StoreError`, one line, where the file is served, cannot be written or is no store of this version, and
    where another program reads it all the time, so that the bytes are in the log still; `LocalError` where there is
    no such room or entry.
    """
    _room(path, room)
    with _writing(path) as writer:
        found = redact_row(writer, room, off)
        if found is None:
            raise LocalError(f"{os.fspath(path)}: no entry at offset {off} of the room {room!r:.140}")
        if not purge(writer, BUSY_TIMEOUT_S):
            message = "redacted, but another program reads the file and so keeps the old bytes in its write-ahead log"
            raise StoreError(
                STORE_UNAVAILABLE, f"{os.fspath(path)}: {message}: once more when it has ended", retry=True
            )
    return found


def rotate_epoch(path: str | os.PathLike[str], room: str | None = None) -> str:
    """Gives a room, or with None all rooms and those to come, a new epoch; returns it.

    Messages, offsets and ids stay. Members that come back with a position of the old epoch are told
    `recovered: false` with the reason `epoch`, as is right after rows were changed by hand.

    Raises: as `redact`.
    """
    if room is not None:
        _room(path, room)
    with _writing(path) as writer:
        if room is None:
            return writer.change("FULL", renew_all)
        epoch = writer.change("FULL", renew_room, room)
        assert epoch is not None
        return epoch


def _room(path: str | os.PathLike[str], room: str) -> RoomStats:
    rooms = stats(path).rooms
    for found in rooms:
        if found.room == room:
            return found
    raise LocalError(f"{os.fspath(path)}: no room {room!r:.140} among its {len(rooms)} rooms")


@contextmanager
def _writing(path: str | os.PathLike[str]) -> Generator[LogWriter]:
    """The file, locked and open; at the end its write-ahead log is emptied as far as others let it."""
    shown, name = os.fspath(path), os.path.realpath(path)
    stats(path)  # What is no store is left alone.
    lock = FileLock(name + ".lock")
    try:
        lock.acquire(shown)
        writer = LogWriter(name, "FULL", BUSY_TIMEOUT_S, None)
        db = writer.open()
        try:
            yield writer
            writer.checkpoint(BUSY_TIMEOUT_S)
        finally:
            db.close()
    except (sqlite3.Error, OSError) as exc:
        raise store_error(exc, shown) from None
    finally:
        lock.release()
