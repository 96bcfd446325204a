"""The drain: it ends in its time whatever hangs, and everybody hears why before the end."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from vixws_anyio import Listening, Server, Session
from vixws_anyio.server.ending import DrainTimes
from vixws_store import MemoryMessageStore, SqliteMessageStore

from .command_line import LOOPS, PATIENCE_S, serving
from .rig import connected, limited

HELLO = {"type": "$hello", "ref": "h", "payload": {"v": [1]}}


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Another process's lock: nobody else can write."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


def all_of(client: ClientConnection) -> tuple[list[dict[str, Any]], tuple[int, str] | None]:
    """All messages until the end, and the close frame, where one came."""
    found: list[dict[str, Any]] = []
    try:
        while True:
            found.append(json.loads(client.recv(PATIENCE_S)))
    except ConnectionClosed as exc:
        return found, None if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)


# ---- a lock of the database -------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_drain_under_a_lock_answers_the_publishes_and_ends_in_its_time(tmp_path: Path, loop: str) -> None:
    with (
        serving(tmp_path, "--drain", "2", *LOOPS[loop]) as served,
        connect(served.ready["ws"]) as client,
        connect(served.ready["ws"]) as plain,
        locked(tmp_path / "chat_messages.db"),
    ):
        client.send(json.dumps(HELLO))
        while json.loads(client.recv(PATIENCE_S))["type"] != "$welcome":
            pass
        for peer in (client, plain):
            peer.send('{"type": "note", "ref": "p", "room": "africa"}')
            peer.send('{"type": "$ping", "ref": "read by now"}')
            while json.loads(peer.recv(PATIENCE_S))["type"] != "$pong":
                pass
        began = time.monotonic()
        code, lines = served.end()
        took_s = time.monotonic() - began
        told, closed = all_of(client)
        plain_told, plain_closed = all_of(plain)

    drain, answer = told
    assert (drain["type"], answer["type"], answer["ref"]) == ("$drain", "$err", "p")
    assert (answer["payload"]["code"], answer["payload"]["retry"]) == ("store_unavailable", True)
    assert [message["payload"]["code"] for message in plain_told] == ["store_unavailable"]
    assert (closed, plain_closed) == ((4200, "the server shuts down"), (1012, "the server shuts down"))
    assert 0.5 < took_s < 2.0
    assert code == 0
    assert "closed without a checkpoint" in "".join(lines)
    assert "stopped: SIGTERM; the drain took 1." in lines[-1]


def test_a_lock_without_anything_to_store_holds_no_end_up(tmp_path: Path) -> None:
    with serving(tmp_path) as served, locked(tmp_path / "chat_messages.db"):
        began = time.monotonic()
        code, _ = served.end()

    assert code == 0
    assert time.monotonic() - began < 2.0


def test_a_second_signal_waits_for_no_lock(tmp_path: Path) -> None:
    with serving(tmp_path) as served, connect(served.ready["ws"]) as client, locked(tmp_path / "chat_messages.db"):
        client.send('{"type": "note", "ref": "p", "room": "africa"}')
        client.send('{"type": "$ping"}')
        while json.loads(client.recv(PATIENCE_S))["type"] != "$pong":
            pass
        served.process.send_signal(signal.SIGTERM)
        served.next_log("draining")
        began = time.monotonic()
        code, _ = served.end()
        took_s = time.monotonic() - began

    assert code == 0
    assert took_s < 2.0


@pytest.mark.anyio
async def test_what_is_published_by_the_program_fails_in_time_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    server = Server(limited(drain_s=1), store=SqliteMessageStore(path))
    failures: list[str] = []

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            await server.publish("africa", "note", {})
            with locked(path):
                server.broadcast_room_json("africa", "note", {}, done=lambda outcome: failures.append(str(outcome)))
                server.stop()
                began = time.monotonic()
                while server.listening is not None:
                    await anyio.sleep(0.01)
                took_s = time.monotonic() - began

    assert len(failures) == 1
    assert "store_unavailable" in failures[0]
    assert took_s < 1.0


# ---- handlers that hang -----------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("hello", "code"), [(True, 4200), (False, 1012)])
async def test_whose_handler_hangs_is_closed_at_the_time_it_was_told(hello: bool, code: int) -> None:
    server = Server(limited(drain_s=1.6))
    entered = anyio.Event()

    @server.on("hang")
    async def hang(session: Session, payload: dict[str, Any]) -> None:
        entered.set()
        await anyio.sleep_forever()

    told = {"payload": {"close_in_ms": 0}}
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            listening: Listening = await tasks.start(server.serve)
            async with connected(listening.ws) as peer:
                if hello:
                    await peer.ask(HELLO)
                await peer.send({"type": "hang"})
                await entered.wait()
                server.stop()
                began = time.monotonic()
                if hello:
                    told = await peer.receive()
                end = await peer.ended()
                closed_s = time.monotonic() - began
        took_s = time.monotonic() - began

    hub_s = DrainTimes.of(1.6).hub_s
    expected_s = hub_s * 7 / 8
    assert end == (code, "the server shuts down")
    assert told["payload"]["close_in_ms"] == (round(expected_s * 1000) if hello else 0)
    assert expected_s - 0.02 < closed_s < hub_s
    assert hub_s - 0.02 < took_s < 2.0  # The handler has its time to the end.


def test_a_handler_that_hangs_in_a_thread_does_not_outlive_the_drain(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom vixws_anyio import Server\nserver = Server()\n\n"
        "@server.on('hang', thread=True)\ndef hang(session, payload: dict) -> None:\n"
        "    session.send_json('hangs')\n    time.sleep(600)\n"
    )
    flags = ("--app", "slow:server", "--store", "memory://", "--drain", "1")
    with serving(tmp_path, *flags) as served, connect(served.ready["ws"]) as client:
        client.send('{"type": "hang"}')
        client.recv(PATIENCE_S)
        began = time.monotonic()
        code, lines = served.end()
        took_s = time.monotonic() - began
        _, closed = all_of(client)

    assert code == 0
    assert took_s < 1.5
    assert closed == (1012, "the server shuts down")
    assert lines[-2].endswith(" s and left 1 connections unfinished")
    assert lines[-1].endswith("1 handlers still run in threads and are left behind")


@pytest.mark.parametrize("drain_s", [0.0, 0.1, 1.0, 8.0, 3_600.0])
def test_the_parts_of_a_drain_are_in_order(drain_s: float) -> None:
    times = DrainTimes.of(drain_s)

    assert 0 <= times.store_s <= times.hub_s * 7 / 8 <= times.hub_s <= times.flush_s <= drain_s
    assert drain_s - times.hub_s <= 0.5


# ---- what the log says ------------------------------------------------------------------------------


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The server's last line, and its level."""
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "vixws"][-1:]


