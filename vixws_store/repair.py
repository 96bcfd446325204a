"""Repairing a SQLite store's file that no server has: what `vixws store repair` does.

A new file is written with all that is certain, and takes the place of the old one, which is kept under another name:
nothing is lost by a repair itself. Plain functions that block.
"""

from __future__ import annotations

import os
import shutil
import sqlite3

import msgspec

from vixws_core.codes import INTERNAL, STORE_UNAVAILABLE
from vixws_core.errors import StoreError

from .checking import StoreCheck
from .inspect import check
from .rebuild import Rebuilding
from .salvage import OldFile
from .sqlite.damage import FileDamaged
from .sqlite.failures import store_error
from .sqlite.lock import FileLock, create_private

__all__ = ["Repair", "repair"]

BUSY_TIMEOUT_S = 5.0
"""How long the lock of another program, such as the `sqlite3` shell, is waited for."""


class Repair(msgspec.Struct, frozen=True):
    """What a repair did: `rows` messages are in the file now. In words, what was made anew and what could not be.

    `kept` is where the damaged file is now; empty where it was sound, and nothing was changed.
    """

    rows: int
    done: tuple[str, ...]
    lost: tuple[str, ...]
    kept: str = ""


def repair(path: str | os.PathLike[str]) -> Repair:
    """Makes a damaged file sound again, as far as it can be; leaves a sound one alone.

    Indexes, the rows of rooms, the counter of ids and the epoch are made anew from the messages. Messages that are
    damaged or cannot be read are left out, and their offsets are written down as lost: they are told as `$gap`. The
    old file stays beside it as `FILE.damaged`. Takes as much space again as the file has.

    Raises: `StoreError`, one line, where the file is served, is no store, or nothing certain can be read of it;
    it stays as it was then.
    """
    told, name = os.fspath(path), os.path.realpath(path)
    if not os.path.isfile(name):
        raise StoreError(STORE_UNAVAILABLE, f"{told}: no such file")
    lock = FileLock(name + ".lock")
    try:
        lock.acquire(told)
        found = _check(name)
        return Repair(found.rows, (), ()) if found is not None and found.sound else _replace(name, told)
    except (FileDamaged, UnicodeDecodeError) as exc:
        why = exc if isinstance(exc, FileDamaged) else "the tables' own texts are damaged; restore a backup"
        raise StoreError(INTERNAL, f"{told}: {why}") from None
    except (sqlite3.Error, OSError) as exc:
        raise store_error(exc, told) from None
    finally:
        lock.release()


def _check(name: str) -> StoreCheck | None:
    try:
        return check(name)
    except StoreError:  # Of another version, or such that not even a check is possible.
        return None


def _replace(name: str, told: str) -> Repair:
    new = f"{name}.repaired"
    for leftover in (new, f"{new}-journal"):  # Of a repair that did not come to its end.
        if os.path.exists(leftover):
            os.unlink(leftover)
    create_private(new)
    try:
        done = _rebuild(name, new, told)
        found = check(new)
        if not found.sound:
            message = f"{told}: what could be made of it is not sound: {found.findings[0].message}; restore a backup"
            raise StoreError(INTERNAL, message)
        shutil.copymode(name, new)
        kept = _put_in_place(name, new, told)
    except BaseException:
        if os.path.exists(new):
            os.unlink(new)
        raise
    return Repair(done.count, tuple(done.done), tuple(done.lost), kept)


def _rebuild(name: str, new: str, told: str) -> Rebuilding:
    old = sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        old.execute("PRAGMA writable_schema = ON")  # A damaged index must not keep us from reading tables.
        # What is in the write-ahead log goes into the file: it would be of no use to the new one, and damage it.
        try:
            (busy, _, _) = old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreError(STORE_UNAVAILABLE, f"{told}: another program uses it")
            old.execute("BEGIN IMMEDIATE")  # Nobody else writes meanwhile.
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise
            old.execute("BEGIN")  # The file's own head forbids it to everybody.
        source = OldFile(old)
        if source.is_newer():
            raise StoreError(STORE_UNAVAILABLE, f"{told}: a later version of vixws wrote it, and must repair it")
        db = sqlite3.connect(new, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            rebuilding = Rebuilding(source, db)
            rebuilding.run()
            if rebuilding.is_hopeless:
                raise FileDamaged("nothing certain can be read of it; restore a backup")
            db.execute("COMMIT")
        finally:
            db.close()
        old.execute("ROLLBACK")
        return rebuilding
    finally:
        old.close()


def _put_in_place(name: str, new: str, told: str) -> str:
    """Keeps the old file under another name and puts the new one in its place; returns the other name."""
    for extra in (f"{name}-wal", f"{name}-shm"):
        if os.path.exists(extra):
            raise StoreError(STORE_UNAVAILABLE, f"{told}: another program uses it")
    kept, number = f"{name}.damaged", 1
    while os.path.exists(kept):
        number += 1
        kept = f"{name}.damaged{number}"
    try:
        os.link(name, kept)
    except OSError:  # Not every file system has second names.
        shutil.copy2(name, kept)
    try:
        os.replace(new, name)
    except OSError:
        os.unlink(kept)
        raise
    folder = os.open(os.path.dirname(name), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept
