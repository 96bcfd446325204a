"""Appends within a transaction of the writer: what is decided of each, and the rows that come of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from vixws_core.codes import INTERNAL, MID_CONFLICT, STORE_UNAVAILABLE
from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import RoomAdvanced, StoreAppended, StoreFailed
from vixws_core.log import ANY_CONTENT, BatchResult, message_id
from vixws_core.message import StoredMessage

from .at_once import is_too_big
from .chunks import CHUNKS, chunks
from .counter import find_last_id
from .damage import FileDamaged, Quarantine, RoomDamaged, is_damage
from .producers import Numbers
from .rooms import find_rooms
from .schema import MESSAGE_BYTES, MESSAGE_COLUMNS, content_crc, room_crc, row_crc, row_head, store_epoch

__all__ = ["Appender"]

ROOMS_CACHED_MAX = 10_000
"""Rooms whose heads are kept at hand; over it all are forgotten and read again as needed."""

_TRIAL_ROOMS = ("", "\U0010ffff")
"""Names that no room can have."""

_INSERT = {
    count: f"INSERT INTO ws_messages ({MESSAGE_COLUMNS}) VALUES " + ", ".join(["(" + ", ".join("?" * 13) + ")"] * count)
    for count in CHUNKS
}
_INSERT_ROOMS = {
    count: "INSERT INTO ws_rooms (room, ep, crc) VALUES " + ", ".join(["(?, ?, ?)"] * count) for count in CHUNKS
}
_FIND_KEYS = {
    count: f"WITH k (room, scope, mid) AS (VALUES {', '.join(['(?, ?, ?)'] * count)})"
    f" SELECT k.room, k.scope, k.mid, {MESSAGE_BYTES} FROM k CROSS JOIN ws_messages m"
    " WHERE m.room = k.room AND m.scope = k.scope AND m.mid = k.mid AND m.mid IS NOT NULL"
    for count in CHUNKS
}

_Known = tuple[int, int, bytes | None]
"""Offset, id and digest of a stored key, whose epoch is its room's; the offset 0 where its message is damaged."""

_ROTTEN: _Known = (0, 0, None)


class _Head:
    """Where a room's log ends, as of the transaction that runs; `id` is 0 where the id there is not known."""

    __slots__ = ("ep", "head", "id", "stored")

    def __init__(self, ep: str, head: int, id: int, stored: bool) -> None:
        self.ep = ep
        self.head = head
        self.id = id
        self.stored = stored

    @property
    def told_id(self) -> str | None:
        """The id at the end as it is told: "" before the first entry, None where it is not known."""
        return message_id(self.id) if self.id else None if self.head else ""


