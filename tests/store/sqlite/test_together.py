"""What guards one file together: the mark of ids, the quarantine of rooms, and the watch over the file and its log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread
import msgspec
import pytest

from tests.store.damaged import TS, ask, change, change_index, codes, fill, writing
from vixws_core.errors import StoreError
from vixws_core.inputs import Input, RoomAdvanced
from vixws_core.log import BatchResult
from vixws_core.retention import Retention
from vixws_store import Limits, SqliteMessageStore
from vixws_store.inspect import check
from vixws_store.repair import repair
from vixws_store.sqlite.epochs import last_id_of
from vixws_store.sqlite.mark import read_mark
from vixws_store.sqlite.trimming import copy_log
from vixws_store.sqlite.writer import LogWriter

QUICK = Limits(busy_timeout_s=0.05, retry_timeout_s=0.05, probe_s=0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the rooms of `fill`."""
    path = tmp_path / "a.db"
    fill(path)
    return path


def before_of(advanced: Iterable[Input]) -> dict[str, str | None]:
    """The ids before the first new entries, by room."""
    return {each.room: each.prev_id for each in advanced if isinstance(each, RoomAdvanced)}


def ids_of(path: Path) -> dict[tuple[str, int], str]:
    """The ids in a file, those of floors included, by room and offset."""
    db = sqlite3.connect(path)
    rows = db.execute(
        "SELECT room, off, id FROM ws_messages UNION SELECT room, floor, floor_id FROM ws_rooms"
    ).fetchall()
    db.close()
    return {(room, off): f"{id:020d}" for room, off, id in rows}


# ---- the id before --------------------------------------------------------------------------------------


def test_the_id_before_new_entries_is_that_of_the_newest_one_or_of_the_floor(path: Path) -> None:
    ids = ids_of(path)
    with writing(path) as writer:
        rooms = ["africa", "africa", "gone", "new"]
        result = writer.commit([ask(number, room) for number, room in enumerate(rooms)], TS)
        again = writer.commit([ask(9, "gone")], TS)

    assert before_of(result.advanced) == {"africa": ids["africa", 40], "gone": ids["gone", 3], "new": ""}
    assert before_of(again.advanced) == {"gone": result.advanced[1].entries[-1].id}


def test_rooms_of_a_batch_with_a_damaged_one_have_the_ids_before_them_too(path: Path) -> None:
    with writing(path) as writer:
        result = blame_africa(path, writer)
    ids = ids_of(path)

    assert codes(result) == [17, 11, "store_unavailable"]
    assert before_of(result.advanced) == {"asia": ids["asia", 16], "europe": ids["europe", 10]}


def blame_africa(path: Path, writer: LogWriter) -> BatchResult:
    """A commit in which the room `africa` is found damaged."""
    assert codes(writer.commit([ask(1, "africa"), ask(2, "asia")], TS)) == [41, 16]  # Both are at hand now.
    change_index(path, "ws_messages_offset", "INSERT INTO tree VALUES ('africa', 42, 3)")
    writer._appender._data_version = writer._db.execute("PRAGMA data_version").fetchone()[0]
    return writer.commit([ask(3, "asia"), ask(4, "europe"), ask(5, "africa")], TS)


@pytest.mark.anyio
async def test_the_id_before_is_not_known_where_the_end_of_a_room_is_lost(path: Path) -> None:
    change(path, "UPDATE ws_messages SET crc = crc + 1 WHERE room = 'africa' AND off = 40")
    assert not check(path).sound
    await anyio.to_thread.run_sync(repair, path)
    posts: list[Input] = []
    store = SqliteMessageStore(path)
    async with store.run(lambda *inputs: posts.extend(inputs)):
        place = await store.position("africa", 40)
        page = await store.read("africa", 39, 40)
        await store.append("event", "africa", "note", {})
        await store.append("event", "africa", "note", {})

    assert (place.head, place.id, place.id_at) == (40, "", None)
    assert (page.head, page.head_id, page.rows) == (40, "", ())
    told = [each for each in posts if isinstance(each, RoomAdvanced)]
    assert [each.prev_id for each in told] == [None, told[0].entries[0].id]


# ---- ids that were spent in vain ----------------------------------------------------------------------


def test_ids_that_were_spent_in_vain_are_not_missed_when_the_file_is_opened_again(path: Path) -> None:
    writer = LogWriter(str(path), "NORMAL", 0.1, None)
    db = writer.open()
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2_000)
    big = msgspec.structs.replace(ask(2, "africa"), payload=b'"%b"' % (b"x" * 3_000))
    result = writer.commit([ask(1, "asia"), big], TS)
    assert codes(result) == [16, "internal"]
    assert writer._appender.last_id > int(result.advanced[0].entries[0].id)  # Else nothing was spent.
    marked = read_mark(str(path))
    assert marked is not None
    assert marked.committed == last_id_of(db)
    db.close()
    writer.closed()

    writer.open().close()  # By the same one, which knows what it acknowledged.
    writer.closed()


# ---- a log that was cut ---------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.threat(27)
@pytest.mark.parametrize("part", [0.0, 0.4, 0.9])
async def test_a_start_after_a_log_was_cut_under_a_store_that_does_not_sync_has_new_epochs(
    tmp_path: Path, part: float
) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=QUICK)
    async with store.run():
        for number in range(60):
            await store.append("event", "room", "note", {"n": number})
        before = await store.position("room")
        os.truncate(f"{path}-wal", int(os.stat(f"{path}-wal").st_size * part))
        with pytest.raises(StoreError, match="was cut"):
            await store.append("event", "room", "note", {})
        await anyio.sleep(0.1)
        with pytest.raises(StoreError, match="lacks messages that were acknowledged"):
            await store.append("event", "room", "note", {})

    async with store.run():
        after = await store.position("room")
    assert after.ep != before.ep
    assert after.head < before.head
    assert check(path).sound


@pytest.mark.anyio
@pytest.mark.threat(27)
@pytest.mark.parametrize("what", ["trim", "redact"])
async def test_nothing_is_trimmed_or_redacted_in_a_log_that_was_cut(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        for number in range(60):
            await store.append("event", "room", "note", {"n": number})
        os.truncate(f"{path}-wal", os.stat(f"{path}-wal").st_size // 2)
        with pytest.raises(StoreError) as caught:
            await (store.trim("room", 5) if what == "trim" else store.redact("room", 5))
        assert caught.value.code == "store_unavailable"

    async with store.run():
        page = await store.read("room", 0, 100)
    assert page.floor == 0
    assert [row.payload for row in page.rows] == [{"n": number} for number in range(page.head)]
    assert page.head < 60
    assert check(path).sound


# ---- trimming -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_slices_wrote_is_copied_into_the_file_beside_the_connection_that_only_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append("event", "room", "note", {"text": "what is written"})
        assert b"what is written" not in path.read_bytes()
        await store._running().call("look", copy_log, str(path))
        assert b"what is written" in path.read_bytes()
        await store.append("event", "room", "note", {})
        assert store.ready


@pytest.mark.anyio
async def test_a_room_that_retention_trimmed_keeps_the_id_of_its_floor(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", retention=[Retention(pattern="*", count=2)])
    async with store.run():
        ids = [await store.append("event", "room", "note", {"n": number}) for number in range(9)]
        with anyio.fail_after(20):
            while (place := await store.position("room", 7)).floor < 7:
                await anyio.sleep(0.01)
        page = await store.read("room", 7, 9)

    assert (place.floor_id, place.id_at, place.id) == (ids[6], ids[6], ids[8])
    assert (page.floor_id, page.id_at, page.head_id) == (ids[6], ids[6], ids[8])
