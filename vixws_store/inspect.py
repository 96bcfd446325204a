"""Looking into a SQLite store's file without serving it: what `vixws store stats|history|check` prints.

Plain functions over the standard library's `sqlite3`. They only read, so they may be used on the file of a
running server.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import msgspec

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import LocalError, StoreError
from vixws_core.log import id_number
from vixws_core.message import StoredMessage

from .sqlite.reader import LogReader
from .sqlite.schema import MESSAGE_COLUMNS, SCHEMA_VERSION, content_crc, schema_version, store_epoch

__all__ = ["Finding", "RoomStats", "StoreCheck", "StoreStats", "check", "history", "stats"]

FINDINGS_MAX = 1_000
"""Findings of one `check`; the file is known to be damaged long before."""


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


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong; `room`, `id` and `off` where it has a place."""

    message: str
    room: str | None = None
    id: int | None = None
    off: int | None = None


class StoreCheck(msgspec.Struct, frozen=True):
    """The result of a check: how many rows were looked at, and what is wrong with them (at most 1,000)."""

    rows: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def stats(path: str | os.PathLike[str]) -> StoreStats:
    """Counts and sizes of a store's file.

    Raises: `StoreError`, one line, where it cannot be read or is no store of this version.
    """
    name = os.fspath(path)
    with _opened(name) as db:
        rooms = tuple(
            RoomStats(room, ep, floor, head or floor, rows, size or 0, first or "", last or "")
            for room, ep, floor, head, rows, size, first, last in db.execute(
                "SELECT r.room, r.ep, r.floor, max(m.off), count(m.id),"
                " sum(length(CAST(m.payload_json AS BLOB))), min(m.ts), max(m.ts)"
                " FROM ws_rooms r LEFT JOIN ws_messages m ON m.room = r.room GROUP BY r.room ORDER BY r.room"
            )
        )
        sequence = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ws_messages'").fetchone()
        version, epoch = schema_version(db) or 0, store_epoch(db)
    return StoreStats(
        name,
        version,
        epoch,
        os.path.getsize(name),
        os.path.getsize(name + "-wal") if os.path.exists(name + "-wal") else 0,
        sequence[0] if sequence else 0,
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
    """Looks for damage: SQLite's own check, every row's checksum, dense offsets, rising ids.

    Reads the whole file, row by row. Raises: `StoreError` as `stats` does.
    """
    findings: list[Finding] = []
    rows = 0
    try:
        with _opened(os.fspath(path)) as db:
            for (line,) in db.execute("PRAGMA quick_check"):
                if line != "ok":
                    findings.append(Finding(f"sqlite: {line}"))
            floors = dict(db.execute("SELECT room, floor FROM ws_rooms").fetchall())
            db.text_factory = bytes
            for found in _row_findings(db, floors):
                if isinstance(found, int):
                    rows = found
                elif len(findings) < FINDINGS_MAX:
                    findings.append(found)
    except sqlite3.DatabaseError as exc:
        findings.append(Finding(f"sqlite: {exc}"))
    return StoreCheck(rows, tuple(findings))


def _row_findings(db: sqlite3.Connection, floors: dict[str, int]) -> Iterator[Finding | int]:
    """What is wrong with rows, in order of rooms and offsets; at the end, how many rows there are."""
    count = 0
    last: dict[str, tuple[int, int]] = {}
    for row in db.execute(f"SELECT {MESSAGE_COLUMNS} FROM ws_messages ORDER BY room, off"):
        count += 1
        id, off = row[0], row[7]
        room = row[2].decode("utf-8", "replace") if isinstance(row[2], bytes) else repr(row[2])
        if content_crc(row) != row[12]:
            yield Finding("the row is not what was written (checksum)", room, id, _integer(off))
        if not isinstance(off, int):
            continue
        if room not in floors:
            yield Finding("the room has no row in ws_rooms", room, id, off)
        before_id, before_off = last.get(room, (0, floors.get(room, 0)))
        if off != before_off + 1:
            yield Finding(f"offsets must be dense: {before_off + 1} was expected", room, id, off)
        if id <= before_id:
            yield Finding(f"ids must rise with offsets: above {before_id} was expected", room, id, off)
        last = {room: (id, off)}
    yield count


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None


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
    except sqlite3.OperationalError as exc:
        raise StoreError(STORE_UNAVAILABLE, f"{path}: {exc}") from None
    except sqlite3.DatabaseError as exc:
        if "not a database" in str(exc):
            raise StoreError(STORE_UNAVAILABLE, f"{path}: {exc}") from None
        raise
    finally:
        db.close()
