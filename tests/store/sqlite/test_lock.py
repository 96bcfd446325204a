"""One server for one database, whatever its names are and whatever becomes of the lock file beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import pytest

from vixws_core.errors import StoreError
from vixws_store import OutboxLimits, SqliteMessageStore, SqliteOutbox
from vixws_store.inspect import check
from vixws_store.maintain import trim

from .processes import SERVE, beside

pytestmark = pytest.mark.anyio

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux locks a file itself")


async def line_of_a_second(path: Path) -> str:
    """What another process says that wants to serve it."""

    def run() -> str:
        with beside(SERVE, path) as (_, line):
            return line

    return await anyio.to_thread.run_sync(run)


def sqlites_locks(path: Path) -> int:
    """How many locks of SQLite's this process has on a file."""
    inode = str(os.stat(path).st_ino)
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sum(f[1] == "POSIX" and f[4] == str(os.getpid()) and f[5].endswith(f":{inode}") for f in fields)


async def test_a_symbolic_link_is_followed_and_the_file_behind_it_is_locked(tmp_path: Path) -> None:
    real, link = tmp_path / "data" / "real.db", tmp_path / "link.db"
    real.parent.mkdir()
    link.symlink_to(real)  # To a file that is not there yet.
    store = SqliteMessageStore(link)
    async with store.run():
        for number in range(3):
            await store.append("event", "room", "note", {"n": number})
        with pytest.raises(StoreError, match=rf"{real} is served by the process {os.getpid()} already \(lock file"):
            async with SqliteMessageStore(real).run():
                pass
        assert store.ready

    async with SqliteMessageStore(real).run():
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "link.db", "real.db", "real.db.lock"]
    assert link.is_symlink()
    assert check(real).rows == 3


async def test_a_folder_that_is_a_symbolic_link_makes_no_second_lock(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    async with SqliteMessageStore(tmp_path / "link" / "a.db").run():
        line = await line_of_a_second(tmp_path / "data" / "a.db")

    assert f"is served by the process {os.getpid()} already (lock file {tmp_path}/data/a.db.lock)" in line


def remove(lock: Path) -> None:
    lock.unlink()


def replace(lock: Path) -> None:
    lock.with_suffix(".new").write_text("1\n")
    os.replace(lock.with_suffix(".new"), lock)


@on_linux
@pytest.mark.parametrize("harm", [remove, replace])
async def test_a_second_server_is_refused_though_the_lock_file_is_gone(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append("event", "room", "note", {})
        harm(tmp_path / "a.db.lock")

        lines = [await line_of_a_second(path), await line_of_a_second(path)]
        await store.append("event", "room", "note", {})

    why = f"the file itself is locked: it has another name, or {path}.lock was removed"
    assert lines == [f"StoreError {path} is served by the process {os.getpid()} already ({why})"] * 2
    assert await line_of_a_second(path) == "ready"


@on_linux
async def test_a_second_server_is_refused_under_another_name(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append("event", "room", "note", {})
        other.hardlink_to(path)

        line = await line_of_a_second(other)
        await store.append("event", "room", "note", {})

    assert line.startswith(f"StoreError {other} is served by the process {os.getpid()} already (the file itself")
    assert check(path).rows == 2
    assert await line_of_a_second(other) == "ready"


@on_linux
async def test_a_refusal_in_the_same_process_costs_none_of_sqlites_locks(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append("event", "room", "note", {})
        other.hardlink_to(path)
        before = sqlites_locks(path)

        for name in (path, other):
            with pytest.raises(StoreError, match=f"is served by the process {os.getpid()} already"):
                async with SqliteMessageStore(name).run():
                    pass
            with pytest.raises(StoreError, match=f"is served by the process {os.getpid()} already"):
                trim(name, "room", 1)

        assert sqlites_locks(path) == before > 0
        await store.append("event", "room", "note", {})

    async with SqliteMessageStore(other).run():
        pass


@on_linux
async def test_an_outbox_has_one_client_under_all_its_names(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    async with SqliteOutbox(path, limits=OutboxLimits()).run():
        other.hardlink_to(path)
        with pytest.raises(StoreError, match=f"{other} is in use by the process {os.getpid()} already"):
            async with SqliteOutbox(other).run():
                pass


async def test_a_killed_server_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def kill() -> None:
        with beside(SERVE, path) as (process, line):
            assert line == "ready"
            process.kill()

    await anyio.to_thread.run_sync(kill)
    async with SqliteMessageStore(path).run():
        pass


async def test_a_file_system_without_such_locks_is_told_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("vixws_store.sqlite.lock._lock_byte", refuse)
    path = tmp_path / "a.db"
    async with SqliteMessageStore(path).run():
        pass

    told = f"only {path}.lock keeps a second process from {path}: [Errno 22] Invalid argument"
    assert [record.getMessage() for record in caplog.records if record.name == "vixws.store"] == [told]
