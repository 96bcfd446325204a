"""The command line: what `vixws serve` promises to whoever starts, watches and ends it; mistakes in one line."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from websockets.sync.client import connect

from vixws_anyio.cli import main
from vixws_anyio.cli.config import as_markdown
from vixws_anyio.cli.terminal import colour, one_line
from vixws_anyio.config.settings import SETTINGS

from .command_line import COMMAND, LOG_LINE, LOOPS, PATIENCE_S, last_words, refused, serving
from .rig import connect_in_loop


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tester's shell says must not count."""
    for name in tuple(os.environ):
        if name.startswith("VIXWS_"):
            monkeypatch.delenv(name)


def fetch(url: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return answer.status, answer.read()


# ---- it serves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_the_ready_line_says_where_everything_is(tmp_path: Path, loop: str) -> None:
    with serving(tmp_path, "--metrics", "127.0.0.1:0", *LOOPS[loop]) as served:
        ready = served.ready
        with connect(ready["ws"]) as client:
            welcome = json.loads(client.recv(PATIENCE_S))
            _, figures = fetch(ready["metrics"])
        status, _ = fetch(ready["http"] + "readyz")
        code, _ = served.end()

    assert welcome["type"] == "chat.system"
    assert b"\nvixws_active_sessions 1.0\n" in figures
    assert status == 200
    assert int(ready["pid"]) == served.process.pid
    assert ready["store"] == "sqlite:///chat_messages.db"
    assert (tmp_path / "chat_messages.db").is_file()
    assert code == 0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(tmp_path: Path, loop: str, number: signal.Signals) -> None:
    with serving(tmp_path, "--store", "memory://", *LOOPS[loop]) as served:
        code, lines = served.end(number)

    told = [line.partition("vixws: ")[2] for line in lines[-3:]]
    assert code == 0
    assert told[:2] == [f"{number.name}: stopping", f"draining: {number.name}; 0 connections have 8 s"]
    assert re.fullmatch(rf"stopped: {number.name}; the drain took 0\.\d\d s", told[2])
    assert served.ready["store"] == "memory://"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.threat(30)
def test_a_second_signal_ends_it_now(tmp_path: Path, loop: str) -> None:
    slow = ("--drain", "3600", "--close-timeout", "3600", "--flush-stall", "3600")
    with (
        serving(tmp_path, "--store", "memory://", *slow, *LOOPS[loop]) as served,
        socket.create_connection(("127.0.0.1", int(served.ready["port"])), PATIENCE_S) as peer,
    ):
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert peer.recv(4_096).startswith(b"HTTP/1.1 101 ")
        served.process.send_signal(signal.SIGTERM)
        first = served.next_log("SIGTERM")
        running = served.process.poll() is None
        code, lines = served.end()

    assert first.endswith("SIGTERM: stopping\n")
    assert running
    assert code == 0
    assert [line.partition("vixws: ")[2] for line in lines if "stopping now" in line] == ["SIGTERM: stopping now"]
    assert "vixws: stopped: SIGTERM; the drain took " in lines[-1]


def test_a_signal_before_it_listens_ends_it_with_status_0(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    command = [*COMMAND, "serve", "--app", "early:server"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_serves_on_when_nobody_reads_its_stdout(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "serve", "--port", "0", "--metrics", "off", "--store", "memory://"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert process.stderr is not None
    with process, process.stderr:
        lines = [process.stderr.readline()]
        while "listening on ws://127.0.0.1:" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.terminate()
        code = process.wait(PATIENCE_S)

    assert "nobody reads our stdout" in lines[0]
    assert code == 0


APPLICATION = """
from vixws_anyio import Config, Server, Session

server = Server(Config(message_bytes_max=100, rooms_max=5))

@server.on("fail")
def fail(session: Session, payload: dict[str, object]) -> None:
    raise RuntimeError("two\\nlines")

@server.on("ask")
def ask(session: Session, payload: dict[str, object]) -> None:
    session.send_json("told", {"bytes": server.config.message_bytes_max, "rooms": server.config.rooms_max})
"""


def test_an_application_is_found_in_the_current_folder_and_its_settings_are_defaults(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    environ = {"VIXWS_MAX_MESSAGE_SIZE": "200"}

    with (
        serving(tmp_path, "--app", "application:server", "--store", "memory://", environ=environ) as served,
        connect(served.ready["ws"]) as client,
    ):
        client.send('{"type": "ask"}')
        told = json.loads(client.recv(PATIENCE_S))

    assert told["payload"] == {"bytes": 200, "rooms": 5}


def test_a_failing_handler_is_one_line_of_the_log_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)

    with serving(tmp_path, "--app", "application:server", "--store", "memory://") as served:
        with connect(served.ready["ws"]) as client:
            client.send('{"type": "fail"}')
            line = served.next_log("failed")
        code, _ = served.end()

    assert LOG_LINE.fullmatch(line.rstrip("\n"))
    assert "\\nTraceback (most recent call last):\\n" in line
    assert code == 0


def test_an_application_may_bring_its_own_store(tmp_path: Path) -> None:
    text = "from vixws_anyio import Server\nfrom vixws_store import SqliteMessageStore\n"
    (tmp_path / "own.py").write_text(f"{text}server = Server(store=SqliteMessageStore('own store.db'))\n")

    with serving(tmp_path, "--app", "own:server") as kept:
        assert kept.end()[0] == 0
    with serving(tmp_path, "--app", "own:server", "--store", "memory://") as replaced:
        assert replaced.end()[0] == 0

    assert kept.ready["store"] == "sqlite:///own%20store.db"
    assert replaced.ready["store"] == "memory://"


def test_tls_is_on_with_a_certificate_and_reads_it_again_on_sighup(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = authority_context(authority)
    files = write_certificate(authority, tmp_path)

    with serving(tmp_path, "--store", "memory://", "--tls-cert", files[0], "--tls-key", files[1]) as served:
        port = int(served.ready["port"])
        first = certificate_of(port, context)
        with connect_in_loop(served.ready["ws"], ssl=context) as client:
            welcome = json.loads(client.recv(PATIENCE_S))
        write_certificate(authority, tmp_path)
        served.process.send_signal(signal.SIGHUP)
        reloaded = served.next_log("SIGHUP")
        second = certificate_of(port, context)
        (tmp_path / "cert.pem").write_text("no certificate")
        served.process.send_signal(signal.SIGHUP)
        kept = served.next_log("SIGHUP")
        third = certificate_of(port, context)
        code, _ = served.end()

    assert served.ready["ws"].startswith("wss://")
    assert served.ready["http"].startswith("https://")
    assert welcome["type"] == "chat.system"
    assert reloaded.rstrip().endswith(f"read {files[0]} again")
    assert "the old certificate stays" in kept
    assert first != second == third
    assert code == 0


def authority_context(authority: trustme.CA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())


def certificate_of(port: int, context: ssl.SSLContext) -> bytes | None:
    """The certificate that a server on this port shows."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as peer,
    ):
        return peer.getpeercert(True)


def write_certificate(authority: trustme.CA, folder: Path) -> tuple[str, str]:
    """A new certificate for 127.0.0.1 in two files."""
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return str(folder / "cert.pem"), str(folder / "key.pem")


# ---- it cannot start --------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_port_in_use_is_told(tmp_path: Path, loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, "--port", str(port), "--metrics", "off", *LOOPS[loop])

    assert line.startswith(f"cannot listen on 127.0.0.1:{port}: ")


def test_a_port_of_the_metrics_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, "--port", "0", "--metrics", f"127.0.0.1:{port}")

    assert line.startswith(f"cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_port_of_the_metrics_in_use_names_the_setting_to_change(tmp_path: Path, loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--port", "0", "--store", "memory://", "--metrics", f"127.0.0.1:{port}")
        line = last_words(tmp_path, *flags, *LOOPS[loop])

    assert line.startswith(f"vixws serve: cannot listen on 127.0.0.1:{port}: ")
    assert line.endswith("(metrics.listen: --metrics HOST:PORT puts it elsewhere, --metrics off leaves it out)")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path, loop: str) -> None:
    flags = ("--port", "0", "--metrics", "off", *LOOPS[loop])

    assert "nowhere does not exist" in refused(tmp_path, *flags, "--store", f"sqlite:///{tmp_path}/nowhere/a.db")


def test_a_store_that_another_server_holds_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        line = refused(tmp_path, "--port", "0", "--metrics", "off")
        code, _ = served.end()

    assert f"is served by the process {served.process.pid} already" in line
    assert code == 0


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    flags = ("--port", "0", "--metrics", "off", "--store", "memory://", "--tls-key", "a.pem", "--tls-cert")

    missing = refused(tmp_path, *flags, "b.pem")
    unusable = refused(tmp_path, *flags, "a.pem")

    assert missing == "--tls-cert: expected a readable PEM file, got b.pem: No such file or directory"
    assert unusable.startswith("--tls-cert: expected a certificate and its key in PEM, got a.pem and a.pem: ")


@pytest.fixture
def in_process() -> Iterator[None]:
    """Undoes what `vixws serve` changes in its process before it fails."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    path, root, level = list(sys.path), list(logging.root.handlers), logging.root.level
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.path[:] = path
    logging.root.handlers[:] = root
    logging.root.setLevel(level)


MISTAKES: list[tuple[list[str], str]] = [
    (["serve", "--port", "http"], 'vixws serve: --port: expected an integer from 0 to 65535, got "http"'),
    (["serve", "--port", "65536"], 'vixws serve: --port: expected an integer from 0 to 65535, got "65536"'),
    (["serve", "--port"], "vixws serve: argument --port: expected one argument (try vixws serve --help)"),
    (["serve", "--prt", "1"], "vixws serve: unknown flag '--prt' (did you mean --port?)"),
    (["serve", "--por", "1"], "vixws serve: unknown flag '--por' (did you mean --port?)"),
    (["serve", "9090"], "vixws serve: expected flags only, got '9090'"),
    (["serve", "--uvloop", "--backend", "trio"], "vixws serve: --uvloop: websocket.uvloop: expected false where "
     'websocket.backend is "trio", got true'),
    (["serve", "--backend", "gevent"], 'vixws serve: --backend: expected "asyncio" or "trio", got "gevent"'),
    (["serve", "--store", "chat.db"], "vixws serve: --store: expected a store URL such as sqlite:///chat_messages.db "
     'or memory://, got "chat.db"'),
    (["serve", "--store", "mysql://x"], "vixws serve: --store: unknown kind of store 'mysql': expected "
     'sqlite:///relative.db, sqlite:////absolute.db or memory://, got "mysql://x"'),
    (["serve", "--metrics", "9100"], "vixws serve: --metrics: expected HOST:PORT (an IPv6 host in brackets) or "
     '"off", got "9100"'),
    (["serve", "--config", "none.json"], "vixws serve: none.json: expected a readable JSON file: no such file or "
     "directory"),
    (["serve", "--tls-cert", "a"], 'vixws serve: --tls-cert: websocket.tlsCert: expected websocket.tlsKey with it, got '
     '"a" alone'),
    (["serve", "--app", "chat"], "vixws serve: --app: expected module:attribute such as chat:server, got 'chat'"),
    (["serve", "--app", "a/b.py:server"], "vixws serve: --app: expected module:attribute such as chat:server, got "
     "'a/b.py:server'"),
    (["serve", "--app", "nowhere.chat:server"], "vixws serve: --app: nowhere.chat:server: expected a module that can "
     "be imported, found no nowhere"),
    (["serve", "--app", "json:server"], "vixws serve: --app: json:server: expected a Server there, but there is no "
     "'server'"),
    (["serve", "--app", "json:loads"], "vixws serve: --app: json:loads: expected a vixws_anyio.Server, got a function"),
    (["config", "--port", "-1"], 'vixws config: --port: expected an integer from 0 to 65535, got "-1"'),
    ([], "vixws: the following arguments are required: COMMAND (try vixws --help)"),
    (["frobnicate"], "vixws: unknown command 'frobnicate', expected serve, config, tail, publish, store or "
     "replay (try vixws --help)"),
    (["srve"], "vixws: unknown command 'srve' (did you mean serve?), expected serve, config, tail, publish, "
     "store or replay"),
    (["store", "chek"], "vixws store: unknown action 'chek' (did you mean check?), expected stats, history, check, "
     "repair, trim, redact or rotate-epoch (try vixws store --help)"),
]  # fmt: skip


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("argv", "line"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_on_the_command_line_gives_one_line_and_status_2(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    code = main(argv)

    out, err = capsys.readouterr()
    assert err.startswith(line)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["trio", "uvloop"])
def test_a_loop_that_is_not_installed_is_told_with_its_extra(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    code = main(["serve", *LOOPS[name]])

    expected = f"vixws serve: {name} is not installed: expected pip install 'vixws[{name}]'\n"
    assert (code, capsys.readouterr().err) == (2, expected)


@pytest.mark.usefixtures("in_process")
def test_an_application_that_fails_to_import_is_told_with_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_application.py").write_text("\nimport no_such_module_at_all\n")

    code = main(["serve", "--app", "broken_application:server"])

    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert "importing broken_application failed: ModuleNotFoundError: No module named 'no_such_module_at_all'" in err
    assert err.endswith(f"({tmp_path}/broken_application.py:2)\n")


@pytest.mark.usefixtures("in_process")
def test_an_application_with_a_syntax_error_is_told_with_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unreadable_application.py").write_text("a = 1\n\nb = = 2\n")

    code = main(["serve", "--app", "unreadable_application:server"])

    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert "importing unreadable_application failed: SyntaxError: invalid syntax" in err
    assert err.endswith(f" ({tmp_path}/unreadable_application.py:3)\n")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("mysql://me:secret@db/x", "unknown kind of store 'mysql': expected sqlite:///relative.db, "),
        ("sqlite://x.db", "expected sqlite:///relative.db, sqlite:////absolute.db or memory://, got 'sqlite://x.db'"),
    ],
)
def test_a_wrong_store_is_told_with_the_place_that_names_it(
    url: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"store": {"url": url}}))

    from_file = (main(["serve", "--config", "config.json"]), capsys.readouterr().err)
    monkeypatch.setenv("VIXWS_STORE", url)
    from_environment = (main(["serve"]), capsys.readouterr().err)

    assert from_file[0] == from_environment[0] == 2
    assert from_file[1].startswith(f"vixws serve: config.json: store.url: {line}")
    assert from_environment[1].startswith(f"vixws serve: environment: VIXWS_STORE: {line}")
    assert "got " in from_file[1]
    assert "secret" not in from_file[1] + from_environment[1]


# ---- the configuration shown ------------------------------------------------------------------------


def test_the_configuration_is_shown_with_where_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"websocket": {"port": 1, "idleTimeout": 5}}')
    monkeypatch.setenv("VIXWS_PORT", "2")

    code = main(["config", "--config", str(file), "--max-rooms", "3"])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert lines[0] == ["SETTING", "VALUE", "SOURCE"]
    assert ["websocket.host", '"127.0.0.1"', "default"] in lines
    assert ["websocket.port", "2", "VIXWS_PORT"] in lines
    assert ["websocket.idleTimeout", "5", str(file)] in lines
    assert ["rooms.maxRooms", "3", "--max-rooms"] in lines


def test_the_configuration_is_shown_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["config", "--json", "--port", "0"])

    shown = json.loads(capsys.readouterr().out)
    assert code == 0
    assert shown["websocket"]["port"] == {"value": 0, "source": "--port"}
    assert shown["store"]["url"] == {"value": "sqlite:///chat_messages.db", "source": "default"}


def test_the_documentation_is_written_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == as_markdown()


def test_a_reader_that_went_away_is_no_error_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, "config"], stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


