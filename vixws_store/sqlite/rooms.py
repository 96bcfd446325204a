"""Where rooms stand: their rows, their newest messages, and whether the two agree.

For any connection, whatever it makes of texts: all texts come as bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, NamedTuple, TypeAlias

from .at_once import Rows
from .chunks import CHUNKS, chunks
from .damage import RoomDamaged
from .schema import MESSAGE_BYTES, content_crc, is_epoch, room_count, room_crc

__all__ = [
    "WRONG_ROW",
    "Census",
    "Place",
    "RoomState",
    "count_rooms",
    "find_id",
    "find_ids",
    "find_rooms",
    "find_state",
    "newest_id",
    "put_head",
    "raise_floor",
]

NEWEST_ROWS_MAX = 1_000
"""Rows looked at for one whose checksum is right."""


NO_ROW = "it has messages and no row in ws_rooms"
WRONG_ROW = "its row in ws_rooms is not what was written (checksum)"


class RoomState(NamedTuple):
    """One room that was found sound: `floor` is the highest trimmed offset, `floor_id` its id, `head_id` the newest
    entry's (0: not known)."""

    ep: str
    floor: int
    floor_id: int
    head: int
    head_id: int


_STATES = {
    count: Rows(
        (
            *("CAST(r.room AS BLOB)", "CAST(r.ep AS BLOB)", "r.floor", "r.floor_id", "r.head", "r.crc"),
            *("(SELECT max(off) FROM ws_messages WHERE room = r.room)", "t.id", "CAST(t.room AS BLOB)", "t.off"),
        ),
        "ws_rooms r LEFT JOIN ws_messages t"
        " ON t.id = (SELECT id FROM ws_messages WHERE room = r.room ORDER BY off DESC LIMIT 1)"
        f" WHERE r.room IN ({', '.join('?' * count)})",
        bytes=(0, 1, 8),
    )
    for count in CHUNKS
}
"""The newest offset comes from the index, the row that it leads to from the table."""

_HAS_ROWS = {
    count: Rows(
        ("r.room",),
        "(SELECT DISTINCT CAST(room AS BLOB) AS room FROM ws_messages INDEXED BY ws_messages_offset"
        f" WHERE room IN ({', '.join('?' * count)})) r",
        bytes=(0,),
    )
    for count in CHUNKS
}
_IDS = {
    count: Rows(
        ("k.column1", "k.column2", "i.id", "CAST(t.room AS BLOB)", "t.off"),
        f"(VALUES {', '.join(['(?, ?)'] * count)}) k"
        " CROSS JOIN ws_messages i INDEXED BY ws_messages_offset ON i.room = k.column1 AND i.off = k.column2"
        " LEFT JOIN ws_messages t ON t.id = i.id",
        bytes=(3,),
    )
    for count in CHUNKS
}


class Census(NamedTuple):
    """All rows of `ws_rooms`: the names of those that are not what was written, how many are missing (below 0: too
    many; None: not to be known), and the highest id that a sound one was trimmed up to."""

    damaged: tuple[bytes, ...]
    missing: int | None
    floor_id: int


def count_rooms(db: sqlite3.Connection) -> Census:
    """Looks at every room's row, some 2 µs each. Raises: `sqlite3.Error`."""
    damaged: list[bytes] = []
    count = highest = 0
    before, in_order = b"", True
    for room, ep, floor, floor_id, head, crc, is_text in db.execute(
        "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, head, crc, typeof(room) = 'text' FROM ws_rooms"
    ):
        count += 1
        if count > 1 and not (isinstance(room, bytes) and before < room):
            in_order = False  # One stands there twice, another one not at all; or neither is found where it is.
        before = room if isinstance(room, bytes) else before
        if room_crc(room, ep, floor, floor_id, head) != crc or not is_text:
            damaged.append(room if isinstance(room, bytes) else b"")
        elif floor_id > highest:
            highest = floor_id
    expected = room_count(db)
    return Census(tuple(damaged), expected - count if expected is not None and in_order else None, highest)


def find_rooms(db: sqlite3.Connection, rooms: Collection[str]) -> dict[str, RoomState | RoomDamaged]:
    """How the given rooms stand; one that neither has, nor had, a message is left out.

    Raises: `sqlite3.Error`; `UnicodeEncodeError` for a name that UTF-8 cannot hold.
    """
    names = {room.encode(): room for room in rooms}
    found: dict[str, RoomState | RoomDamaged] = {}
    for part in chunks(list(rooms), 1):
        for name, *row in _STATES[len(part)].fetch(db, part):
            if (room := names.get(name)) is not None:
                state = _judge(db, name, *row)
                found[room] = state if isinstance(state, RoomState) else RoomDamaged(room, state)
    rest = [room for room in rooms if room not in found]
    for part in chunks(rest, 1):
        for (name,) in _HAS_ROWS[len(part)].fetch(db, part):
            if (room := names.get(name)) is not None:
                found[room] = RoomDamaged(room, NO_ROW)
    return found


