"""A new file out of what is certain of an old one."""

from __future__ import annotations

import secrets
import sqlite3
from collections import Counter
from typing import Any, Final

from .salvage import OldFile
from .sqlite.producers import put_producers
from .sqlite.schema import MESSAGE_COLUMNS, create_tables, put_epoch, put_room_count, room_crc, row_crc, row_head

__all__ = ["Rebuilding"]

LINES_MAX: Final = 200
"""Lines of a report about single rooms or messages; what is more is counted."""

_MARKS: Final = ", ".join("?" * 13)
_INSERT: Final = f"INSERT INTO ws_messages ({MESSAGE_COLUMNS}) VALUES ({_MARKS})"


class _Room:
    """One room of the new file, as far as it has come."""

    __slots__ = ("ep", "floor", "floor_id", "head", "is_old", "last", "lost")

    def __init__(self, ep: bytes, floor: int, floor_id: int, head: int, is_old: bool) -> None:
        self.ep = ep
        self.floor = floor
        self.floor_id = floor_id
        self.head = head
        self.is_old = is_old
        self.last = floor
        self.lost: list[tuple[int, int]] = []


class Rebuilding:
    """Writes into an empty database; `done` and `lost` say in words what was made anew, and what could not be."""

    def __init__(self, old: OldFile, db: sqlite3.Connection) -> None:
        self.done: list[str] = []
        self.lost: list[str] = []
        self.count: int = 0
        self._old = old
        self._db = db
        self._rooms: dict[bytes, _Room] = {}
        self._known_lost = old.lost()
        self._last_id = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether there was something, and nothing of it is certain."""
        return not (self.count or self._rooms) and bool(self._old.unread or self.lost)

    def run(self) -> None:
        """Does all of it, in the transaction that runs. Raises: `sqlite3.Error` where that cannot be written."""
        epoch = self._old.epoch()
        sequence = self._old.sequence()
        self._rooms = {name: _Room(*row, True) for name, row in self._old.rooms().items()}
        create_tables(self._db, epoch or "0")
        for row in self._old.rows():
            self._take(row)
        self._claim_damaged()
        self._put_producers()
        self._put_rooms(epoch)
        self._put_epoch(epoch)
        last = max([sequence, self._last_id, *(room.floor_id for room in self._rooms.values())])
        if sequence < last:
            self.done.append(f"the counter of ids stands at {last} now")
        self._db.execute("DELETE FROM sqlite_sequence")
        if last:
            self._db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('ws_messages', ?)", (last,))
        self.lost += [f"could not be read: {line}" for line in self._old.unread]

    def _take(self, row: tuple[Any, ...]) -> None:
        """Puts a message in its place, unless another one has it."""
        id, off, name, ep = row[0], row[7], row[2], row[6]
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room(ep, off - 1, 0, off - 1, False)
        elif not room.is_old:
            room.ep = ep
        if off <= room.floor:
            self._tell(self.lost, f"{_where(name, off, id)}: its room was trimmed beyond it, and it was left out")
            return
        if off <= room.last:
            self._displace(name, room, off, id)
        elif off > room.last + 1:
            room.lost.append((room.last + 1, off - 1))
        room.last = off
        self._last_id = id
        values: list[Any] = [v.decode() if isinstance(v, bytes) and at != 9 else v for at, v in enumerate(row)]
        if values[8] is not None and self._has_key(values):
            self._tell(self.lost, f"{_where(name, off, id)}: its mid is another message's too, and was taken from it")
            values[8] = values[9] = None
            kind, _, type_, ts = values[1:5]
            head = row_head(id, off, values[6], kind, values[2], type_, ts, values[10], None, values[11])
            values[12] = row_crc(head, None, row[5])
        self._db.execute(_INSERT, values)
        self.count += 1

    def _has_key(self, values: list[Any]) -> bool:
        where = (values[2], values[10], values[8])
        found = self._db.execute("SELECT 1 FROM ws_messages WHERE room = ? AND scope = ? AND mid = ?", where)
        return found.fetchone() is not None

    def _displace(self, name: bytes, room: _Room, off: int, id: int) -> None:
        """The log went on from `off` a second time: members saw the later messages last, so those stay."""
        gone = self._db.execute("DELETE FROM ws_messages WHERE room = ? AND off >= ?", (name.decode(), off)).rowcount
        self.count -= gone
        room.lost = [(first, min(last, off - 1)) for first, last in room.lost if first < off]
        text = f"{_where(name, off, id)}: {gone} older messages had its offset or later ones, and were left out"
        self._tell(self.lost, text)

    def _claim_damaged(self) -> None:
        """What is damaged at the end of a room has its offset all the same: it must not be given to another message."""
        damaged = self._old.damaged_rows
        for name, off in damaged:
            room = self._rooms.get(name) if isinstance(name, bytes) else None
            if room is not None and off == max(room.last, room.head) + 1:
                room.head = off
        if damaged:
            self.lost.append(f"{len(damaged):,} messages are not what was written (checksum), and were left out")

    def _put_producers(self) -> None:
        for room, scope, producer, kept, is_sound in self._old.producers():
            if is_sound:
                put_producers(self._db, {(room.decode(), scope.decode(), producer.decode()): kept})
            else:
                text = f"room {_shown(room)}: what was known of producer {_shown(producer)} is lost; it begins anew"
                self._tell(self.lost, text)

    def _put_rooms(self, epoch: str | None) -> None:
        for name, room in self._rooms.items():
            text = name.decode()
            if not room.is_old and room.ep != (epoch or "").encode():
                room.ep = secrets.token_hex(4).encode()  # The room's own is not known; its messages' may be over.
            head = max(room.last, room.head)
            if head > room.last:
                room.lost.append((room.last + 1, head))
            for first, last in room.lost:
                self._db.execute("INSERT INTO ws_lost (room, first, last) VALUES (?, ?, ?)", (text, first, last))
                if self._known_lost.get((name, first)) != last:
                    self._tell(self.lost, f"room {text!r:.140}: offsets {first} to {last} are lost; members are told")
            crc = room_crc(name, room.ep, room.floor, room.floor_id, head)
            self._db.execute(
                "INSERT INTO ws_rooms (room, ep, floor, floor_id, head, crc) VALUES (?, ?, ?, ?, ?, ?)",
                (text, room.ep.decode(), room.floor, room.floor_id, head, crc),
            )
            if not room.is_old:
                self._tell(self.done, f"room {text!r:.140}: its row in ws_rooms was made anew from its messages")

    def _put_epoch(self, epoch: str | None) -> None:
        """The old one where it is certain, or the rooms'. Another one where a room may be lost as a whole: one that
        begins anew under its name must not be taken for it."""
        gone = self._old.doubtful_rooms - self._rooms.keys()
        for name in sorted(gone):
            self._tell(self.lost, f"room {name.decode('utf-8', 'replace')!r:.140}: nothing certain is left of it")
        if gone or self._old.unread:
            epoch = secrets.token_hex(4)
            self.done.append(f"new rooms take the new epoch {epoch}")
        elif epoch is None:
            known = Counter(room.ep for room in self._rooms.values()).most_common(1)
            epoch = known[0][0].decode() if known else secrets.token_hex(4)
            self.done.append(f"the epoch is {epoch} now")
        put_epoch(self._db, epoch)
        put_room_count(self._db, len(self._rooms))

    def _tell(self, lines: list[str], line: str) -> None:
        if len(lines) < LINES_MAX:
            lines.append(line)
        elif len(lines) == LINES_MAX:
            lines.append("and more of this")


def _shown(text: object) -> str:
    return f"{text.decode('utf-8', 'replace') if isinstance(text, bytes) else text!r:.140}"


def _where(room: bytes, off: int, id: int) -> str:
    return f"room {room.decode('utf-8', 'replace')!r:.140} offset {off} id {id}"
