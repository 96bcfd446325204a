"""Trimming in slices: each is one short transaction, in which the rows go and the floor moves.

Functions over an open connection, whatever it makes of texts; those that change something run inside a transaction.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from .._retention import Cut, Slice, Survey
from .rooms import find_state, raise_floor

__all__ = ["copy_log", "cut_rows", "surveys", "surveys_after", "weigh"]

SLICE_BYTES: Final = 1 << 18
"""Payload bytes of one slice, at least one row: a payload is read to be weighed, and its pages are zeroed."""

LOOK_S: Final = 0.003
"""How long rows are looked for; to remove them takes about as long again."""

_ROWS: Final = (
    "SELECT off, CAST(ts AS BLOB), length(CAST(payload_json AS BLOB)) FROM ws_messages"
    " WHERE room = ? AND off > ? ORDER BY off LIMIT ?"
)
_ROOM: Final = (
    "SELECT floor, (SELECT max(off) FROM ws_messages WHERE room = ?1),"
    " (SELECT CAST(ts AS BLOB) FROM ws_messages m WHERE m.room = ?1 ORDER BY off LIMIT 1)"
    " FROM ws_rooms WHERE room = ?1"
)
_ROOMS: Final = (
    "SELECT CAST(r.room AS BLOB), r.floor, (SELECT max(off) FROM ws_messages m WHERE m.room = r.room),"
    " (SELECT CAST(ts AS BLOB) FROM ws_messages m WHERE m.room = r.room ORDER BY off LIMIT 1)"
    " FROM ws_rooms r WHERE r.room > CAST(? AS TEXT) ORDER BY r.room LIMIT ?"
)


def cut_rows(db: sqlite3.Connection, room: str, cut: Cut, rows_max: int) -> Slice:
    """Removes the oldest entries of a room that have to go, in order, at most `rows_max`; the floor moves with them.

    The id at the new floor is kept. Raises: `RoomDamaged`, `sqlite3.Error`.
    """
    state = find_state(db, room)
    if state is None:
        return Slice(0, 0, 0, False)
    until = time.monotonic() + LOOK_S
    count = size = 0
    floor = state.floor
    more = False
    for off, ts, weight in db.execute(_ROWS, (room, floor, rows_max + 1)):
        if type(off) is not int or not cut.takes(off, ts, size, state.floor, state.head):
            break
        if count and (count >= rows_max or size + weight > SLICE_BYTES or time.monotonic() > until):
            more = True
            break
        floor = off
        count += 1
        size += weight
    if not more:
        floor = max(floor, min(cut.upto, state.head))  # What is lost up to there is forgotten with the rest.
    if floor > state.floor:
        raise_floor(db, room, state, floor)
        db.execute("DELETE FROM ws_messages WHERE room = ? AND off <= ?", (room, floor))
    return Slice(count, size, floor, more)


def copy_log(reading: sqlite3.Connection, path: str) -> None:
    """Copies the write-ahead log into the file, as far as readers let it, waiting for nobody: a checkpoint of the pages
    that slices wrote takes longer than a slice, and so is not left to a commit that somebody waits for.

    In the thread of the connection that reads, which may not write: one of its own does it. To close that one copies
    nothing, for it is never the last.
    """
    # Where it fails it is left to a commit after all, which tells where the disk is at fault.
    with suppress(sqlite3.Error):
        name = f"file:{quote(os.fsencode(path))}?mode=rw"
        db = sqlite3.connect(name, timeout=0.0, isolation_level=None, uri=True)
        try:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            db.close()


def surveys(db: sqlite3.Connection, rooms: tuple[str, ...]) -> list[Survey | None]:
    """Where rooms' logs begin and end, and the times of their oldest entries; None where there is no such room."""
    found: list[Survey | None] = []
    for room in rooms:
        row: tuple[Any, ...] | None = db.execute(_ROOM, (room,)).fetchone()
        found.append(None if row is None else _survey(*row))
    return found


def surveys_after(db: sqlite3.Connection, room: bytes, limit: int) -> list[tuple[bytes, Survey]]:
    """Rooms behind `room`, in the order of their names' bytes, which damage may have changed; see `surveys`."""
    found = [(name, _survey(*row)) for name, *row in db.execute(_ROOMS, (room, limit))]
    return [(name, place or Survey(0, 0, None)) for name, place in found]


def weigh(db: sqlite3.Connection, room: str, after: int, rows_max: int) -> tuple[int, int]:
    """The offset up to which entries behind `after` were weighed, at most `rows_max`, and their payload bytes.

    The offset is `after` where there are none.
    """
    until = time.monotonic() + LOOK_S
    size = 0
    for off, _, weight in db.execute(_ROWS, (room, after, rows_max)):
        if type(off) is not int:
            break
        size += weight
        after = off
        if time.monotonic() > until:
            break
    return after, size


def _survey(floor: Any, head: Any, oldest: Any) -> Survey | None:
    """None where the numbers are none: such a room is damaged, and not to be trimmed."""
    head = floor if head is None else head
    return Survey(floor, head, oldest) if type(floor) is int and type(head) is int else None
