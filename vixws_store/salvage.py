"""What can be read of a damaged file, and what is certain of it.

Messages are read from their table alone, by their ids, around pages that cannot be read; a message counts where its
checksum is right. Rooms count where theirs is; other rooms are made anew from their messages.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

from .sqlite.counter import is_id, sequences
from .sqlite.damage import FileDamaged
from .sqlite.producers import ProducerRow, read_producers
from .sqlite.schema import (
    MESSAGE_BYTES,
    MESSAGE_COLUMNS,
    SCHEMA_VERSION,
    content_crc,
    is_epoch,
    is_floor,
    room_crc,
    schema_version,
    store_epoch,
)

__all__ = ["OldFile", "RoomRow"]

STARTS_MAX: Final = 100_000
"""Places at which reading is begun again; a page that cannot be read costs as many as it has messages."""

DAMAGED_MAX: Final = 1_000_000
"""Damaged messages whose places are kept."""

UNREAD_TOLD_MAX: Final = 20
"""Lines about what could not be read."""

_ROWS: Final = f"SELECT {MESSAGE_BYTES} FROM ws_messages m NOT INDEXED WHERE m.id >= ? ORDER BY m.id LIMIT ?"

_ROOMS: Final = (
    "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, head, crc FROM ws_rooms ORDER BY room ASC",
    "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, head, crc FROM ws_rooms ORDER BY room DESC",
)
_OLD_ROOMS: Final = (
    "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, 0, 0 FROM ws_rooms ORDER BY room ASC",
    "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, 0, 0 FROM ws_rooms ORDER BY room DESC",
)
_IDS: Final = (
    "SELECT id FROM ws_messages INDEXED BY ws_messages_offset ORDER BY room ASC, off ASC",
    "SELECT id FROM ws_messages INDEXED BY ws_messages_offset ORDER BY room DESC, off DESC",
)

RoomRow = tuple[bytes, int, int, int]
"""Epoch, floor, the id at the floor, and the head when it was last written down."""


class OldFile:
    """One damaged file, open and only read. What could not be read is told in `unread`, one line each.

    Raises: `FileDamaged` where it has no table of messages.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.unread: list[str] = []
        self.damaged_rows: list[tuple[Any, ...]] = []
        """Room and offset, as they stand there, of messages whose checksum is wrong."""
        self.doubtful_rooms: set[bytes] = set()
        """Names in `ws_rooms` whose row is not what was written."""
        self._db = db
        db.text_factory = bytes
        if not self._columns("ws_messages") >= set(MESSAGE_COLUMNS.split(", ")):
            raise FileDamaged("expected a table ws_messages that can be read, found none; restore a backup")

    def is_newer(self) -> bool:
        """Whether a later version of this program wrote it."""
        try:
            return self.epoch() is not None and (schema_version(self._db) or 0) > SCHEMA_VERSION
        except (sqlite3.Error, FileDamaged):
            return False

    def _columns(self, table: str) -> set[str]:
        return {
            name.decode("latin-1") for (name,) in self._db.execute("SELECT name FROM pragma_table_info(?)", (table,))
        }

    def epoch(self) -> str | None:
        """The file's epoch; None where it is not certain."""
        try:
            return store_epoch(self._db)
        except (sqlite3.Error, FileDamaged):
            return None

    def sequence(self) -> int:
        """What is certain of the counter of ids."""
        try:
            return max(filter(is_id, sequences(self._db)), default=0)
        except sqlite3.Error:
            return 0

    def rooms(self) -> dict[bytes, RoomRow]:
        """The rooms whose rows are certain."""
        is_new = "crc" in self._columns("ws_rooms")
        found: dict[bytes, RoomRow] = {}
        for statement in _ROOMS if is_new else _OLD_ROOMS:  # From both ends, up to what cannot be read.
            try:
                for room, ep, floor, floor_id, head, crc in self._db.execute(statement):
                    is_right = room_crc(room, ep, floor, floor_id, head) == crc if is_new else is_floor(floor, floor_id)
                    if is_right and is_epoch(ep) and isinstance(room, bytes):
                        found[room] = (ep, floor, floor_id, max(floor, head))
                    else:
                        self.doubtful_rooms.add(room if isinstance(room, bytes) else b"?")
            except sqlite3.Error as exc:
                self._tell(f"rooms: {exc}")
                continue
            break
        return found

    def producers(self) -> list[ProducerRow]:
        """What it knows of ordered producers, as far as it can be read; none in a file of an earlier version."""
        if not self._columns("ws_producers"):
            return []
        found: list[ProducerRow] = []
        try:
            found += read_producers(self._db)
        except sqlite3.Error as exc:
            self._tell(f"producers: {exc}")
        return found

    def lost(self) -> dict[tuple[bytes, int], int]:
        """What earlier repairs wrote down as lost: the last offset by room and first one."""
        try:
            rows = self._db.execute("SELECT CAST(room AS BLOB), first, last FROM ws_lost").fetchall()
        except sqlite3.Error:
            return {}
        return {(room, first): last for room, first, last in rows if type(first) is type(last) is int and first <= last}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The messages whose checksum is right, by rising ids, texts as bytes."""
        ids: array[int] | None = None
        low, begun_at, starts = 1, 0, 0
        while True:
            try:
                for row in self._db.execute(_ROWS, (low, -1)):
                    low = _after(row, low)
                    yield from self._sound(row)
                return
            except sqlite3.DatabaseError as exc:
                failure = exc
            try:  # The cursor reads one row ahead, and so the one before the page that cannot be read is not shown.
                if (row := self._db.execute(_ROWS, (low, 1)).fetchone()) is not None:
                    low = _after(row, low)
                    yield from self._sound(row)
                    continue
            except sqlite3.DatabaseError as exc:
                failure = exc
            ids = self._ids() if ids is None else ids
            at = bisect_left(ids, low + 1 if low == begun_at else low)
            if low != begun_at:
                self._tell(f"messages from the id {low} on: {failure}")
            starts += 1
            if at == len(ids) or starts > STARTS_MAX:
                self._tell(f"messages from the id {low} to the last one: {failure}")
                return
            low = begun_at = ids[at]

    def _sound(self, row: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if content_crc(row) == row[12]:
            yield row
        elif len(self.damaged_rows) < DAMAGED_MAX:
            self.damaged_rows.append((row[2], row[7]))

    def _ids(self) -> array[int]:
        """The ids that the index knows of, sorted: where else reading of messages can begin."""
        found = array("q")
        for statement in _IDS:  # From both ends, up to what cannot be read.
            try:
                for (id,) in self._db.execute(statement):
                    found.append(id)
            except sqlite3.Error:  # It is made anew; what it cannot tell is told as messages that could not be read.
                continue
            break
        return array("q", sorted(found))

    def _tell(self, line: str) -> None:
        if len(self.unread) < UNREAD_TOLD_MAX:
            self.unread.append(line)


def _after(row: tuple[Any, ...], low: int) -> int:
    """The id after a row's. Raises: `sqlite3.DatabaseError` where the tree leads backwards."""
    if row[0] < low:
        raise sqlite3.DatabaseError("the ids do not rise")
    return int(row[0]) + 1
