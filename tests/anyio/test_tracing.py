"""`vixws serve --trace FILE` and `vixws replay FILE`: real servers under a chat, killed, stopped, out of space."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.anyio.command_line import COMMAND, LOOPS, PATIENCE_S, Served, refused, serving
from vixws_anyio.server.trace_file import TraceFile
from vixws_core.errors import LocalError

FILE = "t.jsonl"


def chat(served: Served, messages: int, text: str = "hi", compression: str | None = "deflate") -> None:
    """One client says so many things and waits until it has heard the last one."""
    with connect(served.ready["ws"], proxy=None, compression=compression) as ada:
        ada.send(json.dumps({"type": "$hello", "payload": {"v": [1]}}))
        ada.send(json.dumps({"type": "$join", "ref": "j", "room": "africa"}))
        for number in range(messages):
            ada.send(json.dumps({"type": "chat", "room": "africa", "payload": {"text": text, "n": number}}))
        while True:
            found = json.loads(ada.recv(PATIENCE_S))
            if found.get("payload", {}).get("n") == messages - 1:
                return


def replay(folder: Path, *flags: str, file: str = FILE) -> tuple[int, list[str], str]:
    """What `vixws replay` says: status, lines, and what it complains of."""
    done = subprocess.run(
        [*COMMAND, "replay", file, *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 4,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr


def until(what: Callable[[], bool]) -> None:
    """Waits for it."""
    ends = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.02)


def lines_with(folder: Path, word: bytes) -> int:
    """The connection of the last line of the trace with the word."""
    line = [one for one in (folder / FILE).read_bytes().splitlines() if word in one][-1]
    found: int = json.loads(line)[2]["conn"]
    return found


# ---- a whole run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_run_is_written_privately_and_replayed_bit_for_bit(loop: str, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with serving(tmp_path, *LOOPS[loop], "--trace", FILE, "--deflate") as served:
            chat(served, 300)
            chat(served, 300, compression=None)
            code, _ = served.end()
    finally:
        os.umask(old)
    status, lines, _ = replay(tmp_path)

    assert code == 0
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert (status, lines[-1]) == (0, "the same as recorded, bit for bit")
    assert "2 connections, 1 rooms" in lines[0]
    assert replay(tmp_path, "--explain", "2", "africa", "301")[1][0].startswith("Yes: connection 2 was sent offset 301")
    assert "with a later position, behind offset 300" in replay(tmp_path, "--explain", "2", "africa", "7")[1][0]
    shown = replay(tmp_path, "--until", "20")[1]
    assert shown[0].startswith("after step 20, ")
    assert any(line.startswith("connection 1: ") for line in shown)
    assert shown[-1] == "the same as recorded, bit for bit"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_was_killed_leaves_what_came_up_to_a_quarter_of_a_second_before(
    loop: str, tmp_path: Path
) -> None:
    with serving(tmp_path, *LOOPS[loop], "--trace", FILE) as served:
        chat(served, 50)
        until(lambda: b'"Disconnected"' in (tmp_path / FILE).read_bytes())
        served.process.kill()
        served.process.wait()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'[1,"BytesRec')
    status, lines, _ = replay(tmp_path)

    assert (status, lines[-1]) == (0, "the same as recorded, bit for bit")
    assert lines[1] == "the file ends within a line, as its writer was killed"
    with serving(tmp_path, *LOOPS[loop], "--trace", FILE) as served:
        chat(served, 5)
        served.end()
    assert replay(tmp_path)[0] == 0
    assert replay(tmp_path, file=FILE + ".before")[1][:2] == lines[:2]


def test_over_its_size_the_older_half_is_dropped_and_what_is_left_is_searched(tmp_path: Path) -> None:
    with serving(tmp_path, "--trace", FILE, "--trace-size", str(1 << 20), "--metrics", "off") as served:
        chat(served, 100, "x" * 1_000)
        until(lambda: (tmp_path / FILE).stat().st_size > 100_000)
        whole = replay(tmp_path)
        while not (tmp_path / (FILE + ".1")).exists():
            chat(served, 10, "x" * 1_000)
            time.sleep(0.3)
        in_two = replay(tmp_path)
        for _ in range(3):
            chat(served, 300, "x" * 1_000)
        chat(served, 20, "y")
        served.end()
    status, lines, _ = replay(tmp_path)
    last = json.loads((tmp_path / FILE).read_bytes().rpartition(b'"RoomAdvanced",')[2].partition(b"}],")[0] + b"}]}")
    off, conn = last["entries"][-1]["off"], str(lines_with(tmp_path, b'"Connected"'))
    found = replay(tmp_path, "--explain", conn, "africa", str(off))
    sizes = [(tmp_path / name).stat().st_size for name in (FILE, FILE + ".1")]

    assert [whole[0], in_two[0]] == [0, 0], (whole, in_two)
    assert whole[1][-1] == in_two[1][-1] == "the same as recorded, bit for bit"
    assert max(sizes) <= 1 << 20
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (FILE, FILE + ".1")} == {0o600}
    assert status == 1
    assert "from step" in lines[0]
    assert lines[1].startswith("NOT replayed: ")
    assert found[0] == 1
    assert found[1][0].startswith("Not known: the steps before ")
    assert any(line.startswith(f"offset {off} of room 'africa' was stored at step ") for line in found[1])
    assert any(line.startswith(f"connection {conn} sent something ") for line in found[1])
    assert replay(tmp_path, "--redact", "out")[0] == 1


def test_a_full_disk_ends_the_trace_with_one_line_and_never_the_server(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "from vixws_anyio.cli import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--metrics", "off", "--store", "memory://"]
    process = subprocess.Popen(
        [*command, "--trace", FILE], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        ready = dict(part.split("=", 1) for part in process.stdout.readline().split()[2:])
        served = Served(process, ready)
        chat(served, 100, "x" * 1_000)
        until(lambda: (tmp_path / FILE).stat().st_size >= 60_000)
        chat(served, 300, "x" * 1_000)
        code, log = served.end()
    told = [line for line in log if "trace" in line and "ERROR" in line]

    assert code == 0
    assert len(told) == 1
    assert told[0].endswith("the trace t.jsonl ends, and the server goes on without it: File too large")
    status, lines, _ = replay(tmp_path)
    assert (status, lines[-1]) == (0, "the same as recorded, bit for bit")


def test_a_redacted_copy_replays_and_has_no_text(tmp_path: Path) -> None:
    with serving(tmp_path, "--trace", FILE) as served:
        chat(served, 20, "hunter2", compression=None)
        served.end()
    status, lines, _ = replay(tmp_path, "--redact", "out.jsonl")

    assert (status, lines[-1]) == (0, "all of them decide the same in the copy")
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    assert replay(tmp_path, file="out.jsonl")[1][-1] == "the same as recorded, bit for bit, in a redacted copy"
    assert replay(tmp_path, "--redact", "out.jsonl")[2] == (
        "vixws replay: --redact out.jsonl: File exists, expected a file that is not there yet\n"
    )


# ---- what is there already ------------------------------------------------------------------------


def test_what_is_no_old_trace_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    (tmp_path / "link").symlink_to("notes")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "ok.1").write_text("precious")

    for name, words in (
        ("notes", "expected nothing or an old trace at notes, got another file, which is left alone"),
        ("link", "got a symbolic link"),
        ("folder", "got a folder"),
        ("pipe", "got something that is no file"),
        ("ok", "expected nothing or an old trace at ok.1, got another file"),
        ("none/t", "expected a file that can be made there: No such file or directory"),
    ):
        said = refused(tmp_path, "--port", "0", "--metrics", "off", "--store", "memory://", "--trace", name)
        assert words in said
        assert said.startswith("log.trace: --trace")
    assert (tmp_path / "notes").read_text() == "precious"
    assert (tmp_path / "ok.1").read_text() == "precious"


def test_a_trace_that_another_server_writes_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path, "--trace", FILE, "--store", "memory://"):
        said = refused(tmp_path, "--port", "0", "--metrics", "off", "--store", "memory://", "--trace", FILE)

    assert "got one that another server is writing" in said


def test_a_file_that_was_put_in_its_place_ends_the_trace_where_it_would_turn(tmp_path: Path) -> None:
    path = str(tmp_path / FILE)
    file = TraceFile(path, 2_000)
    file.begin(b'{"vixws":"trace"}\n')
    os.rename(path, path + ".moved")
    Path(path).write_text("precious")
    file.write(b"x" * 500, bytes)
    with pytest.raises(FileExistsError):
        file.write(b"x" * 600, bytes)
    file.close()
    file.close()

    assert Path(path).read_text() == "precious"


def test_an_empty_file_of_ones_own_becomes_a_trace_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.touch(0o644)
    file = TraceFile(str(path), 2_000)
    file.begin(b'{"vixws":"trace"}\n')
    file.close()
    os.chmod(tmp_path, 0o500)
    try:
        if os.geteuid():
            with pytest.raises(LocalError):
                TraceFile(str(path), 2_000).begin(b"")
    finally:
        os.chmod(tmp_path, 0o700)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---- what is no trace -----------------------------------------------------------------------------


def test_what_cannot_be_replayed_is_told_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path, "--trace", FILE, "--store", "memory://") as served:
        chat(served, 3)
        served.end()
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / "odd").write_bytes(b"".join([*lines[:3], b'[1,"Odd",{}]\n', *lines[3:]]))
    (tmp_path / "less").write_bytes(b"".join([*lines[:3], *lines[4:]]))
    (tmp_path / "old").write_bytes(lines[0].replace(b'"format":1', b'"format":9'))
    (tmp_path / "other").write_bytes(b"".join(lines).replace(b'"seed":"', b'"seed":"AAAA'))
    os.mkfifo(tmp_path / "pipe")

    assert replay(tmp_path, file="odd")[::2] == (
        1,
        "vixws replay: odd: line 4: expected the name of an input, got 'Odd'\n",
    )
    assert "lines are missing" in replay(tmp_path, file="less")[2]
    assert replay(tmp_path, file="old")[0] == 2
    assert "expected format 1, got 9" in replay(tmp_path, file="old")[2]
    assert replay(tmp_path, file="none")[::2] == (2, "vixws replay: none: No such file or directory\n")
    assert replay(tmp_path, file="pipe")[0] == 2
    status, said, _ = replay(tmp_path, file="other")
    assert status == 1
    assert said[-2].startswith("NOT the same: one of the steps ")
    assert "recorded by vixws" in said[-1]
    assert replay(tmp_path, "--until", "999999")[0] == 2
    assert replay(tmp_path, "--explain", "x", "africa", "1")[::2] == (
        2,
        "vixws replay: --explain: expected a number as CONN, got 'x'\n",
    )
