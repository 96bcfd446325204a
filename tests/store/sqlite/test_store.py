"""The SQLite store: its file, its lock, its ends, and what it does where others cannot know."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from vixws_core.effects import Effect, StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import Input, RoomAdvanced, StoreAppended, StoreFailed, TimePassed
from vixws_store import Limits, SqliteMessageStore, SqliteOutbox

pytestmark = pytest.mark.anyio


def ask(request: int, room: str = "room", payload: bytes = b"{}") -> StoreAppend:
    return StoreAppend(request, room, "event", "note", payload)


class Posts(list[Input]):
    """Takes what a store posts."""

    def __call__(self, *inputs: Input) -> None:
        self.extend(inputs)


async def test_table_is_readable_with_plain_sqlite(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await store.append("event", "africa", "chat.message", {"text": "Hi"})

    with sqlite3.connect(tmp_path / "a.db") as db:
        row = db.execute(
            "SELECT kind, room, type, typeof(ts), typeof(payload_json), payload_json, typeof(id) FROM ws_messages"
        ).fetchone()
    db.close()

    assert row == ("event", "africa", "chat.message", "text", "text", '{"text":"Hi"}', "integer")


async def test_write_ahead_log_is_gone_after_the_end(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await store.append("event", "r", "t", {})
        assert (tmp_path / "a.db-wal").exists()

    assert {"a.db", "a.db.lock"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("synchronous", "level", "durable"), [("FULL", 2, "fsync"), ("NORMAL", 1, "process")])
async def test_durable_says_what_synchronous_does(tmp_path: Path, synchronous: str, level: int, durable: str) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", synchronous=synchronous)
    async with store.run():
        worker = store._running()
        writer = worker.database.writer
        found = await worker.database.write(lambda: writer._db.execute("PRAGMA synchronous").fetchone())

    assert (level,) == found
    assert durable == store.durable


async def test_posts_happen_in_the_loops_thread(tmp_path: Path) -> None:
    threads: set[int] = set()
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run(lambda *_: threads.add(threading.get_ident())):
        await store.append("event", "r", "t", {})

    assert {threading.get_ident()} == threads


@pytest.mark.threat(27)
async def test_restored_backup_does_not_repeat_an_id(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await store.append("event", "r", "t", {})
    shutil.copy(tmp_path / "a.db", tmp_path / "backup.db")
    async with store.run():
        given = {await store.append("event", "r", "t", {}) for _ in range(20)}
    os.replace(tmp_path / "backup.db", tmp_path / "a.db")

    async with store.run():
        again = {await store.append("event", "r", "t", {}) for _ in range(20)}

    assert not given & again


async def test_body_exception_leaves_run_as_it_is(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    with pytest.raises(KeyError, match="mine"):
        async with store.run():
            raise KeyError("mine")


async def test_store_runs_once_at_a_time_and_again_later(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        with pytest.raises(LocalError, match="runs already"):
            async with store.run():
                pass
    async with store.run():
        await store.append("event", "r", "t", {})

        assert (await store.position("r")).head == 1


@pytest.mark.threat(37)
async def test_cancelling_run_stores_and_answers_what_was_accepted(tmp_path: Path) -> None:
    posts = Posts()
    store = SqliteMessageStore(tmp_path / "a.db")
    with anyio.CancelScope() as scope:
        async with store.run(posts):
            store.consumer.see(0.0, TimePassed(), [ask(number) for number in range(700)])
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert list(range(700)) == [post.request for post in posts if isinstance(post, StoreAppended)]
    async with store.run():
        assert (await store.position("room")).head == 700


@pytest.mark.threat(37)
async def test_cancelled_append_is_stored_all_the_same(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.append("event", "r", "t", {})
        await store.append("event", "r", "t", {})

        assert (await store.position("r")).head == 2


async def test_second_store_on_a_file_is_refused_with_file_and_pid(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with SqliteMessageStore(path).run():
        with pytest.raises(StoreError) as caught:
            async with SqliteMessageStore(path).run():
                pass

    assert f"{path} is served by the process {os.getpid()} already (lock file {path}.lock)" == str(caught.value)
    async with SqliteMessageStore(path).run():
        pass  # The lock is free again.


@pytest.mark.parametrize("kind", ["folder", "missing folder", "other file", "newer", "other table"])
async def test_file_that_cannot_be_opened_gives_one_line_that_names_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.db"
    expected = {
        "folder": "a file was expected, found a folder",
        "missing folder": f"the folder {tmp_path / 'no'} does not exist",
        "other file": f"expected a sound file, found: file is not a database; run vixws store repair {path}",
        "newer": "the file has schema version 99, this program knows versions up to 3",
        "other table": "the file's table ws_messages lacks the columns kind payload_json room ts type",
    }[kind]
    if kind == "folder":
        path.mkdir()
    elif kind == "missing folder":
        path = tmp_path / "no" / "a.db"
    elif kind == "other file":
        path.write_bytes(b"This is no database." * 100)
    else:
        db = sqlite3.connect(path)
        if kind == "newer":
            db.execute("CREATE TABLE ws_meta (key TEXT PRIMARY KEY, value TEXT)")
            db.execute("INSERT INTO ws_meta VALUES ('schema_version', '99')")
        else:
            db.execute("CREATE TABLE ws_messages (id INTEGER PRIMARY KEY, body TEXT)")
        db.commit()
        db.close()
    store = SqliteMessageStore(path)

    for _ in range(2):  # The second time shows that nothing stayed open or locked.
        with pytest.raises(StoreError) as caught:
            async with store.run():
                pass
        assert f"cannot open the store {path}: {expected}" == str(caught.value)


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_path_must_name_a_file(path: str) -> None:
    with pytest.raises(LocalError, match="path must name a file"):
        SqliteMessageStore(path)


def test_synchronous_is_one_of_two_words() -> None:
    with pytest.raises(LocalError, match="synchronous must be FULL or NORMAL, got 'OFF'"):
        SqliteMessageStore("a.db", synchronous="OFF")


async def test_bad_text_from_a_hub_fails_alone(tmp_path: Path) -> None:
    posts = Posts()
    store = SqliteMessageStore(tmp_path / "a.db")
    asks: list[Effect] = [ask(0), ask(1, "\ud800"), ask(2, payload=b"\xff"), ask(3)]
    async with store.run(posts):
        store.consumer.see(0.0, TimePassed(), asks)

    answers = [post for post in posts if not isinstance(post, RoomAdvanced)]
    assert [answer.request for answer in answers if isinstance(answer, StoreAppended | StoreFailed)] == [0, 1, 2, 3]
    assert [answer.code for answer in answers if isinstance(answer, StoreFailed)] == ["internal", "internal"]
    assert [answer.off for answer in answers if isinstance(answer, StoreAppended)] == [1, 2]


@pytest.mark.parametrize("limits", [Limits(queue_rows_max=3), Limits(queue_bytes_max=299)])
async def test_append_over_the_queue_is_refused_at_once(tmp_path: Path, limits: Limits) -> None:
    posts = Posts()
    store = SqliteMessageStore(tmp_path / "a.db", limits=limits)
    async with store.run(posts):
        store.consumer.see(0.0, TimePassed(), [ask(number, payload=b"1" * 99) for number in range(5)])

        assert store.queue_depth == 3
        assert [post.request for post in posts if isinstance(post, StoreFailed)] == [3, 4]
        assert {("store_unavailable", True)} == {(p.code, p.retry) for p in posts if isinstance(p, StoreFailed)}

    assert [post.request for post in posts if isinstance(post, StoreAppended)] == [0, 1, 2]


async def test_append_larger_than_a_batch_is_stored(tmp_path: Path) -> None:
    limits = Limits(batch_bytes_max=10, queue_bytes_max=10)
    store = SqliteMessageStore(tmp_path / "a.db", limits=limits)
    async with store.run():
        await store.append("event", "r", "t", {"text": "longer than that"})

        assert (await store.position("r")).head == 1


@pytest.mark.threat(26)
async def test_damaged_rows_are_left_out_and_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        for number in range(8):
            await store.append("event", "room", "note", {"n": number})
    db = sqlite3.connect(tmp_path / "a.db")
    db.execute("""UPDATE ws_messages SET payload_json = '{"n":20}' WHERE off = 2""")
    db.execute("UPDATE ws_messages SET type = 'bote' WHERE off = 3")
    db.execute("UPDATE ws_messages SET room = CAST(room AS TEXT), ts = CAST(x'ff' AS TEXT) WHERE off = 4")
    db.execute("UPDATE ws_messages SET payload_json = 7 WHERE off = 5")
    db.execute("UPDATE ws_messages SET mid = 'None' WHERE off = 6")
    db.commit()
    db.close()

    with caplog.at_level(logging.ERROR, "vixws.store"):
        async with store.run():
            page = await store.read("room", 0, 100)
            small = await store.read("room", 1, 100, 1)
            listed = await store.list_by_room("room", 3)
            replayed = await store.replay_from("")

    assert (page.floor, page.head, [row.off for row in page.rows]) == (0, 8, [1, 7, 8])
    assert [row.off for row in small.rows] == [7]
    assert [row.off for row in listed] == [1, 7, 8]
    assert [row.off for row in replayed] == [1, 7, 8]
    assert sum("damaged row left out" in record.message for record in caplog.records) == 5


async def test_long_trim_is_cut_into_transactions(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await store.append_batch([ask(number) for number in range(9_000)])
        await store.append_batch([ask(number) for number in range(9_000)])

        assert await store.trim("room", 17_999) == 17_999
        page = await store.read("room", 0, 1 << 40)
        assert (page.floor, [row.off for row in page.rows]) == (17_999, [18_000])


async def test_batch_of_too_many_is_the_callers_fault(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        with pytest.raises(LocalError, match="at most 10000 appends, got 10001"):
            await store.append_batch([ask(number) for number in range(10_001)])


WRITER = """
import sys, anyio
from vixws_store import SqliteMessageStore
async def main():
    store = SqliteMessageStore(sys.argv[1])
    async def publish(room):
        while True:
            id = await store.append("event", room, "note", {"room": room})
            print(id, flush=True)
    async with store.run():
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(publish, f"room{number}")
anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.threat(23)
async def test_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, anyio_backend_name: str) -> None:
    path = tmp_path / "a.db"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), anyio_backend_name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acked = [process.stdout.readline().strip() for _ in range(400)]
    process.kill()
    acked += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()

    store = SqliteMessageStore(path)
    async with store.run():
        stored = {row.id for row in await store.replay_from("")}
        pages = [await store.read(f"room{number}", 0, 1 << 40, 10_000) for number in range(8)]

    assert len(acked) >= 400
    assert not set(acked) - stored
    for page in pages:
        assert list(range(1, page.head + 1)) == [row.off for row in page.rows]


async def test_new_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.db", tmp_path / "kept.db"
    kept.touch(mode=0o640)
    before = os.umask(0)
    try:
        for file in (path, kept):
            async with SqliteMessageStore(file).run():
                modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in tmp_path.glob(f"{file.name}*")}
        async with SqliteOutbox(tmp_path / "out.db").run():
            outbox = stat.S_IMODE((tmp_path / "out.db").stat().st_mode)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == outbox == 0o600
    assert modes["kept.db"] == modes["kept.db-wal"] == 0o640  # Whoever made it chose.
