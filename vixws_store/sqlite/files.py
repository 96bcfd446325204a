"""Whether the files that a connection has open are still those at their paths, and whole.

SQLite itself goes on writing into a file that was removed, and behind the end of a write-ahead log that was cut: all of
it would be acknowledged, and lost.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

from .lock import Place

__all__ = ["Files", "close_untouched"]

HEADER: Final = 32
"""Bytes of a write-ahead log's header: magic, version, page size, sequence, two salts, checksum; see SQLite's "WAL-mode
File Format"."""

FRAME_HEADER: Final = 24
"""Bytes before each page in it; the salts of its generation at 8."""

MAGIC: Final = frozenset({b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"})

PAGE_BYTES_MAX: Final = 65_536

_TOUCH: Final = (
    "INSERT INTO ws_meta (key, value) VALUES ('probe', zeroblob(1))",
    "DELETE FROM ws_meta WHERE key = 'probe'",
)


class Files:
    """The database, its write-ahead log and that one's index, as the writing connection last saw them.

    Belongs to the connection's thread. `log_bytes` is the size of the log at the last look; any thread may read it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.log_bytes: int = 0
        self._log = f"{path}-wal"
        self._paths = (path, self._log, f"{path}-shm")
        self._places: dict[str, Place] = {}
        self._size = 0
        self._header = b""
        self._last = b""
        """The last frame of the log. Whatever is cut off, this goes first."""
        self._changes = 0
        self._in_doubt = False
        self._unsure = b""
        """The header of a log whose end may hold what was never committed; b"" for none."""

    def opened(self) -> None:
        """The files that are there now are those of a connection that was just opened."""
        self._places = {}
        self._in_doubt = False
        looked = self._look()
        self._size = 0 if looked is None else looked[0]
        if looked is not None:
            with _opened(self._log) as log:
                self._keep(log, looked[1], _header_of(log))
        self._last = b""  # Whoever wrote it may have been killed before it was committed.
        self._unsure = self._header

    def failed(self) -> None:
        """A transaction was not carried out: what it wrote to the log is still there, and is written over."""
        self._unsure = self._header

    def emptied(self) -> None:
        """Our own checkpoint has emptied the log."""
        self.log_bytes, self._header, self._last = 0, b"", b""

    def before(self, db: sqlite3.Connection) -> None:
        """To be called in a transaction that writes, before all else: nothing is to be written behind a cut.

        An empty log that was not empty may have been emptied by another process, in good order; then SQLite begins it
        anew with this transaction, and only `after` can tell. So this one writes in any case, and copies nothing of
        the log into the database. Raises: `StoreError` where a file is not the one that is open, or was cut.
        """
        self._changes = db.total_changes
        looked = self._look(self._paths[:2])
        if looked is None:
            return
        size, log_size = looked
        self._check_size(db, size)
        if log_size >= self.log_bytes:
            return
        if log_size:
            with _opened(self._log) as log:
                self._compare(log, log_size, _header_of(log))
            return
        self._in_doubt = True
        db.execute("PRAGMA wal_autocheckpoint = 0")
        for statement in _TOUCH:
            db.execute(statement)

    def after(self, db: sqlite3.Connection) -> None:
        """To be called after a commit and before it is acknowledged.

        Raises: `StoreError` where a file is not the one that is open, or was cut: what was committed may be lost.
        """
        looked = self._look()
        if looked is None:
            return
        self._check_size(db, looked[0])
        with _opened(self._log) as log:
            header = _header_of(log)
            if not self._compare(log, looked[1], header):
                if not header and db.total_changes != self._changes:
                    raise self._cut(looked[1])
                self._keep(log, looked[1], header)
                if self._unsure:
                    self._find_end(db, log, header)
        if self._in_doubt:
            self._in_doubt = False
            db.execute("PRAGMA wal_autocheckpoint = 1000")  # SQLite's own default.

    def are_whole(self) -> bool:
        """Whether the log may be copied into the database: not so where it was cut, or may have been."""
        if self._in_doubt:
            return False
        try:
            looked = self._look()
            if looked is None:
                return True
            if looked[0] < self._size and self.log_bytes:
                return False
            with _opened(self._log) as log:
                header = _header_of(log)
                if not self.log_bytes:  # Begun by a transaction that was not acknowledged, if at all.
                    return bool(header) or not looked[1]
                self._compare(log, looked[1], header)
        except StoreError:
            # One that was removed is whole: what has it open has all of it.
            return self._is_gone(self._log)
        except OSError:
            return False
        return True

    def check_whole(self) -> None:
        """Raises: `StoreError` where the log must not be copied into the database."""
        if not self.are_whole():
            raise StoreError(STORE_UNAVAILABLE, f"{self.path}, or its write-ahead log, was cut", retry=True)

    def may_go_on(self, db: sqlite3.Connection) -> bool:
        """Whether files that were opened again, and are not yet `opened`, are whole as far as this can be told."""
        try:
            self._check_size(db, os.stat(self.path).st_size)
        except StoreError:
            return False
        return not self._has_holes()

    def _has_holes(self) -> bool:
        """Whether a page of the log was never written: it was cut, and written on behind its end. Reads all of it."""
        with _opened(self._log) as log:
            size, header = os.fstat(log).st_size, _header_of(log)
            if not header:
                return size > HEADER  # A disk that filled up may leave a part of one: nothing stands behind it.
            frame = _frame_bytes(header)
            return any(os.pread(log, 8, at + 8) == bytes(8) for at in range(HEADER, size, frame))

    def _look(self, paths: tuple[str, ...] = ()) -> tuple[int, int] | None:
        """The sizes of the database and of its log; None where they may not be looked at just now: what was committed
        into the files that are open is there. Raises: `StoreError`."""
        sizes: list[int] = []
        for path in paths or self._paths:
            try:
                found = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                raise StoreError(STORE_UNAVAILABLE, f"{path} was removed", retry=True) from None
            except PermissionError:
                return None
            place = (found.st_dev, found.st_ino)
            if self._places.setdefault(path, place) != place:
                raise StoreError(STORE_UNAVAILABLE, f"{path} was replaced by another file", retry=True)
            sizes.append(found.st_size)
        return sizes[0], sizes[1]

    def _check_size(self, db: sqlite3.Connection, size: int) -> None:
        """The database shrinks only where another process vacuums it, and then it has fewer pages too."""
        if size < self._size:
            (pages,), (page,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
            if pages * page >= self._size:
                raise StoreError(STORE_UNAVAILABLE, f"{self.path} was cut to {size} bytes", retry=True)
        self._size = size

    def _compare(self, log: int, size: int, header: bytes) -> bool:
        """Whether the log is as it was kept. Raises: `StoreError` where it is neither that, with something behind it,
        nor a new one."""
        if header and header != self._header:
            return False  # SQLite has begun it anew, which it does when all of it is in the database.
        if size >= self.log_bytes and header == self._header:
            if not self._last:
                return False
            length, salts = len(self._last), header[16:24]
            found = os.pread(log, length, self.log_bytes - length)
            if found == self._last:
                return size == self.log_bytes
            if found[8:16] == salts != self._last[8:16]:
                return False  # It was of the generation before, and is written over by this one, which came so far.
        raise self._cut(size)

    def _cut(self, size: int) -> StoreError:
        return StoreError(STORE_UNAVAILABLE, f"{self._log} was cut, and now has {size} bytes", retry=True)

    def _keep(self, log: int, size: int, header: bytes) -> None:
        self.log_bytes, self._header, self._last = size, header, b""
        frame = _frame_bytes(header) if header else 0
        if frame and size > HEADER and not (size - HEADER) % frame:
            self._last = os.pread(log, frame, size - frame)

    def _find_end(self, db: sqlite3.Connection, log: int, header: bytes) -> None:
        """Keeps the last frame that is committed, of a log that may go on behind it.

        A checkpoint tells where that is, and once it is complete the log is begun anew, which ends the doubt.
        """
        if header != self._unsure:
            self._unsure = b""
            return
        self._last = b""
        try:
            _, frames, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:
            return  # What was committed is committed. The next one asks again.
        end = HEADER + frames * _frame_bytes(header)
        if frames > 0 and end <= self.log_bytes:
            self._keep(log, end, header)

    def _is_gone(self, path: str) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return True
        return self._places.get(path) != (found.st_dev, found.st_ino)


def close_untouched(db: sqlite3.Connection, path: str) -> None:
    """Closes a connection whose files are not to be trusted.

    The last one that is closed copies the log into the database; so another one, which cannot, is closed after it.
    """
    other = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", timeout=0.0, uri=True)
    try:
        other.execute("SELECT 1 FROM sqlite_master").fetchone()
    except (sqlite3.Error, UnicodeDecodeError):  # Python cannot read what SQLite quotes of damaged tables.
        pass  # It may hold its lock all the same.
    finally:
        db.close()
        other.close()


@contextmanager
def _opened(path: str) -> Generator[int]:
    """A log to be read. SQLite takes no lock on it that closing it could cost."""
    log = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield log
    finally:
        os.close(log)


def _header_of(log: int) -> bytes:
    """A log's header; b"" where it has none."""
    header = os.pread(log, HEADER, 0)
    return header if len(header) == HEADER and header[:4] in MAGIC else b""


def _frame_bytes(header: bytes) -> int:
    """A page with what stands before it."""
    page = int.from_bytes(header[8:12], "big")
    return FRAME_HEADER + max(512, min(page, PAGE_BYTES_MAX))
