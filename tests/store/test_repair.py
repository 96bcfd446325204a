"""Repairing a file that nobody serves: what can be made anew is, what cannot is told, and the old file is kept."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.store.damaged import ROOMS, TS, Served, ask, change, change_index, codes, fill, serve, writing
from vixws_core.errors import StoreError
from vixws_core.log import Page, Position
from vixws_core.message import StoredMessage
from vixws_store import repair as repair_module
from vixws_store.inspect import check, history, stats
from vixws_store.repair import repair
from vixws_store.sqlite.lock import FileLock
from vixws_store.sqlite.schema import content_crc


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file with four rooms."""
    fill(tmp_path / "a.db")
    return tmp_path / "a.db"


def rows_of(path: Path) -> dict[tuple[str, int], StoredMessage]:
    return {(room, row.off): row for room in ROOMS for row in history(path, room, 1_000)}


def served(path: Path, tmp_path: Path) -> Served:
    """What is served of a copy: serving appends."""
    copied = tmp_path / "copy.db"
    copied.write_bytes(path.read_bytes())
    return serve(copied)


def test_a_sound_file_is_left_alone(path: Path) -> None:
    before = path.read_bytes()
    found = repair(path)

    assert (found.rows, found.done, found.lost, found.kept) == (59, (), (), "")
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.damaged")) == []


REPAIRED = {
    "the index of offsets lacks entries": ("ws_messages_offset", "DELETE FROM tree WHERE room = 'africa' AND off > 38"),
    "the index of offsets leads elsewhere": ("ws_messages_offset", "UPDATE tree SET id = 7 WHERE off = 12"),
    "the index of keys lacks an entry": ("ws_messages_key", "DELETE FROM tree WHERE mid = 'mid-12'"),
    "the index of keys leads elsewhere": ("ws_messages_key", "UPDATE tree SET id = 7 WHERE mid = 'mid-12'"),
    "the index of keys has one entry more": ("ws_messages_key", "INSERT INTO tree VALUES ('asia', 's', 'm', 45)"),
    "the index of offsets is gone": ("", "DROP INDEX ws_messages_offset"),
    "the index of keys is not unique": (
        "",
        "UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE ', '') WHERE name = 'ws_messages_key'",
    ),
    "an index cannot be understood": (
        "",
        "UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE', 'UNIQTE') WHERE name = 'ws_messages_key'",
    ),
    "a room's row is gone": ("", "DELETE FROM ws_rooms WHERE room = 'africa'"),
    "a room's epoch is another": ("", "UPDATE ws_rooms SET ep = 'deadbeef' WHERE room = 'africa'"),
    "a room's floor is no number": ("", "UPDATE ws_rooms SET floor = 'much' WHERE room = 'asia'"),
    "the counter is behind": ("", "UPDATE sqlite_sequence SET seq = 3"),
    "the counter is no number": ("", "UPDATE sqlite_sequence SET seq = 'much'"),
    "the counter is gone": ("", "DELETE FROM sqlite_sequence"),
    "the epoch is another": ("", "UPDATE ws_meta SET value = 'deadbeef' WHERE key = 'epoch'"),
    "the version is not there": ("", "DELETE FROM ws_meta WHERE key = 'schema_version'"),
    "the values are gone": ("", "DROP TABLE ws_meta"),
}


@pytest.mark.threat(26)
@pytest.mark.parametrize("kind", REPAIRED)
def test_what_can_be_made_anew_is_and_nothing_is_lost(path: Path, tmp_path: Path, kind: str) -> None:
    before, was = rows_of(path), served(path, tmp_path)
    index, statement = REPAIRED[kind]
    if index:
        change_index(path, index, statement)
    else:
        change(path, statement)
    damaged = path.read_bytes()
    try:
        assert not check(path).sound
    except StoreError:
        pass
    os.chmod(path, 0o640)
    found = repair(path)

    assert found.lost == ()
    assert (found.rows, found.kept) == (59, f"{path}.damaged")
    assert Path(found.kept).read_bytes() == damaged
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert check(path).sound
    assert rows_of(path) == before
    after = served(path, tmp_path)
    assert after.all[:59] == was.all[:59]
    assert after.places == was.places
    assert {file.name for file in path.parent.iterdir()} == {"a.db", "a.db.damaged", "a.db.lock", "copy.db"}
    assert repair(path).kept == ""


def test_a_file_whose_head_forbids_writing_is_found_and_mended(path: Path) -> None:
    before = rows_of(path)
    data = bytearray(path.read_bytes())
    data[18] ^= 4
    path.write_bytes(data)
    assert [finding.message for finding in check(path).findings] == ["the file's head says that it may only be read"]
    assert repair(path).lost == ()

    assert check(path).sound
    assert rows_of(path) == before
    with writing(path) as writer:
        assert codes(writer.commit([ask(1)], TS)) == [41]


