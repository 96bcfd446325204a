"""Trimming a file that nobody serves."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import anyio
import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_store import SqliteMessageStore, maintain
from vixws_store.inspect import check, stats
from vixws_store.maintain import trim


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with 7,000 messages in one room and three in another."""

    async def fill() -> None:
        store = SqliteMessageStore(tmp_path / "a.db")
        async with store.run():
            await store.append_batch([StoreAppend(n, "africa", "event", "note", b"{}") for n in range(7_000)])
            await store.append_batch([StoreAppend(n, "asia", "event", "note", b"{}") for n in range(3)])

    anyio.run(fill)
    return tmp_path / "a.db"


def test_trim_forgets_one_rooms_entries_and_keeps_its_place(path: Path) -> None:
    async def look() -> tuple[int, int, str | None, int]:
        store = SqliteMessageStore(path)
        async with store.run():
            place = await store.position("africa", 6_500)
            await store.append("event", "africa", "note", {})
            return place.floor, place.head, place.id_at, (await store.position("africa")).head

    assert trim(path, "africa", 6_500) == 6_500
    assert trim(path, "africa", 6_500) == 0
    found = {room.room: (room.floor, room.head, room.rows) for room in stats(path).rooms}
    assert found == {"africa": (6_500, 7_000, 500), "asia": (0, 3, 3)}
    assert check(path).sound
    floor, head, id_at, after = anyio.run(look)
    assert (floor, head, after) == (6_500, 7_000, 7_001)
    assert id_at is not None
    assert trim(path, "africa", 1 << 62) == 501
    assert {"a.db", "a.db.lock"} == {file.name for file in path.parent.iterdir()}


def test_served_file_is_refused_in_one_line(path: Path) -> None:
    async def try_it() -> None:
        async with SqliteMessageStore(path).run():
            trim(path, "africa", 5)

    with pytest.raises(StoreError) as caught:
        anyio.run(try_it)

    assert str(caught.value) == f"{path} is served by the process {os.getpid()} already (lock file {path}.lock)"
    assert stats(path).rows == 7_003


def test_wrong_asks_are_the_callers_fault(path: Path) -> None:
    with pytest.raises(LocalError, match="the offset must be 0 or more, got -1"):
        trim(path, "africa", -1)
    with pytest.raises(LocalError, match="no room 'europe' among its 2 rooms"):
        trim(path, "europe", 1)


def test_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "notes.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE notes (text TEXT)")
    db.close()
    before = other.read_bytes()
    with pytest.raises(StoreError, match="found no store"):
        trim(other, "africa", 1)
    with pytest.raises(StoreError, match="no such file"):
        trim(tmp_path / "none.db", "africa", 1)

    assert other.read_bytes() == before
    assert not (tmp_path / "none.db").exists()
    assert not (tmp_path / "none.db.lock").exists()


def test_file_that_is_locked_by_the_shell_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain, "BUSY_TIMEOUT_S", 0.05)
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked"):
        trim(path, "africa", 5)
    shell.execute("ROLLBACK")
    shell.close()

    assert trim(path, "africa", 5) == 5
