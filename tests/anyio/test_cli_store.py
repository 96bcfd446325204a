"""`vixws store`: counts, messages and damage of a store's file, in words and in exit codes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from vixws_anyio.cli import main
from vixws_core.message import JsonMessage
from vixws_store import SqliteMessageStore
from vixws_store.sqlite.lock import FileLock

BIG = 12345678901234567890123


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three messages in africa, one in asia."""
    path = tmp_path / "chat.db"

    async def fill() -> None:
        store = SqliteMessageStore(path)
        async with store.run():
            for number in range(3):
                await store.append("event", "africa", "chat.message", {"n": number, "big": BIG, "text": "é\x1b[2J"})
            await store.append(JsonMessage(type="note", room="asia", kind="memo", payload={}))

    anyio.run(fill)
    return str(path)


def test_stats_tell_sizes_and_rooms(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "stats", file])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"{file}: ")
    assert lines[2].startswith("4 messages in 2 rooms, ")
    assert lines[4].split() == ["ROOM", "MESSAGES", "BYTES", "FLOOR", "HEAD", "EPOCH", "NEWEST"]
    assert [line.split()[:2] for line in lines[5:]] == [["africa", "3"], ["asia", "1"]]


def test_stats_come_as_json_too(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "stats", "--json", file])

    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [(room["room"], room["head"], room["rows"]) for room in found["rooms"]] == [("africa", 3, 3), ("asia", 1, 1)]


def test_history_is_a_line_a_message_that_cannot_move_the_cursor(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "history", file, "africa", "--limit", "2"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[1:3] for line in lines] == [["2", "chat.message"], ["3", "chat.message"]]
    assert all(line.isprintable() for line in lines)


def test_history_as_json_holds_what_was_stored(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "history", file, "africa", "--json"])
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    main(["store", "history", file, "africa", "--json", "--before", entries[1]["id"]])
    before = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    main(["store", "history", file, "asia", "--json"])
    memo = json.loads(capsys.readouterr().out)

    assert code == 0
    assert [entry["off"] for entry in entries] == [1, 2, 3]
    assert [entry["payload"] for entry in entries] == [{"n": n, "big": BIG, "text": "é\x1b[2J"} for n in range(3)]
    assert before == entries[:1]
    assert (memo["kind"], memo["type"], memo["payload"]) == ("memo", "note", {})


def test_a_sound_file_is_told_with_status_0(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "check", file])

    assert (code, capsys.readouterr().out) == (0, "4 messages: sound\n")


def test_damage_is_told_with_its_place_and_status_1(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE ws_messages SET payload_json = '{}' WHERE room = 'africa' AND off = 2")

    code = main(["store", "check", file])

    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    assert lines[0].startswith("room africa offset 2 id ")
    assert lines[-1] == "4 messages: 1 findings"


def test_a_room_that_is_not_in_the_file_is_told_with_status_1(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "history", file, "antarctica"])
    known = main(["store", "history", file, "asia", "--limit", "0"])

    out, err = capsys.readouterr()
    assert (code, known, out) == (1, 0, "")
    assert err == f"vixws store: {file}: no room 'antarctica' among its 2 rooms\n"


def test_a_folder_is_told_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "check", str(tmp_path)])

    assert code == 2
    assert capsys.readouterr().err == f"vixws store: {tmp_path}: expected the file of a store, got a folder\n"


@pytest.mark.threat(26)
def test_a_damaged_file_is_repaired_and_what_was_lost_is_told_with_status_1(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = main(["store", "repair", file])
    told_sound = capsys.readouterr().out
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("DELETE FROM ws_rooms WHERE room = 'asia'")
    mended = main(["store", "repair", file])
    told_mended = capsys.readouterr().out.splitlines()
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE ws_messages SET payload_json = '{}' WHERE room = 'africa' AND off = 2")
    lost = main(["store", "repair", file])
    told_lost = capsys.readouterr().out.splitlines()
    checked = main(["store", "check", file])

    assert (sound, told_sound) == (0, "4 messages: sound, nothing was changed\n")
    assert (mended, told_mended) == (
        0,
        [
            "made anew: room 'asia': its row in ws_rooms was made anew from its messages",
            f"4 messages in the new file, with new indexes; the damaged one is {file}.damaged",
        ],
    )
    assert (lost, told_lost[0]) == (
        1,
        "not repaired: 1 messages are not what was written (checksum), and were left out",
    )
    assert (checked, capsys.readouterr().out) == (
        0,
        "1 offsets are known to be lost since a repair\n3 messages: sound\n",
    )


def test_a_served_file_is_not_repaired_and_told_with_status_2(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    lock = FileLock(file + ".lock")
    lock.acquire(file)
    code = main(["store", "repair", file])
    lock.release()

    assert code == 2
    assert "is served by the process" in capsys.readouterr().err


@pytest.mark.threat(26)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ws_meta SET value = 'x' WHERE key = 'epoch'",
        "UPDATE ws_meta SET value = 'x' WHERE key = 'schema_version'",
        "DROP TABLE ws_meta",
    ],
)
def test_a_server_on_a_damaged_file_ends_with_one_line_and_status_1(
    file: str, statement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(statement)
    code = main(["serve", "--store", f"sqlite:///{file}", "--port", "0", "--metrics", "off"])

    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"vixws serve: cannot open the store {file}: expected a sound file, found: ")
    assert err.endswith(f"run vixws store repair {file}\n")


@pytest.mark.parametrize("action", ["stats", "history", "check", "repair", "trim", "redact", "rotate-epoch"])
def test_a_file_that_is_no_store_is_told_with_status_2(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.write_text("not a database, but long enough that SQLite reads its head and sees that" * 10)
    room = ["--room", "africa"]
    words = {"history": ["africa"], "trim": [*room, "--keep", "1"], "redact": [*room, "--off", "1"]}.get(action, [])
    for file in (tmp_path / "none", text, tmp_path):
        code = main(["store", action, str(file), *words])

        out, err = capsys.readouterr()
        assert err.startswith(f"vixws store: {file}: ")
        assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["store"], "vixws store: the following arguments are required: ACTION (try vixws store --help)\n"),
        (
            ["store", "stats"],
            "vixws store: the following arguments are required: FILE (try vixws store stats --help)\n",
        ),
        (
            ["store", "history", "a", "b", "--limit", "many"],
            'vixws store: argument --limit: expected a count from 0 to 1000000, got "many"'
            " (try vixws store history --help)\n",
        ),
    ],
)
def test_a_mistake_in_the_words_gives_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(argv)

    assert (code, capsys.readouterr().err) == (2, line)
