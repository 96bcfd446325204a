"""The tables of a database file: what they are, and the checksums of what they hold.

Nothing of a file is believed before it is looked at: whatever stands in it may have been changed by a failing disk.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from .damage import FileDamaged

__all__ = [
    "MESSAGE_BYTES",
    "MESSAGE_COLUMNS",
    "NO_CRC",
    "SCHEMA_VERSION",
    "TABLES",
    "check_tables",
    "content_crc",
    "create_tables",
    "is_epoch",
    "is_floor",
    "named",
    "put_epoch",
    "put_room_count",
    "room_count",
    "room_crc",
    "row_crc",
    "row_head",
    "schema_version",
    "store_epoch",
]

SCHEMA_VERSION = 3
"""The version this code writes. 0 is the seed's table: `id kind room type ts payload_json`; 1 had no checksums but the
rows' own; 2 knew nothing of producers."""

MESSAGE_COLUMNS = "id, kind, room, type, ts, payload_json, ep, off, mid, digest, scope, sender, crc"
"""The columns of `ws_messages` in the order used everywhere."""

MESSAGE_BYTES = ", ".join(
    f"CAST(m.{name} AS BLOB)" if name not in ("id", "off", "digest", "crc") else f"m.{name}"
    for name in MESSAGE_COLUMNS.split(", ")
)
"""The same of a table `m`, texts as bytes whatever the connection makes of them: for `content_crc`."""

NO_CRC = -2
"""No checksum: none is negative, and this one is never written."""

_EPOCH = re.compile("[0-9A-Za-z._-]{1,64}")

TABLES = (
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
        floor_id INTEGER NOT NULL DEFAULT 0,
        head INTEGER NOT NULL DEFAULT 0,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE ws_lost (
        room TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (room, first)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE ws_producers (
        room TEXT NOT NULL,
        scope TEXT NOT NULL,
        producer TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        day INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (room, scope, producer)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ws_producers_day ON ws_producers (day)",
    "CREATE TABLE ws_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


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


def content_crc(row: Sequence[Any]) -> int:
    """The CRC-32 of a row read as `MESSAGE_COLUMNS` with texts as bytes; `NO_CRC` where its types are wrong."""
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
        return NO_CRC


def room_crc(room: Any, ep: Any, floor: Any, floor_id: Any, head: Any) -> int:
    """The CRC-32 of a row of `ws_rooms` with texts as bytes; `NO_CRC` where its types are wrong."""
    try:
        return crc32(b"%b\0%b\0%d %d %d" % (room, ep, floor, floor_id, head))
    except TypeError:
        return NO_CRC


def is_epoch(value: object) -> bool:
    """Whether bytes can be a log's epoch: 1 to 64 ASCII letters, digits, dots, dashes and underscores."""
    return isinstance(value, bytes) and _EPOCH.fullmatch(value.decode("latin-1")) is not None


def is_floor(floor: object, id: object) -> bool:
    """Whether two values can be the highest trimmed offset and its id, or 0 both: what version 1 wrote."""
    return type(floor) is int and type(id) is int and floor >= 0 and (floor > 0) == (id > 0) and id >= 0


def schema_version(db: sqlite3.Connection) -> int | None:
    """The version of the tables in a file; None where it holds none.

    Raises: `FileDamaged` where that is not to be known.
    """
    tables = {name for (name,) in db.execute("SELECT CAST(name AS BLOB) FROM sqlite_master WHERE type = 'table'")}
    if b"ws_meta" in tables:
        text = _meta(db).get(b"schema_version")
        if isinstance(text, bytes) and text.isdigit() and len(text) <= 4:
            return int(text)
        raise FileDamaged(f"expected a schema_version in ws_meta, found {text!r:.80}")
    if b"ws_messages" in tables:
        return 0
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    if not tables and pages > 1:
        raise FileDamaged(f"expected the tables of a store or an empty file, found {pages} pages without a table")
    return None


def store_epoch(db: sqlite3.Connection) -> str:
    """The epoch that rooms without messages have, and that new rooms take.

    Raises: `FileDamaged` where it is not what was written.
    """
    meta = _meta(db)
    version, epoch = meta.get(b"schema_version"), meta.get(b"epoch")
    if not (isinstance(epoch, bytes) and is_epoch(epoch)):
        raise FileDamaged(f"expected an epoch in ws_meta, found {epoch!r:.80}")
    if version != b"1" and meta.get(b"crc") != _meta_crc(version, epoch):
        raise FileDamaged(f"the epoch {epoch!r:.80} in ws_meta is not what was written (checksum)")
    return epoch.decode()


def _meta(db: sqlite3.Connection) -> dict[object, object]:
    return dict(db.execute("SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM ws_meta LIMIT 1000").fetchall())


def _meta_crc(version: object, epoch: bytes) -> bytes:
    return b"%d" % crc32(b"%b\0%b" % (version if isinstance(version, bytes) else b"", epoch))


def check_tables(db: sqlite3.Connection) -> None:
    """Looks whether the tables and indexes are the ones of `SCHEMA_VERSION`; others beside them do no harm.

    Raises: `FileDamaged` which names the first that is not.
    """
    found = {
        name.decode("latin-1"): sql
        for name, sql in db.execute(
            "SELECT CAST(type || ' ' || name || ' ' || tbl_name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master"
        )
        if isinstance(name, bytes)
    }
    for statement in TABLES:
        words = statement.split()
        kind, name, table = named(words)
        sql = found.get(f"{kind} {name} {table}")
        if not isinstance(sql, bytes) or sql.replace(b'"', b"").split() != statement.encode().split():
            raise FileDamaged(f"the {kind} {name} is not as it was made")


def named(words: Sequence[str]) -> tuple[str, str, str]:
    """What a statement makes: the kind, the name, and the table's name."""
    if "INDEX" in words:
        at = words.index("INDEX")
        return "index", words[at + 1], words[at + 3]
    return "table", words[2], words[2]


def create_tables(db: sqlite3.Connection, epoch: str) -> None:
    """Makes all tables, empty, in the transaction that runs."""
    for statement in TABLES:
        db.execute(statement)
    put_epoch(db, epoch)
    put_room_count(db, 0)


def put_room_count(db: sqlite3.Connection, count: int) -> None:
    """Writes down how many rooms there are: one that vanished must not be taken for a new one."""
    db.execute("INSERT OR REPLACE INTO ws_meta (key, value) VALUES ('rooms', ?)", (str(count),))


def room_count(db: sqlite3.Connection) -> int | None:
    """How many rooms were written down; None where that is not to be known."""
    text = _meta(db).get(b"rooms")
    return int(text) if isinstance(text, bytes) and text.isdigit() and len(text) <= 18 else None


def put_epoch(db: sqlite3.Connection, epoch: str) -> None:
    """Writes the values of the whole file: its version, its epoch, and their checksum."""
    version = str(SCHEMA_VERSION)
    crc = _meta_crc(version.encode(), epoch.encode()).decode()
    db.executemany(
        "INSERT OR REPLACE INTO ws_meta (key, value) VALUES (?, ?)",
        [("schema_version", version), ("epoch", epoch), ("crc", crc)],
    )
