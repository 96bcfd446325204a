"""Messages as they are read: in order, up to bounds, and only what was written.

They come many at once, which is what a page costs while the loop works (see `at_once`); where one of them is not sound,
or they are larger than was thought, one by one.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from vixws_core.log import message_id
from vixws_core.message import StoredMessage

from .at_once import AtOnce, as_hex
from .schema import MESSAGE_COLUMNS, content_crc, is_epoch, room_crc, row_crc, row_head

__all__ = ["INTEGER_MAX", "MessageRows", "Way"]

LOGGER = logging.getLogger("vixws.store")

DAMAGE_REPORTS_MAX: Final = 1_000
"""Damaged rows that are reported one by one; after that the log falls silent."""

INTEGER_MAX: Final = (1 << 63) - 1
"""The largest integer of SQLite."""

ROWS_AT_ONCE_MAX: Final = 512
BYTES_AT_ONCE: Final = 1 << 20
"""What one step gives at most, as it was meant: rows, and bytes of payloads where no other bound is asked for."""

_ROWS_AT_ONCE_MIN: Final = 8
_ROW_BYTES: Final = 2_048
"""What a row has beside its payload, as JSON, at most; but for texts that are mostly of signs JSON writes longer."""

_ROOM: Final = "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, head, crc FROM ws_rooms WHERE room = ?"

_Row = tuple[int, str, str, str, str, str, str, int, str | None, str | None, str, str | None, int]
_ROWS: Final = msgspec.json.Decoder(list[_Row])
_JSON_COLUMNS: Final = [as_hex(name) if name == "digest" else name for name in MESSAGE_COLUMNS.split(", ")]


class Way:
    """A way through the messages: a condition on a room's offsets, or with `by_id` on all ids, with an order.

    `low` and `high` are the places of its bounds among the values, both exclusive; the first value of a room's is its
    name. What an index leads to is not believed: another room's message, or one out of order, is left out.
    """

    __slots__ = ("at_once", "by_id", "down", "high", "low", "one_by_one")

    def __init__(
        self, where: str, low: int | None = None, high: int | None = None, down: bool = False, by_id: bool = False
    ) -> None:
        self.low: Final = low
        self.high: Final = high
        self.down: Final = down
        self.by_id: Final = by_id
        self.one_by_one: Final = f"SELECT {MESSAGE_COLUMNS} FROM ws_messages WHERE {where}"
        self.at_once: Final = AtOnce(_JSON_COLUMNS, f"({self.one_by_one} LIMIT ?)", _ROWS)


class _Place:
    """Where one has come on a way: between its bounds, of which one moves."""

    __slots__ = ("_high", "_low", "_room", "values", "way")

    def __init__(self, way: Way, values: Sequence[Any]) -> None:
        self.way: Final = way
        self.values: Final = list(values)
        self._room = None if way.by_id else values[0]
        self._low: int = -1 if way.low is None else values[way.low]
        self._high: int = INTEGER_MAX if way.high is None else values[way.high]

    def takes(self, id: int, room: str, off: int) -> bool:
        """Whether a message comes next on this way; then it is behind it."""
        number = id if self.way.by_id else off
        if not self._low < number < self._high or (self._room is not None and room != self._room):
            return False
        if self.way.down:
            self._high = number
        else:
            self._low = number
        return True

    def keep(self) -> None:
        """The next rows are asked for from here on."""
        at = self.way.high if self.way.down else self.way.low
        assert at is not None
        self.values[at] = self._high if self.way.down else self._low


class _Bounds(NamedTuple):
    """How many more; `begun`: not the first, which comes whatever its size."""

    rows: int
    size: int | None
    begun: bool

    @property
    def at_once(self) -> int:
        """Bytes of payloads that one step is to give."""
        return BYTES_AT_ONCE if self.size is None else min(self.size, BYTES_AT_ONCE)


class MessageRows:
    """Reads messages through one connection, whose texts come as bytes. Belongs to the connection's thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reported: set[int] = set()
        self._usual = 256
        """Bytes of a payload, as was last seen."""

    def use(self, db: sqlite3.Connection) -> None:
        """The connection from here on."""
        self._db = db

    def fetch(
        self, way: Way, values: Sequence[Any], rows_max: int, bytes_max: int | None, epochs: dict[str, str]
    ) -> list[StoredMessage]:
        """Sound rows up to both bounds, at least one where one exists. Stops reading at the bounds, or soon after.

        A message is of its room's epoch, whatever that was when it was written; `epochs` has those that are known.
        Raises: `sqlite3.Error`.
        """
        rows: list[StoredMessage] = []
        place = _Place(way, values)
        size = 0
        while len(rows) < rows_max:
            left = _Bounds(rows_max - len(rows), None if bytes_max is None else bytes_max - size, bool(rows))
            count = self._count(left)
            part = self._many(place, count, left, epochs)
            if part is None:
                return rows + self._one_by_one(_Place(way, place.values), left, epochs)
            for row in part:
                size += len(row.payload_json)
                if rows and bytes_max is not None and size > bytes_max:
                    return rows
                rows.append(row)
            if len(part) < count:
                break
            place.keep()
        return rows

    def _count(self, left: _Bounds) -> int:
        """How many rows to ask for, by what they usually have."""
        return min(left.rows, ROWS_AT_ONCE_MAX, max(_ROWS_AT_ONCE_MIN, left.at_once // self._usual))

    def _many(self, place: _Place, count: int, left: _Bounds, epochs: dict[str, str]) -> list[StoredMessage] | None:
        """The next rows; None where one of them is not sound, or they are far larger than what is left to read."""
        db = self._db
        rows: list[StoredMessage] = []
        before = db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 3 * left.at_once + count * _ROW_BYTES)
        try:
            found = place.way.at_once.fetch(db, (*place.values, count))
        except (sqlite3.Error, msgspec.MsgspecError, UnicodeError):
            self._usual = min(2 * self._usual, BYTES_AT_ONCE)  # It may have been too much.
            return None
        finally:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)
        size = 0
        for id, kind, room, type, ts, text, ep, off, mid, digest, scope, sender, crc in found:
            payload = text.encode()
            head = row_head(id, off, ep, kind, room, type, ts, scope, mid, sender)
            is_sound = row_crc(head, bytes.fromhex(digest) if digest else None, payload) == crc
            if not is_sound or not place.takes(id, room, off):
                return None
            if (current := epochs.get(room)) is None:
                current = epochs[room] = self._epoch_of(room) or ep
            size += len(payload)
            rows.append(StoredMessage(message_id(id), kind, room, type, ts, payload, current, off, mid, sender))
        if rows:
            self._usual = max(1, size // len(rows))
        return rows

    def _one_by_one(self, place: _Place, left: _Bounds, epochs: dict[str, str]) -> list[StoredMessage]:
        rows: list[StoredMessage] = []
        size = 0
        cursor = self._db.execute(place.way.one_by_one, place.values)
        try:
            for found in cursor:
                row = self._sound(found)
                if row is None or not place.takes(int(row.id), row.room, row.off):
                    self._report(found)
                    continue
                if row.room not in epochs:
                    epochs[row.room] = self._epoch_of(row.room) or row.ep
                if row.ep != epochs[row.room]:
                    row = msgspec.structs.replace(row, ep=epochs[row.room])
                size += len(row.payload_json)
                if (rows or left.begun) and left.size is not None and size > left.size:
                    break
                rows.append(row)
                if len(rows) >= left.rows:
                    break
        finally:
            cursor.close()
        return rows

    def _sound(self, found: tuple[Any, ...]) -> StoredMessage | None:
        """The row as a record, or None where it is not what was written."""
        if content_crc(found) == found[12]:
            id, kind, room, type, ts, payload, ep, off, mid, _, _, sender, _ = found
            try:
                return StoredMessage(
                    message_id(id),
                    kind.decode(),
                    room.decode(),
                    type.decode(),
                    ts.decode(),
                    payload,
                    ep.decode(),
                    off,
                    None if mid is None else mid.decode(),
                    None if sender is None else sender.decode(),
                )
            except UnicodeDecodeError:
                pass
        return None

    def _report(self, found: tuple[Any, ...]) -> None:
        id = found[0]
        if id not in self._reported and len(self._reported) < DAMAGE_REPORTS_MAX:
            self._reported.add(id)
            LOGGER.error("damaged row left out: file=%r id=%s off=%s room=%r", self._path, id, found[7], found[2])

    def _epoch_of(self, room: str) -> str | None:
        """The epoch of a room; None where the room's row is not what was written."""
        found = self._db.execute(_ROOM, (room,)).fetchone()
        if found is None or room_crc(*found[:5]) != found[5] or not is_epoch(found[1]):
            return None
        return str(found[1].decode())