@pytest.mark.anyio
async def test_the_reason_of_a_stop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = Server(limited())
    ways: list[dict[str, Any]] = [{}, {"reason": "a\nbetter one"}, {"now": True}]
    for options in ways:
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            server.stop(**options)

    ends = [message for message in caplog.messages if message.startswith("stopped: ")]
    assert [end.partition("; ")[0] for end in ends] == [
        "stopped: stop() was called",
        "stopped: a\\nbetter one",
        "stopped: stop() was called",
    ]


@pytest.mark.anyio
async def test_a_cancelled_run_is_logged_as_that(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with anyio.create_task_group() as tasks:
        await tasks.start(Server(limited()).serve)
        tasks.cancel_scope.cancel()

    assert said(caplog) == ["INFO stopped: cancelled; without a drain"]


@pytest.mark.anyio
async def test_a_run_that_fails_is_logged_with_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    class Failing(MemoryMessageStore):
        @asynccontextmanager
        async def run(self, post: Any = None) -> AsyncGenerator[None]:
            async with super().run(post):
                yield
                raise RuntimeError("the disk\nis gone")

    server = Server(limited(), store=Failing())
    with pytest.raises(RuntimeError):
        await server.serve(ready=lambda _: server.stop())

    assert [line.partition("; ")[0] for line in said(caplog)] == [
        "ERROR stopped: failed with RuntimeError('the disk\\nis gone')"
    ]
