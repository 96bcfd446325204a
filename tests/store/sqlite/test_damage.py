"""Damage of one room is that room's alone; damage of the whole file is told in one line; nothing runs backwards."""

from __future__ import annotations

import itertools
import logging
import shlex
import sqlite3
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.store.damaged import ROOMS, TS, ask, change, change_index, codes, fill, serve, writing
from vixws_core.effects import Effect, FindPosition, ListStore, ReadStore, StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import Input, PositionKnown, StoreAppended, StoreFailed, StoreListed, StoreRead, TimePassed
from vixws_core.log import Position, message_id
from vixws_store import Limits, SqliteMessageStore
from vixws_store.inspect import check
from vixws_store.sqlite import writer as writer_module
from vixws_store.sqlite.damage import QUARANTINED_MAX, FileDamaged, Quarantine, RoomDamaged
from vixws_store.sqlite.writer import LogWriter

QUICK = Limits(busy_timeout_s=0.05, retry_timeout_s=0.05, probe_s=0.02)

ROOM_DAMAGE = {
    "its row is gone": ("DELETE FROM ws_rooms WHERE room = 'africa'",),
    "its row has another name": ("UPDATE ws_rooms SET room = 'afrjca' WHERE room = 'africa'",),
    "another epoch": ("UPDATE ws_rooms SET ep = 'deadbeef' WHERE room = 'africa'",),
    "an epoch that is no text": ("UPDATE ws_rooms SET ep = x'ff' WHERE room = 'africa'",),
    "a floor that was never": ("UPDATE ws_rooms SET floor = 17 WHERE room = 'africa'",),
    "a floor that is no number": ("UPDATE ws_rooms SET floor = 'much' WHERE room = 'africa'",),
    "another id at its floor": ("UPDATE ws_rooms SET floor_id = 3 WHERE room = 'africa'",),
    "its newest entries are gone": ("DELETE FROM ws_messages WHERE room = 'africa' AND off > 38",),
    "its newest entry says another offset": ("DROP INDEX ws_messages_offset",),
    "the index lacks its newest entry": (),
    "the index leads to another message": (),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file with four rooms."""
    fill(tmp_path / "a.db")
    return tmp_path / "a.db"


def damage_room(path: Path, kind: str) -> None:
    """Damages the room africa of a file."""
    if kind == "the index lacks its newest entry":
        change_index(path, "ws_messages_offset", "DELETE FROM tree WHERE room = 'africa' AND off = 40")
    elif kind == "the index leads to another message":
        change_index(path, "ws_messages_offset", "UPDATE tree SET id = 7 WHERE room = 'africa' AND off = 40")
    elif kind == "its newest entry says another offset":
        change_index(path, "ws_messages_offset", "UPDATE tree SET off = 49 WHERE room = 'africa' AND off = 40")
    else:
        change(path, *ROOM_DAMAGE[kind])


# ---- one room ---------------------------------------------------------------------------------------


@pytest.mark.threat(26)
@pytest.mark.parametrize("kind", ROOM_DAMAGE)
def test_a_damaged_room_fails_alone_and_all_others_of_the_commit_are_stored(path: Path, kind: str) -> None:
    damage_room(path, kind)
    with writing(path) as writer:
        rooms = ["asia", "africa", "europe", "new", "gone", "africa"]
        result = writer.commit([ask(number, room) for number, room in enumerate(rooms)], TS)
        damaged_one, sound_one = ("africa", None, 0), ("asia", 15, 0)
        places = writer.positions([damaged_one, sound_one])
        again = writer.commit([ask(7, "africa"), ask(8, "asia")], TS)
        damaged = writer.quarantine.rooms

    assert codes(result) == [16, "store_unavailable", 11, 1, 4, "store_unavailable"]
    assert [advanced.room for advanced in result.advanced] == ["asia", "europe", "new", "gone"]
    assert isinstance(places[damaged_one], RoomDamaged)
    position = places[sound_one]
    assert isinstance(position, Position)
    assert (position.head, position.id_at) == (16, message_id(55))
    assert codes(again) == ["store_unavailable", 17]
    assert set(damaged) - {"afrjca"} == {"africa"}
    assert not check(path).sound


@pytest.mark.threat(26)
def test_a_row_that_an_index_has_and_its_table_not_refuses_one_room_and_no_other(path: Path) -> None:
    with writing(path) as writer:
        assert codes(writer.commit([ask(1, "africa"), ask(2, "asia")], TS)) == [41, 16]  # Both are at hand now.
        change_index(path, "ws_messages_offset", "INSERT INTO tree VALUES ('africa', 42, 3)")
        writer._appender._data_version = writer._db.execute("PRAGMA data_version").fetchone()[0]
        result = writer.commit([ask(3, "asia"), ask(4, "africa"), ask(5, "europe"), ask(6, "africa")], TS)
        damaged = writer.quarantine.rooms

    assert codes(result) == [17, "store_unavailable", 11, "store_unavailable"]
    assert damaged == ("africa",)


@pytest.mark.anyio
@pytest.mark.threat(26)
async def test_a_damaged_room_is_told_to_a_hub_named_once_and_keeps_nobody_else(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage_room(path, "another epoch")
    posts: list[Input] = []
    store = SqliteMessageStore(path, limits=QUICK)
    with caplog.at_level(logging.ERROR, "vixws.store"):
        async with store.run(lambda *inputs: posts.extend(inputs)):
            asks: list[Effect] = [FindPosition(1, "africa"), FindPosition(2, "asia"), ask(3, "africa"), ask(4, "asia")]
            asks += [ReadStore(5, "africa", 0, 9, 9, 9_999), ListStore(6, "africa", 9)]
            asks += [ReadStore(7, "asia", 0, 9, 9, 9_999)]
            store.consumer.see(0.0, TimePassed(), asks)
            for call in (store.read("africa", 0, 9), store.position("africa"), store.list_by_room("africa", 9)):
                with pytest.raises(StoreError, match=r"room 'africa' is damaged: .*checksum.*vixws store repair"):
                    await call
            with pytest.raises(StoreError, match="room 'africa' is damaged"):
                await store.trim("africa", 3)
            with pytest.raises(StoreError, match="room 'africa' is damaged"):
                await store.append("event", "africa", "note", {})
            assert (await store.append("event", "asia", "note", {})) > ""
            told = (store.ready, store.damaged_rooms)

    failed = {post.request: (post.code, post.retry) for post in posts if isinstance(post, StoreFailed)}
    assert failed == dict.fromkeys((1, 3, 5, 6), ("store_unavailable", True))
    good = [post for post in posts if isinstance(post, PositionKnown | StoreAppended | StoreRead | StoreListed)]
    assert sorted(post.request for post in good) == [2, 4, 7]
    assert told == (True, ("africa",))
    assert store.damaged_rooms == ()
    lines = [record.getMessage() for record in caplog.records if "quarantined" in record.getMessage()]
    assert len(lines) == 1
    assert "room='africa'" in lines[0]
    assert str(path) in lines[0]


@pytest.mark.anyio
@pytest.mark.threat(26)
async def test_a_room_whose_newest_messages_were_lost_at_rest_gives_no_offset_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        for number in range(5):
            await store.append("event", "africa", "note", {"n": number})
    change(path, "DELETE FROM ws_messages WHERE off > 3")
    async with store.run():
        with pytest.raises(StoreError, match="it ends at offset 3, where 5 was expected"):
            await store.append("event", "africa", "note", {})
        with pytest.raises(StoreError, match="it ends at offset 3, where 5 was expected"):
            await store.read("africa", 0, 9)

        assert store.damaged_rooms == ("africa",)


def test_a_repeat_of_a_damaged_message_fails_alone_and_is_not_stored_twice(path: Path) -> None:
    change(path, "UPDATE ws_messages SET payload_json = '{}' WHERE room = 'africa' AND off = 7")
    with writing(path) as writer:
        result = writer.commit([ask(7, "africa", "mid-7"), ask(8, "africa", "mid-8"), ask(9, "africa")], TS)
        damaged = writer.quarantine.rooms

    assert codes(result) == ["store_unavailable", 8, 41]
    assert damaged == ()


def test_an_append_that_is_too_big_for_sqlite_fails_alone(path: Path) -> None:
    with writing(path) as writer:
        writer._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 40_000)
        big = StoreAppend(1, "africa", "event", "note", b'{"text":"%b"}' % (b"x" * 50_000))
        result = writer.commit([ask(0, "asia"), big, ask(2, "europe")], TS)
        again = writer.commit([ask(3, "africa")], TS)

    assert codes(result) == [16, "internal", 11]
    assert [answer.retry for answer in result.answers if isinstance(answer, StoreFailed)] == [False]
    assert codes(again) == [41]


def test_a_quarantine_is_bounded_and_its_rooms_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    quarantine = Quarantine("a.db")
    with caplog.at_level(logging.ERROR, "vixws.store"):
        for number in range(QUARANTINED_MAX + 10):
            quarantine.put(RoomDamaged(f"room{number}", "why"))
            quarantine.put(RoomDamaged("room0", "why"))

    assert len(quarantine.rooms) == QUARANTINED_MAX
    assert len(caplog.records) == QUARANTINED_MAX


# ---- the whole file ---------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.threat(26)
async def test_a_file_that_takes_no_message_any_more_is_not_ready_and_blames_no_room(path: Path) -> None:
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await store.append("event", "asia", "note", {})
        change(path, "CREATE TRIGGER odd BEFORE INSERT ON ws_messages BEGIN SELECT RAISE(ABORT, 'odd'); END")
        with pytest.raises(StoreError, match="no message can be stored: odd; see vixws store check"):
            await store.append("event", "asia", "note", {})
        seen: list[tuple[bool, tuple[str, ...]]] = []
        for _ in range(8):  # A probe every 0.02 s does not take it for mended.
            await anyio.sleep(0.02)
            seen.append((store.ready, store.damaged_rooms))
        change(path, "DROP TRIGGER odd")
        with anyio.fail_after(20):
            while not store.ready:
                await anyio.sleep(0.01)
        await store.append("event", "asia", "note", {})

    assert set(seen) == {(False, ())}


@pytest.mark.anyio
async def test_a_damaged_file_that_takes_long_to_look_at_is_looked_at_seldom(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def looks_long(self: LogWriter) -> None:
        looks.append(time.monotonic())
        time.sleep(0.02)
        raise FileDamaged("the epoch is not what was written")

    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await store.append("event", "asia", "note", {})
        change(path, "CREATE TRIGGER odd BEFORE INSERT ON ws_messages BEGIN SELECT RAISE(ABORT, 'odd'); END")
        with monkeypatch.context() as patch:
            patch.setattr(LogWriter, "probe", looks_long)
            with pytest.raises(StoreError):
                await store.append("event", "asia", "note", {})
            with anyio.fail_after(20):
                while len(looks) < 3:
                    await anyio.sleep(0.01)

    assert min(after - before for before, after in itertools.pairwise(looks)) >= 20 * 0.02


FILE_DAMAGE = {
    "the epoch": ("UPDATE ws_meta SET value = 'deadbeef' WHERE key = 'epoch'", "is not what was written (checksum)"),
    "no epoch": ("DELETE FROM ws_meta WHERE key = 'epoch'", "expected an epoch in ws_meta, found None"),
    "an odd epoch": ("UPDATE ws_meta SET value = x'ff' WHERE key = 'epoch'", "expected an epoch in ws_meta"),
    "no checksum": ("DELETE FROM ws_meta WHERE key = 'crc'", "is not what was written (checksum)"),
    "an odd version": ("UPDATE ws_meta SET value = '2x' WHERE key = 'schema_version'", "expected a schema_version"),
    "no version": ("DELETE FROM ws_meta WHERE key = 'schema_version'", "expected a schema_version"),
    "no meta": ("DROP TABLE ws_meta", "expected a table ws_meta beside ws_messages, found none"),
    "no rooms": ("DROP TABLE ws_rooms", "the table ws_rooms is not as it was made"),
    "no index": ("DROP INDEX ws_messages_key", "the index ws_messages_key is not as it was made"),
    "another index": (
        "UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE ', '') WHERE name = 'ws_messages_offset'",
        "the index ws_messages_offset is not as it was made",
    ),
    "another table": (
        "UPDATE sqlite_master SET sql = replace(sql, 'payload_json', 'payload_jsoo') WHERE name = 'ws_messages'",
        "the table ws_messages is not as it was made",
    ),
    "an odd space": (
        "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL)', CAST(x'4e4f54a04e554c4c29' AS TEXT))"
        " WHERE name = 'ws_meta'",
        "the table ws_meta is not as it was made",
    ),
    "no tables": ("DELETE FROM sqlite_master", "expected the tables of a store or an empty file, found"),
}


@pytest.mark.anyio
@pytest.mark.threat(26)
@pytest.mark.parametrize("kind", FILE_DAMAGE)
async def test_a_damaged_file_is_refused_in_one_line_that_says_what_to_run(path: Path, kind: str) -> None:
    statement, words = FILE_DAMAGE[kind]
    change(path, statement)
    for _ in range(2):  # The second time shows that nothing stayed open or locked.
        with pytest.raises(StoreError) as caught:
            async with SqliteMessageStore(path).run():
                pass
        text = str(caught.value)
        assert caught.value.code == "internal"
        assert text.startswith(f"cannot open the store {path}: expected a sound file, found: ")
        assert words in text
        assert text.endswith(f"; run vixws store repair {shlex.quote(str(path))}")
        assert "\n" not in text


@pytest.mark.anyio
async def test_whatever_happens_while_a_file_is_opened_its_lock_is_free_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(writer_module, "migrate", fail)
    with pytest.raises(StoreError, match="found: ValueError: nobody thought of this; run vixws store repair") as caught:
        async with SqliteMessageStore(path).run():
            pass
    monkeypatch.undo()

    assert caught.value.code == "internal"
    async with SqliteMessageStore(path).run():
        pass


# ---- ids --------------------------------------------------------------------------------------------


COUNTERS = {
    "behind": "UPDATE sqlite_sequence SET seq = 3",
    "below zero": "UPDATE sqlite_sequence SET seq = -3",
    "no number": "UPDATE sqlite_sequence SET seq = 'much'",
    "near the end of all numbers": f"UPDATE sqlite_sequence SET seq = {(1 << 63) - 2}",
    "of another table": "UPDATE sqlite_sequence SET name = 'ws_messagez'",
    "there twice": "INSERT INTO sqlite_sequence VALUES ('ws_messages', 5)",
    "gone": "DELETE FROM sqlite_sequence",
}


@pytest.mark.threat(26)
@pytest.mark.parametrize("kind", COUNTERS)
def test_ids_rise_whatever_the_counter_says(path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    before = serve_ids(path)
    change(path, COUNTERS[kind])
    assert any("counter of ids" in finding.message for finding in check(path).findings)
    with writing(path) as writer:
        result = writer.commit([ask(1, "asia")], TS)

    (answer,) = result.answers
    assert isinstance(answer, StoreAppended)
    assert max(before) < int(answer.id) < max(before) + (1 << 32)
    assert check(path).sound
    assert sum("id counter set to" in record.getMessage() for record in caplog.records) == 1


def test_ids_rise_where_the_counter_is_gone_and_the_newest_messages_are_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with writing(path) as writer:
        writer._appender._last_id = 1 << 40  # A start adds less than that.
        result = writer.commit([ask(number) for number in range(9)], TS)
        writer.trim("africa", 9)
    change(path, "DELETE FROM sqlite_sequence")
    with writing(path) as writer:
        again = writer.commit([ask(1, "asia")], TS)

    ids = [answer.id for answer in (*result.answers, *again.answers) if isinstance(answer, StoreAppended)]
    assert len(ids) == 10
    assert ids == sorted(ids)


def serve_ids(path: Path) -> list[int]:
    """The ids of a file."""
    with sqlite3.connect(path) as db:
        found = [id for (id,) in db.execute("SELECT id FROM ws_messages")]
    db.close()
    return found


# ---- older files ------------------------------------------------------------------------------------


def make_old(path: Path) -> None:
    """Makes a file of this version one of version 1."""
    change(
        path,
        "ALTER TABLE ws_rooms RENAME TO new",
        "CREATE TABLE ws_rooms (room TEXT PRIMARY KEY, ep TEXT NOT NULL, floor INTEGER NOT NULL DEFAULT 0,"
        " floor_id INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
        "INSERT INTO ws_rooms SELECT room, ep, floor, floor_id FROM new",
        "DROP TABLE new",
        "DROP TABLE ws_lost",
        "DROP TABLE ws_producers",
        "DELETE FROM ws_meta WHERE key = 'crc'",
        "UPDATE ws_meta SET value = '1' WHERE key = 'schema_version'",
    )


def test_a_file_of_version_1_gets_its_checksums_and_loses_nothing(path: Path) -> None:
    before = serve(path)
    make_old(path)
    after = serve(path)

    assert after.all[: len(before.all)] == before.all
    assert {room: place.head for room, place in after.places.items()} == {
        room: place.head + 1 for room, place in before.places.items()
    }
    assert [after.pages[room].floor for room in ROOMS] == [0, 0, 6, 3]
    assert check(path).sound


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ws_rooms SET floor = 17 WHERE room = 'africa'",
        "UPDATE ws_rooms SET floor = 'much' WHERE room = 'africa'",
        "UPDATE ws_rooms SET ep = 'a b' WHERE room = 'africa'",
        "DELETE FROM ws_rooms WHERE room = 'africa'",
    ],
)
def test_a_room_of_version_1_that_is_not_plausible_is_not_believed(path: Path, statement: str) -> None:
    make_old(path)
    change(path, statement)
    with writing(path) as writer:
        result = writer.commit([ask(1, "africa"), ask(2, "asia")], TS)

    assert codes(result) == ["store_unavailable", 16]
