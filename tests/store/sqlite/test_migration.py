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


async def test_a_row_that_is_no_utf_8_is_converted_and_counted_and_all_others_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    make_seed_file(path, [(str(n), "event", "africa", "chat.message", "t", f'{{"n":{n}}}') for n in range(1, 200)])
    db = sqlite3.connect(path)
    db.execute("UPDATE ws_messages SET payload_json = CAST(x'7b2274223a22ff41227d' AS TEXT) WHERE id = '50'")
    db.execute("UPDATE ws_messages SET payload_json = x'fffe', type = CAST(x'e28228' AS TEXT) WHERE id = '51'")
    db.execute("UPDATE ws_messages SET room = CAST(x'61ff' AS TEXT) WHERE id = '52'")
    db.commit()
    db.close()

    rows, _ = await migrated(path)

    found = {int(row.id): row for row in rows}
    assert sorted(found) == list(range(1, 200))
    assert found[50].payload == {"t": "\ufffdA"}
    assert (found[51].type, found[51].payload) == ("\ufffd(", {"text": "\ufffd\ufffd"})
    assert (found[52].room, found[52].off, found[52].payload) == ("a\ufffd", 1, {"n": 52})
    assert [row.payload for row in rows if row.room == "africa" and int(row.id) not in (50, 51)] == [
        {"n": n} for n in range(1, 200) if n not in (50, 51, 52)
    ]
    assert [record.getMessage() for record in caplog.records if record.name == "vixws.store"] == [
        "3 messages of the older table were no UTF-8; U+FFFD stands for what was wrong"
    ]


@pytest.mark.parametrize("id", ["CAST(x'ff31' AS TEXT)", f"'{'9' * 5_000}'", "NULL"])
async def test_an_id_that_is_none_refuses_nothing(tmp_path: Path, id: str) -> None:
    path = tmp_path / "a.db"
    make_seed_file(path, [("1", "event", "africa", "note", "t", "{}"), ("x", "event", "africa", "note", "t", "{}")])
    db = sqlite3.connect(path)
    db.execute(f"UPDATE ws_messages SET id = {id} WHERE id = 'x'")
    db.commit()
    db.close()

    rows, _ = await migrated(path)

    assert [(int(row.id), row.off) for row in rows] == [(1, 1), (2, 2)]


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
