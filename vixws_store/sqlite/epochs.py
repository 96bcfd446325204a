"""Epochs of rooms: what a start finds beside the log decides whether they go on, and who gives them new ones."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from contextlib import suppress
from typing import Any, Final

from .damage import FileDamaged, RoomDamaged
from .mark import Mark, Marked, is_complete, mark_of, read_mark, sync_log
from .rooms import WRONG_ROW, RoomState, put_room
from .schema import put_epoch, room_crc

__all__ = ["last_id_of", "open_mark", "renew_all", "renew_room", "settle_mark"]

LOGGER = logging.getLogger("vixws.store")

UNKNOWN_IDS: Final = 1 << 31
"""How far ids move on where a mark is damaged or gone: more than were ever given between two of its writes."""

_ROOMS: Final = "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, head, crc FROM ws_rooms"

_MARKED: Final = "mark"
"""The row of `ws_meta` that says that there is a mark beside the file."""


def open_mark(db: sqlite3.Connection, path: str, synchronous: str, before: Mark | None) -> Mark | None:
    """Judges the mark beside a database that was just opened, and begins the one of this run; None with `FULL`.

    Where messages may be lost that somebody was told of, all rooms have a new epoch afterwards; in any case the ids
    that may have been given out are behind `last_id_of`. Both are synced. `before` is the mark of an earlier opening.

    Raises: `sqlite3.Error`, `OSError`; `StoreError` where something that is no file has the mark's name.
    """
    if before is not None:
        before.close()
    found = read_mark(path)
    marked = db.execute("SELECT 1 FROM ws_meta WHERE key = ?", (_MARKED,)).fetchone() is not None
    if found is None and marked:
        found = Marked()  # It was there.
    if found is not None:
        _judge(db, found, path)
    wanted = synchronous != "FULL"
    mark = Mark.begin(path, found, last_id_of(db)) if wanted else None
    try:
        if marked != wanted:
            _say(db, wanted)
        if found is not None and not wanted:
            db.execute("PRAGMA synchronous = FULL")
            sync_log(path)  # What the run before left to the kernel; from now on each commit syncs itself.
            with suppress(FileNotFoundError):
                os.unlink(mark_of(path))
        db.execute(f"PRAGMA synchronous = {synchronous}")  # One of two words, checked by the store.
    except BaseException:
        if mark is not None:
            mark.close()
        raise
    return mark


def settle_mark(db: sqlite3.Connection, mark: Mark, path: str) -> None:
    """The end of a run: what is in the log is synced, and the mark says that this is all.

    Raises: `sqlite3.Error`, `OSError`; then the next start cannot know it.
    """
    sync_log(path)
    mark.finish(last_id_of(db))


def last_id_of(db: sqlite3.Connection) -> int:
    """The highest id that was given to a message, or may have been; 0 for none.

    Raises: `FileDamaged` where the counter is not what was written, `sqlite3.Error`.
    """
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ws_messages'").fetchone()
    if found is None:
        return 0
    if type(found[0]) is not int:
        raise FileDamaged(f"expected the counter of ids, found {found[0]!r:.80}")
    return found[0]


def renew_all(db: sqlite3.Connection) -> str:
    """Gives all rooms, those that are to come too, one new epoch; returns it. Inside a transaction.

    The messages stay where they are, and belong to it. The work is one row for each room; one that is not what was
    written stays as it is.
    """
    epoch = _new_epoch(db)
    put_epoch(db, epoch)
    for row in db.execute(_ROOMS).fetchall():
        _put(db, row, epoch)
    return epoch


def renew_room(db: sqlite3.Connection, room: str) -> str | None:
    """Gives one room a new epoch; returns it, or None where there is no such room. Inside a transaction.

    Raises: `RoomDamaged` where its row is not what was written.
    """
    row = db.execute(f"{_ROOMS} WHERE room = ?", (room,)).fetchone()
    if row is None:
        return None
    epoch = _new_epoch(db)
    if not _put(db, row, epoch):
        raise RoomDamaged(room, WRONG_ROW)
    return epoch


def _put(db: sqlite3.Connection, row: tuple[Any, ...], epoch: str) -> bool:
    """Writes a room's epoch, with its checksum, where the one before was right."""
    room, ep, floor, floor_id, head, crc = row
    if room_crc(room, ep, floor, floor_id, head) != crc:
        return False
    put_room(db, room.decode(), RoomState(epoch, floor, floor_id, head, 0))
    return True


def _new_epoch(db: sqlite3.Connection) -> str:
    while True:
        epoch = secrets.token_hex(4)
        known = db.execute(
            "SELECT 1 FROM ws_meta WHERE value = ?1 UNION ALL SELECT 1 FROM ws_rooms WHERE ep = ?1", (epoch,)
        )
        if known.fetchone() is None:
            return epoch


def _judge(db: sqlite3.Connection, found: Marked, path: str) -> None:
    """Moves the ids on beyond a mark, and renews the epochs where the log may lack something."""
    last_id = last_id_of(db)
    complete = is_complete(found, last_id, path)
    if complete and found.limit is not None and found.limit <= last_id:
        return
    limit = last_id + UNKNOWN_IDS if found.limit is None else max(found.limit, last_id)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    try:
        epoch = "" if complete else renew_all(db)
        if not db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'ws_messages'", (limit,)).rowcount:
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('ws_messages', ?)", (limit,))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    if not complete:
        why = "its mark is damaged or gone" if found.limit is None else f"ids up to {found.limit} may have been given"
        LOGGER.warning(
            "messages may be lost that were told, all rooms have a new epoch: file=%r ends at id %d, %s, epoch=%s",
            path,
            last_id,
            why,
            epoch,
        )


def _say(db: sqlite3.Connection, marked: bool) -> None:
    """Notes in the file that there is a mark beside it, or that there is none any more. Synced."""
    db.execute("PRAGMA synchronous = FULL")
    if marked:
        db.execute("INSERT INTO ws_meta (key, value) VALUES (?, '1')", (_MARKED,))
    else:
        db.execute("DELETE FROM ws_meta WHERE key = ?", (_MARKED,))
