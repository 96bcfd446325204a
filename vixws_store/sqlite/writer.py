"""What the writing connection does, in its own thread: one function call is one transaction."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from vixws_core.codes import INTERNAL, STORE_UNAVAILABLE
from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import StoreFailed
from vixws_core.log import BatchResult

from .._retention import Cut, Slice
from .appending import Appender
from .at_once import is_too_big
from .counter import find_last_id, mend_sequence
from .damage import FileDamaged, Quarantine, RoomDamaged, is_damage
from .epochs import last_id_of, open_mark, settle_mark
from .failures import FAILURES
from .files import Files, close_untouched
from .mark import Mark
from .migrating import migrate
from .patience import Patience
from .positions import Asked, Found, find_positions
from .rooms import WRONG_ROW, Census, count_rooms, put_head
from .schema import check_tables, schema_version, store_epoch
from .trimming import cut_rows
from .wal import LOG_BYTES_MAX, WriteAheadLog

__all__ = ["LogWriter"]

LOGGER = logging.getLogger("vixws.store")

PROBE_BYTES = 16_384
"""What a probe writes and removes: enough that a store that is nearly full is not called ready."""

TRIM_ROWS_MAX = 5_000
"""Rows removed by one transaction, whose time has a bound too, so that publishers wait only shortly."""

T = TypeVar("T")


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
        quarantine: Quarantine | None = None,
    ) -> None:
        self.path = path
        self.quarantine: Quarantine = Quarantine(path) if quarantine is None else quarantine
        self._synchronous = synchronous
        self.patience: Patience = Patience(busy_timeout_s)
        self._pages_max = pages_max
        self._appender = Appender(self.quarantine)
        self._epoch = ""
        """The file's own, as it was opened."""
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
        except UnicodeDecodeError:  # SQLite quotes what it does not understand, and Python cannot read that.
            close_untouched(db, self.path)
            raise FileDamaged("the tables' own texts are not what was written") from None
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
        db.execute("PRAGMA cell_size_check = 1")
        if self._pages_max is not None:
            db.execute(f"PRAGMA max_page_count = {int(self._pages_max)}")
        version = schema_version(db)
        migrate(db)
        check_tables(db)
        census = count_rooms(db)
        self._check_nothing_lost(db, census.floor_id)  # Before the mark is judged, which ends what could tell.
        mend_sequence(db, self.path, census.floor_id)
        self._mark = open_mark(db, self.path, self._synchronous, self._mark)
        last_id = last_id_of(db)
        if version or last_id:
            # A restored backup, an empty one too, and a file whose last commits are lost must not give an id again.
            last_id += secrets.randbelow(1 << 31) + 1
        self._epoch = store_epoch(db)
        self._appender.begin_with(db, self._epoch_by(census, self._epoch), last_id)
        self.files.opened()
        if version is None:  # From here on the file says which one it is, whatever becomes of the log.
            self.log.empty(db, 0.0)

    def _epoch_by(self, census: Census, epoch: str) -> str:
        """The epoch of new rooms; another one where a room may be lost without its name, and begin anew."""
        other = secrets.token_hex(4) if census.damaged or census.missing != 0 else ""
        if other:
            LOGGER.error(
                "rooms damaged: file=%r damaged=%d missing=%s: new rooms take the epoch %s",
                self.path,
                len(census.damaged),
                census.missing,
                other,
            )
        names = (name.decode("utf-8", "replace") for name in census.damaged)
        self.quarantine.begin_with((RoomDamaged(name, WRONG_ROW) for name in names), other)
        return other or epoch

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
            result = function(db, *arguments)
            db.execute("COMMIT")
            self.files.after(db)
        except BaseException:
            self._undo()
            raise
        finally:
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
        return result

    def cut(self, level: str, room: str, cut: Cut, rows_max: int) -> Slice:
        """Removes one slice of a room's oldest entries. Raises: `RoomDamaged`, `sqlite3.Error`, `OSError`."""
        self.quarantine.check(room)
        try:
            return self.change(level, cut_rows, room, cut, rows_max)
        except (sqlite3.Error, RoomDamaged) as exc:
            if (damaged := self.quarantine.blame(room, exc)) is not None:
                raise damaged from None
            raise

    def trim(self, room: str, upto: int) -> int:
        """Forgets some entries up to `upto`; returns how many, 0 for none. Raises: as `cut`."""
        return self.cut(self._synchronous, room, Cut(upto), TRIM_ROWS_MAX).rows

    def positions(self, asked: Sequence[Asked]) -> Found:
        """Where rooms stand, and the ids at offsets, or so many entries before the head, all from one snapshot.

        On this connection nothing is seen that is not known to be committed. Raises: `sqlite3.Error`.
        """
        db = self._db
        self.patience.allow(db, self.patience.left())
        db.execute("BEGIN")
        try:
            try:
                return self._positions(asked)
            except sqlite3.Error as exc:
                if not is_damage(exc):
                    raise
            # One of these rooms is at fault, and the others must not suffer for it.
            found: Found = {}
            for place in asked:
                found |= self._positions((place,))
            return found
        finally:
            db.execute("COMMIT")

    def _positions(self, asked: Sequence[Asked]) -> Found:
        found: Found = {}
        sound: list[Asked] = []
        for place in asked:
            try:
                self.quarantine.check(place[0])
                sound.append(place)
            except RoomDamaged as exc:
                found[place] = exc
        try:
            found |= find_positions(self._db, self._appender.epoch, sound)
        except sqlite3.Error as exc:
            if len(sound) > 1 or (damaged := self.quarantine.blame(sound[0][0], exc)) is None:
                raise
            found[sound[0]] = damaged
        for place in sound:
            if isinstance(its := found[place], RoomDamaged):
                self.quarantine.put(its)
        return found

    def both(
        self, asked: Sequence[Asked], change: Callable[..., T], *arguments: Any
    ) -> tuple[Found | Exception, T | Exception]:
        """Positions, then a change, in one trip; each fails alone. See `positions`, and the method that changes."""
        found: Found | Exception
        try:
            found = self.positions(asked)
        except FAILURES as exc:
            found = exc
        try:
            return found, change(*arguments)
        except FAILURES as exc:
            return found, exc

    def probe(self) -> None:
        """Writes a little and removes it, to see whether writing works again.

        Raises: `sqlite3.Error`, `OSError`, `StoreError` where it does not.
        """
        self.change(self._synchronous, self._try_writing)

    def _try_writing(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO ws_meta (key, value) VALUES ('probe', zeroblob(?))", (PROBE_BYTES,))
        db.execute("DELETE FROM ws_meta WHERE key = 'probe'")
        self._appender.refresh()
        self._appender.try_row()

    def note_heads(self) -> None:
        """Writes down where the rooms end that grew, so that it is noticed when a room's end is lost while at rest.

        Raises: `sqlite3.Error`, `OSError`.
        """
        if self._appender.grown:
            self.change(self._synchronous, self._put_heads)

    def _put_heads(self, db: sqlite3.Connection) -> None:
        self._appender.refresh()
        for room in self._appender.grown:
            try:
                put_head(db, room)
            except RoomDamaged as exc:
                self.quarantine.put(exc)

    def checkpoint(self, wait_s: float) -> bool:
        """Copies the write-ahead log into the file and empties it; False where others kept it from that for `wait_s`.

        Raises: `sqlite3.Error`, `StoreError` where the log was cut.
        """
        return self.log.empty(self._db, wait_s)

    def finish(self) -> None:
        """Notes, where there is a mark, that the log is complete; the last call, after a `checkpoint` that found it so.

        Raises: `sqlite3.Error`, `OSError`, `StoreError`.
        """
        if self._mark is not None:
            settle_mark(self._db, self._mark, self.path)

    def closed(self) -> None:
        """The connection is closed: nothing else is held open either. May be repeated."""
        if self._mark is not None:
            self._mark.close()

    def _commit(self, appends: Sequence[StoreAppend], ts: str) -> BatchResult:
        try:
            return self._in_transaction(self._appender.append, appends, ts)
        except sqlite3.Error as exc:
            if not is_damage(exc) and not is_too_big(exc):
                raise
        # One of these rooms is at fault, and the others must not suffer for it.
        return self._in_transaction(self._appender.append_apart, appends, ts)

    def _in_transaction(
        self, append: Callable[[Sequence[StoreAppend], str], BatchResult], appends: Sequence[StoreAppend], ts: str
    ) -> BatchResult:
        try:
            self._begin()
            self._appender.refresh()
            if self._mark is not None:
                self._mark.reserve(self._appender.last_id, len(appends))
            result = append(appends, ts)
            self._db.execute("COMMIT")
            self.files.after(self._db)
            if result.advanced:
                # Not the appender's last one: the file knows nothing of ids that were spent in vain.
                self._acked_id = max(int(advanced.entries[-1].id) for advanced in result.advanced)
                if self._mark is not None:
                    self._mark.committed(self._acked_id)
        except BaseException:
            self._undo()
            raise
        self._appender.committed(result)
        return result

    def _begin(self) -> None:
        """Begins a transaction that writes. Raises: `StoreError` where the log is full or was cut, `sqlite3.Error`."""
        self.log.make_room(self._db)
        self.patience.begin(self._db)
        self.files.before(self._db)

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

    def _undo(self) -> None:
        self._appender.forget()
        self.files.failed()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _check_nothing_lost(self, db: sqlite3.Connection, floor_id: int) -> None:
        """Raises: `StoreError` where the file that was opened again lacks what was acknowledged from the one before.

        Whoever was told of it would never hear of what comes in its place; a server that is started anew tells them.
        `floor_id` is the highest id that was trimmed up to.
        """
        if self._epoch != store_epoch(db):
            self._acked_id = 0
            return  # The first one, or another log altogether: members are told.
        if max(find_last_id(db), floor_id) < self._acked_id or not self.files.may_go_on(db):
            message = f"{self.path} lacks messages that were acknowledged: stop the server, and start it again"
            raise StoreError(STORE_UNAVAILABLE, message, retry=True)


def _text_error(ask: StoreAppend) -> str:
    texts: Iterable[str] = (ask.room, ask.kind, ask.type, ask.scope, ask.mid or "", ask.sender or "")
    try:
        "".join(texts).encode()
        ask.payload.decode()
    except UnicodeError as exc:
        return f"a message must be valid UTF-8 to be stored: {exc}"
    return ""