def test_help_names_every_flag_and_begins_with_those_that_one_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0

    text = capsys.readouterr().out
    first, *rest = text[text.index("\noptions:") :].split("\ntuning ")
    assert re.findall(r"^  (?:-h, )?(--[\w-]+)", first, re.MULTILINE) == [
        "--help",
        "--config",
        "--app",
        "--host",
        "--port",
        "--store",
        "--metrics",
        "--backend",
        "--uvloop",
        "--tls-cert",
        "--tls-key",
        "--log-format",
        "--log-level",
        "--trace",
    ]
    assert [part.split(":")[0] for part in rest] == ["connections", "the store", "rooms", "authentication", "the trace"]
    assert "--log-format text|json" in text
    assert all(re.search(rf"^  {setting.flag}\b", text, re.MULTILINE) for setting in SETTINGS)
    assert "--max-message-size BYTES" in text
    assert "(default 65536)" in text


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"vixws \d+\.\d+\.\d+\n", capsys.readouterr().out)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    shown = [colour("red", "x", Terminal()), colour("red", "x", io.StringIO())]
    monkeypatch.setenv("NO_COLOR", "1")
    shown.append(colour("red", "x", Terminal()))

    assert shown == ["\x1b[31mx\x1b[0m", "x", "x"]


def test_what_is_told_stays_on_its_line() -> None:
    assert one_line("a\nb\x1b[2J é") == "a\\nb\\x1b[2J é"


@pytest.mark.parametrize(
    ("variable", "rate", "source"),
    [(None, 1_000.0, "vixws serve"), ("off", 0.0, "VIXWS_RATE_LIMIT"), ("2.5", 2.5, "VIXWS_RATE_LIMIT")],
)
def test_serve_begins_with_a_rate_of_messages(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    rate: float,
    source: str,
) -> None:
    if variable is not None:
        monkeypatch.setenv("VIXWS_RATE_LIMIT", variable)
    code = main(["config", "--json"])
    told = json.loads(capsys.readouterr().out)["websocket"]["rateLimit"]

    assert code == 0
    assert (told["value"], told["source"]) == (rate, source)
