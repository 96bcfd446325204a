"""Handlers that are plain, that wait and that block, on a running server."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec
import pytest

from vixws_anyio import Server, Session
from vixws_core.effects import AppMessage, Effect
from vixws_core.errors import LocalError, Refused
from vixws_core.inputs import BytesFlushed, Input

from .rig import PATIENCE_S, Peer, connected, frame, raw_peer, running

pytestmark = pytest.mark.anyio


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Gives other tasks turns until the condition holds."""
    with anyio.move_on_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.001)
        return
    raise AssertionError(f"not in time: {what}")


# ---- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "async", "thread"])
@pytest.mark.threat(34)
async def test_row_34_a_handler_that_raises_ends_its_session_only(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    def plain(session: Session, payload: dict[str, Any]) -> None:
        raise ValueError("boom\nbang")

    async def waits(session: Session, payload: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("boom\nbang")

    if kind == "async":
        server.on("fail")(waits)
    else:
        server.on("fail", thread=kind == "thread")(plain)
    server.on("echo")(lambda session, payload: payload)
    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(server) as at, connected(at.ws) as bad, connected(at.ws) as good:
            await bad.send({"type": "fail"})
            end = await bad.ended()
            told = await good.ask({"type": "echo", "ref": "1", "payload": {"n": 1}})

    assert end == (1011, "a handler failed")
    assert told["payload"] == {"n": 1}
    assert len(caplog.records) == 1
    record = caplog.records[0]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert "\n" not in record.getMessage()


async def test_a_handler_that_is_cancelled_alone_fails_like_any_other(anyio_backend_name: str) -> None:
    server = Server(port=0)

    @server.on("stray")
    async def stray(session: Session, payload: dict[str, Any]) -> None:
        if anyio_backend_name != "asyncio":
            raise ValueError("trio has no cancellation of one's own making that leaves its scope")
        task = asyncio.create_task(asyncio.sleep(PATIENCE_S))
        task.cancel()
        await task

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send({"type": "stray"})
        end = await peer.ended()

    assert end == (1011, "a handler failed")


async def test_on_error_hears_of_it_and_on_close_comes_last() -> None:
    server = Server(port=0)
    told: list[object] = []

    @server.on("fail")
    async def fail(session: Session, payload: dict[str, Any]) -> None:
        raise ValueError("boom")

    @server.on_error
    async def failed(session: Session, exc: Exception) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(str(exc))

    @server.on_close(thread=True)
    def closed(session: Session) -> None:
        told.append(session.close_code)

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send({"type": "fail"})
        await peer.ended()
        await peer.close()
        await wait_until(lambda: len(told) == 2, "on_close")

    assert told == ["boom", 1011]


async def test_a_consumer_that_raises_in_a_tick_does_not_end_the_ticks(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        failures = 0

        def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
            if type(input) is BytesFlushed and not self.failures:
                self.failures += 1
                raise ValueError("a consumer must not raise")

    server = Server(port=0, metrics=Broken())
    server.on("echo")(lambda session, payload: payload)
    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(server) as at, connected(at.ws) as peer:
            told = [await peer.ask({"type": "echo", "ref": str(number)}) for number in range(3)]

    assert [message["ref"] for message in told] == ["0", "1", "2"]
    assert [record.getMessage() for record in caplog.records] == ["internal error while BytesFlushed was told"]


# ---- order --------------------------------------------------------------------------------------


async def test_async_handlers_of_a_session_run_in_order_while_64_wait_and_more_come() -> None:
    server = Server(port=0)
    seen: list[int] = []
    running_now = most = 0

    @server.on("step")
    async def step(session: Session, payload: dict[str, int]) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await anyio.sleep(0)
        seen.append(payload["n"])
        running_now -= 1

    async with running(server) as at, raw_peer(at.port) as peer:
        for start in range(0, 400, 100):
            await peer.stream.send(b"".join(frame({"type": "step", "payload": {"n": start + n}}) for n in range(100)))
        await wait_until(lambda: len(seen) == 400, f"400 messages; there are {len(seen)}")

    assert seen == list(range(400))
    assert most == 1


async def test_a_session_that_waits_holds_up_nobody_else() -> None:
    server = Server(port=0)
    let_go = anyio.Event()

    @server.on("wait")
    async def wait(session: Session, payload: dict[str, Any]) -> None:
        await let_go.wait()

    server.on("echo")(lambda session, payload: payload)
    async with running(server) as at, connected(at.ws) as slow, connected(at.ws) as quick:
        await slow.send({"type": "wait", "ref": "1"}, {"type": "echo", "ref": "2"})
        told = await quick.ask({"type": "echo", "ref": "3"})
        let_go.set()
        answers = [await slow.receive(), await slow.receive()]

    assert told["ref"] == "3"
    assert [answer["ref"] for answer in answers] == ["1", "2"]


# ---- threads ------------------------------------------------------------------------------------


async def test_a_handler_in_a_thread_may_call_its_session_and_the_server() -> None:
    server = Server(port=0)
    threads: list[int] = []

    @server.on("work", thread=True)
    def work(session: Session, payload: dict[str, Any], message: AppMessage) -> None:
        threads.append(threading.get_ident())
        session.join("r")
        session.send_json("rooms", {"rooms": list(session.rooms), "members": len(server.members("r"))})
        server.broadcast_room_json("r", "note", payload)
        session.send_json("done", ref=message.ref)

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send({"type": "work", "ref": "1", "payload": {"n": 1}})
        told = [await peer.receive() for _ in range(3)]

    assert [message["type"] for message in told] == ["rooms", "note", "done"]
    assert told[0]["payload"] == {"rooms": ["r"], "members": 1}
    assert threads != [threading.get_ident()]


async def test_a_thread_of_ones_own_hops_through_anyio() -> None:
    server = Server(port=0)
    server.on_open(lambda session: session.join("r"))
    async with running(server) as at, connected(at.ws) as peer:
        await anyio.to_thread.run_sync(lambda: server.broadcast_room_json("r", "note", {"n": 1}, store=False))
        told = await peer.receive()

    assert told["payload"] == {"n": 1}


async def test_any_other_thread_is_refused() -> None:
    server = Server(port=0)
    failures: list[BaseException] = []

    def call(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as exc:
            failures.append(exc)

    async with running(server) as at, connected(at.ws) as peer:
        session = server.sessions()[0]
        for function in (lambda: session.send_text("x"), lambda: server.members("r"), lambda: session.join("r")):
            thread = threading.Thread(target=call, args=(function,))
            thread.start()
            await anyio.to_thread.run_sync(thread.join)
        session.send_text("still here")
        told = await peer.raw()

    assert told == "still here"
    assert [type(exc) for exc in failures] == [LocalError] * 3
    assert "thread=True" in str(failures[0])


async def test_a_blocking_handler_holds_up_nobody_else() -> None:
    server = Server(port=0)
    let_go = threading.Event()

    @server.on("block", thread=True)
    def block(session: Session, payload: dict[str, Any]) -> dict[str, bool]:
        return {"in time": let_go.wait(PATIENCE_S)}

    server.on("echo")(lambda session, payload: payload)
    async with running(server) as at, connected(at.ws) as slow, connected(at.ws) as quick:
        await slow.send({"type": "block", "ref": "1"})
        told = await quick.ask({"type": "echo", "ref": "2"})
        let_go.set()
        answer = await slow.receive()

    assert told["ref"] == "2"
    assert answer == {"type": "$ack", "ref": "1", "payload": {"in time": True}}


# ---- what is registered -------------------------------------------------------------------------


async def test_an_echo_needs_three_lines() -> None:
    server = Server(port=0)

    @server.on_message
    def echo(session: Session, message: str | bytes) -> None:
        if isinstance(message, str):
            session.send_text(message)
        else:
            session.send_binary(message)

    async with running(server) as at, connected(at.ws) as peer:
        await peer.send("not json", b"\x00\xff", '{"type":"$ping","ref":"1"}')
        told = [await peer.raw() for _ in range(3)]

    assert told == ["not json", b"\x00\xff", '{"type":"$ping","ref":"1"}']


async def test_each_route_has_its_own_handlers_and_subprotocols() -> None:
    server = Server(port=0)
    chat = server.route("/chat", ["chat.v2", "chat.v1"])
    server.on_open(lambda session: session.send_text(f"root {session.subprotocol}"))
    chat.on_open(lambda session: session.send_text(f"chat {session.subprotocol} {session.query}"))
    async with (
        running(server) as at,
        connected(at.ws) as plain,
        connected(f"{at.ws}chat?k=v", subprotocols=["chat.v1", "chat.v2"]) as newest,
    ):
        told = [await plain.raw(), await newest.raw()]
        agreed = getattr(newest.connection, "subprotocol")  # noqa: B009 - only the client of plain ws has it

    assert told == ["root None", "chat chat.v1 k=v"]
    assert agreed == "chat.v1"


async def test_on_open_may_look_at_the_request_and_refuse() -> None:
    server = Server(port=0)

    @server.on_open
    async def guard(session: Session) -> None:
        if dict(session.headers).get("x-key") != "right":
            raise Refused("expected the right key")
        session.data["name"] = "ada"
        session.send_json("hello", {"name": session.data["name"], "peer": session.peer.startswith("127.0.0.1:")})

    async with (
        running(server) as at,
        connected(at.ws) as stranger,
        connected(at.ws, additional_headers={"X-Key": "right"}) as friend,
    ):
        end = await stranger.ended()
        told = await friend.receive()

    assert end == (4003, "expected the right key")
    assert told["payload"] == {"name": "ada", "peer": True}


class Move(msgspec.Struct):
    x: int
    y: int = 0


async def moved(server: Server, peer: Peer) -> list[dict[str, Any]]:
    """The answers to a good and a bad move, each with a `ref`."""
    await peer.send(
        {"type": "move", "ref": "1", "payload": {"x": 2}},
        {"type": "move", "ref": "2", "payload": {"x": "two"}},
    )
    return [await peer.receive() for _ in range(2)]


async def test_a_payload_that_does_not_fit_is_answered_with_what_was_expected() -> None:
    server = Server(port=0)

    @server.on("move")
    def move(session: Session, payload: Move) -> Move:
        return payload

    async with running(server) as at, connected(at.ws) as peer:
        good, bad = await moved(server, peer)

    assert good == {"type": "$ack", "ref": "1", "payload": {"x": 2, "y": 0}}
    assert (bad["type"], bad["ref"], bad["payload"]["code"]) == ("$err", "2", "bad_message")
    assert "int" in bad["payload"]["msg"]


async def test_on_bad_payload_may_say_it_in_its_own_words() -> None:
    server = Server(port=0)

    @server.on("move")
    def move(session: Session, payload: Move) -> None: ...

    @server.on_bad_payload
    async def bad(session: Session, type: str, detail: str) -> None:
        session.send_json("sorry", {"for": type})

    async with running(server) as at, connected(at.ws) as peer:
        told = await peer.ask({"type": "move", "payload": {"x": "two"}})

    assert told == {"type": "sorry", "payload": {"for": "move"}}


async def test_a_guard_sees_a_publish_before_the_room_does() -> None:
    server = Server(port=0)
    server.on_open(lambda session: session.join("r"))

    @server.on_publish("note")
    async def guard(session: Session, payload: dict[str, Any]) -> dict[str, Any] | None:
        await anyio.lowlevel.checkpoint()
        if payload.get("bad"):
            raise Refused("no bad notes", "denied")
        return {**payload, "seen": True}

    async with running(server) as at, connected(at.ws) as peer:
        refused = await peer.ask({"type": "note", "room": "r", "ref": "1", "payload": {"bad": True}})
        await peer.send({"type": "note", "room": "r", "payload": {"n": 1}})
        told = await peer.receive()

    assert (refused["type"], refused["payload"]["code"]) == ("$err", "denied")
    assert told["payload"] == {"n": 1, "seen": True}