def find_state(db: sqlite3.Connection, room: str) -> RoomState | None:
    """How one room stands; None where it has no messages.

    Raises: `RoomDamaged`, `sqlite3.Error`.
    """
    state = find_rooms(db, (room,)).get(room)
    if isinstance(state, RoomDamaged):
        raise state
    return state


Place: TypeAlias = tuple[str, int]
"""A room, and an offset in it."""


def find_ids(db: sqlite3.Connection, places: Collection[Place]) -> dict[Place, int | RoomDamaged]:
    """The ids of the entries at offsets; a place that has none is left out.

    Raises: `sqlite3.Error`.
    """
    found: dict[Place, int | RoomDamaged] = {}
    for part in chunks([value for place in places for value in place], 2):
        for room, off, id, name, its_off in _IDS[len(part) // 2].fetch(db, part):
            if type(id) is int and (name, its_off) == (room.encode(), off):
                found[room, off] = id
            else:
                found[room, off] = RoomDamaged(room, f"the index leads from offset {off} to another message")
    return found


def find_id(db: sqlite3.Connection, room: str, off: int) -> int | None:
    """The id of the entry at an offset; None where there is none.

    Raises: `RoomDamaged` where the index leads to another row; `sqlite3.Error`.
    """
    id = find_ids(db, ((room, off),)).get((room, off))
    if isinstance(id, RoomDamaged):
        raise id
    return id


def raise_floor(db: sqlite3.Connection, room: str, state: RoomState, upto: int) -> None:
    """Writes down that a room is trimmed up to an offset, at most its head; its rows are to be removed after that."""
    put_room(db, room, state._replace(floor=upto, floor_id=find_id(db, room, upto) or 0))


def put_head(db: sqlite3.Connection, room: str) -> None:
    """Writes down where a room ends, so that it is known when its newest entries are lost.

    Raises: `RoomDamaged`, `sqlite3.Error`.
    """
    state = find_state(db, room)
    if state is not None:
        put_room(db, room, state)


def put_room(db: sqlite3.Connection, room: str, state: RoomState) -> None:
    """Writes how a room stands, with its checksum. Whoever changes a row of `ws_rooms` does it by this."""
    crc = room_crc(room.encode(), state.ep.encode(), state.floor, state.floor_id, state.head)
    db.execute(
        "UPDATE ws_rooms SET ep = ?, floor = ?, floor_id = ?, head = ?, crc = ? WHERE room = ?",
        (state.ep, state.floor, state.floor_id, state.head, crc, room),
    )


def newest_id(db: sqlite3.Connection) -> int | None:
    """The highest id of a row whose checksum is right, 0 without rows; None where none of the newest ones' is.

    Raises: `sqlite3.Error`.
    """
    last = 0
    newest = f"SELECT {MESSAGE_BYTES} FROM ws_messages m ORDER BY m.id DESC LIMIT ?"
    cursor = db.execute(newest, (NEWEST_ROWS_MAX,))
    try:
        for row in cursor:
            if content_crc(row) == row[12]:
                return int(row[0])
            last += 1
    finally:
        cursor.close()
    return None if last else 0


def _judge(
    db: sqlite3.Connection,
    room: bytes,
    ep: Any,
    floor: Any,
    floor_id: Any,
    noted: Any,
    crc: Any,
    newest: Any,
    id: Any,
    its_room: Any,
    its_off: Any,
) -> RoomState | str:
    """The state of a room, or what is wrong with it. `noted` is where it ended when that was last written down."""
    if room_crc(room, ep, floor, floor_id, noted) != crc or not is_epoch(ep):
        return WRONG_ROW
    head, head_id = floor, floor_id
    if newest is not None:
        if type(newest) is not int or newest <= floor or (its_room, its_off) != (room, newest):
            return f"its newest offset is {newest!r:.40} in the index, and {its_off!r:.40} in the message it leads to"
        head, head_id = newest, id
    if head < noted:
        lost = db.execute("SELECT last FROM ws_lost WHERE room = CAST(? AS TEXT) AND first = ?", (room, head + 1))
        if lost.fetchone() != (noted,):
            return f"it ends at offset {head}, where {noted} was expected"
        head, head_id = noted, 0
    return RoomState(ep.decode(), floor, floor_id, head, head_id)
