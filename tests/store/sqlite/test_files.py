"""Files that are cut, replaced or removed under a store: nothing is acknowledged that is lost, nothing gets worse."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError
from vixws_core.inputs import StoreAppended
from vixws_store import Limits, SqliteMessageStore
from vixws_store.inspect import check
from vixws_store.sqlite.files import Files

pytestmark = pytest.mark.anyio

QUICK = Limits(busy_timeout_s=0.05, retry_timeout_s=0.05, probe_s=0.02)

TEXT = "x" * 300


async def fill(store: SqliteMessageStore, count: int) -> None:
    """So many commits of one message each."""
    for number in range(count):
        await store.append("event", "room", "note", {"n": number, "text": TEXT})


async def refused(store: SqliteMessageStore) -> StoreError:
    error = await tried(store)
    assert error is not None, "it was stored"
    return error


async def tried(store: SqliteMessageStore) -> StoreError | None:
    try:
        await store.append("event", "room", "note", {"n": -1, "text": TEXT})
    except StoreError as exc:
        return exc
    return None


async def wait_ready(store: SqliteMessageStore) -> None:
    with anyio.fail_after(20):
        while not store.ready:
            await anyio.sleep(0.01)


async def stays_away(store: SqliteMessageStore) -> None:
    """It is tried again some times, and nothing is taken."""
    for _ in range(4):
        await anyio.sleep(0.05)
        error = await refused(store)
        assert (error.code, error.retry, store.ready) == ("store_unavailable", True, False), error


def cut_to(part: float) -> Callable[[Path], None]:
    """Cuts a file to a part of what it has, which need not end with a page."""

    def cut(path: Path) -> None:
        os.truncate(path, int(os.stat(path).st_size * part))

    cut.__name__ = f"cut to {part}"
    return cut


CUTS = [cut_to(0), cut_to(0.001), cut_to(0.3), cut_to(0.9), cut_to(0.999)]


def restored(path: Path) -> list[int]:
    """The numbers of a file's messages after a start like that of a new process, each once and in order."""

    async def run() -> list[int]:
        store = SqliteMessageStore(path)
        async with store.run():
            page = await store.read("room", 0, 1 << 40, 10_000, 1 << 30)
            assert [row.off for row in page.rows] == list(range(1, page.head + 1))
            return [row.payload["n"] for row in page.rows]

    return anyio.run(run)


@pytest.mark.threat(27)
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
async def test_a_log_that_is_cut_while_it_rests_takes_nothing_more(
    tmp_path: Path, cut: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 60)
        cut(tmp_path / "a.db-wal")

        error = await refused(store)

        assert (error.code, error.retry, store.ready) == ("store_unavailable", True, False)
        await stays_away(store)
    told = [record.getMessage() for record in caplog.records if record.name == "vixws.store"]
    assert any(line.startswith(f"store not ready: {path}-wal was cut") for line in told)
    assert f"store not ready: {path} lacks messages that were acknowledged: stop the server, and start it again" in told

    found = await anyio.to_thread.run_sync(restored, path)
    assert found == list(range(len(found)))
    assert len(found) < 60
    assert check(path).sound


