"""Redaction: a payload is replaced for ever, in its row, in free pages, and in the write-ahead log."""

from __future__ import annotations

import sqlite3
from typing import Final

from vixws_core.log import ANY_CONTENT, REDACTED_PAYLOAD, Redacted, message_id

from .schema import MESSAGE_BYTES, content_crc
from .writer import LogWriter

__all__ = ["is_purge_due", "purge", "redact"]

_ROW: Final = f"SELECT {MESSAGE_BYTES} FROM ws_messages m WHERE m.room = ? AND m.off = ?"

_PURGE: Final = "purge"
"""The row of `ws_meta` that says that the write-ahead log may have what was redacted."""

SQLITE_INTEGER_MAX: Final = (1 << 63) - 1


def redact(writer: LogWriter, room: str, off: int) -> Redacted | None:
    """Replaces the payload at `off`, durably, whatever the store does with appends; None where there is no such entry.

    What was there is in the write-ahead log until `purge`. Raises: `sqlite3.Error`, `OSError`.
    """
    if not 0 < off <= SQLITE_INTEGER_MAX:
        return None
    return writer.change("FULL", _redact, room, off)


def purge(writer: LogWriter, wait_s: float) -> bool:
    """Empties the write-ahead log where something was redacted; False where readers kept it from that for `wait_s`.

    Raises: `sqlite3.Error`, `OSError`.
    """
    if not writer.change("NORMAL", is_purge_due):
        return True
    if not writer.checkpoint(wait_s):
        return False
    writer.change("FULL", _done)
    return True


def _redact(db: sqlite3.Connection, room: str, off: int) -> Redacted | None:
    row = db.execute(
        f"SELECT {MESSAGE_BYTES} FROM ws_messages m WHERE m.room = ? AND m.off = ?", (room, off)
    ).fetchone()
    found = db.execute("SELECT CAST(ep AS BLOB) FROM ws_rooms WHERE room = ?", (room,)).fetchone()
    if row is None:
        return None
    digest = row[9] if row[8] is None else ANY_CONTENT
    crc = content_crc((*row[:5], REDACTED_PAYLOAD, *row[6:9], digest, *row[10:]))
    if content_crc(row) != row[12]:
        crc = crc ^ 0xFFFFFFFF if crc >= 0 else 0  # It was damaged, and stays so: no checksum may say otherwise.
    db.execute(
        "UPDATE ws_messages SET payload_json = ?, digest = ?, crc = ? WHERE id = ?",
        (REDACTED_PAYLOAD.decode(), digest, crc, row[0]),
    )
    db.execute("INSERT OR REPLACE INTO ws_meta (key, value) VALUES (?, '1')", (_PURGE,))
    return Redacted("" if found is None else found[0].decode("utf-8", "replace"), off, message_id(row[0]))


def is_purge_due(db: sqlite3.Connection) -> bool:
    """Whether the write-ahead log may have what was redacted."""
    return db.execute("SELECT 1 FROM ws_meta WHERE key = ?", (_PURGE,)).fetchone() is not None


def _done(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM ws_meta WHERE key = ?", (_PURGE,))
