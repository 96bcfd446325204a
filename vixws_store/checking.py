"""Whether a store's file is sound: what SQLite finds wrong with it, and what only the store can know.

Each part looks at one thing, so that damage of one does not hide the others. Messages are read from their table,
without the indexes, which are compared with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from .sqlite.counter import is_id, sequences
from .sqlite.damage import FileDamaged, RoomDamaged
from .sqlite.producers import read_producers
from .sqlite.rooms import count_rooms, find_rooms, newest_id
from .sqlite.schema import MESSAGE_BYTES, check_tables, content_crc, is_epoch, room_crc, store_epoch

__all__ = ["FINDINGS_MAX", "Finding", "StoreCheck", "examine"]

FINDINGS_MAX: Final = 1_000
"""Findings of one check; the file is known to be damaged long before."""

_ROOMS_AT_ONCE: Final = 256


_NO_OFFSET: Final = (
    "SELECT CAST(t.room AS BLOB), t.id, t.off FROM ws_messages t NOT INDEXED WHERE NOT EXISTS"
    " (SELECT 1 FROM ws_messages i INDEXED BY ws_messages_offset"
    " WHERE i.room = t.room AND i.off = t.off AND i.id = t.id)"
)
_WRONG_OFFSET: Final = (
    "SELECT CAST(i.room AS BLOB), i.id FROM ws_messages i INDEXED BY ws_messages_offset WHERE NOT EXISTS"
    " (SELECT 1 FROM ws_messages t NOT INDEXED WHERE t.id = i.id AND i.room = t.room AND i.off = t.off)"
)
_NO_KEY: Final = (
    "SELECT CAST(t.room AS BLOB), t.id, t.off FROM ws_messages t NOT INDEXED WHERE t.mid IS NOT NULL AND NOT EXISTS"
    " (SELECT 1 FROM ws_messages i INDEXED BY ws_messages_key"
    " WHERE i.mid IS NOT NULL AND i.room = t.room AND i.scope = t.scope AND i.mid = t.mid AND i.id = t.id)"
)
_WRONG_KEY: Final = (
    "SELECT CAST(i.room AS BLOB), i.id FROM ws_messages i INDEXED BY ws_messages_key"
    " WHERE i.mid IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ws_messages t NOT INDEXED"
    " WHERE t.id = i.id AND i.room = t.room AND i.scope = t.scope AND i.mid = t.mid)"
)


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong; `room`, `id` and `off` where it has a place."""

    message: str
    room: str | None = None
    id: int | None = None
    off: int | None = None


class StoreCheck(msgspec.Struct, frozen=True):
    """The result of a check: how many rows were looked at, and what is wrong with them (at most 1,000).

    `lost` counts the entries that an earlier repair could not bring back, and that members are told of.
    """

    rows: int
    findings: tuple[Finding, ...]
    lost: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def examine(db: sqlite3.Connection) -> StoreCheck:
    """Looks at everything in a file, in one snapshot. Leaves the connection with `bytes` for texts."""
    db.text_factory = bytes
    db.execute("BEGIN")
    examiner = _Examiner(db)
    findings: list[Finding] = []
    parts: tuple[Callable[[], Iterator[Finding]], ...] = (
        examiner.pages,
        examiner.tables,
        examiner.rooms,
        examiner.lost,
        examiner.rows,
        examiner.keys,
        examiner.indexes,
        examiner.places,
        examiner.producers,
        examiner.counter,
    )
    for part in parts:
        try:
            for found in part():
                if len(findings) < FINDINGS_MAX and found not in findings[-20:]:
                    findings.append(found)
        except sqlite3.Error as exc:
            findings.append(Finding(f"sqlite: {exc}"))
        except FileDamaged as exc:
            findings.append(Finding(str(exc)))
    return StoreCheck(examiner.count, tuple(findings[:FINDINGS_MAX]), examiner.entries_lost)


