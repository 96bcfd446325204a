"""Redaction: the old bytes are nowhere in the files, and everything else about the message stays."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from random import Random

import anyio
import pytest

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import StoreAppended
from vixws_core.log import REDACTED_PAYLOAD, Redacted
from vixws_store import SqliteMessageStore, upkeep
from vixws_store.inspect import check
from vixws_store.sqlite import upkeep as running

CARD = "4111-1111-1111-%04d"


def ask(number: int, size: int = 0, room: str = "africa") -> StoreAppend:
    text = f"{CARD % number}{'x' * size}"
    return StoreAppend(number, room, "event", "pay", b'{"card":"%b"}' % text.encode(), f"m{number}", b"d" * 16, "scope")


def found_in(path: Path, number: int) -> list[str]:
    """The files of a store that hold a card's number."""
    needle = (CARD % number).encode()
    return [file.name for file in sorted(path.parent.glob(f"{path.name}*")) if needle in file.read_bytes()]


@pytest.mark.anyio
@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
async def test_a_card_number_is_gone_from_file_and_log_while_it_is_served(tmp_path: Path, synchronous: str) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path, synchronous=synchronous)
    async with store.run():
        sizes = (0, 300, 3_000, 20_000, 70_000)
        for number in range(10):
            await store.append_batch([ask(number, sizes[number % 5])])
        before = (await store.read("africa", 0, 99)).rows
        assert [found_in(path, number) for number in range(10)] == [["a.db-wal"]] * 10
        told = [await store.redact("africa", off) for off in (1, 3, 4, 5, 7)]
        after = (await store.read("africa", 0, 99)).rows
        left = [number for number in range(10) if found_in(path, number)]
        repeat = (await store.append_batch([ask(2)])).answers[0]
        other = await store.append_batch([StoreAppend(0, "africa", "event", "pay", b"{}", "m2", b"e" * 16, "scope")])

        assert left == [1, 5, 7, 8, 9]
        assert await store.redact("africa", 3) == told[1]
    assert [number for number in range(10) if found_in(path, number)] == left
    assert told == [Redacted(row.ep, row.off, row.id) for row in before if row.off in (1, 3, 4, 5, 7)]
    for old, new in zip(before, after, strict=True):
        payload = REDACTED_PAYLOAD if old.off in (1, 3, 4, 5, 7) else old.payload_json
        assert (old.id, old.off, old.type, old.mid, old.ts, payload) == (
            *(new.id, new.off, new.type, new.mid, new.ts),
            new.payload_json,
        )
    for answer in (repeat, other.answers[0]):
        assert isinstance(answer, StoreAppended)
        assert (answer.dup, answer.off, answer.id) == (True, 3, before[2].id)
    assert check(path).sound


@pytest.mark.anyio
async def test_no_copy_is_left_in_pages_that_trims_and_other_messages_moved_it_between(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    random = Random(3)
    left = 0
    async with store.run():
        number = 0
        for _ in range(12):
            rooms = {"africa": 0, "asia": 0}
            for _ in range(60):
                room = random.choice(list(rooms))
                await store.append_batch([ask(number, random.choice((0, 10, 200, 900, 5_000)), room)])
                number += 1
            for room in rooms:
                place = await store.position(room)
                await store.trim(room, place.floor + random.randrange(25))
                await store.trim(room, place.floor + random.randrange(5))
            live = await store.replay_from("")
            for row in random.sample(live, min(len(live), 10)):
                if row.payload_json == REDACTED_PAYLOAD:
                    continue
                await store.redact(row.room, row.off)
                assert found_in(path, int(row.payload["card"][15:19])) == []
                left += 1
        kept = {int(row.payload["card"][15:19]) for row in await store.replay_from("") if "card" in row.payload}
        await store.redact("africa", (await store.position("africa")).head)
        kept &= {int(row.payload["card"][15:19]) for row in await store.replay_from("") if "card" in row.payload}
        strays = [each for each in range(number) if each not in kept and found_in(path, each)]

    assert left > 80
    assert strays == []  # What was trimmed is gone as well.


@pytest.mark.anyio
async def test_what_a_reader_keeps_in_the_log_goes_when_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PURGE_FIRST_S", 0.05)
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([ask(1)])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM ws_messages").fetchone()
        await store.redact("africa", 1)
        assert (await store.read("africa", 0, 9)).rows[0].payload_json == REDACTED_PAYLOAD
        assert found_in(path, 1) == ["a.db-wal"]
        assert "what was redacted is still in the write-ahead log" in caplog.text
        reader.close()
        with anyio.fail_after(20):
            while found_in(path, 1):
                await anyio.sleep(0.02)


@pytest.mark.anyio
async def test_a_log_that_cannot_be_emptied_at_once_is_emptied_later_and_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "PURGE_FIRST_S", 0.05)
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([ask(1)])

        def fail(*_: object) -> bool:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(running, "purge", fail)
            found = await store.redact("africa", 1)
        assert found is not None
        assert store.ready
        await store.append_batch([ask(2)])
        with anyio.fail_after(20):
            while found_in(path, 1):
                await anyio.sleep(0.02)
    assert "a.db: disk I/O error" in caplog.text


