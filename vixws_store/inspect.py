"""Looking into a SQLite store's file without serving it: what `vixws store stats|history|check` prints.

Plain functions over the standard library's `sqlite3`. They only read, so they may be used on the file of a
running server.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from vixws_core.codes import INTERNAL, STORE_UNAVAILABLE
from vixws_core.errors import LocalError, StoreError
from vixws_core.log import id_number
from vixws_core.message import StoredMessage

from .checking import Finding, StoreCheck, examine
from .sqlite.counter import is_id, sequences
from .sqlite.damage import FileDamaged, is_damage
from .sqlite.reader import LogReader
from .sqlite.schema import SCHEMA_VERSION, schema_version, store_epoch

__all__ = ["Finding", "RoomStats", "StoreCheck", "StoreStats", "check", "history", "stats"]


class RoomStats(msgspec.Struct, frozen=True):
    """One room: `floor` is the highest trimmed offset (0: none), `head` the newest; `rows` are kept."""

    room: str
    ep: str
    floor: int
    head: int
    rows: int
    payload_bytes: int
    first_ts: str
    last_ts: str


class StoreStats(msgspec.Struct, frozen=True):
    """One file: sizes in bytes, rooms by name, counts over all of them. `last_id` is the highest id given."""

    path: str
    schema_version: int
    epoch: str
    file_bytes: int
    wal_bytes: int
    last_id: int
    rows: int
    payload_bytes: int
    rooms: tuple[RoomStats, ...]


def stats(path: str | os.PathLike[str]) -> StoreStats:
    """Counts and sizes of a store's file.

    Raises: `StoreError`, one line, where it cannot be read, is damaged or is no store of this version.
    """
    name = os.fspath(path)
    with _opened(name) as db:
        rooms = tuple(
            RoomStats(room, ep, floor, head, rows, size or 0, first or "", last or "")
            for room, ep, floor, head, rows, size, first, last in db.execute(
                "SELECT r.room, r.ep, r.floor, max(coalesce(max(m.off), r.floor), r.head), count(m.id),"
                " sum(length(CAST(m.payload_json AS BLOB))), min(m.ts), max(m.ts)"
                " FROM ws_rooms r LEFT JOIN ws_messages m ON m.room = r.room GROUP BY r.room ORDER BY r.room"
            )
        )
        sequence = [seq for seq in sequences(db) if is_id(seq)]
        for found in rooms:
            if not all(type(number) is int for number in (found.floor, found.head, found.payload_bytes)):
                raise FileDamaged(f"the numbers of room {found.room!r:.140} are damaged: see vixws store check")
        version, epoch = schema_version(db) or 0, store_epoch(db)
    return StoreStats(
        name,
        version,
        epoch,
        os.path.getsize(name),
        os.path.getsize(name + "-wal") if os.path.exists(name + "-wal") else 0,
        max(sequence, default=0),
        sum(room.rows for room in rooms),
        sum(room.payload_bytes for room in rooms),
        rooms,
    )


def history(path: str | os.PathLike[str], room: str, limit: int = 50, before: str | None = None) -> list[StoredMessage]:
    """The newest `limit` messages of `room` below the id `before`, oldest first. Damaged ones are left out.

    Raises: `StoreError` as `stats` does; `LocalError` where `before` is not an id or `limit` is negative.
    """
    if limit < 0:
        raise LocalError(f"limit must be 0 or more, got {limit}")
    number = None if before is None else id_number(before)
    name = os.fspath(path)
    with _opened(name) as db:
        return LogReader.over(db, name).list_by_room(room, limit, number)


def check(path: str | os.PathLike[str]) -> StoreCheck:
    """Looks for damage, of all that the file holds: pages, tables, indexes, every row, every room, the counter of ids.

    Reads the whole file more than once, in one transaction that lasts so long: the write-ahead log of a served one
    grows meanwhile. Raises: `StoreError` as `stats` does.
    """
    try:
        with _opened(os.fspath(path)) as db:
            found = examine(db)
        return found if _may_be_written(path) else replace(found, findings=(_READ_ONLY, *found.findings))
    except StoreError as exc:
        if exc.code != INTERNAL:
            raise
        return StoreCheck(0, (Finding(str(exc)),))


_READ_ONLY = Finding("the file's head says that it may only be read")


def _may_be_written(path: str | os.PathLike[str]) -> bool:
    """Whether SQLite would write into the file, by its head: 1 is a file's first version, 2 one with a log."""
    with open(path, "rb") as file:
        return file.read(20)[18:19] in (b"\x01", b"\x02")


@contextmanager
def _opened(path: str) -> Generator[sqlite3.Connection]:
    """A connection that only reads.

    Raises: `StoreError` where there is no store of this version at `path`.
    """
    if not os.path.isfile(path):
        raise StoreError(STORE_UNAVAILABLE, f"{path}: no such file")
    # mode=ro also keeps this connection from checkpointing at its end: only a server's writer may do that.
    db = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, isolation_level=None)
    try:
        version = schema_version(db)
        if version != SCHEMA_VERSION:
            found = "no store" if version is None else f"a store of schema version {version}"
            raise StoreError(STORE_UNAVAILABLE, f"{path}: expected schema version {SCHEMA_VERSION}, found {found}")
        yield db
    except (sqlite3.Error, FileDamaged) as exc:
        code = INTERNAL if isinstance(exc, FileDamaged) or is_damage(exc) else STORE_UNAVAILABLE
        raise StoreError(code, f"{path}: {exc}") from None
    except UnicodeDecodeError:  # SQLite says what it does not understand, and Python cannot read that.
        raise StoreError(INTERNAL, f"{path}: the tables' own texts are damaged") from None
    finally:
        db.close()
