"""What a disk can do to us, and how callers are told."""

from __future__ import annotations

import logging
import shlex
import sqlite3

from vixws_core.codes import INTERNAL, STORE_FULL, STORE_UNAVAILABLE
from vixws_core.errors import StoreError

from .damage import FileDamaged, is_damage

__all__ = ["FAILURES", "needs_reopening", "opening_error", "store_error"]

LOGGER = logging.getLogger("vixws.store")

FAILURES = (sqlite3.Error, OSError, StoreError)
"""What a disk can do to us. Anything else is a mistake in this program and is not caught."""


def store_error(error: BaseException, path: str) -> StoreError:
    """A failure of the storage as a `StoreError` with its wire code; `retry` is true, for disks recover."""
    if isinstance(error, StoreError):
        return error
    code = STORE_UNAVAILABLE
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        code = STORE_FULL
    return StoreError(code, f"{path}: {error}", retry=True)


def opening_error(error: Exception, path: str) -> StoreError:
    """Why a file could not be opened, in one line that names it; never to be tried again without somebody's doing.

    Where its content is to blame, or nobody expected this, the code is `internal`, and the line says what to run.
    """
    if isinstance(error, StoreError) and path in str(error):
        return error
    is_unexpected = not isinstance(error, FAILURES)
    if is_unexpected:
        LOGGER.debug("opening %s failed", path, exc_info=error)
    if not (is_unexpected or isinstance(error, FileDamaged) or is_damage(error) or _is_odd(error)):
        return StoreError(STORE_UNAVAILABLE, f"cannot open the store {path}: {error}")
    what = f"{type(error).__name__}: {error}" if is_unexpected else str(error)
    command = f"vixws store repair {shlex.quote(path)}"
    return StoreError(INTERNAL, f"cannot open the store {path}: expected a sound file, found: {what}; run {command}")


def _is_odd(error: Exception) -> bool:
    """Whether SQLite cannot make sense of the file: its tables, or its very first page."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return isinstance(error, sqlite3.Error) and code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB)


def needs_reopening(error: BaseException) -> bool:
    """Whether the connections are of no use after this failure; not so where the file is locked, or no space left."""
    if isinstance(error, StoreError):
        return error.code != STORE_FULL
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING
    return True


_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT)
