"""A durable room log for the asyncio peers: one commit per publish, as an application without a log writes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator

import aiosqlite
import msgspec

__all__ = ["SqliteLog"]

_EPOCH = "peer"
_PAGE_ROWS = 500
_FILL_TEXT = "x" * 56  # what the load client's default message of 125 bytes leaves for its text

_SCHEMA = """CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, room TEXT NOT NULL, off INTEGER NOT NULL,
    type TEXT NOT NULL, payload TEXT NOT NULL, UNIQUE (room, off))"""
_INSERT = "INSERT INTO messages (room, off, type, payload) VALUES (?, ?, ?, ?)"


class SqliteLog:
    """Rooms in one SQLite file, WAL and `synchronous=FULL`. The connection commits each statement by itself
    (`isolation_level=None`), so a durable publish costs one hop to aiosqlite's thread, the least there is.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        """Take an open connection; use `open`."""
        self._connection = connection
        self._heads: defaultdict[str, int] = defaultdict(int)

    @classmethod
    async def open(cls, path: str, fill: int = 0) -> SqliteLog:
        """Open or create a file; put `fill` messages into room `r0`, in one transaction."""
        connection = await aiosqlite.connect(path, isolation_level=None)
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=FULL")
        await connection.execute(_SCHEMA)
        log = cls(connection)
        for room, head in await connection.execute_fetchall("SELECT room, MAX(off) FROM messages GROUP BY room"):
            log._heads[room] = head
        if fill:
            payload = msgspec.json.encode({"text": _FILL_TEXT}).decode()
            first = log._heads["r0"] + 1
            await connection.execute("BEGIN IMMEDIATE")
            await connection.executemany(
                _INSERT, [("r0", off, "bench.message", payload) for off in range(first, first + fill)]
            )
            await connection.execute("COMMIT")
            log._heads["r0"] += fill
        return log

    async def append(self, room: str, kind: str, payload: str) -> tuple[int, int]:
        """Commit one message; return its offset and id. Offsets are given in the order of the calls."""
        self._heads[room] += 1
        off = self._heads[room]
        row = await self._connection.execute_insert(_INSERT, (room, off, kind, payload))
        assert row is not None
        return off, int(row[0])

    def position(self, room: str) -> tuple[str, int]:
        """The epoch and the head of a room."""
        return _EPOCH, self._heads[room]

    async def read(self, room: str, after: int) -> AsyncIterator[tuple[int, str]]:
        """All messages of a room after an offset, oldest first, as offset and encoded envelope."""
        while True:
            rows = await self._connection.execute_fetchall(
                "SELECT off, id, type, payload FROM messages WHERE room = ? AND off > ? ORDER BY off LIMIT ?",
                (room, after, _PAGE_ROWS),
            )
            for off, number, kind, payload in rows:
                yield off, envelope(room, off, number, kind, payload)
                after = off
            if not rows:
                return

    async def close(self) -> None:
        """Close the file."""
        await self._connection.close()


def envelope(room: str, off: int, number: int, kind: str, payload: str) -> str:
    """One stored message as its members get it; the payload is spliced in as it was stored."""
    return f'{{"type":"{kind}","room":"{room}","ep":"{_EPOCH}","off":{off},"id":"{number:020}","payload":{payload}}}'
