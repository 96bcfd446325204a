"""The inspection functions tell what is in a file and what is wrong with it, and change nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_store import SqliteMessageStore
from vixws_store.inspect import Finding, check, history, stats

pytestmark = pytest.mark.anyio


async def make_store(path: Path) -> SqliteMessageStore:
    store = SqliteMessageStore(path)
    async with store.run():
        for room, count in (("a", 6), ("b", 2)):
            await store.append_batch([StoreAppend(0, room, "event", "t", b'{"n":%d}' % n) for n in range(count)])
        await store.trim("a", 2)
    return store


def damage(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


async def test_stats_counts_rooms_rows_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a b?.db"
    await make_store(path)
    found = stats(path)

    assert (found.schema_version, found.rows, found.payload_bytes, found.last_id) == (3, 6, 42, 8)
    assert os.path.getsize(path) == found.file_bytes
    assert [(r.room, r.floor, r.head, r.rows) for r in found.rooms] == [("a", 2, 6, 4), ("b", 0, 2, 2)]


async def test_history_pages_like_list_by_room(tmp_path: Path) -> None:
    await make_store(tmp_path / "a.db")
    newest = history(tmp_path / "a.db", "a", 2)
    older = history(tmp_path / "a.db", "a", 10, newest[0].id)

    assert [row.off for row in newest] == [5, 6]
    assert [row.off for row in older] == [3, 4]
    assert history(tmp_path / "a.db", "nowhere") == []


async def test_history_refuses_a_bad_id_and_a_negative_limit(tmp_path: Path) -> None:
    await make_store(tmp_path / "a.db")

    with pytest.raises(LocalError, match="1 to 20 digits"):
        history(tmp_path / "a.db", "a", 1, "x")
    with pytest.raises(LocalError, match="0 or more, got -1"):
        history(tmp_path / "a.db", "a", -1)


async def test_file_of_a_running_store_may_be_looked_into(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await store.append("event", "a", "t", {})

        assert stats(tmp_path / "a.db").rows == 1
        assert check(tmp_path / "a.db").sound
        await store.append("event", "a", "t", {})
        assert len(history(tmp_path / "a.db", "a")) == 2


async def test_looking_changes_no_file_even_after_a_crash(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with store.run():
        await store.append("event", "a", "t", {})
        for name in ("a.db", "a.db-wal"):
            shutil.copy(tmp_path / name, crashed / name)
    before = {name: (crashed / name).read_bytes() for name in ("a.db", "a.db-wal")}

    assert stats(crashed / "a.db").rows == 1
    assert check(crashed / "a.db").sound
    assert before == {name: (crashed / name).read_bytes() for name in before}


@pytest.mark.threat(26)
async def test_check_finds_each_kind_of_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make_store(path)
    assert check(path).sound

    damage(
        path,
        "UPDATE ws_messages SET type = 'x' WHERE room = 'b' AND off = 1",
        "DELETE FROM ws_messages WHERE room = 'a' AND off = 4",
        "DELETE FROM ws_rooms WHERE room = 'b'",
    )
    found = check(path)

    assert found.rows == 5
    assert {
        Finding("the row is not what was written (checksum)", "b", 7, 1),
        Finding("offsets must be dense: 4 was expected", "a", 5, 5),
        Finding("it has messages and no row in ws_rooms", "b"),
        Finding("rooms are missing of those that were written down: 1"),
    } == set(found.findings)
    assert not found.sound


async def test_check_finds_damaged_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([StoreAppend(0, "a", "event", "t", b'{"x":"' + b"y" * 2_000 + b'"}')] * 200)
    data = bytearray(path.read_bytes())
    data[40 * 4096 : 41 * 4096] = b"\xa5" * 4096
    path.write_bytes(data)

    assert not check(path).sound


@pytest.mark.parametrize("content", [None, b"", b"no database" * 500])
def test_what_is_no_store_gives_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.db"
    if content is not None:
        path.write_bytes(content)

    for look in (stats, check, lambda path: history(path, "a")):
        with pytest.raises(StoreError, match=str(path)) as caught:
            look(path)
        assert "\n" not in str(caught.value)
