"""What the reading connection does, in its own thread: every call sees one snapshot and changes nothing."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from vixws_core.log import Page, Position
from vixws_core.message import StoredMessage

from .damage import Quarantine, RoomDamaged
from .paging import INTEGER_MAX, MessageRows, Way
from .positions import end_id, find_position, text_of
from .rooms import RoomState, find_id, find_state
from .schema import store_epoch

__all__ = ["LogReader"]

LOGGER = logging.getLogger("vixws.store")

_PAGE = Way("room = ? AND off > ? AND off < ? ORDER BY off", low=1, high=2)
_NEWEST = Way("room = ? AND off > ? AND off < ? ORDER BY off DESC", low=1, high=2, down=True)
_BELOW = Way("room = ? AND off < ? ORDER BY off DESC", high=1, down=True)
_ABOVE_ID = Way("id > ? ORDER BY id", low=0, by_id=True)
_MORE = "SELECT 1 FROM ws_messages WHERE id > ? LIMIT 1"

REPLAY_BYTES_MAX = 1 << 20
"""Payload bytes of one trip of a replay."""


class LogReader:
    """A second connection, `query_only`. Every method belongs to the connection's thread.

    Rooms that it finds damaged go into the `quarantine`, and are not looked at again.
    """

    def __init__(self, path: str, busy_timeout_s: float, quarantine: Quarantine | None = None) -> None:
        self.path = path
        self._quarantine = Quarantine(path) if quarantine is None else quarantine
        self._busy_timeout_s = busy_timeout_s
        self._rows = MessageRows(path)

    def open(self) -> sqlite3.Connection:
        """Opens a file whose tables are up to date; returns the connection."""
        # mode=ro also keeps it from copying the write-ahead log into the file, should it be the last that is closed.
        name = f"file:{quote(os.fsencode(self.path))}?mode=ro"
        db = sqlite3.connect(name, timeout=self._busy_timeout_s, isolation_level=None, cached_statements=128, uri=True)
        try:
            db.execute("PRAGMA query_only = 1")
            db.execute("PRAGMA cell_size_check = 1")
            self._epoch = self._quarantine.epoch or store_epoch(db)
        except BaseException:
            db.close()
            raise
        self._use(db)
        return db

    @classmethod
    def over(cls, db: sqlite3.Connection, path: str) -> LogReader:
        """A reader over a connection that is open already and only reads; `path` is for what it reports."""
        reader = cls(path, 0.0)
        reader._epoch = store_epoch(db)
        reader._use(db)
        return reader

    def _use(self, db: sqlite3.Connection) -> None:
        # Damage may be in a text's encoding: texts are decoded row by row, behind the checksum.
        db.text_factory = bytes
        self._db = db
        self._rows.use(db)

    def run(self, calls: Iterable[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Runs several calls, `(method, arguments)`, and returns their results; a failed one gives its error."""
        methods: dict[str, Callable[..., Any]] = {
            "list_by_room": self.list_by_room,
            "look": self.look,
            "position": self.position,
            "read": self.read,
            "replay_from": self.replay_from,
        }
        results: list[Any] = []
        for name, arguments in calls:
            room = None if name in ("replay_from", "look") else arguments[0]
            try:
                if room is not None and self._quarantine:
                    self._quarantine.check(room)
                self._db.execute("BEGIN")
                try:
                    results.append(methods[name](*arguments))
                finally:
                    self._db.execute("COMMIT")
            except (sqlite3.Error, RoomDamaged) as exc:
                results.append(exc if room is None else self._quarantine.blame(room, exc) or exc)
        return results

    def look(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(db, *arguments)` finds; it gets texts as bytes."""
        return function(self._db, *arguments)

    def read(self, room: str, after: int, until: int, rows_max: int, bytes_max: int, newest_first: bool) -> Page:
        """Rows with `after` < off ≤ `until`; damaged ones are left out. See `PureLog.read`."""
        state = find_state(self._db, room)
        if state is None:
            return Page(self._epoch, 0, 0, ())
        ep, floor, floor_id, head, head_id = state
        rows: list[StoredMessage] = []
        id_at = _id_at(self._db, room, after, state)
        after, until = max(after, floor), min(until, head)
        if after < until and rows_max > 0:
            way = _NEWEST if newest_first else _PAGE
            rows = self._rows.fetch(way, (room, after, until + 1), rows_max, bytes_max, {room: ep})
        return Page(ep, floor, head, tuple(rows), id_at, text_of(floor_id) or "", text_of(head_id) or "")

    def position(self, room: str, off: int | None) -> Position:
        """Where the room stands, and the id at `off`; see `PureLog.position`."""
        found = find_position(self._db, self._epoch, (room, off, 0))
        if isinstance(found, RoomDamaged):
            raise found
        return found

    def list_by_room(self, room: str, limit: int, before: int | None) -> list[StoredMessage]:
        """The newest `limit` messages of the room with an id below `before`, oldest first."""
        ep, floor, head = _head(self._db, self._epoch, room)
        if limit <= 0:
            return []
        end = head + 1 if before is None else self._first_off(room, min(before, INTEGER_MAX), floor, head)
        rows = self._rows.fetch(_BELOW, (room, end), limit, None, {room: ep})
        rows.reverse()
        return rows

    def replay_from(self, id: int, rows_max: int) -> tuple[list[StoredMessage], bool]:
        """At most `rows_max` messages of all rooms with an id above `id`, in id order; and whether more may follow.

        They end at `REPLAY_BYTES_MAX` bytes: while one transaction reads, the write-ahead log cannot be emptied.
        """
        rows = self._rows.fetch(_ABOVE_ID, (min(id, INTEGER_MAX),), rows_max, REPLAY_BYTES_MAX, {})
        more = bool(rows) and self._db.execute(_MORE, (int(rows[-1].id),)).fetchone() is not None
        return rows, more

    def _first_off(self, room: str, id: int, floor: int, head: int) -> int:
        """The first offset whose id is at least `id`. Ids rise with offsets, so halving finds it."""
        low, high = floor + 1, head + 1
        while low < high:
            middle = (low + high) // 2
            found = self._db.execute(
                "SELECT id FROM ws_messages WHERE room = ? AND off >= ? ORDER BY off LIMIT 1", (room, middle)
            ).fetchone()
            if found is None or found[0] >= id:
                high = middle
            else:
                low = middle + 1
        return low


def _id_at(db: sqlite3.Connection, room: str, off: int, state: RoomState) -> str | None:
    """The id at `off`, that of the floor included; None where there is none, or it is not known."""
    return text_of(find_id(db, room, off) if state.floor < off < state.head else end_id(state, off))


def _head(db: sqlite3.Connection, epoch: str, room: str) -> tuple[str, int, int]:
    """Epoch, floor and head. Raises: as `find_position`."""
    state = find_state(db, room)
    return (epoch, 0, 0) if state is None else (state.ep, state.floor, state.head)
