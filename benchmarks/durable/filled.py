"""Large files, made fast: rows that a store would have written, checksums and all, by SQL alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import anyio

from vixws_store import SqliteMessageStore
from vixws_store.sqlite.schema import (
    MESSAGE_COLUMNS,
    TABLES,
    named,
    put_room_count,
    room_crc,
    row_crc,
    row_head,
    store_epoch,
)

__all__ = ["fill"]

TS: Final = "2026-01-02T03:04:05.678Z"
TOLD_ROWS: Final = 500_000


def fill(path: Path, rooms: Mapping[str, int], say: Callable[[str], None]) -> str:
    """Makes a file with so many messages of each room, one room behind the other; returns its epoch.

    Some 200,000 rows a second. A file that is there is an error of the caller.
    """
    assert not path.exists(), path

    async def make() -> None:
        async with SqliteMessageStore(path).run():
            pass

    anyio.run(make)
    indexes = [statement for statement in TABLES if "ws_messages_" in statement.split("ON")[0]]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        epoch = store_epoch(db)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
            db.execute(f"PRAGMA {pragma}").fetchone()
        for statement in indexes:
            db.execute(f"DROP INDEX {named(statement.split())[1]}")
        db.execute("BEGIN")
        marks = ", ".join("?" * len(MESSAGE_COLUMNS.split(", ")))
        db.executemany(f"INSERT INTO ws_messages ({MESSAGE_COLUMNS}) VALUES ({marks})", _rows(rooms, epoch, say))
        for room, count in rooms.items():
            crc = room_crc(room.encode(), epoch.encode(), 0, 0, count)
            db.execute("INSERT INTO ws_rooms (room, ep, head, crc) VALUES (?, ?, ?, ?)", (room, epoch, count, crc))
        put_room_count(db, len(rooms))
        db.execute("COMMIT")
        say("making the indexes")
        for statement in indexes:
            db.execute(statement)
    return epoch


def _rows(rooms: Mapping[str, int], epoch: str, say: Callable[[str], None]) -> Iterator[tuple[Any, ...]]:
    number, total = 0, sum(rooms.values())
    for room, count in rooms.items():
        for off in range(1, count + 1):
            number += 1
            payload = f'{{"n":{off},"text":"{"x" * 100}"}}'
            head = row_head(number, off, epoch, "event", room, "note", TS, "", None, None)
            crc = row_crc(head, None, payload.encode())
            yield number, "event", room, "note", TS, payload, epoch, off, None, None, "", None, crc
            if not number % TOLD_ROWS:
                say(f"{number:,} of {total:,} rows")
