"""`vixws tail` and `vixws publish` against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from vixws_anyio.cli import main

from .command_line import COMMAND, PATIENCE_S, Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as served:
        yield served


def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        [*COMMAND, *words], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def entries(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextlib.contextmanager
def tailing(*words: str) -> Generator[subprocess.Popen[str]]:
    """`vixws tail` in the background."""
    process = subprocess.Popen([*COMMAND, "tail", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_what_is_published_is_tailed_with_its_position(served: Served) -> None:
    url = served.ready["ws"]

    done = run("publish", url, "africa", "chat.message", '{"text": "Hi", "big": 12345678901234567890123}')
    tailed = run("tail", url, "africa", "--last", "1", "--count", "1", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    position, id = done.stdout.split()
    (entry,) = entries(tailed.stdout)
    assert tailed.returncode == 0
    assert (f"{entry['ep']}:{entry['off']}", entry["id"]) == (position, id)
    assert (entry["type"], entry["room"]) == ("chat.message", "africa")
    assert entry["payload"] == {"text": "Hi", "big": 12345678901234567890123}


def test_the_lines_of_stdin_are_published_in_order(served: Served) -> None:
    url = served.ready["ws"]
    lines = "".join(f'{{"n": {number}}}\n' for number in range(1_000))

    done = run("publish", url, "africa", "tick", "-", stdin=lines)
    tailed = run("tail", url, "africa", "--last", "500", "--count", "500", "--json")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1,000 stored, 0 failed\n")
    assert [entry["payload"]["n"] for entry in entries(tailed.stdout)] == list(range(500, 1_000))


def test_a_line_that_is_no_object_is_told_and_the_others_are_stored(served: Served) -> None:
    large = json.dumps({"text": "x" * 70_000})
    lines = f'{{"n": 1}}\nnonsense\n\n[1]\n{large}\n{{"n": 2}}'

    done = run("publish", served.ready["ws"], "africa", "tick", "-", stdin=lines)

    told = sorted(done.stderr.splitlines())
    assert done.returncode == 1
    assert told[0] == "2 stored, 3 failed"
    assert told[1].startswith("vixws publish: line 2: payload: expected a JSON object: ")
    assert told[2] == "vixws publish: line 4: payload: expected a JSON object, got '[1]'"
    assert told[3].startswith("vixws publish: line 5: too_large: ")


FULL = """
import os

from vixws_anyio import Server
from vixws_core.app.chat import build
from vixws_store import SqliteMessageStore

