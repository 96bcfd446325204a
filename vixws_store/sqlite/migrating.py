"""Bringing older files up to the tables of today: the seed's, those of version 1, which had fewer checksums, and those
of version 2, which knew nothing of producers."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

from .damage import FileDamaged
from .schema import (
    MESSAGE_COLUMNS,
    SCHEMA_VERSION,
    TABLES,
    create_tables,
    is_epoch,
    is_floor,
    named,
    put_epoch,
    put_room_count,
    room_crc,
    row_crc,
    row_head,
    schema_version,
    store_epoch,
)

__all__ = ["migrate"]

LOGGER = logging.getLogger("vixws.store")

_SEED_COLUMNS = {"id", "kind", "room", "type", "ts", "payload_json"}


def migrate(db: sqlite3.Connection) -> None:
    """Brings an open database to `SCHEMA_VERSION`, in one transaction.

    Raises: `StoreError` where the file is of a newer version, or its table is not one of ours, or damaged.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = schema_version(db)
        if version is None:
            create_tables(db, secrets.token_hex(4))
        elif version > SCHEMA_VERSION:
            message = f"the file has schema version {version}, this program knows versions up to {SCHEMA_VERSION}"
            raise StoreError(STORE_UNAVAILABLE, message)
        else:
            for step in _MIGRATIONS[version:][:1]:
                step(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _protect(db: sqlite3.Connection) -> None:
    """From version 1: rooms and epoch get checksums. A room that is not plausible gets one that is wrong."""
    epoch = store_epoch(db)
    db.execute("ALTER TABLE ws_rooms RENAME TO ws_rooms_v1")
    for statement in TABLES:
        if named(statement.split())[2] in ("ws_rooms", "ws_lost", "ws_producers"):
            db.execute(statement)
    db.execute(
        "INSERT INTO ws_rooms (room, ep, floor, floor_id, head, crc)"
        " SELECT room, ep, floor, floor_id, 0, -1 FROM ws_rooms_v1"
    )
    db.execute("DROP TABLE ws_rooms_v1")
    rooms = db.execute(
        "SELECT CAST(room AS BLOB), CAST(ep AS BLOB), floor, floor_id,"
        " (SELECT min(off) FROM ws_messages m WHERE m.room = r.room),"
        " (SELECT max(off) FROM ws_messages m WHERE m.room = r.room) FROM ws_rooms r"
    ).fetchall()
    for room, ep, floor, floor_id, first, head in rooms:
        if is_floor(floor, floor_id) and is_epoch(ep) and (first == floor + 1 if first is not None else floor > 0):
            head = floor if head is None else head
            crc = room_crc(room, ep, floor, floor_id, head)
            db.execute("UPDATE ws_rooms SET head = ?, crc = ? WHERE room = CAST(? AS TEXT)", (head, crc, room))
    put_epoch(db, epoch)
    put_room_count(db, len(rooms))


def _add_producers(db: sqlite3.Connection) -> None:
    """From version 2: a table for what is known of producers."""
    epoch = store_epoch(db)
    for statement in TABLES:
        if named(statement.split())[2] == "ws_producers":
            db.execute(statement)
    put_epoch(db, epoch)


def _from_seed(db: sqlite3.Connection) -> None:
    """From version 0: every room of the seed's table becomes a log, in the order of the old ids."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(ws_messages)")}
    if not columns >= _SEED_COLUMNS:
        missing = " ".join(sorted(_SEED_COLUMNS - columns))
        raise StoreError(STORE_UNAVAILABLE, f"the file's table ws_messages lacks the columns {missing}")
    if "off" in columns:
        raise FileDamaged("expected a table ws_meta beside ws_messages, found none")
    db.execute("ALTER TABLE ws_messages RENAME TO ws_messages_v0")
    for (name,) in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ws_messages_v0' AND sql IS NOT NULL"
    ).fetchall():
        quoted = str(name).replace('"', '""')
        db.execute(
            f'DROP INDEX "{quoted}"'
        )  # A name from the file's own catalogue, quoted: no parameter can stand here.
    epoch = secrets.token_hex(4)
    create_tables(db, epoch)
    marks = ", ".join("?" * 13)
    db.executemany(f"INSERT INTO ws_messages ({MESSAGE_COLUMNS}) VALUES ({marks})", _seed_rows(db, epoch))
    rooms = db.execute("SELECT room, max(off) FROM ws_messages GROUP BY room").fetchall()
    db.executemany(
        "INSERT INTO ws_rooms (room, ep, head, crc) VALUES (?, ?, ?, ?)",
        [(room, epoch, head, room_crc(room.encode(), epoch.encode(), 0, 0, head)) for room, head in rooms],
    )
    put_room_count(db, len(rooms))
    db.execute("DROP TABLE ws_messages_v0")


def _seed_rows(db: sqlite3.Connection, epoch: str) -> Iterator[tuple[Any, ...]]:
    """All rows of the seed's table. What is no UTF-8 in one is shown as U+FFFD, and how many there were is logged."""
    converted = 0
    decode = db.text_factory
    db.text_factory = bytes
    try:
        for row, sound in _read_seed(db, epoch):
            converted += not sound
            yield row
    finally:
        db.text_factory = decode
    if converted:
        LOGGER.warning("%d messages of the older table were no UTF-8; U+FFFD stands for what was wrong", converted)


def _read_seed(db: sqlite3.Connection, epoch: str) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Each row, and whether its texts were UTF-8; texts come as bytes."""
    # Ids that are distinct positive numbers are kept; others cannot be, and all are numbered anew in order.
    kept = _seed_ids_fit(db)
    order = "CAST(id AS INTEGER)" if kept else "rowid"
    offsets: dict[str, int] = {}
    old = db.cursor()
    old.execute(
        "SELECT CAST(id AS INTEGER), CAST(kind AS TEXT), CAST(room AS TEXT), CAST(type AS TEXT),"
        f" CAST(ts AS TEXT), CAST(payload_json AS TEXT) FROM ws_messages_v0 ORDER BY {order}"
    )
    for count, (id, *raw) in enumerate(old, 1):
        number = id if kept else count
        texts = [(part or b"").decode(errors="replace") for part in raw]
        sound = all((part or b"") == text.encode() for part, text in zip(raw, texts, strict=True))
        kind, room, type, ts = texts[0] or "event", texts[1], texts[2] or "message", texts[3]
        off = offsets[room] = offsets.get(room, 0) + 1
        text = _object_json(texts[4])
        head = row_head(number, off, epoch, kind, room, type, ts, "", None, None)
        crc = row_crc(head, None, text.encode())
        yield (number, kind, room, type, ts, text, epoch, off, None, None, "", None, crc), sound


def _seed_ids_fit(db: sqlite3.Connection) -> bool:
    seen = 0
    last = 0
    for (id,) in db.execute("SELECT CAST(id AS TEXT) FROM ws_messages_v0 ORDER BY CAST(id AS INTEGER)"):
        # Texts come as bytes here. Python refuses to read very many digits.
        if not (id and len(id) <= 64 and id.isdigit() and last < int(id) < 1 << 62):
            return False
        last = int(id)
        seen += 1
    return seen > 0


def _object_json(payload: str) -> str:
    """The payload where it is a JSON object, else an object that holds its text."""
    try:
        if isinstance(json.loads(payload), dict):
            return payload
    except (ValueError, RecursionError):
        pass
    return json.dumps({"text": payload})


_MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_from_seed, _protect, _add_producers)
"""From each version to the newest; all end there, so that one of them is all that a file needs."""
