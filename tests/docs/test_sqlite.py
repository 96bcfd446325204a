"""Every block of the page about the database runs, with the real shell, and shows what the page says."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from websockets.sync.client import connect

from tests.docs.test_snippets import blocks
from tests.serving import ROOT, environment, serving
from vixws_store import SqliteMessageStore

PAGE = (ROOT / "docs" / "sqlite.md").read_text(encoding="utf-8")
SQL = blocks(PAGE, "sql")
SHELL = blocks(PAGE, "sh")
FIRST, COLUMNS, CHECK, SIZE, CHECKPOINT, BACKUP, RESTORE = SHELL
NEWEST, HISTORY, FIELD, ROOMS, GAPS = SQL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a database that the store made: two rooms, one of them trimmed."""
    if shutil.which("sqlite3") is None:
        pytest.skip("needs the sqlite3 shell")

    async def fill() -> None:
        store = SqliteMessageStore(tmp_path / "chat_messages.db")
        async with store.run():
            for number in range(1, 8):
                user = ("ada", "bob")[number % 2]
                await store.append("event", "africa", "chat.message", {"user": user, "text": f"Hello {number}"})
            await store.append("event", "asia", "chat.message", {"text": "é" * 200})
            await store.trim("africa", 2)

    anyio.run(fill)
    return tmp_path


@pytest.fixture(params=["stopped", "served"])
def place(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    """The folder, without and with a server on its database."""
    if request.param == "stopped":
        yield folder
        return
    with serving(folder):
        yield folder


def shell(folder: Path, script: str) -> str:
    """What a block of the page prints; it must not fail, nor write to stderr."""
    script = script.replace("vixws store", f"{sys.executable} -m vixws_anyio store")
    run = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, ""), script
    return run.stdout


def query(folder: Path, sql: str) -> list[list[str]]:
    """The rows that a query of the page gives in the shell."""
    run = subprocess.run(
        ["sqlite3", "-readonly", "-separator", "\t", "chat_messages.db"],
        cwd=folder,
        input=sql,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, ""), sql
    return [line.split("\t") for line in run.stdout.splitlines()]


def test_first_look_shows_the_tables_and_every_column_of_the_page(place: Path) -> None:
    shown = shell(place, FIRST)
    table = next(line for line in PAGE.splitlines() if line.startswith("| `ws_messages`"))
    columns = re.findall(r"^ {8}(\w+) ", shown, re.MULTILINE)

    assert {"ws_messages", "ws_rooms", "ws_meta"} <= set(shown.split())
    assert len(columns) == 13
    assert [name for name in columns if f"`{name}`" not in table] == []


def test_columns_line_up(place: Path) -> None:
    lines = shell(place, COLUMNS).splitlines()

    assert lines[0].split() == ["key", "value"]
    assert lines[-1].split() == ["schema_version", "3"]


def test_newest_messages_are_cut_short(place: Path) -> None:
    rows = query(place, NEWEST)

    assert [row[1:4] for row in rows[:2]] == [["asia", "1", "chat.message"], ["africa", "7", "chat.message"]]
    assert [len(row[4]) for row in rows] == [80, *[31] * 5]


def test_history_and_fields_of_a_room_are_shown(place: Path) -> None:
    history = query(place, HISTORY)

    assert [row[0] for row in history] == ["3", "4", "5", "6", "7"]
    assert json.loads(history[0][4]) == {"user": "bob", "text": "Hello 3"}
    assert query(place, FIELD) == [["4", "Hello 4"], ["6", "Hello 6"]]


def test_rooms_are_counted(place: Path) -> None:
    found = [[*row[:1], *row[2:6]] for row in query(place, ROOMS)]

    assert found == [["africa", "2", "7", "5", "155"], ["asia", "0", "1", "1", "411"]]


def test_gaps_are_found(folder: Path) -> None:
    assert query(folder, GAPS) == []
    db = sqlite3.connect(folder / "chat_messages.db")
    db.execute("DELETE FROM ws_messages WHERE off IN (3, 5, 6)")
    db.commit()
    db.close()

    assert query(folder, GAPS) == [["africa", "3", "3"], ["africa", "5", "6"]]


def test_sound_file_is_called_sound(place: Path) -> None:
    assert shell(place, CHECK).splitlines()[0] == "ok"


def test_size_is_that_of_the_file(folder: Path) -> None:
    size = (folder / "chat_messages.db").stat().st_size
    lines = shell(folder, SIZE).splitlines()

    assert lines[-1].split("|")[0] == str(size)
    assert {line.split()[-1] for line in lines[:-1]} >= {"chat_messages.db", "chat_messages.db.lock"}


def test_checkpoint_empties_the_write_ahead_log(folder: Path) -> None:
    async def leave_a_log() -> None:
        store = SqliteMessageStore(folder / "chat_messages.db")
        async with store.run():
            await store.append("event", "africa", "chat.message", {"text": "the last words"})
            shutil.copytree(folder, folder / "killed")

    anyio.run(leave_a_log)
    killed = folder / "killed"
    assert (killed / "chat_messages.db-wal").stat().st_size > 0

    assert shell(killed, CHECKPOINT) == "0|0|0\n"
    assert not (killed / "chat_messages.db-wal").exists()


def test_backup_is_restored_and_members_ahead_are_told(folder: Path) -> None:
    publish = {"type": "chat.message", "room": "africa", "ref": "1", "payload": {"text": "after the backup"}}
    with serving(folder) as served:
        assert shell(folder, BACKUP) == ""
        with connect(served.ws) as ada:
            ada.recv(timeout=10)
            ada.send(json.dumps(publish))
            acked = json.loads(ada.recv(timeout=10))["payload"]
    shell(folder, RESTORE)
    with serving(folder) as served, connect(served.ws) as ada:
        ada.recv(timeout=10)
        since = {name: acked[name] for name in ("ep", "off", "id")}
        ada.send(json.dumps({"type": "$join", "ref": "1", "room": "africa", "payload": {"since": since}}))
        joined = json.loads(ada.recv(timeout=10))["payload"]
        ada.send(json.dumps(publish))
        again = next(
            found["payload"] for _ in range(3) if (found := json.loads(ada.recv(timeout=10)))["type"] == "$ack"
        )

    assert acked["off"] == 8
    assert (joined["recovered"], joined["reason"], joined["head"]) == (False, "ahead", 7)
    assert (again["off"], again["ep"]) == (8, acked["ep"])
    assert again["id"] not in ("00000000000000000009", acked["id"])  # The counter was moved ahead, by chance.
    assert query(folder, "ATTACH 'chat_messages.small.db' AS s; SELECT count(*) FROM s.ws_messages;") == [["6"]]
