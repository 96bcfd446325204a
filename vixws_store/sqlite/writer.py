"""What the writing connection does, in its own thread: one function call is one transaction."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from vixws_core.codes import INTERNAL, MID_CONFLICT, STORE_UNAVAILABLE
from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import RoomAdvanced, StoreAppended, StoreFailed
from vixws_core.log import ANY_CONTENT, BatchResult, Position, message_id
from vixws_core.message import StoredMessage

from .._retention import Cut
from .chunks import CHUNKS, chunks
from .epochs import last_id_of, open_mark, settle_mark
from .files import Files, close_untouched
from .mark import Mark
from .patience import Patience
from .reader import find_position
from .schema import MESSAGE_COLUMNS, migrate, row_crc, row_head, schema_version, store_epoch
from .trimming import cut_rows
from .wal import LOG_BYTES_MAX, WriteAheadLog

__all__ = ["LogWriter"]

ROOMS_CACHED_MAX = 10_000
"""Rooms whose heads are kept at hand; over it all are forgotten and read again as needed."""

PROBE_BYTES = 16_384
"""What a probe writes and removes: enough that a store that is nearly full is not called ready."""

TRIM_ROWS_MAX = 5_000
"""Rows removed by one transaction, whose time has a bound too, so that publishers wait only shortly."""

_INSERT = {
    count: f"INSERT INTO ws_messages ({MESSAGE_COLUMNS}) VALUES " + ", ".join(["(" + ", ".join("?" * 13) + ")"] * count)
    for count in CHUNKS
}
_INSERT_ROOMS = {count: "INSERT INTO ws_rooms (room, ep) VALUES " + ", ".join(["(?, ?)"] * count) for count in CHUNKS}
_FIND_ROOMS = {
    count: "SELECT room, ep, floor, (SELECT max(off) FROM ws_messages m WHERE m.room = r.room), floor_id,"
    " (SELECT id FROM ws_messages m WHERE m.room = r.room ORDER BY off DESC LIMIT 1) FROM ws_rooms r"
    f" WHERE room IN ({', '.join('?' * count)})"
    for count in CHUNKS
}
_FIND_KEYS = {
    count: f"WITH k (room, scope, mid) AS (VALUES {', '.join(['(?, ?, ?)'] * count)})"
    " SELECT m.room, m.scope, m.mid, m.off, m.id, m.digest FROM k CROSS JOIN ws_messages m"
    " WHERE m.room = k.room AND m.scope = k.scope AND m.mid = k.mid AND m.mid IS NOT NULL"
    for count in CHUNKS
}

T = TypeVar("T")

_Known = tuple[int, int, bytes | None]
"""Offset, id and digest of a stored key; its epoch is its room's."""


class _Head:
    """Where a room's log ends, as of the transaction that runs."""

    __slots__ = ("ep", "head", "id", "stored")

    def __init__(self, ep: str, head: int, id: int, stored: bool) -> None:
        self.ep = ep
        self.head = head
        self.id = id
        self.stored = stored


