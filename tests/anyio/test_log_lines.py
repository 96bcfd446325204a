"""Log lines: one event a line, and nothing that a peer or a program wrote acts on a terminal or forges a line."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from vixws_anyio.cli.loglines import (
    LINE_MAX,
    TRACE_LINES_MAX,
    JsonLines,
    Lines,
    ToStderr,
    log_to_stderr,
    logging_to_stderr,
)

from .command_line import COMMAND, LOOPS, PATIENCE_S, serving

FORGED = "2030-01-01T00:00:00.000Z INFO vixws: all is well"
NASTY = f"\x1b[2J\x1b[31m \u202eevil\r\n{FORGED}\x85{FORGED}\u2028{FORGED}"


def written(message: str, *, terminal: bool, exc: BaseException | None = None) -> str:
    """One event, as it is written."""
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("vixws", logging.INFO, "", 0, "%s", (message,), info)
    return Lines(terminal).format(record)


def raised(text: str) -> BaseException:
    """An exception that was really raised."""
    try:
        raise ValueError(text)
    except ValueError:
        caught = sys.exception()
    assert caught is not None
    return caught


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.threat(20)
def test_row_20_a_message_stays_on_its_line(terminal: bool) -> None:
    text = written(NASTY, terminal=terminal)

    assert text.isprintable()
    assert "\\x1b[2J" in text


@pytest.mark.threat(20)
def test_row_20_a_traceback_forges_no_line_on_a_terminal() -> None:
    lines = written("it failed", terminal=True, exc=raised(NASTY)).split("\n")

    assert lines[0].endswith("INFO vixws: it failed")
    assert len(lines) > 3
    assert [line for line in lines[1:] if not line.startswith("  | ") or not line.isprintable()] == []


@pytest.mark.threat(20)
def test_row_20_a_traceback_is_one_line_elsewhere() -> None:
    text = written("it failed", terminal=False, exc=raised(NASTY))

    assert text.isprintable()
    assert "\\nTraceback (most recent call last):\\n" in text


@pytest.mark.threat(20)
def test_row_20_long_messages_and_tracebacks_are_cut() -> None:
    text = written("x" * 1_000_000, terminal=True, exc=raised("y\n" * 100_000 + "z" * 1_000_000))

    assert len(text) < (TRACE_LINES_MAX + 3) * 40 + 3 * LINE_MAX
    assert "lines are left out" in text


# ---- JSON -------------------------------------------------------------------------------------------


def as_json(message: object, *arguments: object, exc: BaseException | None = None) -> tuple[str, dict[str, Any]]:
    """One event, as it is written and as it is read."""
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("vixws", logging.WARNING, "", 0, message, arguments, info)
    line = JsonLines().format(record)
    found: dict[str, Any] = json.loads(line)
    return line, found


def test_an_event_is_one_object_of_a_few_fields() -> None:
    line, event = as_json("hello %s", "you")

    assert list(event) == ["time", "level", "logger", "message"]
    assert event["time"].endswith("Z")
    assert (event["level"], event["logger"], event["message"]) == ("warning", "vixws", "hello you")
    assert line.startswith('{"time": "20')


@pytest.mark.threat(20)
def test_row_20_neither_the_line_nor_what_is_read_of_it_acts_on_a_terminal() -> None:
    line, event = as_json("%s", NASTY, exc=raised(NASTY))

    assert line.isascii()
    assert line.isprintable()
    assert event["message"].isprintable()
    assert event["traceback"].replace("\n", "").isprintable()
    assert event["traceback"].startswith("Traceback (most recent call last):\n")


@pytest.mark.threat(20)
def test_row_20_what_is_long_is_cut_in_json_too() -> None:
    line, event = as_json("x" * 1_000_000, exc=raised("y\n" * 100_000 + "z" * 1_000_000))

    assert len(line) < (TRACE_LINES_MAX + 3) * 40 + 3 * LINE_MAX
    assert "lines are left out" in event["traceback"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("lines", [Lines(False), Lines(True), JsonLines()])
@pytest.mark.parametrize(
    ("message", "arguments"), [("%d", ("x",)), ("%s", ()), ("%s %s", ("one",)), ("%s", (Unspeakable(),))]
)
def test_a_line_whose_parts_do_not_fit_is_written_all_the_same(
    lines: Lines, message: str, arguments: tuple[object, ...]
) -> None:
    exc = Unspeakable()
    text = lines.format(logging.LogRecord("a\nb", logging.INFO, "", 0, message, arguments, (Unspeakable, exc, None)))

    assert "\n" not in text.replace("\n  | ", "")
    assert message in text


# ---- where they go ----------------------------------------------------------------------------------


@pytest.fixture
def logs() -> Iterator[None]:
    """Undoes what a command does to the logs of its process."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.usefixtures("logs")