class Appender:
    """What is known of rooms and ids, and how appends become rows. All calls stand within the writer's transactions.

    The ids that it spends are spent even where the transaction fails: an id is never given twice.
    """

    def __init__(self, quarantine: Quarantine) -> None:
        self.quarantine: Quarantine = quarantine
        self.epoch: str = ""
        self._heads: dict[str, _Head] = {}
        self._last_id = 0
        self._data_version = -1
        self._numbers = Numbers()

    @property
    def last_id(self) -> int:
        """The highest id that was given, or spent."""
        return self._last_id

    @property
    def grown(self) -> list[str]:
        """Rooms at hand that have messages."""
        return [room for room, head in self._heads.items() if head.stored]

    def begin_with(self, db: sqlite3.Connection, epoch: str, last_id: int) -> None:
        """A file was opened: its epoch, and the highest id that must not be given again."""
        self._db = db
        self.epoch = epoch
        self._last_id = last_id
        self.forget()

    def forget(self) -> None:
        """Forgets what is at hand: it is read again as needed."""
        self._heads.clear()

    def refresh(self) -> None:
        """Forgets what is at hand where another connection changed the file (the `sqlite3` shell, a restore).

        Raises: `FileDamaged`, `sqlite3.Error`.
        """
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._heads.clear()
            self.epoch = self.quarantine.epoch or store_epoch(self._db)
            self._last_id = max(self._last_id, find_last_id(self._db))
        elif len(self._heads) > ROOMS_CACHED_MAX:
            self._heads.clear()

    def append(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        """Appends all; see `PureLog.append_batch`. Raises: `sqlite3.Error`."""
        self._find_heads({ask.room for ask in appends})
        keyed = [ask for ask in appends if ask.mid is not None]
        known = self._find_keys(keyed)
        self._numbers.begin(self._db, keyed, ts)
        answers, fresh, values, before = self._plan(appends, ts, known)
        created = [room for room in fresh if not self._heads[room].stored]
        if created:
            self._insert(_INSERT_ROOMS, list(chain.from_iterable(map(self._new_room, created))), 3)
            self._db.execute("UPDATE ws_meta SET value = value + ? WHERE key = 'rooms'", (len(created),))
        self._insert(_INSERT, values, 13)
        self._numbers.write(self._db)
        advanced = tuple(
            RoomAdvanced(room, rows[-1].ep, rows[-1].off, tuple(rows), before[room]) for room, rows in fresh.items()
        )
        return BatchResult(advanced, tuple(answers))

    def append_apart(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        """The same room by room; a room whose rows fail is left out, and goes into quarantine.

        Raises: `FileDamaged`, `sqlite3.Error`.
        """
        places: dict[str, list[int]] = {}
        for place, ask in enumerate(appends):
            places.setdefault(ask.room, []).append(place)
        answers: dict[int, StoreAppended | StoreFailed] = {}
        advanced: list[RoomAdvanced] = []
        failed: dict[str, sqlite3.Error] = {}
        for room, its in places.items():
            asks = [appends[place] for place in its]
            self._db.execute("SAVEPOINT apart")
            try:
                result = self.append(asks, ts)
            except sqlite3.Error as exc:
                if not is_damage(exc) and not is_too_big(exc):
                    raise
                self._db.execute("ROLLBACK TO apart")
                self._heads.pop(room, None)
                failed[room] = exc
            else:
                advanced += result.advanced
                answers.update(zip(its, result.answers, strict=True))
            self._db.execute("RELEASE apart")
        if failed and not advanced:
            self.try_row()  # Where nothing at all can be stored, it is not these rooms that are damaged.
        for room, cause in failed.items():
            error = self.quarantine.blame(room, cause) or StoreError(INTERNAL, f"it cannot be stored: {cause}")
            for place in places[room]:
                answers[place] = StoreFailed(appends[place].request, error.code, str(error), error.retry)
        return BatchResult(tuple(advanced), tuple(answers[place] for place in range(len(appends))))

    def committed(self, result: BatchResult) -> None:
        """What `append` stored is there to stay."""
        for advanced in result.advanced:
            self._heads[advanced.room].stored = True

    def try_row(self) -> None:
        """Stores a row and takes it back, at either end of the indexes: where no room's rows are, and every room's.

        Raises: `FileDamaged` where both fail because of what the file holds; `sqlite3.Error`.
        """
        failures: list[sqlite3.Error] = []
        for room in _TRIAL_ROOMS:
            self._db.execute("SAVEPOINT trial")
            number = self._last_id + 1
            try:
                self._db.execute(_INSERT[1], (number, "", room, "", "", "{}", "", 1, "trial", None, "", None, 0))
            except sqlite3.Error as exc:
                if not is_damage(exc):
                    raise
                failures.append(exc)
            self._db.execute("ROLLBACK TO trial")
            self._db.execute("RELEASE trial")
        if len(failures) == len(_TRIAL_ROOMS):
            raise FileDamaged(f"no message can be stored: {failures[0]}; see vixws store check, and repair")

    def _new_room(self, room: str) -> tuple[str, str, int]:
        ep = self._heads[room].ep
        return room, ep, room_crc(room.encode(), ep.encode(), 0, 0, 0)

    def _plan(
        self, appends: Sequence[StoreAppend], ts: str, known: dict[tuple[str, str, str], _Known]
    ) -> tuple[list[StoreAppended | StoreFailed], dict[str, list[StoredMessage]], list[Any], dict[str, str | None]]:
        """Decides every append: the answers, the new rows by room, the values of all new rows in a row, and the ids
        of the entries before them by room."""
        answers: list[StoreAppended | StoreFailed] = []
        fresh: dict[str, list[StoredMessage]] = {}
        before: dict[str, str | None] = {}
        values: list[Any] = []
        heads = self._heads
        for ask in appends:
            request, name, kind, type_, payload, mid, digest, scope, sender = (
                ask.request,
                ask.room,
                ask.kind,
                ask.type,
                ask.payload,
                ask.mid,
                ask.digest,
                ask.scope,
                ask.sender,
            )
            if (head := heads.get(name)) is None:
                answers.append(self._refusal(ask))
                continue
            if mid is not None and (found := known.get((name, scope, mid))) is not None:
                answers.append(_repeat(ask, head.ep, *found))
                continue
            if mid is not None and mid[0] == "~" and (refused := self._numbers.take(ask)) is not None:
                answers.append(refused)
                continue
            ep, off, number = head.ep, head.head + 1, self._last_id + 1
            crc = row_crc(row_head(number, off, ep, kind, name, type_, ts, scope, mid, sender), digest, payload)
            values += (
                number,
                kind,
                name,
                type_,
                ts,
                payload.decode(),
                ep,
                off,
                mid,
                digest,
                scope,
                sender,
                crc,
            )
            # The number is spent even if the commit fails: an id is never given twice.
            if name not in before:
                before[name] = head.told_id
            head.head, head.id, self._last_id = off, number, number
            id = message_id(number)
            row = StoredMessage(id, kind, name, type_, ts, payload, ep, off, mid, sender)
            if (rows := fresh.get(name)) is None:
                fresh[name] = [row]
            else:
                rows.append(row)
            if mid is not None:
                known[name, scope, mid] = (off, number, digest)
            answers.append(StoreAppended(request, ep, off, id))
        return answers, fresh, values, before

    def _find_heads(self, rooms: set[str]) -> None:
        """Sees to it that the heads of these rooms are at hand, but of those that are in quarantine."""
        missing = [room for room in rooms if room not in self._heads]
        if self.quarantine:
            for room in rooms:
                if room in self.quarantine:
                    self._heads.pop(room, None)
            missing = [room for room in missing if room not in self.quarantine]
        if not missing:
            return
        found = find_rooms(self._db, missing)
        for room in missing:
            state = found.get(room)
            if state is None:
                self._heads[room] = _Head(self.epoch, 0, 0, False)
            elif isinstance(state, RoomDamaged):
                self.quarantine.put(state)
            else:
                self._heads[room] = _Head(state.ep, state.head, state.head_id, True)

    def _refusal(self, ask: StoreAppend) -> StoreFailed:
        try:
            self.quarantine.check(ask.room)
        except RoomDamaged as exc:
            return StoreFailed(ask.request, exc.code, str(exc), exc.retry)
        return StoreFailed(ask.request, STORE_UNAVAILABLE, f"room {ask.room!r:.140} is damaged", True)

    def _find_keys(self, asks: list[StoreAppend]) -> dict[tuple[str, str, str], _Known]:
        known: dict[tuple[str, str, str], _Known] = {}
        if asks:
            values: list[Any] = []
            for ask in asks:
                values += (ask.room, ask.scope, ask.mid)
            for part in chunks(values, 3):
                for room, scope, mid, *row in self._db.execute(_FIND_KEYS[len(part) // 3], part):
                    is_sound = content_crc(row) == row[12]
                    known[room, scope, mid] = (row[7], row[0], row[9]) if is_sound else _ROTTEN
        return known

    def _insert(self, statements: dict[int, str], values: Sequence[Any], width: int) -> None:
        for part in chunks(values, width):
            self._db.execute(statements[len(part) // width], part)


def _repeat(ask: StoreAppend, ep: str, off: int, id: int, digest: bytes | None) -> StoreAppended | StoreFailed:
    if not off:
        message = f"mid {ask.mid!r:.140} was stored before, and its message is damaged"
        return StoreFailed(ask.request, STORE_UNAVAILABLE, message, True)
    if digest not in (ask.digest, ANY_CONTENT):
        message = f"mid {ask.mid!r:.140} was stored before with another content"
        return StoreFailed(ask.request, MID_CONFLICT, message, False)
    return StoreAppended(ask.request, ep, off, message_id(id), True)
