"""What hostile names, killed processes, damaged files, long readers and clocks that step back do to a SQLite store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from tests.serving import environment
from vixws_core.effects import StoreAppend
from vixws_core.inputs import StoreAppended
from vixws_core.log import Page
from vixws_core.message import StoredMessage
from vixws_store import SqliteMessageStore

FRAME = 4_096 + 24
"""Bytes of one page in a write-ahead log."""

NAMES = [
    "'; DROP TABLE ws_messages; --",
    '"',
    "%",
    "_",
    "a%b",
    "../../etc/passwd",
    "$x",
    "?1",
    ":x",
    "\\",
    "á%00b",
]


def ask(number: int, text: str = "") -> StoreAppend:
    payload = b'{"n":%d,"text":"%b"}' % (number, text.encode())
    return StoreAppend(number, "africa", "event", "note", payload, f"mid-{number}", b"digest" * 2, "scope", "ada")


def read_all(path: Path) -> list[StoredMessage]:
    """All messages of a file, opened once more."""

    async def run() -> list[StoredMessage]:
        store = SqliteMessageStore(path)
        async with store.run():
            return list(await store.replay_from(""))

    return anyio.run(run)


@pytest.mark.anyio
@pytest.mark.threat(18)
async def test_names_that_look_like_sql_are_names(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        for name in NAMES:
            await store.append(name, name, f"t{name}", {"name": name})
        pages = [await store.read(name, 0, 9) for name in NAMES]
        listed = [await store.list_by_room(name, 9) for name in NAMES]

    assert [[(row.room, row.type, row.kind) for row in page.rows] for page in pages] == [
        [(n, f"t{n}", n)] for n in NAMES
    ]
    assert [[row.room for row in rows] for rows in listed] == [[name] for name in NAMES]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.db.lock"]


# ---- killed ---------------------------------------------------------------------------------------

MORTAL = """
import os, sys, anyio
from vixws_core.effects import StoreAppend
from vixws_core.inputs import StoreAppended
from vixws_core.log import Page
from vixws_store import SqliteMessageStore

left = int(sys.argv[2])

def mortal(frame, event, argument):
    "Dies before the call of sqlite3 that is next when none is left."
    global left
    if event == "c_call" and "sqlite3" in f"{getattr(argument, '__self__', '')!r}":
        left -= 1
        if left < 0:
            os._exit(9)

async def main():
    store = SqliteMessageStore(sys.argv[1])
    async with store.run():
        await store._running().database.write(sys.setprofile, mortal)
        for number in range(3):
            asked = StoreAppend(number, "africa", "event", "note", b'{"n":%d}' % number, f"m{number}", b"d%d" % number)
            (answer,) = (await store.append_batch([asked])).answers
            print(number, isinstance(answer, StoreAppended) and not answer.dup, flush=True)
        await store.trim("africa", 1)
    print("end", flush=True)
