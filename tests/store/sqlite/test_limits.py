"""The fixed limits of the SQLite files: reports, rooms at hand, rows of one trip or transaction."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from vixws_core.effects import StoreAppend
from vixws_core.inputs import Input, StoreAppended, TimePassed
from vixws_store import Limits, SqliteMessageStore
from vixws_store.inspect import check
from vixws_store.sqlite.writer import LogWriter

pytestmark = pytest.mark.anyio


async def fill(path: Path, rows: int) -> SqliteMessageStore:
    """A store with so many messages in one room."""
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([StoreAppend(n, "room", "event", "note", b"{}") for n in range(rows)])
    return store


def damage_all(path: Path) -> None:
    """Changes every row, so that no checksum fits."""
    db = sqlite3.connect(path)
    db.execute("UPDATE ws_messages SET type = 'bote'")
    db.commit()
    db.close()


async def test_a_thousand_damaged_rows_are_reported_and_then_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await fill(tmp_path / "a.db", 1_005)
    damage_all(tmp_path / "a.db")
    with caplog.at_level(logging.ERROR, "vixws.store"):
        async with store.run():
            page = await store.read("room", 0, 2_000, 2_000)

    assert page.rows == ()
    assert sum("damaged row left out" in record.message for record in caplog.records) == 1_000


async def test_check_tells_a_thousand_findings_and_counts_all_rows(tmp_path: Path) -> None:
    await fill(tmp_path / "a.db", 1_005)
    damage_all(tmp_path / "a.db")
    found = check(tmp_path / "a.db")

    assert (len(found.findings), found.rows, found.sound) == (1_000, 1_005, False)


async def test_over_ten_thousand_rooms_at_hand_are_forgotten_and_found_again(tmp_path: Path) -> None:
    def ask(number: int) -> StoreAppend:
        return StoreAppend(number, f"room{number}", "event", "note", b"{}")

    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        writer = store._running().database.writer
        for numbers in (range(10_000), (10_000,), (5, 10_001)):
            await store.append_batch([ask(number) for number in numbers])
        held = len(writer._appender._heads)
        found = [(await store.position(f"room{number}")).head for number in (4, 5, 10_001)]

    assert held == 2
    assert found == [1, 2, 1]


async def test_one_transaction_trims_5000_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vixws_store.sqlite.trimming.LOOK_S", 60.0)
    await fill(tmp_path / "a.db", 5_010)
    writer = LogWriter(str(tmp_path / "a.db"), "NORMAL", 1.0, None)
    db = writer.open()
    removed = [writer.trim("room", 5_009) for _ in range(3)]
    db.close()

    assert removed == [5_000, 9, 0]


@pytest.mark.parametrize(("limit", "trips"), [(None, [500, 500, 500]), (700, [500, 200]), (500, [500])])
@pytest.mark.threat(28)
async def test_a_replay_takes_500_rows_a_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, trips: list[int]
) -> None:
    store = await fill(tmp_path / "a.db", 1_003)
    asked: list[int] = []
    async with store.run():
        worker = store._running()
        call = worker.call

        async def noting(name: str, *arguments: Any) -> Any:
            if name == "replay_from":
                asked.append(arguments[-1])
            return await call(name, *arguments)

        monkeypatch.setattr(worker, "call", noting)
        rows = await store.replay_from("", limit)

    assert asked == trips
    assert [row.off for row in rows] == list(range(1, min(1_003, limit or 1_003) + 1))


async def test_one_commit_takes_so_many_rows_and_no_more(tmp_path: Path) -> None:
    posts: list[tuple[Input, ...]] = []
    store = SqliteMessageStore(tmp_path / "a.db", limits=Limits(batch_rows_max=3))
    async with store.run(lambda *inputs: posts.append(inputs)):
        store.consumer.see(0.0, TimePassed(), [StoreAppend(n, "room", "event", "note", b"{}") for n in range(10)])

    answered = [sum(isinstance(input, StoreAppended) for input in inputs) for inputs in posts]
    assert [count for count in answered if count] == [3, 3, 3, 1]