def test_lines_that_were_lost_are_counted_where_writing_works_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = ToStderr()
    handler.setFormatter(Lines(False))
    record = logging.LogRecord("vixws", logging.INFO, "", 0, "said", (), None)
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", full)
        for _ in range(3):
            handler.handle(record)
    handler.handle(record)
    handler.handle(record)

    first, *rest = capfd.readouterr().err.splitlines()
    assert first.endswith("WARNING vixws: 3 lines of the log could not be written")
    assert [line.partition("INFO ")[2] for line in rest] == ["vixws: said", "vixws: said"]


@pytest.mark.usefixtures("logs")
def test_debug_lines_of_what_is_stored_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("text", "debug")
    logging.getLogger("aiosqlite").debug("executing ('a payload')")
    logging.getLogger("vixws").debug("ours")
    log_to_stderr("json", "error")
    logging.getLogger("vixws").warning("not this")
    logging.getLogger("vixws").error("this")

    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("DEBUG vixws: ours")
    assert json.loads(second)["message"] == "this"
    assert len([one for one in logging.root.handlers if isinstance(one, ToStderr)]) == 1


@pytest.mark.usefixtures("logs")
def test_a_thread_of_the_application_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(NASTY)

    with logging_to_stderr("text", "info"):
        thread = threading.Thread(target=fail, name="theirs")
        thread.start()
        thread.join()

    (line,) = capsys.readouterr().err.splitlines()
    assert "ERROR vixws: thread theirs failed: ValueError\\nTraceback" in line


FAILING = """
from vixws_anyio import Server, Session
import logging
logging.getLogger("early").warning("while it is imported")
server = Server()

@server.on("fail")
def fail(session: Session, payload: dict) -> None:
    raise RuntimeError(payload["text"])
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_logs_json_from_its_first_line_to_its_last(tmp_path: Path, loop: str) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "config.json").write_text('{"log": {"format": "json"}}')
    flags = ("--app", "failing:server", "--store", "memory://", "--config", "config.json", *LOOPS[loop])
    with (tmp_path / "log").open("w+") as file:
        with serving(tmp_path, *flags, stderr=file) as served:
            with connect(served.ready["ws"]) as client:
                client.send(json.dumps({"type": "fail", "payload": {"text": NASTY}}))
                client.send(json.dumps({"type": "fail", "payload": {"text": "x" * 60_000}}))
            served.process.terminate()
            code = served.process.wait(PATIENCE_S)
        file.seek(0)
        lines = file.read().split("\n")

    events = [json.loads(line) for line in lines[:-1]]
    messages = [event["message"] for event in events]
    assert (code, lines[-1]) == (0, "")
    assert messages[0] == "while it is imported"
    assert any(message.startswith("listening on ws://") for message in messages)
    assert messages[-1].startswith("stopped: SIGTERM; the drain took ")
    (failed,) = [event for event in events if "traceback" in event]
    assert failed["level"] == "error"
    assert FORGED in failed["traceback"]  # Inside of the field; no line of the log is theirs.
    assert "all is well" not in messages


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_level_leaves_out_what_is_below_it(tmp_path: Path, level: str) -> None:
    with serving(tmp_path, "--store", "memory://", "--log-level", level) as served:
        assert served.end() == (0, [])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("stderr", ["closed", "full", "unread"])
def test_a_server_outlives_its_stderr(tmp_path: Path, loop: str, stderr: str) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    flags = ["--app", "failing:server", "--port", "0", "--metrics", "off", *LOOPS[loop]]
    shell = {"closed": '"$@" 2>&-', "full": '"$@" 2>/dev/full', "unread": '"$@"'}[stderr]
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        ["bash", "-c", f"exec {shell}", "bash", *COMMAND, "serve", *flags],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    with process:
        assert process.stdout is not None
        ws = ready_ws(process.stdout)
        for _ in range(3):
            with connect(ws) as client, suppress(ConnectionClosed):  # The first message ends it.
                client.send('{"type": "fail", "payload": {"text": "it fails"}}')
                client.send('{"type": "note", "ref": "1", "room": "africa"}')
        with connect(ws) as client:
            client.send('{"type": "note", "ref": "1", "room": "africa"}')
            answer = json.loads(client.recv(PATIENCE_S))
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)

    assert answer["type"] == "$ack"
    assert code == 0


def ready_ws(stdout: IO[str]) -> str:
    """The address in the ready line."""
    line = stdout.readline()
    assert line.startswith("vixws ready ws="), line
    return line.split("ws=")[1].split()[0]


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_mistake_that_nobody_can_be_told_of_has_its_status_all_the_same(stderr: str) -> None:
    command = ["bash", "-c", f'exec "$@" {stderr}', "bash", *COMMAND, "serve", "--prt", "1"]

    assert subprocess.run(command, timeout=PATIENCE_S, check=False).returncode == 2
