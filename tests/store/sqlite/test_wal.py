"""A write-ahead log that a long read of another process keeps from being emptied: told, bounded, over with the read."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import StoreError
from vixws_store import Limits, SqliteMessageStore
from vixws_store.inspect import check

from .processes import READ, beside

pytestmark = [pytest.mark.anyio, pytest.mark.threat(28)]

MOST = 1 << 20
LIMITS = Limits(log_bytes_max=MOST, probe_s=0.02)
BATCH = [StoreAppend(n, "room", "event", "note", b'{"text":"' + b"x" * 3_000 + b'"}') for n in range(8)]


async def fill_until_refused(store: SqliteMessageStore) -> tuple[int, StoreError]:
    """Appends until that fails; how many were taken."""
    taken = 0
    with pytest.raises(StoreError) as caught:
        for _ in range(1_000):
            await store.append_batch(BATCH)
            taken += len(BATCH)
    return taken, caught.value


async def wait_ready(store: SqliteMessageStore) -> None:
    with anyio.fail_after(20):
        while not store.ready:
            await anyio.sleep(0.01)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == "vixws.store"]
    caplog.clear()
    return found


async def test_a_long_read_is_named_and_the_log_stays_bounded_until_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=LIMITS)
    head = 0
    async with store.run():
        for _ in range(2):
            await store.append("event", "room", "note", {})
            with beside(READ, path) as (process, line):
                assert line == "ready"

                taken, error = await fill_until_refused(store)

                size = os.stat(f"{path}-wal").st_size
                cause = (
                    f"the process {process.pid} (python) has not ended a read that it began before; "
                    "end that read, or the process"
                ).replace("python", Path(f"/proc/{process.pid}/comm").read_text().strip())
                assert (error.code, error.retry, store.ready) == ("store_full", True, False)
                assert str(error) == f"{path}-wal has {size} bytes, {MOST} are allowed: {cause}"
                assert taken > 100
                assert MOST <= size < MOST + (128 << 10)
                assert store.log_bytes == size
                head += 1 + taken
                assert (await store.position("room")).head == head
                for _ in range(3):  # It stays so.
                    await anyio.sleep(0.05)
                    assert (await fill_until_refused(store))[0] == 0
                first, second = lines(caplog)
                assert first.startswith(f"the write-ahead log of {path} has ")
                assert first.endswith(f" and cannot be emptied: {cause}; at {MOST} bytes nothing more is stored")
                assert second == f"store not ready: {error}"
                await anyio.to_thread.run_sync(process.communicate)
            await wait_ready(store)
            await store.append_batch(BATCH[:0])
            assert lines(caplog) == [
                f"the write-ahead log of {path} is emptied again",
                f"store ready again: {path}",
            ]
            assert store.log_bytes < MOST // 8

    assert check(path).sound
    assert store.log_bytes == 0


async def test_a_read_in_this_process_is_named_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=LIMITS)
    async with store.run():
        await store.append("event", "room", "note", {})
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM ws_messages").fetchone()

        _, error = await fill_until_refused(store)

        assert "another connection of this process has not ended a read" in str(error)
        other.execute("COMMIT")
        other.close()
        await wait_ready(store)
        await store.append_batch(BATCH)


async def test_a_log_below_its_bound_is_told_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=Limits(log_bytes_max=4 << 20))
    async with store.run():
        await store.append("event", "room", "note", {})
        with beside(READ, path):
            while store.log_bytes < 3 << 20:
                await store.append_batch(BATCH)
            assert store.ready
        assert ["cannot be emptied" in line for line in lines(caplog)] == [True]
        with anyio.fail_after(20):
            while store.log_bytes > 1 << 20:
                await store.append_batch(BATCH)
                await anyio.sleep(0.05)
        assert lines(caplog) == [f"the write-ahead log of {path} is emptied again"]


async def test_a_full_log_takes_positions_and_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL", limits=LIMITS)
    async with store.run():
        await store.append("event", "room", "note", {})
        with beside(READ, path):
            taken, _ = await fill_until_refused(store)
            page = await store.read("room", 0, 1 << 40, 10_000, 1 << 30)
            assert len(page.rows) == taken + 1
            with pytest.raises(StoreError) as caught:
                await store.trim("room", 5)  # It would make the log larger still.
            assert caught.value.code == "store_full"