@pytest.mark.threat(27)
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("before", [3, 60, 900])
async def test_a_log_that_is_cut_during_a_commit_acknowledges_none_of_it(
    tmp_path: Path, cut: Callable[[Path], None], before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 900 commits the log has been begun anew, and is written over from its beginning: its end may hold nothing."""
    path = tmp_path / "a.db"
    look, armed = Files.before, False

    def cut_then(self: Files, db: sqlite3.Connection) -> None:
        nonlocal armed
        look(self, db)
        if armed:
            armed = False
            cut(tmp_path / "a.db-wal")

    monkeypatch.setattr(Files, "before", cut_then)
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=QUICK)
    async with store.run():
        await fill(store, before)
        armed = True

        error = await tried(store)

        assert not armed
        if error is None:
            assert before == 900 and cut.__name__ == "cut to 0.999", "nothing was lost"
            before += 1
        else:
            assert (error.code, error.retry, store.ready) == ("store_unavailable", True, False)
        may_be_whole = before >= 900 and cut.__name__ == "cut to 0.999"
        for _ in range(50 if may_be_whole else 1):
            await anyio.sleep(0.1)
            if store.ready:
                break
        acked = before
        if store.ready:  # All that was acknowledged is there.
            assert (await store.position("room")).head >= before
        else:
            await stays_away(store)
            acked = 0

    found = await anyio.to_thread.run_sync(restored, path)
    assert [number for number in found if number >= 0] == list(range(len([n for n in found if n >= 0])))
    assert len(found) >= acked
    assert check(path).sound


@pytest.mark.threat(27)
async def test_a_cut_log_is_not_copied_by_the_commit_that_would_be_the_one_to_do_it(tmp_path: Path) -> None:
    """SQLite does so at 1,000 pages, within a commit."""
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=QUICK)
    async with store.run():
        number = 0
        while store.log_bytes < 990 * 4_120:
            await store.append("event", "room", "note", {"n": number, "text": TEXT})
            number += 1
        assert store.log_bytes < 1_000 * 4_120
        os.truncate(f"{path}-wal", 0)
        with pytest.raises(StoreError):
            await store.append("event", "room", "note", {"n": number, "text": TEXT * 200})
        await stays_away(store)

    found = await anyio.to_thread.run_sync(restored, path)
    assert found == list(range(len(found)))
    assert check(path).sound


@pytest.mark.threat(27)
async def test_a_log_that_held_nothing_new_may_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 20)
        with sqlite3.connect(path) as other:
            assert other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
        other.close()
        os.truncate(f"{path}-wal", 0)

        await store.append("event", "room", "note", {"n": 20})  # SQLite begins the log anew with this.
        assert store.ready
        for suffix in ("", "-wal"):  # As they are after a crash.
            shutil.copy(f"{path}{suffix}", f"{tmp_path}/crashed.db{suffix}")

    assert await anyio.to_thread.run_sync(restored, tmp_path / "crashed.db") == list(range(21))
    assert check(path).sound


async def test_reads_of_a_cut_log_do_no_harm_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 60)
        os.truncate(f"{path}-wal", 0)
        with pytest.raises(StoreError):
            for number in range(60):
                await store.read("room", number, number + 1)
            raise StoreError("store_unavailable", "all of it was at hand")
        await anyio.sleep(0.1)

    found = await anyio.to_thread.run_sync(restored, path)
    assert found == list(range(len(found)))
    assert check(path).sound


async def test_an_end_with_a_cut_log_does_no_harm_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await fill(store, 60)
        os.truncate(f"{path}-wal", 0)

    found = await anyio.to_thread.run_sync(restored, path)
    assert found == list(range(len(found)))
    assert check(path).sound


@pytest.mark.parametrize("part", [0.1, 0.5])
async def test_a_database_that_is_cut_takes_nothing_more(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 60)
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        other.close()
        await fill(store, 1)
        cut_to(part)(path)

        error = await refused(store)

        assert str(error).startswith(f"{path} was cut to ")
        await stays_away(store)


@pytest.mark.threat(27)
async def test_an_older_copy_that_is_put_in_place_is_not_served_before_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 10)
        with sqlite3.connect(path) as db, sqlite3.connect(copy) as to:
            db.backup(to)
        db.close()
        to.close()
        await fill(store, 5)
        for suffix in ("-wal", "-shm"):
            os.unlink(f"{path}{suffix}")
        os.replace(copy, path)

        await refused(store)
        await stays_away(store)
    assert any("lacks messages that were acknowledged" in record.getMessage() for record in caplog.records)

    assert await anyio.to_thread.run_sync(restored, path) == list(range(10))


async def test_a_copy_of_all_of_it_may_be_put_in_place(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copy.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 10)
        with sqlite3.connect(path) as db, sqlite3.connect(copy) as to:
            db.backup(to)
        db.close()
        to.close()
        for suffix in ("-wal", "-shm"):
            os.unlink(f"{path}{suffix}")
        os.replace(copy, path)

        await refused(store)
        await wait_ready(store)
        await fill(store, 1)
        assert (await store.position("room")).head == 11


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_gone_is_noticed_before_anything_is_acknowledged(
    tmp_path: Path, suffix: str, replaced: bool
) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    async with store.run():
        await fill(store, 30)
        if replaced:
            shutil.copy(f"{path}{suffix}", tmp_path / "copy")
            os.replace(tmp_path / "copy", f"{path}{suffix}")
        else:
            os.unlink(f"{path}{suffix}")

        error = await refused(store)

        assert f"{path}{suffix} was {'replaced' if replaced else 'removed'}" in str(error)
        await wait_ready(store)
        # What was committed is in the log, or in what was open; a database that is gone takes its log along.
        # The one that was refused may be there: its sender sends it again.
        assert (await store.position("room")).head in ((30, 31) if suffix or replaced else (0,))

    assert check(path).sound


def disturb(path: Path, how: str) -> None:
    """What other processes may do with a file in good order."""
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        if how == "write":
            other.execute("INSERT OR REPLACE INTO ws_meta (key, value) VALUES ('other', hex(randomblob(5000)))")
        elif how == "vacuum":
            other.execute("VACUUM")
        else:
            other.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    finally:
        other.close()


async def test_nothing_that_others_do_in_good_order_raises_an_alarm(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=QUICK)
    random = Random(3)
    again = StoreAppend(1, "room", "event", "note", b"{}", "mid", b"digest")
    done: dict[str, int] = {}
    async with store.run():
        for number in range(700):
            how = random.choice(["write", "vacuum", "PASSIVE", "FULL", "RESTART", "TRUNCATE", "", "", "", "", "trim"])
            if how == "trim":
                await store.trim("room", max(0, number - 50))
            elif how:
                disturb(path, how)
            done[how] = done.get(how, 0) + 1
            if number % 5 == 0:  # It writes nothing, unless it was trimmed.
                await store.append_batch([again])
            payload: dict[str, Any] = {"n": number, "text": TEXT * random.choice([1, 1, 30])}
            data = json.dumps(payload).encode()
            answers = (await store.append_batch([StoreAppend(1, "room", "event", "note", data)])).answers
            assert isinstance(answers[0], StoreAppended)
            if number % 7 == 0:
                await store.append_batch([again])
            assert store.ready
        assert (await store.position("room")).head >= 701
    assert min(done.values()) > 10
    assert check(path).sound


async def test_an_alarm_is_logged_as_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, limits=QUICK)
    with caplog.at_level(logging.WARNING, "vixws.store"):
        async with store.run():
            await fill(store, 3)
            os.unlink(f"{path}-wal")
            await refused(store)
            await wait_ready(store)

    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "vixws.store"]
    assert told == [
        ("WARNING", f"store not ready: {path}-wal was removed"),
        ("WARNING", f"store ready again: {path}"),
    ]
