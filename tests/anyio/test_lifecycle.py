"""Starting, stopping and embedding a server, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from vixws_anyio import Config, Listening, Server, Session
from vixws_core.effects import Effect
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import Input
from vixws_store import MemoryMessageStore, SqliteMessageStore

from .rig import PATIENCE_S, chat_server, chatting, connected, get, http, limited, raw_peer, running

pytestmark = pytest.mark.anyio


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


# ---- ends ---------------------------------------------------------------------------------------


async def test_stop_closes_each_client_and_ends_the_run() -> None:
    server = chat_server()
    async with anyio.create_task_group() as tasks:
        listening: Listening = await tasks.start(server.serve)
        async with chatting(listening.ws, 2) as peers:
            server.stop()
            server.stop()
            ends = [await peer.ended() for peer in peers]

    assert ends == [(1012, "the server shuts down")] * 2
    assert server.listening is None
    assert is_free(listening.port)


async def test_a_client_that_said_hello_hears_of_the_drain() -> None:
    server = chat_server()
    async with anyio.create_task_group() as tasks:
        listening: Listening = await tasks.start(server.serve)
        async with connected(listening.ws) as peer:
            await peer.receive()
            await peer.ask({"type": "$hello", "ref": "1", "payload": {"v": [1]}})
            server.stop()
            told = await peer.receive()
            code, _ = await peer.ended()

    assert told["type"] == "$drain"
    assert code == 4200


async def test_stop_now_waits_for_nobody() -> None:
    server = Server(limited(drain_s=600))
    entered = anyio.Event()

    @server.on("hang")
    async def hang(session: Session, payload: dict[str, Any]) -> None:
        entered.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        listening: Listening = await tasks.start(server.serve)
        async with connected(listening.ws) as peer:
            await peer.send({"type": "hang"})
            with anyio.fail_after(PATIENCE_S):
                await entered.wait()
            server.stop()
            server.stop(now=True)
            code, _ = await peer.ended()

    assert code == 1006


async def test_a_handler_that_hangs_holds_a_drain_up_until_its_end_only() -> None:
    server = Server(limited(drain_s=0.3))
    ended: list[str] = []

    @server.on("hang")
    async def hang(session: Session, payload: dict[str, Any]) -> None:
        server.stop()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("handler")

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            listening: Listening = await tasks.start(server.serve)
            async with connected(listening.ws) as peer:
                await peer.send({"type": "hang"})
                await peer.ended()

    assert ended == ["handler"]


async def test_stop_may_come_from_any_thread() -> None:
    server = Server(port=0)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            thread = threading.Thread(target=server.stop)
            thread.start()
    await anyio.to_thread.run_sync(thread.join)

    assert server.listening is None


async def test_stop_before_it_listens_is_not_forgotten() -> None:
    class SlowStore(MemoryMessageStore):
        @asynccontextmanager
        async def run(self, post: Any = None) -> AsyncGenerator[None]:
            opening.set()
            await opened.wait()
            async with super().run(post):
                yield

    opening, opened = anyio.Event(), anyio.Event()
    server = Server(port=0, store=SlowStore())
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            await opening.wait()
            await anyio.to_thread.run_sync(server.stop)
            opened.set()

    assert server.listening is None


async def test_stop_does_nothing_where_nothing_runs() -> None:
    server = Server(port=0)
    server.stop()
    server.stop(now=True)
    async with running(server) as at:
        status, _, _ = await http(at.port, get("/healthz"))

    assert status == 200


async def test_every_session_hears_of_its_end() -> None:
    ends: list[int | None] = []
    server = Server(port=0)
    server.on_close(lambda session: ends.append(session.close_code))
    async with running(server) as at, connected(at.ws) as first, connected(at.ws) as second:
        server.stop(now=True)
        await first.ended()
        await second.ended()

    assert ends == [1006, 1006]


async def test_on_close_may_wait_during_a_drain() -> None:
    ends: list[int | None] = []
    server = Server(port=0)

    @server.on_close
    async def closed(session: Session) -> None:
        await anyio.lowlevel.checkpoint()
        ends.append(session.close_code)

    async with anyio.create_task_group() as tasks:
        listening: Listening = await tasks.start(server.serve)
        async with connected(listening.ws) as peer:
            server.stop()
            await peer.ended()

    assert ends == [1012]


async def test_a_session_outlives_its_server_and_then_does_nothing() -> None:
    kept: list[Session] = []
    server = Server(port=0)
    server.on_open(kept.append)
    async with running(server) as at, connected(at.ws):
        pass
    session = kept[0]
    session.join("r")
    session.close()
    outcomes: list[object] = []
    session.publish("r", "note", {}, done=outcomes.append)

    assert session.send_text("late") is False
    assert session.rooms == ()
    assert [type(outcome).__name__ for outcome in outcomes] == ["PublishFailed"]


async def test_calls_of_a_server_that_does_not_serve_say_so() -> None:
    server = Server(port=0)

    with pytest.raises(LocalError, match="does not serve"):
        server.broadcast_json("news")
    with pytest.raises(LocalError, match="does not serve"):
        _ = server.ws


async def test_a_publish_that_waits_when_the_run_ends_fails() -> None:
    class SilentStore(MemoryMessageStore):
        @property
        def consumer(self) -> Any:
            return self

        def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None: ...

    failures: list[StoreError] = []
    server = Server(limited(drain_s=0.1), store=SilentStore())

    async def publish() -> None:
        try:
            await server.publish("r", "note", {})
        except StoreError as exc:
            failures.append(exc)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            tasks.start_soon(publish)
            await anyio.wait_all_tasks_blocked()
            server.stop()

    assert [(exc.code, str(exc)) for exc in failures] == [("store_unavailable", "the server stopped")]


# ---- embedding ----------------------------------------------------------------------------------


async def test_cancelling_its_scope_ends_it() -> None:
    server = chat_server()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            listening: Listening = await tasks.start(server.serve)
            async with chatting(listening.ws, 2) as peers:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    ends = [await peer.ended() for peer in peers]

    assert [code for code, _ in ends] == [1006, 1006]
    assert is_free(listening.port)


async def test_an_asyncio_task_group_and_a_trio_nursery_embed_it(anyio_backend_name: str) -> None:
    server = chat_server()
    ready: list[Listening] = []
    heard = anyio.Event()

    def announce(at: Listening) -> None:
        ready.append(at)
        heard.set()

    async def visit() -> None:
        async with connected(ready[0].ws) as peer:
            await peer.receive()

    if anyio_backend_name == "asyncio":
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.serve(ready=announce))
            await asyncio.wait_for(heard.wait(), PATIENCE_S)
            await visit()
            task.cancel()
        assert task.cancelled()
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(server.serve, ready=announce))
            with trio.fail_after(PATIENCE_S):
                await heard.wait()
            await visit()
            nursery.cancel_scope.cancel()

    assert server.listening is None
    assert is_free(ready[0].port)


async def test_two_servers_share_a_loop() -> None:
    first, second = chat_server(), chat_server()
    async with (
        running(first) as one,
        running(second) as two,
        chatting(one.ws, 1) as (here,),
        chatting(two.ws, 1) as (there,),
    ):
        said = {"type": "chat.message", "payload": {"room": "africa", "user": "a", "text": "here"}}
        await here.send(said)
        first_told = await here.receive()
        await there.send({**said, "payload": {**said["payload"], "text": "there"}})  # type: ignore[dict-item]
        second_told = await there.receive()

    assert (first_told["payload"]["text"], second_told["payload"]["text"]) == ("here", "there")


async def test_it_serves_once_at_a_time() -> None:
    server = Server(port=0)
    async with running(server):
        with pytest.raises(LocalError, match="one run at a time"):
            await server.serve()


async def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Server(port=port).serve()


async def test_a_host_whose_port_is_half_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"cannot listen on localhost:{port}"):
            await Server(host="localhost", port=port).serve()


async def test_a_host_that_is_none_is_one_line() -> None:
    with pytest.raises(LocalError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        await Server(host="no.such.host.invalid", port=0).serve()


async def test_a_metrics_port_in_use_is_told_and_the_first_port_let_go() -> None:
    class Metrics:
        def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None: ...

        def render(self, accept: str) -> tuple[str, bytes]:
            return "text/plain", b""

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(limited(metrics_listen=f"127.0.0.1:{port}"), metrics=Metrics())
        with pytest.raises(LocalError, match=f"cannot listen on 127.0.0.1:{port}"):
            await server.serve()


async def test_what_fails_inside_the_run_comes_out_plain() -> None:
    def broken(listening: Listening) -> None:
        raise ValueError("nobody is ready")

    server = Server(port=0)
    with pytest.raises(ValueError, match="nobody is ready"):
        await server.serve(ready=broken)
    async with running(server) as at:
        status, _, _ = await http(at.port, get("/healthz"))
    assert status == 200


async def test_a_store_that_cannot_open_comes_out_plain(tmp_path: Any) -> None:
    from vixws_core.errors import StoreError

    with pytest.raises(StoreError):
        await Server(port=0, store=SqliteMessageStore(tmp_path / "no folder" / "chat.db")).serve()


# ---- loops of its own ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_listen_blocking_serves_in_a_thread_until_stop(backend: str) -> None:
    server = Server(port=0)
    heard = threading.Event()
    failures: list[Exception] = []

    def serve() -> None:
        try:
            server.listen_blocking(backend, ready=lambda at: heard.set())
        except Exception as exc:
            failures.append(exc)
            heard.set()

    thread = threading.Thread(target=serve)
    thread.start()
    assert heard.wait(PATIENCE_S), "the server did not start"
    server.stop()
    thread.join(PATIENCE_S)

    assert failures == []
    assert not thread.is_alive()


@pytest.mark.parametrize(("backend", "uvloop"), [("twisted", False), ("trio", True)])
def test_listen_blocking_refuses_a_loop_it_does_not_know(backend: str, uvloop: bool) -> None:
    with pytest.raises(LocalError, match="backend must be asyncio or trio"):
        Server(port=0).listen_blocking(backend, uvloop=uvloop)


# ---- the face of a server -----------------------------------------------------------------------


async def test_it_says_where_it_can_be_reached() -> None:
    server = Server(Config(port=0, host="127.0.0.1"))
    before = server.port
    async with running(server) as at:
        seen = (server.ws, server.http, server.port, at.metrics)

    assert before == 0
    assert seen == (f"ws://127.0.0.1:{at.port}/", f"http://127.0.0.1:{at.port}/", at.port, None)


async def test_a_wildcard_is_named_by_the_address_that_reaches_it() -> None:
    async with running(Server(limited(host="0.0.0.0", access="open"))) as at, connected(at.ws):
        pass

    assert at.ws.startswith("ws://127.0.0.1:")


async def test_members_rooms_and_sessions_are_seen_from_outside() -> None:
    server = chat_server()
    async with running(server) as at, chatting(at.ws, 2), chatting(at.ws, 1, "asia"):
        seen = (len(server.sessions()), server.rooms(), len(server.members("africa")))
        server.leave_all_rooms(server.members("asia")[0])
        after = server.rooms()

    assert seen == (3, ["africa", "asia"], 2)
    assert after == ["africa"]


async def test_the_servers_own_publishes_and_history() -> None:
    server = chat_server()
    async with running(server) as at, chatting(at.ws, 1) as (peer,):
        published = await server.publish("africa", "note", {"n": 1})
        told = await peer.receive()
        server.broadcast_json("news", {"n": 2})
        news = await peer.receive()
        rows = await server.history("africa")
        server.join_room(server.sessions()[0], "asia")
        server.leave_room(server.sessions()[0], "asia")

    assert (published.off, told["id"]) == (1, published.id)
    assert news == {"type": "news", "payload": {"n": 2}}
    assert [row.id for row in rows] == [published.id]


async def test_a_history_that_the_store_cannot_give_raises() -> None:
    server = chat_server()
    async with running(server):
        with pytest.raises(StoreError, match="20 digits"):
            await server.history("africa", before_id="x")


@pytest.mark.parametrize("path", ["", "chat", "/a?b", "/a#b"])
def test_a_route_must_be_a_path(path: str) -> None:
    with pytest.raises(LocalError, match="path must begin with '/'"):
        Server().route(path)


def test_a_route_is_opened_once() -> None:
    server = Server()
    server.route("/a")
    with pytest.raises(LocalError, match="has handlers already"):
        server.route("/a")
    assert server.route("/", ["chat"]) is server
    with pytest.raises(LocalError, match="has handlers already"):
        server.route("/")


async def test_a_request_in_the_middle_of_its_head_does_not_hold_a_stop_up() -> None:
    server = Server(limited(drain_s=60))
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            listening: Listening = await tasks.start(server.serve)
            async with raw_peer(listening.port, open=False) as peer:
                await peer.stream.send(b"GET / HT")
                await http(listening.port, get("/healthz"))  # What came before is read by now.
                server.stop()
                rest = await peer.rest()

    assert rest.startswith(b"HTTP/1.1 503 ")


def test_listen_blocking_says_where_it_listens(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(port=0)

    thread = threading.Thread(target=server.listen_blocking)
    thread.start()
    said = ""
    for _ in range(1000):
        said += capsys.readouterr().err
        if said.endswith("\n"):
            break
        time.sleep(0.01)
    server.stop(now=True)
    thread.join(timeout=20)

    assert not thread.is_alive()
    assert re.fullmatch(r"vixws: listening on ws://127\.0\.0\.1:\d+/ and http://\S+ \(Ctrl-C stops\)\n", said)