class LogWriter:
    """The only connection that writes and checkpoints.

    Every method belongs to the connection's thread; `patience` may be shortened from any.
    """

    def __init__(
        self,
        path: str,
        synchronous: str,
        busy_timeout_s: float,
        pages_max: int | None,
        log_bytes_max: int = LOG_BYTES_MAX,
    ) -> None:
        self.path = path
        self._synchronous = synchronous
        self.patience: Patience = Patience(busy_timeout_s)
        self._pages_max = pages_max
        self._heads: dict[str, _Head] = {}
        self._last_id = 0
        self._data_version = -1
        self._epoch = ""
        self._acked_id = 0
        """The highest id that this writer acknowledged."""
        self.files: Files = Files(path)
        self.log: WriteAheadLog = WriteAheadLog(self.files, self.patience, log_bytes_max)
        self._mark: Mark | None = None

    def open(self) -> sqlite3.Connection:
        """Opens the file, brings its tables up to date and raises the id counter; returns the connection.

        Raises: `StoreError`, `sqlite3.Error`.
        """
        timeout_s = self.patience.left()
        db = sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None, cached_statements=128)
        self.patience.opened(timeout_s)
        try:
            self._set_up(db)
        except BaseException:
            close_untouched(db, self.path)
            raise
        return db

    def _set_up(self, db: sqlite3.Connection) -> None:
        self._db = db
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(STORE_UNAVAILABLE, f"the journal mode must be wal, the file system gives {mode}")
        db.execute("PRAGMA secure_delete = ON")  # What is trimmed or redacted leaves no copy in pages that are free.
        db.execute("PRAGMA journal_size_limit = 67108864")
        if self._pages_max is not None:
            db.execute(f"PRAGMA max_page_count = {int(self._pages_max)}")
        version = schema_version(db)
        migrate(db)
        self._check_nothing_lost(db)  # Before the mark is judged, which ends what could tell.
        self._mark = open_mark(db, self.path, self._synchronous, self._mark)
        self._epoch = store_epoch(db)
        self._last_id = last_id_of(db)
        if version or self._last_id:
            # A restored backup, an empty one too, and a file whose last commits are lost must not give an id again.
            self._last_id += secrets.randbelow(1 << 31) + 1
        self.files.opened()
        if version is None:  # From here on the file says which one it is, whatever becomes of the log.
            self.log.empty(db, 0.0)

    def commit(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        """Appends all in one transaction at the time `ts`; see `PureLog.append_batch`.

        Raises: `sqlite3.Error`, `OSError`, `StoreError` where nothing was stored, as far as is known.
        """
        try:
            result = self._commit(appends, ts)
        except UnicodeError:
            result = self._commit_storable(appends, ts)
        self.log.bound(self._db)
        return result

    def change(self, level: str, function: Callable[..., T], *arguments: Any) -> T:
        """Runs `function(db, *arguments)` in a transaction of its own and returns what it does.

        `level` is FULL, synced whatever the store does with appends, or NORMAL, for what may be lost and done again.
        Raises: `sqlite3.Error`, `OSError`, and what the function does; then nothing is changed.
        """
        db = self._db
        db.execute(f"PRAGMA synchronous = {level}")
        try:
            self._begin()
            self.files.before(db)
            result = function(db, *arguments)
            db.execute("COMMIT")
            self.files.after(db)
        except BaseException:
            self._undo()
            raise
        finally:
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
        return result

    def trim(self, room: str, upto: int) -> int:
        """Forgets some entries up to `upto`; returns how many, 0 for none. Raises: `sqlite3.Error`, `OSError`."""
        return self.change(self._synchronous, cut_rows, room, Cut(upto), TRIM_ROWS_MAX).rows

    def positions(self, asked: Sequence[tuple[str, int | None, int]]) -> list[Position]:
        """Where rooms stand, and the ids at offsets, or so many entries before the head, all from one snapshot.

        On this connection nothing is seen that is not known to be committed. Raises: `sqlite3.Error`.
        """
        db = self._db
        self.patience.allow(db, self.patience.left())
        db.execute("BEGIN")
        try:
            return [find_position(db, self._epoch, room, off, last) for room, off, last in asked]
        finally:
            db.execute("COMMIT")

    def probe(self) -> None:
        """Writes a little and removes it, to see whether writing works again.

        Raises: `sqlite3.Error`, `OSError`, `StoreError` where it does not.
        """
        self.change(self._synchronous, _write_and_remove)

    def checkpoint(self, wait_s: float) -> bool:
        """Copies the write-ahead log into the file and empties it; False where others kept it from that for `wait_s`.

        Raises: `sqlite3.Error`, `StoreError` where the log was cut.
        """
        return self.log.empty(self._db, wait_s)

    def finish(self) -> None:
        """Notes, where there is a mark, that the log is complete; the last call, after a `checkpoint` that found it so.

        Raises: `sqlite3.Error`, `OSError`.
        """
        if self._mark is not None:
            settle_mark(self._db, self._mark, self.path)

    def closed(self) -> None:
        """The connection is closed: nothing else is held open either. May be repeated."""
        if self._mark is not None:
            self._mark.close()

    def _commit(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        db = self._db
        self._begin()
        try:
            self.files.before(db)
            self._refresh()
            if self._mark is not None:
                self._mark.reserve(self._last_id, len(appends))
            self._find_heads({ask.room for ask in appends})
            known = self._find_keys([ask for ask in appends if ask.mid is not None])
            answers, fresh, values, before = self._plan(appends, ts, known)
            created = [room for room in fresh if not self._heads[room].stored]
            if created:
                self._insert(
                    _INSERT_ROOMS, list(chain.from_iterable((room, self._heads[room].ep) for room in created)), 2
                )
            self._insert(_INSERT, values, 13)
            db.execute("COMMIT")
            self.files.after(db)
            if self._mark is not None:
                self._mark.committed(self._last_id)
        except BaseException:
            self._undo()
            raise
        if values:
            self._acked_id = self._last_id
        for room in created:
            self._heads[room].stored = True
        advanced = tuple(
            RoomAdvanced(room, rows[-1].ep, rows[-1].off, tuple(rows), before[room]) for room, rows in fresh.items()
        )
        return BatchResult(advanced, tuple(answers))

    def _begin(self) -> None:
        """Begins a transaction that writes. Raises: `StoreError` where the log is full, `sqlite3.Error`."""
        self.log.make_room(self._db)
        self.patience.begin(self._db)

    def _commit_storable(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        """Refuses the appends whose text UTF-8 cannot hold, so that they take nobody else down."""
        bad = {index: error for index, ask in enumerate(appends) if (error := _text_error(ask))}
        result = self._commit([ask for index, ask in enumerate(appends) if index not in bad], ts)
        stored = iter(result.answers)
        answers = tuple(
            StoreFailed(ask.request, INTERNAL, bad[index], False) if index in bad else next(stored)
            for index, ask in enumerate(appends)
        )
        return BatchResult(result.advanced, answers)

    def _plan(
        self, appends: Sequence[StoreAppend], ts: str, known: dict[tuple[str, str, str], _Known]
    ) -> tuple[list[StoreAppended | StoreFailed], dict[str, list[StoredMessage]], list[Any], dict[str, str]]:
        """Decides every append: the answers, the new rows by room, the values of all new rows in a row, and the ids
        of the entries before them by room."""
        answers: list[StoreAppended | StoreFailed] = []
        fresh: dict[str, list[StoredMessage]] = {}
        before: dict[str, str] = {}
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
            if mid is not None and (found := known.get((name, scope, mid))) is not None:
                answers.append(_repeat(ask, heads[name].ep, *found))
                continue
            head = heads[name]
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
                before[name] = message_id(head.id) if head.id else ""
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

    def _refresh(self) -> None:
        """Forgets what is at hand where another connection changed the file (the `sqlite3` shell, a restore)."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._heads.clear()
            self._epoch = store_epoch(self._db)
            self._last_id = max(self._last_id, last_id_of(self._db))
        elif len(self._heads) > ROOMS_CACHED_MAX:
            self._heads.clear()

    def _find_heads(self, rooms: set[str]) -> None:
        missing = [room for room in rooms if room not in self._heads]
        if not missing:
            return
        for part in chunks(missing, 1):
            for room, ep, floor, head, floor_id, head_id in self._db.execute(_FIND_ROOMS[len(part)], part):
                self._heads[room] = _Head(ep, head or floor, head_id or floor_id, True)
        for room in missing:
            if room not in self._heads:
                self._heads[room] = _Head(self._epoch, 0, 0, False)

    def _find_keys(self, asks: list[StoreAppend]) -> dict[tuple[str, str, str], _Known]:
        known: dict[tuple[str, str, str], _Known] = {}
        if asks:
            values: list[Any] = []
            for ask in asks:
                values += (ask.room, ask.scope, ask.mid)
            for part in chunks(values, 3):
                for room, scope, mid, *found in self._db.execute(_FIND_KEYS[len(part) // 3], part):
                    known[room, scope, mid] = (found[0], found[1], found[2])
        return known

    def _insert(self, statements: dict[int, str], values: Sequence[Any], width: int) -> None:
        for part in chunks(values, width):
            self._db.execute(statements[len(part) // width], part)

    def _undo(self) -> None:
        self._heads.clear()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _check_nothing_lost(self, db: sqlite3.Connection) -> None:
        """Raises: `StoreError` where the file that was opened again lacks what was acknowledged from the one before.

        Whoever was told of it would never hear of what comes in its place; a server that is started anew tells them.
        """
        if self._epoch != store_epoch(db):
            self._acked_id = 0
            return  # The first one, or another log altogether: members are told.
        if last_id_of(db) < self._acked_id or not self.files.may_go_on(db):
            message = f"{self.path} lacks messages that were acknowledged: stop the server, and start it again"
            raise StoreError(STORE_UNAVAILABLE, message, retry=True)


def _write_and_remove(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO ws_meta (key, value) VALUES ('probe', zeroblob(?))", (PROBE_BYTES,))
    db.execute("DELETE FROM ws_meta WHERE key = 'probe'")


def _repeat(ask: StoreAppend, ep: str, off: int, id: int, digest: bytes | None) -> StoreAppended | StoreFailed:
    if digest not in (ask.digest, ANY_CONTENT):
        message = f"mid {ask.mid!r:.140} was stored before with another content"
        return StoreFailed(ask.request, MID_CONFLICT, message, False)
    return StoreAppended(ask.request, ep, off, message_id(id), True)


def _text_error(ask: StoreAppend) -> str:
    texts: Iterable[str] = (ask.room, ask.kind, ask.type, ask.scope, ask.mid or "", ask.sender or "")
    try:
        "".join(texts).encode()
        ask.payload.decode()
    except UnicodeError as exc:
        return f"a message must be valid UTF-8 to be stored: {exc}"
    return ""