class _Examiner:
    """The parts of one check, which hand on what they learned of rooms."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.count: int = 0
        self.entries_lost: int = 0
        self._db = db
        self._rooms: dict[bytes, tuple[int, int, int]] = {}
        """Floor, its id and the head, as they were last written down, of rooms whose row is sound."""
        self._lost: dict[tuple[bytes, int], int] = {}
        self._names: set[bytes] = set()

    def pages(self) -> Iterator[Finding]:
        """SQLite's own check of pages, trees, indexes and constraints."""
        for (line,) in self._db.execute(f"PRAGMA integrity_check({FINDINGS_MAX})"):
            if line != b"ok":
                yield Finding(f"sqlite: {_text(line)}")

    def tables(self) -> Iterator[Finding]:
        """The tables and indexes themselves, and the values of the whole file."""
        check_tables(self._db)
        store_epoch(self._db)
        yield from ()

    def rooms(self) -> Iterator[Finding]:
        """Every room's row."""
        missing = count_rooms(self._db).missing
        if missing != 0:
            many = "how many is not known" if missing is None else missing
            yield Finding(f"rooms are missing of those that were written down: {many}")
        for room, ep, floor, floor_id, head, crc in self._db.execute(
            "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id, head, crc FROM ws_rooms"
        ):
            name = room if isinstance(room, bytes) else b"?"
            self._names.add(name)
            if room_crc(room, ep, floor, floor_id, head) != crc or not is_epoch(ep):
                yield Finding("the room's row in ws_rooms is not what was written (checksum)", _text(name))
            else:
                self._rooms[name] = (floor, floor_id, head)

    def lost(self) -> Iterator[Finding]:
        """What earlier repairs wrote down as lost; whether it is, the rows tell."""
        for room, first, last in self._db.execute("SELECT CAST(room AS BLOB), first, last FROM ws_lost"):
            if not (type(first) is type(last) is int and 0 < first <= last):
                yield Finding(f"ws_lost holds {first!r:.40} to {last!r:.40}, expected two offsets", _text(room))
            elif room not in self._rooms or last > self._rooms[room][0]:  # What was trimmed since is of no interest.
                self._lost[room, first] = last

    def rows(self) -> Iterator[Finding]:
        """Every message: its checksum, and that offsets and ids of a room rise together without a hole."""
        last: dict[bytes, int] = {}
        for row in self._db.execute(f"SELECT {MESSAGE_BYTES} FROM ws_messages m NOT INDEXED ORDER BY m.id"):
            self.count += 1
            id, off = row[0], row[7]
            room = row[2] if isinstance(row[2], bytes) else repr(row[2]).encode()
            name = _text(room)
            self._names.add(room)
            if content_crc(row) != row[12]:
                yield Finding("the row is not what was written (checksum)", name, id, off if type(off) is int else None)
            if type(off) is not int:
                continue
            floor, floor_id, _ = self._rooms.get(room, (off - 1, 0, 0))
            if room not in last and id <= floor_id:
                yield Finding(f"ids must rise with offsets: above {floor_id} was expected", name, id, off)
            expected = self._after(room, last.get(room, floor))
            if off != expected:
                yield Finding(f"offsets must be dense: {expected} was expected", name, id, off)
            last[room] = off
        for room, (floor, _, head) in self._rooms.items():
            if (end := self._after(room, last.get(room, floor)) - 1) < head:
                yield Finding(f"the room ends at offset {end}, where {head} was expected", _text(room))
        for (room, first), until in self._lost.items():
            yield Finding(f"ws_lost holds {first} to {until}, where nothing is missing", _text(room))

    def _after(self, room: bytes, off: int) -> int:
        """The offset that is to follow; what is known to be lost is left out."""
        until = self._lost.pop((room, off + 1), None)
        if until is None:
            return off + 1
        self.entries_lost += until - off
        return until + 1

    def keys(self) -> Iterator[Finding]:
        """That no message stands there twice under its key."""
        for room, mid, count, id in self._db.execute(
            "SELECT CAST(room AS BLOB), CAST(mid AS BLOB), count(*), max(id) FROM ws_messages NOT INDEXED"
            " WHERE mid IS NOT NULL GROUP BY room, scope, mid HAVING count(*) > 1"
        ):
            yield Finding(f"the mid {_text(mid)} is stored {count} times", _text(room), id)

    def indexes(self) -> Iterator[Finding]:
        """That each index leads to each row, and to no other."""
        for index, missing, wrong in (
            ("ws_messages_offset", _NO_OFFSET, _WRONG_OFFSET),
            ("ws_messages_key", _NO_KEY, _WRONG_KEY),
        ):
            for room, id, off in self._db.execute(missing):
                yield Finding(f"the row is missing from the index {index}", _text(room), id, _integer(off))
            for room, id in self._db.execute(wrong):
                yield Finding(f"the index {index} leads to another row", _text(room), id)

    def places(self) -> Iterator[Finding]:
        """Where each room stands, looked up as the store does."""
        names = [text for name in sorted(self._names) if (text := _name(name)) is not None]
        for start in range(0, len(names), _ROOMS_AT_ONCE):
            part = names[start : start + _ROOMS_AT_ONCE]
            found = find_rooms(self._db, part)
            for name in part:
                state = found.get(name)
                if state is None:
                    yield Finding("the room cannot be found", name)
                elif isinstance(state, RoomDamaged):
                    yield Finding(state.why, name)

    def producers(self) -> Iterator[Finding]:
        """What is known of ordered producers."""
        for row in read_producers(self._db):
            if not row.is_sound:
                text = f"what is known of producer {_text(row.producer)} is not what was written (checksum)"
                yield Finding(text, _text(row.room))

    def counter(self) -> Iterator[Finding]:
        """That the counter of ids is not behind them."""
        found = sequences(self._db)
        newest = newest_id(self._db)
        least = max(newest or 0, count_rooms(self._db).floor_id)
        if (found or least or newest is None) and not (len(found) == 1 and is_id(found[0]) and found[0] >= least):
            yield Finding(f"the counter of ids must be one integer of {least} or more, found {found!r:.80}")


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)


def _name(room: bytes) -> str | None:
    try:
        return room.decode()
    except UnicodeDecodeError:
        return None
