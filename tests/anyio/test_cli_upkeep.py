"""`vixws store trim|redact|rotate-epoch`: what they change in a file, in words and in exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from vixws_anyio.cli import main
from vixws_store import SqliteMessageStore
from vixws_store.inspect import stats
from vixws_store.sqlite.lock import FileLock


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Five messages in africa, one in asia."""
    path = tmp_path / "chat.db"

    async def fill() -> None:
        store = SqliteMessageStore(path)
        async with store.run():
            for number in range(5):
                await store.append("event", "africa", "pay", {"card": f"4111-{number}"})
            await store.append("event", "asia", "note", {})

    anyio.run(fill)
    return str(path)


def offsets(file: str, capsys: pytest.CaptureFixture[str]) -> dict[int, object]:
    main(["store", "history", file, "africa", "--json"])
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {entry["off"]: entry["payload"] for entry in entries}


@pytest.mark.parametrize(
    ("words", "told", "left"),
    [
        (["--before", "3"], "2 messages trimmed\n", [3, 4, 5]),
        (["--before", "1"], "0 messages trimmed\n", [1, 2, 3, 4, 5]),
        (["--keep", "1"], "4 messages trimmed\n", [5]),
        (["--keep", "0"], "5 messages trimmed\n", []),
        (["--keep", "9"], "0 messages trimmed\n", [1, 2, 3, 4, 5]),
    ],
)
def test_a_room_is_trimmed(
    words: list[str], told: str, left: list[int], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["store", "trim", file, "--room", "africa", *words])

    assert (code, capsys.readouterr().out) == (0, told)
    assert list(offsets(file, capsys)) == left
    assert main(["store", "check", file]) == 0


def test_a_message_is_redacted(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["store", "redact", file, "--room", "africa", "--off", "3"])

    assert (code, capsys.readouterr().out) == (0, f"redacted: offset 3 id {3:020}\n")
    assert offsets(file, capsys) == {
        off: {"$redacted": True} if off == 3 else {"card": f"4111-{off - 1}"} for off in range(1, 6)
    }
    assert b"4111-2" not in Path(file).read_bytes()
    assert main(["store", "check", file]) == 0


def test_epochs_are_rotated(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = stats(file)
    one = main(["store", "rotate-epoch", file, "--room", "asia"])
    told = capsys.readouterr().out.split()
    between = stats(file)
    everywhere = main(["store", "rotate-epoch", file])
    after = stats(file)

    assert (one, everywhere) == (0, 0)
    assert [room.ep for room in between.rooms] == [before.epoch, told[1]]
    assert {room.ep for room in after.rooms} == {after.epoch} == {capsys.readouterr().out.split()[1]}
    assert len({before.epoch, told[1], after.epoch}) == 3
    assert [(room.head, room.rows) for room in after.rooms] == [(5, 5), (1, 1)]


def test_what_cannot_be_done_is_told_in_one_line_with_status_2(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [
        main(["store", "trim", file, "--room", "antarctica", "--keep", "2"]),
        main(["store", "redact", file, "--room", "antarctica", "--off", "2"]),
        main(["store", "redact", file, "--room", "africa", "--off", "6"]),
        main(["store", "rotate-epoch", file, "--room", "antarctica"]),
        main(["store", "trim", file, "--room", "africa"]),
        main(["store", "trim", file, "--room", "africa", "--keep", "2", "--before", "2"]),
        main(["store", "redact", file, "--room", "africa", "--off", "-2"]),
    ]
    lock = FileLock(file + ".lock")
    lock.acquire(file)
    codes += [main(["store", "trim", file, "--room", "africa", "--keep", "2"]), main(["store", "rotate-epoch", file])]
    lock.release()

    lines = capsys.readouterr().err.splitlines()
    assert codes == [2] * 9
    assert len(lines) == 9
    assert lines[0] == lines[1] == lines[3] == f"vixws store: {file}: no room 'antarctica' among its 2 rooms"
    assert lines[2] == f"vixws store: {file}: no entry at offset 6 of the room 'africa'"
    assert all("is served by the process" in line for line in lines[7:])


def test_help_says_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    for action, words in (("trim", "--keep N"), ("redact", "--off N"), ("rotate-epoch", "--room R")):
        assert main(["store", action, "--help"]) == 0
        assert words in capsys.readouterr().out