anyio.run(main)
"""
"""A writer that is killed at its n-th call of SQLite."""


@pytest.mark.threat(23)
def test_a_writer_that_is_killed_at_any_call_of_sqlite_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    ends: list[str] = []
    for calls in range(0, 400, 2):
        path = tmp_path / f"{calls}.db"
        done = subprocess.run(
            [sys.executable, "-c", MORTAL, str(path), str(calls)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        *acked, last = done.stdout.split("\n")[:-1] or [""]
        if last != "end":
            assert done.returncode == 9, done.stderr
            acked = [line for line in (*acked, last) if line]
        assert [line for line in acked if not line.endswith("True")] == []
        _check_after_a_kill(path, len(acked))
        ends.append(last)
        if last == "end":
            break

    assert ends[-1] == "end"
    assert len(ends) > 5


def _check_after_a_kill(path: Path, acked: int) -> None:
    """Every acknowledged message is there or was trimmed; sending all again stores none twice."""

    async def run() -> None:
        store = SqliteMessageStore(path)
        async with store.run():
            before = await store.read("africa", 0, 99)
            asks = [
                StoreAppend(number, "africa", "event", "note", b'{"n":%d}' % number, f"m{number}", b"d%d" % number)
                for number in range(before.floor, 3)
            ]
            answers = (await store.append_batch(asks)).answers
            after = await store.read("africa", 0, 99)
        assert acked <= before.head
        assert [row.off for row in before.rows] == list(range(before.floor + 1, before.head + 1))
        assert [isinstance(answer, StoreAppended) and answer.off for answer in answers] == [
            number + 1 for number in range(before.floor, 3)
        ]
        assert [row.payload for row in after.rows] == [{"n": number} for number in range(after.floor, 3)]

    anyio.run(run)


# ---- locked ---------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.threat(25)
async def test_every_transaction_that_writes_takes_the_lock_before_it_reads(tmp_path: Path) -> None:
    said: list[str] = []
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        database = store._running().database
        await database.write(lambda: database.writer._db.set_trace_callback(said.append))
        await store.append_batch([ask(1), ask(2)])
        await store.trim("africa", 1)
        await database.write(database.writer.probe)

    inside = False
    outside: list[str] = []
    for text in said:
        if text.startswith(("PRAGMA busy_timeout", "PRAGMA synchronous")):
            continue  # How long it waits for a lock, and how the next commit is synced; they read nothing.
        if not inside and text != "PRAGMA wal_checkpoint(TRUNCATE)":
            outside.append(text)
        inside = text not in ("COMMIT", "ROLLBACK")
    assert set(outside) == {"BEGIN IMMEDIATE"}
    assert len(outside) >= 3


# ---- damaged --------------------------------------------------------------------------------------


@pytest.mark.threat(26)
def test_a_flipped_bit_in_a_row_is_noticed_and_its_text_is_never_shown(tmp_path: Path) -> None:
    clean = _filled(tmp_path, 81)
    rows = {row.off: row for row in read_all(clean)}
    data = clean.read_bytes()
    random = Random(26)
    noticed = 0
    assert len(rows) == 81
    for number in range(2, 82):
        payload, mid = data.find(b"marker-%04d" % number), data.find(b"mid-%ddigest" % number)
        assert min(payload, mid) > 0
        places = {
            "payload": payload + random.randrange(11),
            "mid": mid + random.randrange(4),
            "digest": mid + 6 + random.randrange(6),
            "offset": mid - 1,
            "room": data.rfind(b"africa", 0, payload) + random.randrange(6),
        }
        at = places[random.choice(list(places))]
        damaged = tmp_path / "damaged.db"
        damaged.write_bytes(data[:at] + bytes((data[at] ^ 1 << random.randrange(7),)) + data[at + 1 :])
        found = {row.off: row for row in read_all(damaged)}
        noticed += number not in found
        assert found == {off: row for off, row in rows.items() if off != number}

    assert noticed == 80


@pytest.mark.threat(26)
def test_a_flipped_bit_anywhere_shows_no_wrong_message(tmp_path: Path) -> None:
    clean = _filled(tmp_path, 40)
    rows = {row.off: row for row in read_all(clean)}
    data = clean.read_bytes()
    random = Random(400)
    damaged = tmp_path / "damaged.db"
    opened = 0
    assert len(rows) == 40
    for _ in range(100):
        at = random.randrange(len(data))
        damaged.write_bytes(data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :])
        try:
            found = read_all(damaged)
        except Exception as exc:
            assert "damaged.db" in str(exc) or "malformed" in str(exc)  # Refused in words, never a crash.
            continue
        opened += 1
        assert [row for row in found if rows.get(row.off) != row] == []

    assert opened > 50


def _filled(folder: Path, count: int) -> Path:
    """A closed file with so many messages, each with a text of its own."""
    path = folder / "clean.db"

    async def run() -> None:
        store = SqliteMessageStore(path)
        async with store.run():
            await store.append_batch([ask(number, f"marker-{number:04d}") for number in range(1, count + 1)])

    anyio.run(run)
    return path


@pytest.mark.threat(27)
def test_a_torn_write_ahead_log_is_a_shorter_log_and_a_lost_place_is_known_by_its_id(tmp_path: Path) -> None:
    async def run() -> tuple[str, list[str]]:
        store = SqliteMessageStore(tmp_path / "live.db")
        async with store.run():
            for number in range(12):
                await store.append_batch([ask(number, "x" * 500)])
            for suffix in ("", "-wal"):
                shutil.copy(f"{tmp_path}/live.db{suffix}", f"{tmp_path}/image.db{suffix}")
            page = await store.read("africa", 0, 99)
            return page.ep, [row.id for row in page.rows]

    epoch, told = anyio.run(run)
    base, wal = (tmp_path / "image.db").read_bytes(), (tmp_path / "image.db-wal").read_bytes()
    heads: list[int] = []
    for cut in range(32, len(wal) + 1, FRAME):
        torn = tmp_path / f"{cut}.db"
        torn.write_bytes(base)
        Path(f"{torn}-wal").write_bytes(wal[:cut] + os.urandom(100))
        found = read_all(torn)
        heads.append(len(found))
        assert [row.off for row in found] == list(range(1, len(found) + 1))
        assert [row.id for row in found] == told[: len(found)]
        grown = anyio.run(_grown, torn)
        assert grown.ep != epoch or {row.id for row in grown.rows[len(found) :]}.isdisjoint(told)

    assert heads == sorted(heads)
    assert set(heads) == set(range(13))


async def _grown(path: Path) -> Page:
    """A room that got twenty messages more."""
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([ask(1_000 + number) for number in range(20)])
        return await store.read("africa", 0, 99, 99)


# ---- long readers, clocks, cancellation ---------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.threat(28)
@pytest.mark.parametrize("kind", ["pages", "replay"])
async def test_the_write_ahead_log_stays_small_while_somebody_reads_everything(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was waited for a gap in vain, it is tried again soon: machines are busy."""
    monkeypatch.setattr("vixws_store.sqlite.wal.RESTART_PAUSE_S", 0.05)
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous="NORMAL")
    largest = pages = 0
    async with store.run():
        async with anyio.create_task_group() as tasks:

            async def read_on() -> None:
                nonlocal pages
                after = 0
                while True:
                    if kind == "pages":
                        page = await store.read("africa", after, 1 << 40, 500, 262_144)
                        after = page.rows[-1].off if page.rows else 0
                    else:
                        await store.replay_from("")
                    pages += 1

            tasks.start_soon(read_on)
            for number in range(60):
                await store.append_batch([ask(number * 8 + at, "x" * 60_000) for at in range(8)])
                largest = max(largest, os.stat(f"{path}-wal").st_size)
            tasks.cancel_scope.cancel()
        written = (await store.position("africa")).head * 60_000

    assert written > 3 * (8 << 20)
    assert pages > 3
    assert largest < 8 << 20


