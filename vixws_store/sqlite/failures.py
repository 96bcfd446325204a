"""What a disk can do to us, and how callers are told."""

from __future__ import annotations

import sqlite3

from vixws_core.codes import STORE_FULL, STORE_UNAVAILABLE
from vixws_core.errors import StoreError

__all__ = ["FAILURES", "needs_reopening", "store_error"]

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


def needs_reopening(error: BaseException) -> bool:
    """Whether the connections are of no use after this failure; not so where the file is locked, or no space left."""
    if isinstance(error, StoreError):
        return error.code != STORE_FULL
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING
    return True


_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT)
