"""Each example runs and does what it says."""

from __future__ import annotations

import asyncio
import json
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio
from websockets.sync.client import ClientConnection, connect

from tests.serving import ROOT, environment, serving

EXAMPLES = ROOT / "examples"


def say(client: ClientConnection, type: str, payload: dict[str, Any], **head: Any) -> None:
    client.send(json.dumps({"type": type, **head, "payload": payload}))


def hear(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=10))
    return message


@contextmanager
def example(name: str, folder: Path) -> Iterator[str]:
    """The URL of an example that names a `server`, run by `vixws serve --app`."""
    with serving(folder, "--app", f"examples.{name}:server") as served:
        yield served.ws
        assert served.stop() == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_every_example_has_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    names = {path.stem for path in EXAMPLES.glob("*.py")}

    assert {name for name in names if f"test_{name}_" not in tests} == set()


def test_echo_sends_back_what_comes(tmp_path: Path) -> None:
    with example("echo", tmp_path) as url, connect(url) as client:
        client.send("hello")
        client.send(b"\x00\xff")

        assert [client.recv(timeout=10), client.recv(timeout=10)] == ["hello", b"\x00\xff"]


def test_chat_rooms_validate_and_broadcast(tmp_path: Path) -> None:
    with example("chat_rooms", tmp_path) as url, connect(url) as ada, connect(url) as bob:
        assert hear(ada)["payload"] == hear(bob)["payload"] == {"text": "Welcome!"}
        say(ada, "chat.join", {"room": "africa", "user": "ada"})
        assert hear(ada)["payload"] == {"text": "ada joined"}
        say(bob, "chat.join", {"room": "africa"}, ref="1")
        assert hear(bob)["payload"]["code"] == "bad_message"
        say(bob, "chat.join", {"room": "africa", "user": "bob"})
        assert hear(bob)["payload"] == hear(ada)["payload"] == {"text": "bob joined"}
        say(bob, "chat.message", {"room": "africa", "user": "bob", "text": "Hi"})

        assert hear(ada) == hear(bob)


def test_persistent_chat_gives_back_what_was_missed(tmp_path: Path) -> None:
    with example("persistent_chat", tmp_path) as url, connect(url) as ada:
        say(ada, "chat.message", {"text": "one"}, room="africa", ref="1")
        first = hear(ada)["payload"]
        say(ada, "chat.message", {"text": ""}, room="africa", ref="2")
        assert hear(ada)["payload"]["code"] == "denied"
        say(ada, "chat.message", {"text": "two"}, room="africa", ref="3")
        hear(ada)
    with example("persistent_chat", tmp_path) as url, connect(url) as bob:
        since = {"ep": first["ep"], "off": first["off"], "id": first["id"]}
        say(bob, "$join", {"since": since}, room="africa", ref="j")

        assert hear(bob)["payload"]["recovered"] is True
        assert hear(bob)["payload"] == {"text": "two"}


def test_blocking_handlers_answer_from_a_thread(tmp_path: Path) -> None:
    with example("blocking_handlers", tmp_path) as url, connect(url) as client:
        say(client, "password.hash", {"password": "correct horse"})

        assert len(hear(client)["payload"]["scrypt"]) == 128


def test_metrics_move(tmp_path: Path) -> None:
    flags = ("--app", "examples.metrics:server", "--metrics", "127.0.0.1:0")
    with serving(tmp_path, *flags) as served, connect(served.ws) as client:
        client.send("three small words")
        assert client.recv(timeout=10) == "3"
        with urllib.request.urlopen(served.fields["metrics"], timeout=10) as answer:
            text = answer.read().decode()

        assert "vixws_active_sessions 1.0" in text


def test_http_and_websocket_share_a_port(tmp_path: Path) -> None:
    with serving(tmp_path, "--app", "examples.http_and_websocket:server") as served, connect(served.ws) as ada:
        assert hear(ada) == {"type": "votes", "payload": {"tea": 0, "coffee": 0}}
        with connect(served.ws) as bob:
            hear(bob)
            say(bob, "vote", {"choice": "tea"})
            assert hear(ada) == hear(bob) == {"type": "votes", "payload": {"tea": 1, "coffee": 0}}
            say(bob, "vote", {"choice": "milk"}, ref="1")
            assert hear(bob)["payload"]["code"] == "bad_message"
        with urllib.request.urlopen(served.http, timeout=10) as answer:
            assert b"<button>tea</button>" in answer.read()
        with urllib.request.urlopen(served.http + "votes.json?choice=tea", timeout=10) as answer:
            assert (answer.headers["content-type"], json.load(answer)) == ("application/json", {"tea": 1})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(served.http + "votes.json?choice=milk", timeout=10)


