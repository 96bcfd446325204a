"""A child that is forked while a store is open has none of its files, and takes no lock of it along."""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import pytest

from vixws_store import SqliteMessageStore, SqliteOutbox
from vixws_store.inspect import check
from vixws_store.sqlite.appending import Appender
from vixws_store.sqlite.bridge import ThreadConnection
from vixws_store.sqlite.reader import LogReader
from vixws_store.sqlite.writer import LogWriter

from .processes import SERVE, beside

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.filterwarnings("ignore:This process"),
]


def in_child(look: Callable[[], int]) -> int:
    """What `look` gives in a forked child; 255 where it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads, and is right.
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(look())
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def open_under(folder: Path) -> list[str]:
    """The files of a folder that this process has open."""
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if name.startswith(str(folder)):
            found.append(name)
    return found


async def test_a_child_has_none_of_a_stores_files_open(tmp_path: Path) -> None:
    store, outbox = SqliteMessageStore(tmp_path / "a.db", synchronous="NORMAL"), SqliteOutbox(tmp_path / "out.db")
    async with store.run(), outbox.run():
        await store.append("event", "room", "note", {})
        (tmp_path / "a.db.lock").unlink()
        (tmp_path / "mine.txt").write_text("x")
        with open(tmp_path / "mine.txt") as mine:
            here = len(open_under(tmp_path))
            there = in_child(lambda: len(open_under(tmp_path)))
            kept = in_child(lambda: len(mine.read()))
        assert here > 8
        assert there == 1
        assert kept == 1
        await store.append("event", "room", "note", {})

    assert check(tmp_path / "a.db").rows == 2


async def test_a_child_that_ends_takes_no_lock_of_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)

    def second() -> str:
        with beside(SERVE, path) as (_, line):
            return line

    async with store.run():
        await store.append("event", "room", "note", {})
        for _ in range(3):
            assert in_child(lambda: 0) == 0
        line = await anyio.to_thread.run_sync(second)
        assert f"is served by the process {os.getpid()} already" in line
        await store.append("event", "room", "note", {})
        assert (await store.position("room")).head == 2


async def test_a_child_may_collect_all_that_it_was_left_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)

    def collect() -> int:
        found = [each for each in gc.get_objects() if isinstance(each, ThreadConnection)]
        for each in found:
            each._connection = None
        for user in gc.get_objects():
            if isinstance(user, LogWriter | LogReader | Appender):
                del user._db  # The last reference that there was.
        gc.collect()
        return len(found)

    async with store.run():
        await store.append("event", "room", "note", {})
        other = sqlite3.connect(path)  # All of the log is in the file: whoever closes that last removes the log.
        other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        other.close()
        assert in_child(collect) >= 2
        assert Path(f"{path}-wal").exists()
        await store.append("event", "room", "note", {})

    assert check(path).rows == 2


async def test_a_child_may_open_a_store_of_its_own(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")

    def serve() -> int:
        import threading

        ended: list[int] = []

        def run() -> None:
            async def main() -> None:
                async with SqliteMessageStore(tmp_path / "b.db").run():
                    pass
                ended.append(0)

            anyio.run(main)

        thread = threading.Thread(target=run)  # The parent's loop is in this one.
        thread.start()
        thread.join(10)
        return ended[0]

    async with store.run():
        assert in_child(serve) == 0