def test_what_was_made_anew_is_told(path: Path) -> None:
    change(
        path,
        "DELETE FROM ws_rooms WHERE room = 'asia'",
        "UPDATE sqlite_sequence SET seq = 3",
        "UPDATE ws_meta SET value = 'x' WHERE key = 'epoch'",
    )
    found = repair(path)

    assert len(found.done) == 3
    assert "room 'asia': its row in ws_rooms was made anew from its messages" in found.done
    assert any(line.startswith("the epoch is ") for line in found.done)
    assert any(line.startswith("the counter of ids stands at ") for line in found.done)


@pytest.mark.threat(26)
def test_damaged_messages_are_left_out_and_their_offsets_are_never_given_again(path: Path, tmp_path: Path) -> None:
    before = rows_of(path)
    change(
        path,
        "UPDATE ws_messages SET payload_json = '{}' WHERE room = 'africa' AND off IN (7, 8, 40)",
        "UPDATE ws_messages SET type = 'bote' WHERE room = 'asia' AND off = 15",
    )
    found = repair(path)
    looked = check(path)
    with writing(path) as writer:
        result = writer.commit([ask(1, "africa"), ask(2, "asia"), ask(7, "africa", "mid-7")], TS)
        writer.trim("africa", 40)

    assert found.rows == 55
    assert list(found.lost) == [
        "4 messages are not what was written (checksum), and were left out",
        "room 'africa': offsets 7 to 8 are lost; members are told",
        "room 'africa': offsets 40 to 40 are lost; members are told",
        "room 'asia': offsets 15 to 15 are lost; members are told",
    ]
    assert (looked.sound, looked.lost) == (True, 4)
    assert codes(result) == [41, 16, 42]
    left = rows_of(path)
    assert {key: row for key, row in before.items() if key in left} == {
        key: row for key, row in left.items() if key in before
    }
    assert check(path).sound
    assert (stats(path).rooms[0].floor, stats(path).rooms[0].head) == (40, 42)
    change(path, "UPDATE ws_messages SET type = 'bote' WHERE room = 'asia' AND off = 3")
    again = repair(path)
    assert again.kept == f"{path}.damaged2"
    assert [line for line in again.lost if "offsets" in line] == [
        "room 'asia': offsets 3 to 3 are lost; members are told"
    ]
    assert check(path).lost == 2
    place = served(path, tmp_path).places["asia"]
    assert isinstance(place, Position)
    assert (place.head, place.id_at) == (16, None)


@pytest.mark.threat(26)
def test_an_offset_that_was_given_twice_and_a_mid_that_was_stored_twice_are_found_and_mended(path: Path) -> None:
    """Written by a store that did not look: its index had lost entries."""
    epoch = stats(path).rooms[0].ep.encode()
    rows = [
        (1_000, b"event", b"africa", b"note", b"t", b'{"again":39}', epoch, 39, None, None, b"", None),
        (1_001, b"event", b"africa", b"note", b"t", b'{"again":40}', epoch, 40, b"mid-5", b"d", b"scope", None),
        (1_002, b"event", b"africa", b"note", b"t", b'{"again":41}', epoch, 41, None, None, b"", None),
    ]
    change_index(path, "ws_messages_offset", "DELETE FROM tree WHERE room = 'africa' AND off > 38")
    change_index(path, "ws_messages_key", "DELETE FROM tree WHERE room = 'africa' AND mid = 'mid-5'")
    db = sqlite3.connect(path)
    for row in rows:
        texts = [value.decode() if isinstance(value, bytes) and at != 9 else value for at, value in enumerate(row)]
        db.execute(f"INSERT INTO ws_messages VALUES ({', '.join('?' * 13)})", (*texts, content_crc((*row, 0))))
    db.commit()
    db.close()
    messages = {finding.message for finding in check(path).findings}
    found = repair(path)

    assert "offsets must be dense: 41 was expected" in messages
    assert "the mid mid-5 is stored 2 times" in messages
    assert "the row is missing from the index ws_messages_offset" in messages
    assert "the row is missing from the index ws_messages_key" in messages
    assert found.rows == 60
    assert list(found.lost) == [
        "room 'africa' offset 39 id 1000: 2 older messages had its offset or later ones, and were left out",
        "room 'africa' offset 40 id 1001: its mid is another message's too, and was taken from it",
    ]
    newest = history(path, "africa", 3)
    assert [(row.off, row.payload, row.mid) for row in newest] == [
        (39, {"again": 39}, None),
        (40, {"again": 40}, None),
        (41, {"again": 41}, None),
    ]
    assert check(path).sound
    with writing(path) as writer:
        assert codes(writer.commit([ask(5, "africa", "mid-5"), ask(6, "africa")], TS)) == [5, 42]