@pytest.mark.anyio
async def test_what_a_killed_process_left_in_the_log_goes_at_the_next_start(tmp_path: Path) -> None:
    path, killed = tmp_path / "a.db", tmp_path / "killed.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([ask(1), ask(2)])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM ws_messages").fetchone()
        await store.redact("africa", 1)
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{killed}{end}")
        reader.close()
    assert found_in(killed, 1) == ["killed.db-wal"]

    async with SqliteMessageStore(killed).run():
        with anyio.fail_after(20):
            while found_in(killed, 1):
                await anyio.sleep(0.02)


@pytest.mark.anyio
async def test_there_is_nothing_to_redact_where_there_is_no_entry(tmp_path: Path) -> None:
    store = SqliteMessageStore(tmp_path / "a.db")
    async with store.run():
        await store.append_batch([ask(1), ask(2)])
        await store.trim("africa", 1)

        for room, off in (
            ("africa", 0),
            ("africa", -1),
            ("africa", 1),
            ("africa", 3),
            ("asia", 1),
            ("africa", 1 << 70),
        ):
            assert await store.redact(room, off) is None


@pytest.mark.anyio
@pytest.mark.threat(26)
async def test_a_damaged_row_is_redacted_and_stays_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteMessageStore(path)
    async with store.run():
        await store.append_batch([ask(number) for number in range(3)])
    db = sqlite3.connect(path)
    db.execute("UPDATE ws_messages SET type = CAST(x'ff' AS TEXT) WHERE off = 1")
    db.execute("UPDATE ws_messages SET ts = 7 WHERE off = 2")
    db.commit()
    db.close()
    async with store.run():
        for off in (1, 2, 3):
            assert await store.redact("africa", off) is not None
        rows = (await store.read("africa", 0, 9)).rows

    assert [row.off for row in rows] == [3]
    assert [number for number in range(3) if found_in(path, number)] == []
    assert [finding.off for finding in check(path).findings] == [1, 2]


# ---- a file that nobody serves --------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with five messages in africa and one in asia."""

    async def fill() -> None:
        store = SqliteMessageStore(tmp_path / "a.db")
        async with store.run():
            await store.append_batch([*(ask(number) for number in range(5)), ask(5, 0, "asia")])

    anyio.run(fill)
    return tmp_path / "a.db"


def test_a_message_of_a_file_is_redacted(path: Path) -> None:
    found = upkeep.redact(path, "africa", 3)

    assert (found.off, found.id) == (3, "0" * 19 + "3")
    assert [number for number in range(6) if found_in(path, number)] == [0, 1, 3, 4, 5]
    assert {"a.db", "a.db.lock"} == {file.name for file in path.parent.iterdir()}
    assert check(path).sound


def test_a_reader_that_does_not_end_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "BUSY_TIMEOUT_S", 0.05)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM ws_messages").fetchone()
    with pytest.raises(StoreError, match="another program reads the file"):
        upkeep.redact(path, "africa", 3)
    reader.close()

    upkeep.redact(path, "africa", 3)
    assert found_in(path, 2) == []


def test_wrong_asks_are_the_callers_fault(path: Path) -> None:
    with pytest.raises(LocalError, match="no entry at offset 6 of the room 'africa'"):
        upkeep.redact(path, "africa", 6)
    for change in (upkeep.redact, upkeep.trim_to, upkeep.trim_before):
        with pytest.raises(LocalError, match="no room 'europe' among its 2 rooms"):
            change(path, "europe", 1)
    with pytest.raises(LocalError, match="no room 'europe' among its 2 rooms"):
        upkeep.rotate_epoch(path, "europe")
    with pytest.raises(LocalError, match="the count must be 0 or more, got -1"):
        upkeep.trim_to(path, "africa", -1)


async def _positions(path: Path) -> dict[str, tuple[str, int, int]]:
    store = SqliteMessageStore(path)
    async with store.run():
        places = {room: await store.position(room) for room in ("africa", "asia", "nowhere")}
        return {room: (place.ep, place.floor, place.head) for room, place in places.items()}


def test_a_file_is_trimmed_to_a_count_or_before_an_offset(path: Path) -> None:
    assert upkeep.trim_to(path, "africa", 4) == 1
    assert upkeep.trim_to(path, "africa", 9) == 0
    assert upkeep.trim_before(path, "africa", 2) == 0
    assert upkeep.trim_before(path, "africa", 4) == 2
    assert upkeep.trim_before(path, "africa", 0) == 0
    assert anyio.run(_positions, path)["africa"][1:] == (3, 5)
    assert upkeep.trim_to(path, "africa", 0) == 2


def test_rooms_get_new_epochs_and_keep_their_places(path: Path) -> None:
    before = anyio.run(_positions, path)
    one = upkeep.rotate_epoch(path, "asia")
    between = anyio.run(_positions, path)
    everywhere = upkeep.rotate_epoch(path)
    after = anyio.run(_positions, path)

    assert between == {**before, "asia": (one, 0, 1)}
    assert after == {room: (everywhere, *place[1:]) for room, place in before.items()}
    assert len({before["asia"][0], one, everywhere}) == 3
    assert check(path).sound


def test_a_served_file_is_refused_in_one_line(path: Path) -> None:
    async def try_all() -> list[str]:
        told: list[str] = []
        async with SqliteMessageStore(path).run():
            for change in (lambda: upkeep.redact(path, "africa", 1), lambda: upkeep.rotate_epoch(path)):
                with pytest.raises(StoreError) as caught:
                    change()
                told.append(str(caught.value))
        return told

    expected = f"{path} is served by the process {os.getpid()} already (lock file {path}.lock)"
    assert anyio.run(try_all) == [expected] * 2
