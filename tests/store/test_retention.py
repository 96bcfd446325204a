"""Retention: what is over a bound goes while a store runs, in both stores alike, and disturbs nobody."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.protocols import MessageStore, Retained
from vixws_core.retention import Retention, rule_for
from vixws_store import MemoryMessageStore, SqliteMessageStore, _retention
from vixws_store._retention import CHANGED_MAX, SLICE_S, Cut, Keeper, Pace, Slice, Survey
from vixws_store.sqlite.trimming import SLICE_BYTES

pytestmark = pytest.mark.anyio

Make = Callable[..., MessageStore]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Gives a store with rules over new data."""
    if request.param == "memory":
        return lambda *rules: MemoryMessageStore(retention=rules)
    numbers: Iterator[int] = count()
    return lambda *rules: SqliteMessageStore(tmp_path / f"{next(numbers)}.db", retention=rules)


async def fill(store: MessageStore, room: str, number: int, size: int = 2) -> None:
    payload = b'{"":"%b"}' % (b"x" * (size - 7)) if size > 6 else b"{}"
    await store.append_batch([StoreAppend(n, room, "event", "note", payload, f"{n}-{size}") for n in range(number)])


async def floor_of(store: MessageStore, room: str, floor: int) -> None:
    """Waits until a room's floor is where it has to be, and a moment longer; then looks at its rows."""
    with anyio.fail_after(30):
        while (await store.position(room)).floor < floor:
            await anyio.sleep(0.01)
    await anyio.sleep(0.05)
    page = await store.read(room, 0, 1 << 40, 1 << 20, 1 << 30)

    assert (page.floor, [row.off for row in page.rows]) == (floor, list(range(floor + 1, page.head + 1)))


async def test_the_newest_of_a_room_are_kept_by_count(make: Make) -> None:
    store = make(Retention(pattern="chat.*", count=10))
    async with store.run():
        await fill(store, "chat.a", 1_000)
        await fill(store, "other", 50)
        row = (await store.read("chat.a", 989, 990)).rows
        await floor_of(store, "chat.a", 990)
        await floor_of(store, "other", 0)
        place = await store.position("chat.a", 990)
        for _ in range(3):
            await store.append("event", "chat.a", "note", {})
        await floor_of(store, "chat.a", 993)

    assert place.head == 1_000
    assert place.id_at is not None
    assert not row or place.id_at == row[0].id


async def test_bytes_are_those_of_payloads_and_the_newest_message_stays(make: Make) -> None:
    store = make(Retention(pattern="*", bytes=10_000))
    async with store.run():
        await fill(store, "room", 500, 100)
        await floor_of(store, "room", 400)
        await fill(store, "room", 10, 500)
        await floor_of(store, "room", 450)
        await fill(store, "big", 3, 20_000)
        await floor_of(store, "big", 2)
        await fill(store, "big", 1, 9_000)
        await floor_of(store, "big", 3)


async def test_a_trim_or_a_redaction_by_others_does_not_make_bytes_go_twice(make: Make) -> None:
    store = make(Retention(pattern="*", bytes=10_000))
    async with store.run():
        await fill(store, "room", 100, 100)
        await anyio.sleep(0.05)
        await store.trim("room", 50)
        await fill(store, "room", 50, 99)
        await floor_of(store, "room", 50)
        await store.redact("room", 150)
        await fill(store, "room", 1, 98)
        await floor_of(store, "room", 50)


async def test_what_is_too_old_goes_without_anybody_publishing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = timedelta()
    monkeypatch.setattr(_retention, "_now", lambda: datetime.now(UTC) + ahead)
    monkeypatch.setattr(_retention, "SWEEP_S", 0.05)
    store = make(Retention(pattern="room", age_s=3_600))
    async with store.run():
        await fill(store, "room", 300)
        await fill(store, "other", 3)
        await floor_of(store, "room", 0)
        ahead = timedelta(hours=2)
        await floor_of(store, "room", 300)
        await floor_of(store, "other", 0)
        await store.append("event", "room", "note", {})
        place = await store.position("room", 300)

    assert place.head == 301
    assert place.id_at is not None