server = Server(store=SqliteMessageStore("small.db", pages_max=int(os.environ["PAGES"])))
build(server)
"""
WHY = r" \(the server said last: store_full: the store is full\)"


@contextlib.contextmanager
def serving_little(folder: Path, pages: int) -> Generator[str]:
    """The URL of a server whose store takes so many pages of 4 KiB."""
    (folder / "small.py").write_text(FULL)
    with serving(folder, "--app", "small:server", environ={"PAGES": str(pages)}) as served:
        yield served.ready["ws"]


def summary_of(done: subprocess.CompletedProcess[str], timeout: str) -> tuple[int, int, int, str]:
    """Lines stored, failed, and the first that was not read; and what follows that."""
    words = rf"([\d,]+) stored, (\d+) failed; gave up before line (\d+): nothing was answered for {timeout} s(.*)"
    found = re.fullmatch(words, done.stderr.splitlines()[-1])
    assert found is not None, done.stderr[-1_000:]
    return int(found[1]), int(found[2]), int(found[3]), found[4]


def test_lines_wait_for_room_where_others_have_no_answer(tmp_path: Path) -> None:
    lines = "".join(f'{{"n": {number}, "text": "{"x" * 1_000}"}}\n' for number in range(3_000))

    with serving_little(tmp_path, 64) as url:
        done = run("publish", url, "africa", "tick", "-", "--timeout", "1", stdin=lines)

    stored, failed, unread, _ = summary_of(done, "1")
    assert done.returncode == 1
    assert failed > 0
    assert stored + failed == unread - 1
    assert unread < 3_000
    assert "have no answer, at most" not in done.stderr


def test_lines_that_a_full_store_refuses_are_told_with_the_reason(tmp_path: Path) -> None:
    lines = f'{{"text": "{"x" * 64_000}"}}\n' * 100

    with serving_little(tmp_path, 20) as url:
        done = run("publish", url, "africa", "tick", "-", "--timeout", "3", stdin=lines)

    stored, failed, unread, why = summary_of(done, "3")
    failures = [line for line in done.stderr.splitlines()[:-1] if " WARNING " not in line]
    late = "no answer within 3 s: it may or may not be stored"
    assert (done.returncode, stored, failed) == (1, 0, unread - 1)
    assert re.fullmatch(WHY, why)
    assert len(failures) == failed < 64
    for number, line in enumerate(failures, 1):
        assert re.fullmatch(f"vixws publish: line {number}: {late}{WHY}", line)


def test_a_publish_that_gets_no_answer_tells_what_the_server_said(tmp_path: Path) -> None:
    with serving_little(tmp_path, 20) as url:
        done = run("publish", url, "africa", "tick", f'{{"text": "{"x" * 64_000}"}}', "--timeout", "3")

    assert (done.returncode, done.stdout) == (1, "")
    late = "vixws publish: no answer within 3 s: it may or may not be stored"
    assert re.fullmatch(late + WHY, done.stderr.splitlines()[-1])


def test_a_tail_goes_on_from_a_position(served: Served) -> None:
    url = served.ready["ws"]
    run("publish", url, "africa", "tick", "-", stdin='{"n":1}\n{"n":2}\n{"n":3}\n')
    first = entries(run("tail", url, "africa", "--last", "3", "--count", "1", "--json").stdout)[0]

    rest = run("tail", url, "africa", "--since", f"{first['ep']}:{first['off']}", "--count", "2", "--json")

    assert [entry["payload"]["n"] for entry in entries(rest.stdout)] == [2, 3]
    assert rest.stderr == ""


def test_a_position_of_another_log_is_told(served: Served) -> None:
    url = served.ready["ws"]
    run("publish", url, "africa", "tick", '{"n":1}')

    with tailing(url, "africa", "--since", "nowhere:1", "--count", "1") as tail:
        assert tail.stdout is not None and tail.stderr is not None
        told = tail.stderr.readline()
        run("publish", url, "africa", "tick", '{"n":2}')
        out = tail.stdout.read()
        code = tail.wait(PATIENCE_S)

    assert told.startswith("vixws tail: the position is not in the log any more (epoch): going on after ")
    assert out.endswith(' 2 tick {"n":2}\n')
    assert code == 0


def test_a_tail_ends_with_130_when_interrupted_and_141_when_nobody_reads(served: Served) -> None:
    url = served.ready["ws"]
    run("publish", url, "africa", "tick", '{"n":1}')

    with tailing(url, "africa", "--last", "1") as tail:
        assert tail.stdout is not None and tail.stderr is not None
        tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        interrupted = (tail.wait(PATIENCE_S), tail.stderr.read())
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "tail", url, "africa", "--last", "1"]
    unread = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    os.close(writing)

    assert interrupted == (130, "")
    assert (unread.returncode, unread.stderr) == (141, b"")


def test_a_publish_of_stdin_can_be_interrupted_while_it_waits_for_a_line(served: Served) -> None:
    command = [*COMMAND, "publish", served.ready["ws"], "africa", "tick", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stderr is not None and process.stdout is not None
    with process:
        process.stdin.write(b"{}\n{\n")
        process.stdin.flush()
        told = process.stderr.readline()  # By then it waits for the third, or is about to.
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S)

    assert told.startswith(b"vixws publish: line 2: ")
    assert code == 130


def test_a_progress_bar_is_for_a_terminal(served: Served, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text('{"n":1}\n' * 3)
    command = [*COMMAND, "publish", served.ready["ws"], "africa", "tick", "-"]
    ours, theirs = pty.openpty()
    with lines.open("rb") as source:
        environ = os.environ | {"TERM": "xterm"}
        done = subprocess.run(command, stdin=source, stderr=theirs, env=environ, timeout=PATIENCE_S, check=False)
    shown = os.read(ours, 65_536).decode()
    os.close(theirs)
    os.close(ours)

    assert done.returncode == 0
    assert re.search("\r\x1b\\[K[█░]{30} +[0-9]+%  1 stored, 0 failed", shown)
    assert shown.endswith("\r\x1b[K3 stored, 0 failed\r\n")


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for words in (("tail", f"ws://127.0.0.1:{port}/", "a"), ("publish", f"ws://127.0.0.1:{port}/", "a", "b", "{}")):
        done = run(*words)

        assert done.stderr.startswith(f"vixws {words[0]}: cannot reach ws://127.0.0.1:{port}/: ")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_the_help_of_publish_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--help"]) == 0

    text = " ".join(capsys.readouterr().out.split())
    assert "a summary there at the end" in text
    assert "1 where one is not or the server cannot be reached, 2 for a mistake in the words" in text


def test_tls_works_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem = str(tmp_path / "both.pem")

    with serving(tmp_path, "--store", "memory://", "--tls-cert", pem, "--tls-key", pem) as served:
        url = served.ready["ws"]
        trusted = run("publish", url, "africa", "tick", "{}", "--ca", str(tmp_path / "ca.pem"))
        untrusted = run("publish", url, "africa", "tick", "{}")

    assert trusted.returncode == 0
    assert untrusted.returncode == 1
    assert ssl.SSLCertVerificationError.__name__ in untrusted.stderr or "certificate verify failed" in untrusted.stderr


MISTAKES: list[tuple[list[str], str]] = [
    (["tail", "http://x/", "a"], "vixws tail: url must begin with ws://host or wss://host, got 'http://x/'"),
    (["tail", "ws://x/", "a", "--since", "k3f9"], "vixws tail: --since: expected EPOCH:OFFSET such as k3f9:41, got "
     "'k3f9'"),
    (["tail", "ws://x/", "a", "--since", "k:-1"], "vixws tail: --since: expected EPOCH:OFFSET"),
    (["tail", "ws://x/", "a", "--since", "k:1", "--last", "1"], "vixws tail: argument --last: not allowed with "
     "argument --since"),
    (["tail", "ws://x/", "a", "--last", "-1"], "vixws tail: argument --last: expected "),
    (["tail", "ws://x/"], "vixws tail: the following arguments are required: ROOM"),
    (["tail", "wss://x/", "a", "--ca", "/none.pem"], "vixws tail: cannot use the certificates in '/none.pem': "),
    (["publish", "ws://x/", "a", "b", "[]"], "vixws publish: payload: expected a JSON object, got '[]'"),
    (["publish", "ws://x/", "a", "b", "{"], "vixws publish: payload: expected a JSON object: "),
    (["publish", "ws://x/", "a", "b", '{"n": NaN}'], "vixws publish: payload: expected a JSON object: "),
    (["publish", "ws://x/", "a", "b", "{}", "--timeout", "0"], "vixws publish: argument --timeout: expected a number "
     'from 0.01 to 86400 seconds, got "0"'),
    (["publish", "ws://x/", "a", "b"], "vixws publish: the following arguments are required: JSON|-"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "line"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_gives_one_line_and_status_2(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(argv)

    out, err = capsys.readouterr()
    assert err.startswith(line)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("a\nb", "tick"), "vixws publish: room 'a\\\\nb' must not have control or invisible characters\n"),
        (("a", "$tick"), "vixws publish: type must be non-empty and not start with '$', got '$tick'\n"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(served: Served, words: tuple[str, str], line: str) -> None:
    done = run("publish", served.ready["ws"], *words, "{}")

    assert (done.returncode, done.stdout, done.stderr) == (2, "", line.replace("\\\\", "\\"))