@pytest.mark.threat(26)
def test_pages_that_cannot_be_read_cost_what_they_held_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with writing(path) as writer:
        for number in range(60):
            writer.commit([ask(number * 10 + at, f"room{at}") for at in range(10)], TS)
            if number % 20 == 0:
                writer._appender._last_id += 1 << 33  # As a start does.
    db = sqlite3.connect(path)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ws_messages'").fetchone()
    db.close()
    data = bytearray(path.read_bytes())
    inner = data[(root - 1) * 4096 : root * 4096]
    count = int.from_bytes(inner[3:5])
    cells = [int.from_bytes(inner[12 + 2 * at : 14 + 2 * at]) for at in range(count)]
    leaves = [int.from_bytes(inner[cell : cell + 4]) for cell in cells]
    assert inner[0] == 5
    assert count > 20
    gone = 0
    for leaf in (leaves[3], leaves[4], leaves[11]):
        gone += int.from_bytes(data[(leaf - 1) * 4096 + 3 : (leaf - 1) * 4096 + 5])
        data[(leaf - 1) * 4096 : leaf * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    assert not check(path).sound
    found = repair(path)
    looked = check(path)

    assert found.rows == 600 - gone
    assert (looked.sound, looked.rows, looked.lost) == (True, 600 - gone, gone)
    assert [line for line in found.lost if line.startswith("could not be read: messages from the id ")]
    assert any(line.startswith("new rooms take the new epoch ") for line in found.done)
    with writing(path) as writer:
        assert codes(writer.commit([ask(1, f"room{at}") for at in range(10)], TS)) == [61] * 10


@pytest.mark.threat(26)
def test_a_room_whose_epoch_is_not_certain_has_another_one_afterwards(path: Path) -> None:
    before = stats(path)
    change(
        path,
        "DELETE FROM ws_rooms WHERE room = 'asia'",
        "UPDATE ws_meta SET value = 'x' WHERE key = 'epoch'",
    )
    repair(path)
    after = {room.room: room for room in stats(path).rooms}

    assert after["asia"].ep not in (before.epoch, "x")
    assert after["asia"].head == 15
    assert {after[room].ep for room in ("africa", "europe", "gone")} == {before.epoch}
    assert stats(path).epoch == before.epoch


def test_a_room_of_which_nothing_is_certain_begins_as_another_log(path: Path, tmp_path: Path) -> None:
    before = stats(path).epoch
    change(path, "UPDATE ws_rooms SET floor = 2 WHERE room = 'gone'")
    found = repair(path)
    page = served(path, tmp_path).pages["gone"]

    assert list(found.lost) == ["room 'gone': nothing certain is left of it"]
    assert isinstance(page, Page)
    assert page.ep != before
    assert page.head == 0


# ---- refused ----------------------------------------------------------------------------------------


def test_a_served_file_is_refused_in_one_line(path: Path) -> None:
    change(path, "DELETE FROM ws_rooms")
    before = path.read_bytes()
    lock = FileLock(f"{path}.lock")
    lock.acquire(str(path))
    with pytest.raises(StoreError) as caught:
        repair(path)
    lock.release()

    assert str(caught.value) == f"{path} is served by the process {os.getpid()} already (lock file {path}.lock)"
    assert path.read_bytes() == before


def test_a_file_that_another_program_has_open_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_module, "BUSY_TIMEOUT_S", 0.05)
    change(path, "DELETE FROM ws_rooms WHERE room = 'asia'")
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN")
    shell.execute("SELECT count(*) FROM ws_messages").fetchone()
    with pytest.raises(StoreError, match=r"another program uses it|database is locked"):
        repair(path)
    shell.execute("ROLLBACK")
    shell.close()

    assert repair(path).rows == 59
    assert check(path).sound


@pytest.mark.parametrize("kind", ["none", "text", "other", "newer"])
def test_what_is_no_store_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.db"
    words = {"none": "no such file", "text": "not a database", "other": "restore a backup", "newer": "a later version"}
    if kind == "text":
        path.write_bytes(b"This is no database." * 100)
    elif kind == "other":
        change(path, "CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('milk')")
    elif kind == "newer":
        fill(path)
        make_newer(path)
    before = path.read_bytes() if kind != "none" else b""
    with pytest.raises(StoreError, match=words[kind]) as caught:
        repair(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert kind == "none" or path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} <= {"a.db", "a.db.lock"}


def make_newer(path: Path) -> None:
    """A file as a later version would write it."""
    from zlib import crc32

    epoch = stats(path).epoch
    change(
        path,
        "UPDATE ws_meta SET value = '9' WHERE key = 'schema_version'",
        f"UPDATE ws_meta SET value = '{crc32(f'9{chr(0)}{epoch}'.encode())}' WHERE key = 'crc'",
    )


def test_a_repair_that_fails_leaves_the_file_and_nothing_beside_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(path, "DELETE FROM ws_rooms WHERE room = 'asia'")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        repair(path)
    monkeypatch.undo()

    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"a.db", "a.db.lock"}
    assert repair(path).rows == 59