async def test_the_first_rule_that_fits_holds_and_all_its_bounds_do(make: Make) -> None:
    store = make(
        Retention(pattern="a.b", count=1_000),
        Retention(pattern="a.*", count=5, bytes=300),
        Retention(pattern="*", count=1),
    )
    async with store.run():
        for room in ("a.b", "a.c", "b"):
            await fill(store, room, 20, 100)
        await floor_of(store, "a.c", 17)
        await floor_of(store, "b", 19)
        await floor_of(store, "a.b", 0)


async def test_what_a_run_before_left_is_trimmed_at_the_start_room_by_room(make: Make) -> None:
    store = make()
    async with store.run():
        rooms = [f"room{number % 600}" for number in range(1_800)]
        await store.append_batch([StoreAppend(n, room, "event", "note", b"{}") for n, room in enumerate(rooms)])
    assert isinstance(store, Retained)
    store.retain([Retention(pattern="room*", count=1)])
    async with store.run():
        for number in (0, 299, 599):
            await floor_of(store, f"room{number}", 2)


async def test_without_rules_nothing_goes(make: Make) -> None:
    store = make()
    async with store.run():
        await fill(store, "room", 2_000)
        await floor_of(store, "room", 0)


async def test_publishers_go_on_while_a_long_backlog_is_trimmed(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        for _ in range(4):
            await fill(store, "room", 5_000)
            await store.append_batch([StoreAppend(n, "room", "event", "note", b"{}") for n in range(5_000)])
    store.retain([Retention(pattern="room", count=10)])
    between = 0
    async with store.run():
        with anyio.fail_after(60):
            while (floor := (await store.position("room")).floor) < 20_000:
                await store.append("event", "other", "note", {})
                between += floor > 0
    assert between > 10


async def test_a_slice_ends_with_its_time_or_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slices: list[Slice] = []
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await fill(store, "room", 40, SLICE_BYTES // 10)
        worker = store._running()  # pyright: ignore[reportPrivateUsage] -- to look at single slices
        alone = worker.alone

        async def note(*arguments: Any) -> Any:
            found = await alone(*arguments)
            slices.append(found[0])
            return found

        monkeypatch.setattr(worker, "alone", note)
        assert await store.trim("room", 30) == 30
        monkeypatch.setattr("vixws_store.sqlite.trimming.LOOK_S", -1.0)
        assert await store.trim("room", 35) == 5

    assert [done.rows for done in slices if done.rows > 1][:2] == [10, 10]
    assert [done.rows for done in slices[-5:]] == [1] * 5
    assert [done.more for done in slices] == [True] * (len(slices) - 6) + [False, True, True, True, True, False]


def test_the_rows_of_a_slice_follow_the_time_that_it_took() -> None:
    pace = Pace()
    first = pace.rows
    pace.took(first, SLICE_S / 10)
    more = pace.rows
    pace.took(more, SLICE_S * 5)
    for _ in range(40):
        pace.took(pace.rows, 1.0)
    least = pace.rows
    for _ in range(40):
        pace.took(pace.rows, 0.0)

    assert (more, least, pace.rows) == (2 * first, 8, 4_096)


class Broken:
    """A log of many rooms with ten entries each, of which one cannot be cut."""

    def __init__(self, rooms: int, bad: str) -> None:
        self.names = sorted(f"room{number}" for number in range(rooms))
        self.bad = bad
        self.floors: dict[str, int] = {}
        self.tries = 0

    def is_busy(self) -> bool:
        return True

    async def surveys_after(self, room: bytes, limit: int) -> list[tuple[bytes, Survey]]:
        await anyio.lowlevel.checkpoint()
        found = [name for name in self.names if name.encode() > room][:limit]
        return [(name.encode(), Survey(self.floors.get(name, 0), 10, None)) for name in found]

    async def surveys(self, rooms: tuple[str, ...]) -> list[Survey | None]:
        return [Survey(self.floors.get(room, 0), 10, None) for room in rooms]

    async def weigh(self, room: str, after: int, rows_max: int) -> tuple[int, int]:
        return after, 0

    async def cut(self, room: str, cut: Cut, rows_max: int) -> tuple[Slice, float]:
        if room == self.bad:
            self.tries += 1
            raise StoreError("store_unavailable", "the page is damaged", retry=True)
        self.floors[room] = cut.upto
        return Slice(cut.upto, 0, cut.upto, False), 0.0


async def test_a_room_that_cannot_be_trimmed_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_retention, "RETRY_FIRST_S", 0.01)
    log = Broken(700, "room3")
    keeper = Keeper([Retention(pattern="*", count=1)], log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        with anyio.fail_after(20):
            while len(log.floors) < 699 or log.tries < 3:
                await anyio.sleep(0.01)
        log.bad = ""
        with anyio.fail_after(20):
            while len(log.floors) < 700:
                await anyio.sleep(0.01)
        keeper.stop()

    pauses = [record.args[0] for record in caplog.records if record.args]  # type: ignore[index] # a tuple, as it is logged
    assert pauses[:3] == [0.01, 0.02, 0.04] or pauses[0] == 0.01
    assert set(log.floors.values()) == {9}


async def test_more_rooms_than_are_remembered_are_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from vixws_core.inputs import RoomAdvanced

    log = Broken(CHANGED_MAX + 500, "")
    keeper = Keeper([Retention(pattern="*", count=1)], log)
    async with anyio.create_task_group() as tasks:
        names, log.names = log.names, []
        tasks.start_soon(keeper.run)
        await anyio.sleep(0.01)
        log.names = names
        for name in names:
            keeper.note([RoomAdvanced(name, "ep", 10, ())])
        with anyio.fail_after(30):
            while len(log.floors) < len(names):
                await anyio.sleep(0.01)
        keeper.stop()


@pytest.mark.threat(26)
async def test_a_damaged_time_name_or_number_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        for room in ("a", "b", "c", "d", "e"):
            await fill(store, room, 5)
    db = sqlite3.connect(path)
    db.execute("UPDATE ws_messages SET ts = CAST(x'ff' AS TEXT) WHERE room = 'b' AND off = 2")
    db.execute("UPDATE ws_messages SET ts = 7 WHERE room = 'c' AND off = 2")
    db.execute("UPDATE ws_rooms SET floor = 'x' WHERE room = 'd'")
    db.execute("UPDATE ws_messages SET off = 'x' WHERE room = 'e' AND off = 5")
    db.execute("INSERT INTO ws_rooms (room, ep, crc) VALUES (CAST(x'61ff' AS TEXT), 'x', 0)")
    db.commit()
    db.close()
    store.retain([Retention(pattern="*", count=2, age_s=1_000_000, bytes=1_000_000)])
    async with store.run():
        with anyio.fail_after(20):
            for room in ("a", "b", "c"):
                while (await store.position(room)).floor < 3:
                    await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({}, "a retention must have a count, an age_s or bytes, got none for 'r'"),
        ({"count": 0}, "count must be an integer from 1 to"),
        ({"count": True}, "count must be an integer from 1 to"),
        ({"count": 1.0}, "count must be an integer from 1 to"),
        ({"bytes": -1}, "bytes must be an integer from 1 to"),
        ({"age_s": 0.5}, "age_s must be a number from 1 to 3.2e[+]09 seconds"),
        ({"age_s": float("nan")}, "age_s must be a number"),
        ({"age_s": float("inf")}, "age_s must be a number"),
    ],
)
def test_a_bound_that_is_none_is_the_callers_fault(bounds: dict[str, Any], told: str) -> None:
    with pytest.raises(LocalError, match=told):
        Retention(pattern="r", **bounds)


def test_the_first_rule_that_fits_is_found() -> None:
    rules: Sequence[Retention] = [Retention(pattern=pattern, count=1) for pattern in ("a*", "*b", "*")]

    assert [rule_for(rules, room) for room in ("ab", "cb", "c")] == list(rules)
    assert rule_for(rules[:1], "b") is None
