"""A handler that runs when its connection, its server or its time ends: it learns of it at once, or is ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from vixws_anyio import AuthRequest, Server, Session, User

from .rig import PATIENCE_S, connected, frame, http, limited, raw_peer, request, running

pytestmark = pytest.mark.anyio

GO = {"type": "go", "ref": "1"}


class Told:
    """What a handler was told, and when."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.ended = anyio.Event()
        self.open: list[bool] = []
        self.closed: list[int | None] = []


def waiting_server(told: Told, **settings: Any) -> Server:
    """Its handler of `go` works until the connection ends."""
    server = Server(limited(**settings))

    @server.on("go")
    async def go(session: Session, payload: dict[str, Any]) -> None:
        told.open.append(session.is_open)
        told.began.set()
        await session.wait_closed()
        told.open.append(session.is_open)
        told.ended.set()

    @server.on_close
    def closed(session: Session) -> None:
        told.closed.append(session.close_code)

    return server


@asynccontextmanager
async def serving_until_stopped(server: Server) -> AsyncGenerator[str]:
    """Serves; the block has to stop it, and then it ends by itself, in time."""
    async with anyio.create_task_group() as tasks:
        at = await tasks.start(server.serve)
        try:
            with anyio.fail_after(5):
                yield at.ws
        except TimeoutError:
            server.stop(now=True)
            raise


# ---- it learns of it ----------------------------------------------------------------------------


async def test_a_handler_learns_of_the_peers_close_while_it_runs() -> None:
    told = Told()
    async with running(waiting_server(told)) as at, connected(at.ws) as peer:
        await peer.send(GO)
        await told.began.wait()
        await peer.close()
        with anyio.fail_after(5):
            await told.ended.wait()

    assert told.open == [True, False]
    assert told.closed == [1000]


async def test_a_handler_learns_of_a_peer_that_is_gone_without_a_word() -> None:
    told = Told()
    async with running(waiting_server(told)) as at:
        async with raw_peer(at.port) as peer:
            await peer.stream.send(frame(GO))
            await told.began.wait()
        with anyio.fail_after(5):
            await told.ended.wait()

    assert told.open == [True, False]
    assert told.closed == [1006]


async def test_a_handler_learns_of_a_stop_at_once_and_the_stop_does_not_take_its_whole_drain() -> None:
    told = Told()
    server = waiting_server(told, drain_s=60)
    async with serving_until_stopped(server) as url, connected(url) as peer:
        await peer.send(GO)
        await told.began.wait()
        began = anyio.current_time()
        server.stop()
        answer = await peer.receive()
        await peer.ended()

    assert anyio.current_time() - began < 10
    assert answer == {"type": "$ack", "ref": "1", "payload": {}}, "its answer is sent all the same"
    assert told.open == [True, False]


async def test_a_handler_in_a_thread_asks_whether_it_is_open() -> None:
    server = Server(limited(drain_s=60))
    told = Told()

    @server.on("go", thread=True)
    def go(session: Session, payload: dict[str, Any]) -> dict[str, bool]:
        told.open.append(session.is_open)
        until = time.monotonic() + PATIENCE_S
        while session.is_open and time.monotonic() < until:
            session.send_json("tick")
            time.sleep(0.01)
        return {"in_time": time.monotonic() < until}

    async with serving_until_stopped(server) as url, connected(url) as peer:
        await peer.send(GO)
        await peer.receive_type("tick")
        server.stop()
        answer = await peer.receive_type("$ack")

    assert answer["payload"] == {"in_time": True}


async def test_who_waits_after_the_end_waits_for_nothing() -> None:
    server = Server(limited())
    over = anyio.Event()
    codes: list[int | None] = []

    @server.on_close
    async def closed(session: Session) -> None:
        await session.wait_closed()
        codes.append(session.close_code)
        over.set()

    async with running(server) as at, connected(at.ws) as peer:
        await peer.close()
        with anyio.fail_after(5):
            await over.wait()

    assert codes == [1000]


async def test_our_own_close_ends_the_wait_too() -> None:
    server = Server(limited())
    told = Told()

    @server.on("go")
    async def go(session: Session, payload: dict[str, Any]) -> None:
        session.close(4000, "enough")
        await session.wait_closed()
        told.ended.set()

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send(GO)
        ended = await peer.ended()
        with anyio.fail_after(5):
            await told.ended.wait()

    assert ended == (4000, "enough")


async def test_what_came_before_the_peers_close_is_handled() -> None:
    server = Server(limited())
    seen: list[int] = []

    @server.on("say")
    async def say(session: Session, payload: dict[str, int]) -> None:
        await anyio.sleep(0.01)
        seen.append(payload["n"])

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send(*({"type": "say", "payload": {"n": n}} for n in range(5)))
        await peer.close()

    assert seen == [0, 1, 2, 3, 4]


