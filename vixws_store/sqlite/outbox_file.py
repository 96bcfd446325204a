"""What an outbox does with its file, in the connection's thread: one function call is one transaction."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable
from typing import TypeAlias

from vixws_core.codes import STORE_UNAVAILABLE
from vixws_core.errors import StoreError
from vixws_core.inputs import Since
from vixws_core.protocols import OutboxEntry

__all__ = ["Change", "OutboxFile"]

SCHEMA_VERSION = 1

_TABLES = (
    "CREATE TABLE outbox_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE outbox_entries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        mid TEXT NOT NULL UNIQUE,
        room TEXT NOT NULL,
        type TEXT NOT NULL,
        kind TEXT NOT NULL,
        payload_json TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE outbox_positions (
        room TEXT PRIMARY KEY,
        ep TEXT NOT NULL,
        off INTEGER NOT NULL,
        id TEXT
    ) WITHOUT ROWID
    """,
)

Change: TypeAlias = OutboxEntry | str | tuple[str, Since | None]
"""An entry to keep, the `mid` of one to forget, or a room with its position (None: forget it)."""


class OutboxFile:
    """One SQLite file. Every method belongs to the connection's thread; after `open` its contents are at hand."""

    def __init__(self, path: str, busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self.pub: str = ""
        self.entries: list[OutboxEntry] = []
        self.positions: dict[str, Since] = {}

    def open(self) -> sqlite3.Connection:
        """Opens the file, or makes it, readable by its owner only, for it holds a secret.

        Raises: `StoreError`, `sqlite3.Error`, `OSError`.
        """
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None)
        try:
            self._set_up(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def apply(self, changes: Iterable[Change]) -> None:
        """Makes the changes, in order, in one transaction.

        Raises: `sqlite3.Error`; then none was made, as far as is known.
        """
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                _apply(db, change)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _set_up(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        try:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                _create(db)
            elif "outbox_meta" not in tables:
                raise StoreError(STORE_UNAVAILABLE, f"the file is no outbox: it holds {' '.join(sorted(tables))}")
            meta = dict(db.execute("SELECT key, value FROM outbox_meta").fetchall())
            if meta["schema_version"] != str(SCHEMA_VERSION):
                message = f"expected an outbox of version {SCHEMA_VERSION}, found {meta['schema_version']}"
                raise StoreError(STORE_UNAVAILABLE, message)
            self.pub = meta["pub"]
            self.entries = [
                OutboxEntry(mid, room, type, payload.encode(), kind)
                for mid, room, type, kind, payload in db.execute(
                    "SELECT mid, room, type, kind, payload_json FROM outbox_entries ORDER BY seq"
                )
            ]
            self.positions = {
                room: Since(ep, off, id) for room, ep, off, id in db.execute("SELECT * FROM outbox_positions")
            }
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _create(db: sqlite3.Connection) -> None:
    for statement in _TABLES:
        db.execute(statement)
    db.executemany(
        "INSERT INTO outbox_meta (key, value) VALUES (?, ?)",
        [("schema_version", str(SCHEMA_VERSION)), ("pub", secrets.token_hex(16))],
    )


def _apply(db: sqlite3.Connection, change: Change) -> None:
    if isinstance(change, OutboxEntry):
        # An entry that is there already is the same one: another under its key was refused before.
        db.execute(
            "INSERT INTO outbox_entries (mid, room, type, kind, payload_json) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (mid) DO NOTHING",
            (change.mid, change.room, change.type, change.kind, change.payload.decode()),
        )
    elif isinstance(change, str):
        db.execute("DELETE FROM outbox_entries WHERE mid = ?", (change,))
    else:
        room, since = change
        if since is None:
            db.execute("DELETE FROM outbox_positions WHERE room = ?", (room,))
        else:
            db.execute(
                "INSERT INTO outbox_positions (room, ep, off, id) VALUES (?1, ?2, ?3, ?4)"
                " ON CONFLICT (room) DO UPDATE SET ep = ?2, off = ?3, id = ?4",
                (room, since.ep, since.off, since.id),
            )
