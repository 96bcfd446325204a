"""Files of the seed's shape become logs, whatever their ids look like."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from vixws_core.message import StoredMessage
from vixws_store import SqliteMessageStore
from vixws_store.inspect import check

pytestmark = pytest.mark.anyio

SEED_TABLE = """
CREATE TABLE ws_messages (
    id TEXT PRIMARY KEY, kind TEXT, room TEXT, type TEXT, ts TEXT, payload_json TEXT
);
CREATE INDEX ws_messages_offset ON ws_messages (room, id);
"""


def make_seed_file(path: Path, rows: list[tuple[Any, ...]]) -> None:
    db = sqlite3.connect(path)
    db.executescript(SEED_TABLE)
    db.executemany("INSERT INTO ws_messages VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.commit()
    db.close()


async def migrated(path: Path) -> tuple[list[StoredMessage], str]:
    store = SqliteMessageStore(path)
    async with store.run():
        rows = await store.replay_from("")
        new = await store.append("event", "africa", "chat.message", {"new": True})
        assert (await store.position("africa")).id == new
    assert check(path).sound
    return rows, new


async def test_seed_file_keeps_ids_and_content(tmp_path: Path) -> None:
    make_seed_file(
        tmp_path / "a.db",
        [
            ("01700000000000000002", "event", "africa", "chat.message", "2025-01-01T00:00:00Z", '{"text": "ä" }'),
            ("01700000000000000001", "event", "africa", "chat.message", "2025-01-01T00:00:00Z", '{"n":1}'),
            ("01700000000000000003", "event", "asia", "chat.message", "2025-01-01T00:00:00Z", '{"n":3}'),
        ],
    )
    rows, new = await migrated(tmp_path / "a.db")

    assert [row.id for row in rows] == ["01700000000000000001", "01700000000000000002", "01700000000000000003"]
    assert [(row.room, row.off) for row in rows] == [("africa", 1), ("africa", 2), ("asia", 1)]
    assert [b'{"n":1}', '{"text": "ä" }'.encode(), b'{"n":3}'] == [row.payload_json for row in rows]
    assert new > rows[-1].id
    assert len({row.ep for row in rows}) == 1


async def test_ids_that_are_no_numbers_are_numbered_anew(tmp_path: Path) -> None:
    make_seed_file(
        tmp_path / "a.db",
        [
            ("b7", "event", "africa", "chat.message", "t", "{}"),
            ("a1", None, None, None, None, "no json"),
            ("c9", "event", "africa", "chat.message", "t", None),
        ],
    )
    rows, new = await migrated(tmp_path / "a.db")

    assert [int(row.id) for row in rows] == [1, 2, 3]
    assert [(row.room, row.off) for row in rows] == [("africa", 1), ("", 1), ("africa", 2)]
    assert [row.payload for row in rows] == [{}, {"text": "no json"}, {"text": ""}]
    assert (rows[1].kind, rows[1].type, rows[1].ts) == ("event", "message", "")
    assert int(new) > 3


async def test_empty_seed_file_becomes_an_empty_store(tmp_path: Path) -> None:
    make_seed_file(tmp_path / "a.db", [])
    rows, new = await migrated(tmp_path / "a.db")

    assert rows == []
    assert int(new) == 1


async def test_migration_happens_once(tmp_path: Path) -> None:
    make_seed_file(tmp_path / "a.db", [("5", "event", "africa", "chat.message", "t", "{}")])
    rows, new = await migrated(tmp_path / "a.db")
    again, _ = await migrated(tmp_path / "a.db")

    assert [rows[0].id, new] == [row.id for row in again]