def test_terminal_client_survives_a_restart(tmp_path: Path) -> None:
    port = str(free_port())
    command = [sys.executable, str(EXAMPLES / "terminal_client.py"), f"ws://127.0.0.1:{port}/", "africa", "ada"]
    with (
        open(tmp_path / "told.txt", "w+", encoding="utf-8") as told,
        subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True
        ) as client,
    ):
        assert client.stdin is not None and client.stdout is not None
        try:
            with serving(tmp_path, "--port", port) as served:
                client.stdin.write("before\n")
                client.stdin.flush()
                assert client.stdout.readline() == "ada: before\n"
                assert served.stop() == 0
            client.stdin.write("while it was away\n")
            client.stdin.flush()
            with serving(tmp_path, "--port", port):
                assert client.stdout.readline() == "ada: while it was away\n"
                client.stdin.close()
                assert client.wait(timeout=20) == 0
            assert client.stdout.read() == ""
        finally:
            client.kill()
        told.seek(0)
        lines = told.read().splitlines()

    assert [line for line in lines if line.startswith("connected")] == [f"connected to ws://127.0.0.1:{port}/"] * 2


def test_terminal_client_ends_at_ctrl_c(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        command = [sys.executable, str(EXAMPLES / "terminal_client.py"), served.ws]
        with subprocess.Popen(command, env=environment(), stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as client:
            assert client.stdin is not None and client.stdout is not None and client.stderr is not None
            try:
                client.stdin.write("I wait\n")
                client.stdin.flush()
                assert client.stdout.readline() == "terminal: I wait\n"
                client.send_signal(signal.SIGINT)
                assert client.wait(timeout=20) == 0  # Though stdin is open.
                assert client.stderr.read() == f"connected to {served.ws}\n"
            finally:
                client.kill()


def test_embed_asyncio_serves_and_stops_by_cancelling() -> None:
    told: list[str] = []
    asyncio.run(runpy.run_path(str(EXAMPLES / "embed_asyncio.py"))["main"](0.3, 0, told.append))

    assert told[0].startswith("ws://127.0.0.1:")
    assert told[1:] == ["stopped"]


def test_embed_trio_serves_and_stops_by_cancelling() -> None:
    told: list[str] = []
    trio.run(runpy.run_path(str(EXAMPLES / "embed_trio.py"))["main"], 0.3, 0, told.append)

    assert told[0].startswith("ws://127.0.0.1:")
    assert told[1:] == ["stopped"]


def test_custom_transport_carries_the_hub_in_under_50_lines(tmp_path: Path) -> None:
    source = (EXAMPLES / "custom_transport.py").read_text(encoding="utf-8")
    port = free_port()
    script = tmp_path / "transport.py"
    script.write_text(source.replace("9090", str(port)), encoding="utf-8")
    process = subprocess.Popen([sys.executable, script], env=environment())
    try:
        with connect_soon(port) as ada, connect(f"ws://127.0.0.1:{port}/") as bob:
            ada.send("hello")

            assert [ada.recv(timeout=10), bob.recv(timeout=10)] == ["hello", "hello"]
        with connect(f"ws://127.0.0.1:{port}/") as again:
            again.send("still here")

            assert again.recv(timeout=10) == "still here"
    finally:
        process.kill()
        process.wait()

    assert len(source.splitlines()) < 50


def connect_soon(port: int) -> ClientConnection:
    """Connects to a server that is about to listen: tried for ten seconds."""
    for _ in range(500):
        try:
            return connect(f"ws://127.0.0.1:{port}/")
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("nothing listens")


PROPERTIES = EXAMPLES / "property_test_my_app.py"


def run_properties(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=100
    )


def test_property_test_my_app_holds_and_is_short(tmp_path: Path) -> None:
    done = run_properties(PROPERTIES, tmp_path)

    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert len(PROPERTIES.read_text(encoding="utf-8").splitlines()) <= 40


def test_property_test_my_app_finds_what_is_wrong_with_it(tmp_path: Path) -> None:
    text = PROPERTIES.read_text(encoding="utf-8")
    broken = tmp_path / "test_broken.py"
    # Many more examples than are wanted, so that none of the runs misses it.
    text = text.replace('payload.get("amount", 0)', 'payload["amount"]').replace("max_examples=50", "max_examples=500")
    broken.write_text(text, encoding="utf-8")
    done = run_properties(broken, tmp_path)

    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "handler 'build.<locals>.bid' raised KeyError('amount') for client 0" in done.stdout
    assert "client 0 sends 'bid' {}" in done.stdout
