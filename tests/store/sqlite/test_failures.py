"""Disks that are locked, full or gone: publishers are told, the store says so, and recovers by itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import anyio
import pytest

from vixws_core.effects import Effect, ReadStore, StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import Input, StoreAppended, StoreFailed, StoreRead, TimePassed
from vixws_store import Limits, SqliteMessageStore

pytestmark = pytest.mark.anyio

QUICK = Limits(busy_timeout_s=0.05, retry_timeout_s=0.05, probe_s=0.02)


async def wait_ready(store: SqliteMessageStore) -> None:
    with anyio.fail_after(20):
        while not store.ready:
            await anyio.sleep(0.01)


async def fail_append(store: SqliteMessageStore, payload: object = None) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await store.append("event", "room", "note", payload or {})
    return caught.value


@pytest.mark.threat(25)
async def test_locked_file_is_told_and_recovers(tmp_path: Path) -> None:
    posts: list[Input] = []
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run(lambda *inputs: posts.extend(inputs)):
        await store.append("event", "room", "note", {})
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        error = await fail_append(store)

        assert ("store_unavailable", True, f"{path}: database is locked") == (error.code, error.retry, str(error))
        assert not store.ready
        store.consumer.see(0.0, TimePassed(), [StoreAppend(7, "room", "event", "note", b"{}")])
        await fail_append(store)
        assert [post.request for post in posts if isinstance(post, StoreFailed)] == [7]
        assert (await store.position("room")).head == 1
        other.execute("ROLLBACK")
        other.close()
        await wait_ready(store)
        await store.append("event", "room", "note", {})
        assert (await store.position("room")).head == 2


async def test_other_connections_changes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        ids = [await store.append("event", "room", "note", {}) for _ in range(3)]
        other = sqlite3.connect(path)
        other.execute("DELETE FROM ws_messages WHERE off = 3")
        other.commit()
        other.close()

        id = await store.append("event", "room", "note", {})

        assert (await store.position("room")).head == 3
        assert id > ids[-1]


@pytest.mark.threat(24)
async def test_full_file_is_told_and_recovers_after_a_trim(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db", pages_max=60, limits=QUICK)
    async with store.run():
        stored = 0
        with pytest.raises(StoreError) as caught:
            while True:
                await store.append("event", "room", "note", {"text": "x" * 3_000})
                stored += 1

        assert (caught.value.code, caught.value.retry) == ("store_full", True)
        assert not store.ready
        assert stored == (await store.position("room")).head
        await store.trim("room", stored - 5)
        await wait_ready(store)
        await store.append("event", "room", "note", {"text": "x" * 3_000})
        assert stored + 1 == (await store.position("room")).head


@pytest.mark.parametrize("what", ["file", "folder", "write-ahead log"])
async def test_removed_file_is_told_and_made_anew(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await store.append("event", "room", "note", {})
        before = await store.position("room")
        if what == "folder":
            shutil.rmtree(folder)
        elif what == "file":
            for found in folder.iterdir():
                found.unlink()
        else:
            (folder / "a.db-wal").unlink()

        error = await fail_append(store)

        assert (error.code, error.retry) == ("store_unavailable", True)
        assert "was removed" in str(error)
        if what == "folder":
            assert not store.ready
            folder.mkdir()
        await wait_ready(store)
        await store.append("event", "room", "note", {"after": True})
        after = await store.position("room")
        assert after.ep != before.ep or what == "write-ahead log"
        assert path.exists()

    async with SqliteMessageStore(path).run():
        pass


async def test_file_that_may_not_be_looked_at_keeps_what_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    look = os.stat

    def forbidden(name: str, *rest: object, **names: object) -> os.stat_result:
        if str(name).startswith(str(path)):
            raise PermissionError(13, "Permission denied", name)
        return look(name)

    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await store.append("event", "room", "note", {})
        monkeypatch.setattr(os, "stat", forbidden)
        await store.append("event", "room", "note", {})
        monkeypatch.undo()

        assert store.ready
        assert (await store.position("room")).head == 2


async def test_replaced_file_is_noticed_and_opened(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "other.db"
    async with SqliteMessageStore(other).run() as _:
        pass
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await store.append("event", "room", "note", {})
        for suffix in ("-wal", "-shm"):
            os.unlink(f"{path}{suffix}")
        os.replace(other, path)

        error = await fail_append(store)

        assert "was replaced by another file" in str(error) or "was removed" in str(error)
        await wait_ready(store)
        assert (await store.position("room")).head == 0


async def test_broken_read_is_told_and_recovers(tmp_path: Path) -> None:
    posts: list[Input] = []
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run(lambda *inputs: posts.extend(inputs)):
        await store.append("event", "room", "note", {})
        other = sqlite3.connect(path)
        other.execute("ALTER TABLE ws_rooms RENAME TO hidden")
        other.commit()

        store.consumer.see(0.0, TimePassed(), [ReadStore(5, "room", 0, 9, 9, 999)])
        with pytest.raises(StoreError, match="no such table"):
            await store.read("room", 0, 9)

        assert [post.request for post in posts if isinstance(post, StoreFailed)] == [5]
        assert not store.ready
        other.execute("ALTER TABLE hidden RENAME TO ws_rooms")
        other.commit()
        other.close()
        await wait_ready(store)
        store.consumer.see(0.0, TimePassed(), [ReadStore(6, "room", 0, 9, 9, 999)])
        assert (await store.read("room", 0, 9)).head == 1
        assert [post.request for post in posts if isinstance(post, StoreRead)] == [6]


async def test_flush_on_a_locked_file_ends_and_answers_all(tmp_path: Path) -> None:
    posts: list[Input] = []
    path = tmp_path / "a.db"
    limits = Limits(busy_timeout_s=0.3, flush_s=0.05)
    store = SqliteMessageStore(path, limits=limits)
    other = sqlite3.connect(path, isolation_level=None)
    async with store.run(lambda *inputs: posts.extend(inputs)):
        await store.append("event", "room", "note", {})
        other.execute("BEGIN IMMEDIATE")
        asks: list[Effect] = [StoreAppend(number, "room", "event", "note", b"{}") for number in range(300)]
        store.consumer.see(0.0, TimePassed(), asks)
    other.execute("ROLLBACK")
    other.close()

    answers = {post.request: post for post in posts if isinstance(post, StoreFailed | StoreAppended)}
    assert set(range(300)) == set(answers)
    assert all(isinstance(answer, StoreFailed) for answer in answers.values())
    assert {"store_unavailable"} == {answer.code for answer in answers.values() if isinstance(answer, StoreFailed)}


# ---- the end comes ----------------------------------------------------------------------------------


async def test_a_hurried_store_waits_for_no_lock_and_tells_who_waited(tmp_path: Path) -> None:
    posts: list[Input] = []
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=Limits(busy_timeout_s=60.0))
    began = 0.0
    with anyio.fail_after(20):
        async with store.run(lambda *inputs: posts.extend(inputs)):
            await store.append("event", "room", "note", {})
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            store.consumer.see(0.0, TimePassed(), [StoreAppend(1, "room", "event", "note", b"{}")])
            await anyio.sleep(0.05)  # It waits for the lock.
            began = anyio.current_time()
            store.hurry(0.2, 0.3)
            store.hurry(60.0, 60.0)  # Never slower again.
            while not any(isinstance(post, StoreFailed) for post in posts):
                await anyio.sleep(0.01)
            told_s = anyio.current_time() - began
            store.consumer.see(0.0, TimePassed(), [StoreAppend(2, "room", "event", "note", b"{}")])
        over_s = anyio.current_time() - began
    other.close()

    failed = [post for post in posts if isinstance(post, StoreFailed)]
    assert [(answer.request, answer.code, answer.retry) for answer in failed] == [
        (1, "store_unavailable", True),
        (2, "store_unavailable", True),
    ]
    assert 0.15 < told_s < 1.0
    assert over_s < 1.5


async def test_a_hurried_store_stores_on_where_nobody_locks_it(tmp_path: Path) -> None:
    posts: list[Input] = []
    store = SqliteMessageStore(tmp_path / "a.db")
    store.hurry(0.0)  # It does not run: nothing happens.
    async with store.run(lambda *inputs: posts.extend(inputs)):
        store.hurry(0.0, 0.0)
        await store.append("event", "room", "note", {})
        store.consumer.see(0.0, TimePassed(), [StoreAppend(n, "room", "event", "note", b"{}") for n in range(600)])

    assert sum(isinstance(post, StoreAppended) for post in posts) == 600
    assert [path.name for path in tmp_path.iterdir() if path.suffix.endswith("-wal")] == []


async def test_an_end_without_a_checkpoint_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    other = sqlite3.connect(path, isolation_level=None)
    async with SqliteMessageStore(path).run():
        other.execute("BEGIN IMMEDIATE")
    other.close()

    assert [record.getMessage() for record in caplog.records if "checkpoint" in record.getMessage()] == [
        f"store closed without a checkpoint: another process uses {path}"
    ]
