"""What a database file knows of ordered producers: kept over restarts, trims and repairs, forgotten after 30 days."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from zlib import crc32

import anyio
import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import StoreFailed
from vixws_core.producers import KEPT_DAYS
from vixws_store import SqliteMessageStore
from vixws_store.inspect import check, stats
from vixws_store.repair import repair
from vixws_store.sqlite.producers import FORGOTTEN_AT_ONCE


def publish(path: Path, *mids: str, room: str = "africa", scope: str = "ada") -> list[object]:
    """Opens the store, appends one after the other in commits of their own, and closes it."""

    async def run() -> list[object]:
        store = SqliteMessageStore(path)
        found: list[object] = []
        async with store.run():
            for mid in mids:
                ask = StoreAppend(0, room, "event", "note", b"{}", mid, b"d" * 16, scope)
                (answer,) = (await store.append_batch([ask])).answers
                if isinstance(answer, StoreFailed):
                    found.append((answer.code, answer.expected))
                else:
                    found.append((answer.off, answer.dup))
        return found

    return anyio.run(run)


def change(path: Path, *statements: str) -> int:
    """Does what only a shell does; returns how many rows the last statement changed."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            count = db.execute(statement).rowcount
    return count


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in which a producer has stored three messages."""
    path = tmp_path / "a.db"
    assert publish(path, "~p:1:1", "~p:1:2", "~p:1:3") == [(1, False), (2, False), (3, False)]
    return path


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    assert publish(path, "~p:1:5", "~p:1:2", "~p:1:4", "~p:0:1") == [
        ("seq_gap", 4),
        (2, True),
        (4, False),
        ("fenced", None),
    ]
    assert check(path).sound


def test_a_number_whose_message_was_trimmed_is_not_stored_again(path: Path) -> None:
    async def trim() -> None:
        store = SqliteMessageStore(path)
        async with store.run():
            await store.trim("africa", 2)

    anyio.run(trim)
    assert publish(path, "~p:1:1", "~p:1:3", "~p:1:4") == [("stale_mid", None), (3, True), (4, False)]


def test_a_commit_that_fails_takes_no_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vixws_store.sqlite import appending

    async def run() -> list[object]:
        store = SqliteMessageStore(path)
        ask = StoreAppend(0, "africa", "event", "note", b"{}", "~p:1:4", b"d" * 16, "ada")
        async with store.run():
            with monkeypatch.context() as patch:
                patch.setattr(appending, "_INSERT", dict.fromkeys(appending._INSERT, "INSERT INTO nowhere VALUES (?)"))
                with pytest.raises(StoreError):
                    await store.append_batch([ask])
            (answer,) = (await store.append_batch([ask])).answers
        return [type(answer).__name__]

    assert anyio.run(run) == ["StoreAppended"]


@pytest.mark.parametrize(
    "damage", ["seq = 9", "epoch = 0", "day = day + 1", "crc = crc + 1", "seq = 'many'", "day = NULL"]
)
def test_a_damaged_row_is_never_believed_found_and_repaired(path: Path, damage: str) -> None:
    statement = f"UPDATE ws_producers SET {damage}"
    if "NULL" in damage:
        with pytest.raises(sqlite3.IntegrityError):
            change(path, statement)
        return
    change(path, statement)

    assert publish(path, "~p:1:4", "~q:1:1", "~p:1:3") == [("store_unavailable", None), (4, False), (3, True)]
    assert [finding.message for finding in check(path).findings] == [
        "what is known of producer p is not what was written (checksum)"
    ]
    found = repair(path)
    assert any("producer 'p' is lost; it begins anew" in line for line in found.lost)
    assert check(path).sound
    assert publish(path, "~p:1:4", "~q:1:2", "~p:2:1") == [("seq_gap", 1), (5, False), (6, False)]


def test_a_repair_keeps_what_is_known_of_producers(path: Path) -> None:
    change(path, "DELETE FROM ws_rooms")

    assert repair(path).kept != ""
    assert check(path).sound
    assert publish(path, "~p:1:5", "~p:1:4") == [("seq_gap", 4), (4, False)]


def test_who_published_nothing_for_too_long_is_forgotten(path: Path) -> None:
    old = change(path, f"UPDATE ws_producers SET day = day - {KEPT_DAYS + 1}")
    with closing(sqlite3.connect(path)) as db, db:
        rows = []
        for number in range(FORGOTTEN_AT_ONCE + 20):
            crc = crc32(f"africa\0ada\0x{number}\0{1} {1} {1}".encode())
            rows.append(("africa", "ada", f"x{number}", 1, 1, 1, crc))
        db.executemany("INSERT INTO ws_producers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        (epoch, seq, day) = db.execute("SELECT epoch, seq, day FROM ws_producers WHERE producer = 'p'").fetchone()
        crc = crc32(f"africa\0ada\0p\0{epoch} {seq} {day}".encode())
        db.execute("UPDATE ws_producers SET crc = ? WHERE producer = 'p'", (crc,))

    assert old == 1
    assert publish(path, "~p:1:4", "~p:1:1", "~q:1:1", "~q:1:2") == [("seq_gap", 1), (1, True), (4, False), (5, False)]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT producer FROM ws_producers").fetchall() == [("q",)]


def test_a_file_of_version_2_learns_of_producers_and_loses_nothing(path: Path) -> None:
    epoch = stats(path).epoch
    change(
        path,
        "DROP TABLE ws_producers",
        "UPDATE ws_meta SET value = '2' WHERE key = 'schema_version'",
        f"UPDATE ws_meta SET value = '{crc32(f'2{chr(0)}{epoch}'.encode())}' WHERE key = 'crc'",
    )

    assert publish(path, "~p:1:1", "~p:1:4", "~p:2:1") == [(1, True), ("seq_gap", 1), (4, False)]
    assert (stats(path).schema_version, stats(path).epoch) == (3, epoch)
    assert check(path).sound


@pytest.mark.parametrize(
    "mid", ["~", "~p", "~p:1", "~p:1:0", "~p:01:1", "~p:1:01", "~p:-1:1", "~a b:1:1", "~p:1:1 ", "~:1:1"]
)
def test_a_key_that_only_begins_like_one_is_refused_at_every_entrance(tmp_path: Path, mid: str) -> None:
    async def run() -> None:
        store = SqliteMessageStore(tmp_path / "a.db")
        async with store.run():
            with pytest.raises(LocalError, match="~producer:epoch:seq"):
                await store.append_batch([StoreAppend(0, "africa", "event", "note", b"{}", mid)])

    anyio.run(run)
