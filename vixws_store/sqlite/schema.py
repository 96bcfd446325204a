"""The tables of a database file: what they are, how older files become them, and the checksum of a row."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError

__all__ = [
    "MESSAGE_COLUMNS",
    "SCHEMA_VERSION",
    "content_crc",
    "migrate",
    "row_crc",
    "row_head",
    "schema_version",
    "store_epoch",
]

LOGGER = logging.getLogger("vixws.store")

SCHEMA_VERSION = 1
"""The version this code writes. 0 is the seed's table: `id kind room type ts payload_json`."""

MESSAGE_COLUMNS = "id, kind, room, type, ts, payload_json, ep, off, mid, digest, scope, sender, crc"
"""The columns of `ws_messages` in the order used everywhere."""

_TABLES = (
    """
    CREATE TABLE ws_messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        room TEXT NOT NULL,
        type TEXT NOT NULL,
        ts TEXT NOT NULL,
        payload_json TEXT NOT NULL,
        ep TEXT NOT NULL,
        off INTEGER NOT NULL,
        mid TEXT,
        digest BLOB,
        scope TEXT NOT NULL DEFAULT '',
        sender TEXT,
        crc INTEGER NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX ws_messages_offset ON ws_messages (room, off)",
    "CREATE UNIQUE INDEX ws_messages_key ON ws_messages (room, scope, mid) WHERE mid IS NOT NULL",
    """
    CREATE TABLE ws_rooms (
        room TEXT PRIMARY KEY,
        ep TEXT NOT NULL,
        floor INTEGER NOT NULL DEFAULT 0,
        floor_id INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE TABLE ws_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

_SEED_COLUMNS = {"id", "kind", "room", "type", "ts", "payload_json"}


def row_head(
    id: int,
    off: int,
    ep: str,
    kind: str,
    room: str,
    type: str,
    ts: str,
    scope: str,
    mid: str | None,
    sender: str | None,
) -> bytes:
    """Everything of a row but digest and payload, as the bytes its checksum begins with."""
    key = "" if mid is None else f"={mid}"
    author = "" if sender is None else f"={sender}"
    return f"{id} {off}\0{ep}\0{kind}\0{room}\0{type}\0{ts}\0{scope}\0{key}\0{author}".encode()


def row_crc(head: bytes, digest: bytes | None, payload: bytes) -> int:
    """The CRC-32 of a row: head, digest (None counts as empty), payload."""
    return crc32(payload, crc32(digest or b"", crc32(head)))


def content_crc(row: tuple[Any, ...]) -> int | None:
    """The CRC-32 of a row read as `MESSAGE_COLUMNS` with texts as bytes; None where its types are wrong."""
    id, kind, room, type, ts, payload, ep, off, mid, digest, scope, sender, _ = row
    try:
        key = b"" if mid is None else b"=" + mid
        author = b"" if sender is None else b"=" + sender
        # The same bytes as `row_head` gives for the texts.
        head = b"%d %d\0%b\0%b\0%b\0%b\0%b\0%b\0%b\0%b" % (
            id,
            off,
            ep,
            kind,
            room,
            type,
            ts,
            scope,
            key,
            author,
        )
        return row_crc(head, digest, payload)
    except TypeError:
        return None


def schema_version(db: sqlite3.Connection) -> int | None:
    """The version of the tables in a file; None where it holds none."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "ws_meta" in tables:
        found = db.execute("SELECT value FROM ws_meta WHERE key = 'schema_version'").fetchone()
        return int(found[0]) if found else 0
    return 0 if "ws_messages" in tables else None


def store_epoch(db: sqlite3.Connection) -> str:
    """The epoch that rooms without messages have, and that new rooms take."""
    (epoch,) = db.execute("SELECT value FROM ws_meta WHERE key = 'epoch'").fetchone()
    return str(epoch)


def migrate(db: sqlite3.Connection) -> None:
    """Brings an open database to `SCHEMA_VERSION`, in one transaction.

    Raises: `StoreError` where the file is of a newer version, or its table is not one of ours.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = schema_version(db)
        if version is None:
            _create(db)
        elif version > SCHEMA_VERSION:
            message = f"the file has schema version {version}, this program knows versions up to {SCHEMA_VERSION}"
            raise StoreError(STORE_UNAVAILABLE, message)
        else:
            for step in _MIGRATIONS[version:]:
                step(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _create(db: sqlite3.Connection) -> None:
    for statement in _TABLES:
        db.execute(statement)
    db.executemany(
        "INSERT INTO ws_meta (key, value) VALUES (?, ?)",
        [("schema_version", str(SCHEMA_VERSION)), ("epoch", secrets.token_hex(4))],
    )


def _from_seed(db: sqlite3.Connection) -> None:
    """Version 0 to 1: every room of the seed's table becomes a log, in the order of the old ids."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(ws_messages)")}
    if not columns >= _SEED_COLUMNS:
        missing = " ".join(sorted(_SEED_COLUMNS - columns))
        raise StoreError(STORE_UNAVAILABLE, f"the file's table ws_messages lacks the columns {missing}")
    db.execute("ALTER TABLE ws_messages RENAME TO ws_messages_v0")
    for (name,) in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ws_messages_v0' AND sql IS NOT NULL"
    ).fetchall():
        quoted = str(name).replace('"', '""')
        db.execute(
            f'DROP INDEX "{quoted}"'
        )  # A name from the file's own catalogue, quoted: no parameter can stand here.
    _create(db)
    epoch = store_epoch(db)
    marks = ", ".join("?" * 13)
    db.executemany(f"INSERT INTO ws_messages ({MESSAGE_COLUMNS}) VALUES ({marks})", _seed_rows(db, epoch))
    db.execute("INSERT INTO ws_rooms (room, ep) SELECT DISTINCT room, ep FROM ws_messages")
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


_MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_from_seed,)
"""The step from each version to the next; `_from_seed` needs no second step while it creates the newest tables."""