# ---- it is ended --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "gone", "stop"])
async def test_where_it_is_wanted_the_end_of_a_connection_ends_its_handler(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(limited(cancel_handlers=True, drain_s=60))
    told = Told()

    @server.on("go")
    async def go(session: Session, payload: dict[str, Any]) -> None:
        told.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            told.ended.set()

    @server.on_close
    async def closed(session: Session) -> None:
        await anyio.sleep(0.01)  # It is not ended by what it is told of.
        told.closed.append(session.close_code)

    with caplog.at_level(logging.ERROR, "vixws"):
        async with serving_until_stopped(server) as url:
            async with raw_peer(int(url.rsplit(":", 1)[1].rstrip("/"))) as peer:
                await peer.stream.send(frame(GO))
                await told.began.wait()
                if how == "close":
                    await peer.stream.send(b"\x88\x82\0\0\0\0\x03\xe8")
                elif how == "stop":
                    server.stop()
                if how != "gone":
                    assert await peer.ended() == {"close": 1000, "stop": 1012}[how]
                    await peer.stream.send(b"\x88\x82\0\0\0\0\x03\xf4" if how == "stop" else b"")
            await told.ended.wait()
            server.stop()

    assert told.closed == [{"close": 1000, "gone": 1006, "stop": 1012}[how]]
    assert caplog.records == []


async def test_a_handler_that_takes_too_long_is_ended_and_its_connection_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(limited(handler_timeout_s=0.1))
    server.on("echo")(lambda session, payload: payload)
    failed: list[str] = []

    @server.on("go")
    async def go(session: Session, payload: dict[str, Any]) -> None:
        await anyio.sleep_forever()

    @server.on_error
    def error(session: Session, exc: Exception) -> None:
        failed.append(str(exc))

    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(server) as at, connected(at.ws) as peer, connected(at.ws) as other:
            await peer.send(GO)
            ended = await peer.ended()
            told = await other.ask({"type": "echo", "ref": "1", "payload": {"n": 1}})

    assert ended == (1011, "a handler failed")
    assert told["payload"] == {"n": 1}
    assert len(failed) == 1 and "took more than 0.1 s (websocket.handlerTimeout)" in failed[0]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("setting", [{}, {"handler_timeout_s": 5.0}, {"cancel_handlers": True}])
async def test_a_handlers_own_timeouts_are_its_own(setting: dict[str, Any]) -> None:
    server = Server(limited(**setting))

    @server.on("go")
    async def go(session: Session, payload: dict[str, Any]) -> dict[str, bool]:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        return {"timed_out": scope.cancelled_caught}

    @server.on("raise")
    async def fails(session: Session, payload: dict[str, Any]) -> None:
        with anyio.fail_after(0.01):
            await anyio.sleep_forever()

    async with running(server) as at, connected(at.ws) as peer:
        told = await peer.ask(GO)
        await peer.send({"type": "raise"})
        ended = await peer.ended()

    assert told["payload"] == {"timed_out": True}
    assert ended == (1011, "a handler failed")


async def test_a_thread_is_left_to_itself_when_its_time_is_over() -> None:
    server = Server(limited(handler_timeout_s=0.05))
    told = Told()
    states: list[bool] = []

    @server.on("go", thread=True)
    def go(session: Session, payload: dict[str, Any]) -> None:
        until = time.monotonic() + PATIENCE_S
        while session.is_open and time.monotonic() < until:
            time.sleep(0.005)
        states.append(session.is_open)

    @server.on_close
    def closed(session: Session) -> None:
        told.closed.append(session.close_code)

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send(GO)
        ended = await peer.ended()
        with anyio.fail_after(5):
            while not states:
                await anyio.sleep(0.005)

    assert ended == (1011, "a handler failed")
    assert states == [False]


async def test_threads_that_nobody_waits_for_any_more_still_count() -> None:
    server = Server(limited(auth_deadline_s=0.05, handshakes_per_ip_per_s=1e6))
    free = threading.Event()
    running_now = most = 0
    lock = threading.Lock()

    @server.authenticate(thread=True)
    def hangs(request: AuthRequest) -> User:
        nonlocal running_now, most
        with lock:
            running_now += 1
            most = max(most, running_now)
        free.wait(PATIENCE_S)
        with lock:
            running_now -= 1
        return User("ada")

    async def ask(port: int) -> None:
        found.append((await http(port, request().decode()))[0])

    found: list[int] = []
    try:
        async with running(server) as at:
            for _ in range(3):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(ask, at.port)
            free.set()
            with anyio.fail_after(5):
                while running_now:
                    await anyio.sleep(0.005)
            async with connected(at.ws):
                pass
    finally:
        free.set()

    assert found == [503] * 60
    assert most == 40


async def test_handlers_that_hang_in_threads_keep_nobody_from_proving_who_it_is() -> None:
    server = Server(limited(auth_deadline_s=5.0, handshakes_per_ip_per_s=1e6))
    free = threading.Event()
    hanging = threading.Semaphore(0)

    @server.authenticate(thread=True)
    def who(request: AuthRequest) -> User:
        return User("ada")

    @server.on("go", thread=True)
    def go(session: Session, payload: dict[str, Any]) -> None:
        hanging.release()
        free.wait(PATIENCE_S)

    try:
        async with running(server) as at, AsyncExitStack() as stack:
            for _ in range(40):
                peer = await stack.enter_async_context(connected(at.ws))
                await peer.send(GO)
            for _ in range(40):
                await anyio.to_thread.run_sync(hanging.acquire)

            async with connected(at.ws) as newcomer:
                greeted = await newcomer.ask({"type": "$hello", "ref": "h", "payload": {"v": [1]}})
            free.set()
    finally:
        free.set()

    assert (greeted["type"], greeted["payload"]["user"]) == ("$welcome", "ada")