@pytest.mark.anyio
@pytest.mark.threat(29)
async def test_a_clock_that_steps_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(["2030-01-01T00:00:00.000Z", "2029-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000Z"])
    monkeypatch.setattr("vixws_store.sqlite.worker.wall_time", lambda: next(times))
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        ids = [await store.append("event", "africa", "note", {}) for _ in range(3)]
        page = await store.read("africa", 0, 9)
        listed = await store.list_by_room("africa", 9)

    assert ids == sorted(ids)
    assert [row.id for row in page.rows] == [row.id for row in listed] == ids
    assert [row.ts[:4] for row in page.rows] == ["2030", "2029", "1970"]


@pytest.mark.anyio
@pytest.mark.threat(37)
async def test_cancelled_appends_leave_no_transaction_open(tmp_path: Path) -> None:
    random = Random(37)
    store = SqliteMessageStore(tmp_path / "a.db", synchronous="NORMAL")
    open_ones = 0
    async with store.run():
        database = store._running().database

        async def append(number: int, scope: anyio.CancelScope) -> None:
            with scope:
                await store.append("event", "africa", "note", {"n": number})

        for number in range(300):
            scope = anyio.CancelScope()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(append, number, scope)
                await anyio.sleep(random.choice([0, 0, 0.0002, 0.001]))
                scope.cancel()
            open_ones += await database.write(lambda: database.writer._db.in_transaction)
        await store.append("event", "africa", "note", {"last": True})
        page = await store.read("africa", 0, 999, 999)

    assert open_ones == 0
    assert [row.off for row in page.rows] == list(range(1, page.head + 1))
    with sqlite3.connect(tmp_path / "a.db") as other:
        counted: Any = other.execute("SELECT count(*) FROM ws_messages").fetchone()
    other.close()
    assert counted == (page.head,)
