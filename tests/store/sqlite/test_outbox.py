"""A client's outbox: what was put is there after any end, in order, with the secret and the positions."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import Since
from vixws_core.protocols import Outbox
from vixws_store import OutboxEntry, OutboxLimits, SqliteOutbox

pytestmark = pytest.mark.anyio


def entry(number: int, payload: bytes = b"{}") -> OutboxEntry:
    return OutboxEntry(f"m{number}", "africa", "chat.message", payload)


def numbers(entries: list[OutboxEntry]) -> list[int]:
    return [int(entry.mid[1:]) for entry in entries]


async def test_entries_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    first = OutboxEntry("ключ", "a b", "t.ü", '{"text":"日本 🎉","n":1e400}'.encode(), "memo")
    outbox: Outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with outbox.run():
        assert await outbox.load() == []
        await outbox.put(first)
        for number in range(5):
            await outbox.put(entry(number))
        outbox.settle("m1")
        outbox.settle("unknown")
        pub = outbox.pub
        before = await outbox.load()

    again = SqliteOutbox(tmp_path / "outbox.db")
    async with again.run():
        assert await again.load() == before
        assert again.pub == pub

    assert before == [first, entry(0), entry(2), entry(3), entry(4)]
    assert len(pub) == 32


async def test_order_is_that_of_asking_where_puts_run_at_once(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with outbox.run():
        for number in range(100):
            async with anyio.create_task_group() as group:
                group.start_soon(outbox.put, entry(2 * number))
                group.start_soon(outbox.put, entry(2 * number + 1))
        before = await outbox.load()
    async with outbox.run():
        assert await outbox.load() == before
    assert sorted(numbers(before)) == list(range(200))


async def test_puts_at_once_share_commits(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    commits = 0
    async with outbox.run():
        file = outbox._running().file
        apply = file.apply

        def counted(changes: object) -> None:
            nonlocal commits
            commits += 1
            apply(changes)  # type: ignore[arg-type]  # Whatever the outbox gave.

        file.apply = counted  # type: ignore[method-assign]  # Counts what passes, and passes it on.
        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(outbox.put, entry(number))

        assert sorted(numbers(await outbox.load())) == list(range(500))
        assert commits <= 4


async def test_positions_are_kept_and_forgotten(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with outbox.run():
        assert await outbox.positions() == {}
        for off in range(1, 50):
            outbox.keep_position("africa", Since("e", off, f"{off:020}"))
        outbox.keep_position("left", Since("e", 1))
        outbox.keep_position("left", None)
        outbox.keep_position("never", None)
        outbox.keep_position("asia", Since("f", 3, None))
        before = await outbox.positions()
    async with outbox.run():
        assert await outbox.positions() == before

    assert before == {"africa": Since("e", 49, f"{49:020}"), "asia": Since("f", 3, None)}


async def test_same_entry_again_is_kept_once_and_another_is_refused(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with outbox.run():
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.put, entry(1))
            group.start_soon(outbox.put, entry(1))
        with pytest.raises(LocalError, match="mid must be new, got 'm1' again"):
            await outbox.put(entry(1, b'{"other":1}'))
        outbox.settle("m1")
        await outbox.put(entry(1, b'{"other":1}'))

        assert await outbox.load() == [entry(1, b'{"other":1}')]
    async with outbox.run():
        assert await outbox.load() == [entry(1, b'{"other":1}')]


async def test_settled_entries_and_positions_are_written_soon(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path, limits=OutboxLimits(lazy_s=0.01))
    async with outbox.run():
        await outbox.put(entry(1))
        outbox.settle("m1")
        outbox.keep_position("africa", Since("e", 7))
        other = sqlite3.connect(path)
        with anyio.fail_after(20):
            while other.execute("SELECT count(*) FROM outbox_entries").fetchone() != (0,):
                await anyio.sleep(0.01)
        found = other.execute("SELECT room, ep, off, id FROM outbox_positions").fetchall()
        other.close()

    assert found == [("africa", "e", 7, None)]


async def test_limits_are_kept(tmp_path: Path) -> None:
    limits = OutboxLimits(entries_max=3, bytes_max=10, positions_max=2)
    outbox = SqliteOutbox(tmp_path / "outbox.db", limits=limits)
    async with outbox.run():
        for number in range(3):
            await outbox.put(entry(number))
        with pytest.raises(StoreError, match="holds 3 entries of 6 bytes") as caught:
            await outbox.put(entry(3))
        outbox.settle("m0")
        with pytest.raises(StoreError, match="holds 2 entries of 4 bytes"):
            await outbox.put(entry(4, b'{"a":1}'))
        await outbox.put(entry(5))
        for room in ("a", "b", "a"):
            outbox.keep_position(room, Since("e", 1))
        with pytest.raises(LocalError, match="at most 2 rooms"):
            outbox.keep_position("c", Since("e", 1))
        outbox.keep_position("a", None)
        await outbox.flush()
        outbox.keep_position("c", Since("e", 1))

        assert (caught.value.code, caught.value.retry) == ("store_full", True)
        assert numbers(await outbox.load()) == [1, 2, 5]


async def test_locked_file_refuses_puts_and_keeps_the_rest_for_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path, limits=OutboxLimits(busy_timeout_s=0.02, lazy_s=0.01))
    with caplog.at_level(logging.WARNING, "vixws.store"):
        async with outbox.run():
            await outbox.put(entry(1))
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            outbox.settle("m1")
            outbox.keep_position("africa", Since("e", 7))
            with pytest.raises(StoreError, match="database is locked") as caught:
                await outbox.put(entry(2))
            assert await outbox.load() == []
            other.execute("ROLLBACK")
            other.close()
            await outbox.put(entry(3))
        async with outbox.run():
            assert numbers(await outbox.load()) == [3]
            assert await outbox.positions() == {"africa": Since("e", 7)}

    assert (caught.value.code, caught.value.retry) == ("store_unavailable", True)
    assert len([line for line in caplog.messages if "not written" in line]) == 1
    assert f"outbox written again: {path}" in caplog.messages


async def test_end_on_a_locked_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path, limits=OutboxLimits(busy_timeout_s=0.02))
    async with outbox.run():
        await outbox.put(entry(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        outbox.settle("m1")
    other.execute("ROLLBACK")
    other.close()

    assert f"outbox closed with changes that could not be written: {path}" in caplog.messages
    async with outbox.run():
        assert numbers(await outbox.load()) == [1]


async def test_second_client_on_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path)
    async with outbox.run():
        with pytest.raises(StoreError, match=f"is in use by the process {os.getpid()} already"):
            async with SqliteOutbox(path).run():
                pass
        with pytest.raises(LocalError, match="runs already"):
            async with outbox.run():
                pass


async def test_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path)
    async with outbox.run():
        await outbox.put(entry(1))
        modes = {stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir() if found.suffix != ".lock"}

    assert modes == {0o600}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"not a database at all, but long enough to be looked at as one" * 20, "file is not a database"),
        ("CREATE TABLE notes (text TEXT)", "the file is no outbox: it holds notes"),
        (
            "CREATE TABLE outbox_meta (key TEXT, value TEXT);"
            "INSERT INTO outbox_meta VALUES ('schema_version', '2'), ('pub', 'x')",
            "expected an outbox of version 1, found 2",
        ),
    ],
)
async def test_wrong_file_is_named_in_one_line(tmp_path: Path, content: bytes | str, expected: str) -> None:
    path = tmp_path / "outbox.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.executescript(content)
        db.close()
    with pytest.raises(StoreError) as caught:
        async with SqliteOutbox(path).run():
            pass

    assert str(caught.value) == f"cannot open the outbox {path}: {expected}"


async def test_calls_outside_of_run_are_the_callers_fault(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    with pytest.raises(LocalError, match="is not running"):
        await outbox.load()
    with pytest.raises(LocalError, match="is not running"):
        _ = outbox.pub
    with pytest.raises(LocalError, match="path must name a file"):
        SqliteOutbox(":memory:")
    async with outbox.run():
        with pytest.raises(LocalError, match="valid UTF-8"):
            await outbox.put(OutboxEntry("\ud800", "r", "t"))


async def test_cancelled_put_is_kept(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with outbox.run(), anyio.create_task_group() as group:
        group.start_soon(outbox.put, entry(1))
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    async with outbox.run():
        assert numbers(await outbox.load()) == [1]


async def test_what_the_block_raises_leaves_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with SqliteOutbox(tmp_path / "outbox.db").run():
            raise ZeroDivisionError


CLIENT = """
import sys
import anyio
from vixws_core.inputs import Since
from vixws_store import OutboxEntry, SqliteOutbox

async def main():
    outbox = SqliteOutbox("outbox.db")
    async with outbox.run():
        for number in range(100_000):
            await outbox.put(OutboxEntry(f"m{number}", "africa", "chat.message", b"{}"))
            if number % 3 == 0:
                outbox.settle(f"m{number}")
            outbox.keep_position("africa", Since("e", number))
            print(number, flush=True)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("count", [1, 40])
async def test_what_was_put_is_there_after_a_kill(tmp_path: Path, count: int, anyio_backend_name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, anyio_backend_name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        acked = [int(process.stdout.readline()) for _ in range(count)]
    finally:
        process.kill()
        acked += [int(line) for line in process.stdout.read().splitlines() if line] if process.stdout else []
        process.wait()
        if process.stdout:
            process.stdout.close()

    outbox = SqliteOutbox(tmp_path / "outbox.db")
    async with outbox.run():
        found = numbers(await outbox.load())
        positions = await outbox.positions()
    assert found == sorted(set(found))
    assert {number for number in acked if number % 3} <= set(found)
    assert max(found, default=0) <= acked[-1] + 1
    assert count == 1 or 0 <= positions["africa"].off <= acked[-1] + 1
