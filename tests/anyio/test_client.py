"""The client, against the real server and against somebody else's, on every loop."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import pytest
import trustme

from vixws_anyio import Server, Session
from vixws_anyio.client import Client, ClientEnded, JoinError, PublishError, RequestError
from vixws_core.client import ClientConfig, ClientMessage, ClientState, RoomJoined, RoomLeft, RoomLive
from vixws_core.config import HubConfig
from vixws_core.errors import LocalError
from vixws_core.inputs import Since

pytestmark = pytest.mark.anyio

QUICK = ClientConfig(reconnect_first_s=0.01, backoff_min_s=0.01, backoff_max_s=0.05)
HUB = HubConfig(reconnect_first_s=0.01, handshakes_per_s=100_000.0, drain_s=0.2, unstored_rooms=("loud*",))
PATIENCE_S = 20.0


class Chat(msgspec.Struct):
    text: str
    n: int = 0


def chat_server(config: HubConfig = HUB, **options: Any) -> Server:
    """A server that echoes, and closes or kicks where it is asked to."""
    server = Server(config, host="127.0.0.1", port=options.pop("port", 0), **options)

    @server.on_open
    def greet(session: Session) -> None:
        session.send_json("greeting", {"text": "hello"})

    @server.on("echo")
    def echo(session: Session, payload: dict[str, Any]) -> None:
        session.send_json("echoed", payload)

    @server.on("close")
    def close(session: Session, payload: dict[str, Any]) -> None:
        session.close(payload["code"], "as you wish")

    @server.on_message
    def raw(session: Session, data: str | bytes) -> None:
        if isinstance(data, bytes):
            session.send_binary(data[::-1])

    return server


@asynccontextmanager
async def running(server: Server) -> AsyncGenerator[str, None]:
    """Serves; yields the URL."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            listening = await tasks.start(server.serve)
            yield listening.ws
            server.stop(now=True)


async def test_typed_messages_reach_their_handlers_in_order() -> None:
    seen: list[Any] = []
    done = anyio.Event()
    async with running(chat_server()) as url:
        client = Client(url)

        @client.on_open
        def opened(client: Client) -> None:
            seen.append(("open", client.state))

        @client.on("echoed")
        async def echoed(client: Client, payload: Chat, message: ClientMessage) -> None:
            await anyio.lowlevel.checkpoint()
            seen.append((payload, message.type))
            if payload.n == 2:
                done.set()

        @client.on_typed_message
        def typed(client: Client, type: str, payload: dict[str, Any]) -> None:
            seen.append((type, payload))

        @client.on_close
        def closed(client: Client) -> None:
            seen.append(("close", client.close_code))

        async with client:
            await client.send("echo", {"text": "a", "n": 1})
            await client.send("echo", Chat("b", 2))
            await done.wait()

    assert seen == [
        ("open", ClientState.OPEN),
        ("greeting", {"text": "hello"}),
        (Chat("a", 1), "echoed"),
        (Chat("b", 2), "echoed"),
        ("close", 1000),
    ]


async def test_raw_messages_blocking_handlers_and_bad_payloads(caplog: pytest.LogCaptureFixture) -> None:
    raw: list[str | bytes] = []
    threads: list[str] = []
    bad: list[str] = []
    done = anyio.Event()
    async with running(chat_server()) as url:
        client = Client(url)

        @client.on_message
        def message(client: Client, data: str | bytes) -> None:
            raw.append(data)
            if data == b"321":
                done.set()

        @client.on("greeting", thread=True)
        def greeting(client: Client, payload: dict[str, Any]) -> None:
            threads.append(anyio.from_thread.run_sync(lambda: payload["text"]))

        @client.on("echoed")
        def echoed(client: Client, payload: Chat) -> None:
            raise AssertionError("a bad payload must not arrive")

        async with client:
            await client.send("echo", {"n": "x"})
            await client.send_text('{"type":"echo","payload":{}}')
            await client.send_binary(b"123")
            await done.wait()
            assert "bad payload" in caplog.text

        @client.on_bad_payload
        def on_bad(client: Client, type: str, detail: str) -> None:
            bad.append(f"{type}: {detail}")
            done.set()

        done = anyio.Event()
        async with client:
            await client.send("echo", {"n": 1})
            await done.wait()

    assert raw[:2] == ['{"type":"greeting","payload":{"text":"hello"}}', '{"type":"echoed","payload":{"n":"x"}}']
    assert threads == ["hello", "hello"]
    assert bad == ["echoed: Object missing required field `text`"]


async def test_a_publish_waits_for_its_place_and_repeats_are_dups() -> None:
    async with running(chat_server()) as url, Client(url) as client:
        first = await client.publish("africa", "chat", {"text": "x"}, mid="k")
        again = await client.publish("africa", "chat", {"text": "x"}, mid="k")
        loud = await client.publish("loud", "chat", ["text", "flat"])
        with pytest.raises(PublishError) as conflict:
            await client.publish("africa", "chat", {"text": "y"}, mid="k")
        with pytest.raises(PublishError) as large:
            await client.publish("africa", "chat", {"text": "y" * 70_000})
        with pytest.raises(LocalError):
            await client.publish("", "chat")
        with pytest.raises(LocalError, match="the server takes 65536"):
            await client.send("echo", {"text": "y" * 70_000})

    assert (first.off, first.dup, again.off, again.id, again.dup) == (1, False, 1, first.id, True)
    assert (loud.off, loud.id) == (0, "")
    assert (conflict.value.code, large.value.code) == ("mid_conflict", "too_large")


async def test_a_room_is_iterated_from_its_history_into_its_present() -> None:
    async with running(chat_server()) as url, Client(url) as client:
        for n in range(5):
            await client.publish("africa", "chat", {"n": n}, kind="note")
        room = client.room("africa", last=3)
        seen: list[Any] = []
        async for message in room:
            seen.append((message.off, message.payload["n"], message.kind, message.room, message.type))
            if message.off == 5:
                break
        before = client.positions["africa"]
        await client.publish("africa", "chat", {"n": 5})
        async with client.room("africa") as again:
            assert again is room
            async for message in again:
                seen.append(message.off)
                assert client.positions["africa"][1] == 5
                await client.leave("africa")
        assert client.positions == {}

    assert seen == [(n + 1, n, "note", "africa", "chat") for n in (2, 3, 4)] + [6]
    assert before[1] == 4
    assert room.live and room.joined is not None and room.joined.off == 2


async def test_history_and_position_are_asked() -> None:
    async with running(chat_server()) as url, Client(url) as client:
        for n in range(5):
            await client.publish("africa", "chat", {"n": n})
        newest = await client.history("africa", limit=2)
        older = await client.history("africa", before=3)
        newer = await client.history("africa", after=3)
        place = await client.position("africa")
        with pytest.raises(RequestError) as refused:
            await client.history("loud")

    assert [[row.off for row in page.messages] for page in (newest, older, newer)] == [[5, 4], [2, 1], [4, 5]]
    assert (newest.more, older.more, newer.more) == (True, False, False)
    assert newest.messages[0].payload == {"n": 4}
    assert (place.head, place.floor, place.id) == (5, 0, newest.messages[0].id)
    assert refused.value.code == "unknown_room"


async def test_joined_rooms_tell_their_handlers_and_can_begin_anywhere() -> None:
    events: list[Any] = []
    got: list[int] = []
    done = anyio.Event()
    async with running(chat_server()) as url:
        client = Client(url, rooms=["first"])

        @client.on_room
        def room(client: Client, event: Any) -> None:
            events.append((type(event), event.room))

        @client.on("chat")
        def chat(client: Client, payload: dict[str, Any], message: ClientMessage) -> None:
            got.append(message.off)
            if len(got) == 4:
                done.set()

        async with client:
            places = [await client.publish("africa", "chat", {"n": n}) for n in range(4)]
            joined = await client.join("africa", since=(places[0].ep, 1, places[0].id))
            assert (joined.recovered, joined.off, joined.head) == (True, 1, 4)
            with pytest.raises(LocalError, match="joined already"):
                await client.join("africa")
            await client.publish("first", "chat", {})
            await done.wait()
            await client.leave("africa")
            await client.leave("africa")
            fork = await client.join("africa", since={"ep": places[0].ep, "off": 2, "id": places[0].id})
            assert (fork.recovered, fork.reason) == (False, "fork")
            for bad in ({"off": 1}, (1, 2), ("e", "1", None)):
                with pytest.raises(LocalError, match="since must"):
                    await client.join("other", since=bad)  # type: ignore[arg-type]
            await client.join("other", since=Since("e", 1))

    assert sorted(got) == [1, 2, 3, 4]
    assert (RoomJoined, "first") in events
    assert (
        events.index((RoomJoined, "africa")) < events.index((RoomLive, "africa")) < events.index((RoomLeft, "africa"))
    )


async def test_a_refused_join_is_an_error() -> None:
    async with running(chat_server(HubConfig(rooms_max=1))) as url, Client(url) as client:
        await client.join("a")
        with pytest.raises(JoinError) as refused:
            await client.join("b")
        with pytest.raises(JoinError):
            async for _ in client.room("c"):
                raise AssertionError("a refused room has no messages")

    assert refused.value.code == "too_many_rooms"


async def test_rooms_and_publishes_survive_lost_connections(caplog: pytest.LogCaptureFixture) -> None:
    total = 60
    async with running(chat_server()) as url, Client(url, config=QUICK) as reader, Client(url, config=QUICK) as writer:
        seen: list[int] = []

        async def read() -> None:
            async for message in reader.room("africa"):
                seen.append(message.payload["n"])
                if len(seen) % 20 == 0:
                    await reader.send("close", {"code": 4108})
                if len(seen) == total:
                    return

        async with anyio.create_task_group() as tasks:
            await reader.join("africa")
            tasks.start_soon(read)
            for n in range(total):
                if n % 15 == 14:
                    await writer.send("close", {"code": 1001})
                await writer.publish("africa", "chat", {"n": n})

    assert seen == list(range(total))
    assert "again in" in caplog.text
    assert reader.machine.duplicates_dropped == 0


async def test_a_slow_loop_costs_bounded_memory_and_loses_nothing() -> None:
    config = ClientConfig(room_unhandled_max=8)
    total = 200
    async with running(chat_server()) as url, Client(url, config=config) as reader, Client(url) as writer:
        await reader.join("africa")
        room = reader.room("africa")
        seen: list[int] = []
        async with anyio.create_task_group() as tasks:
            for n in range(total):
                tasks.start_soon(writer.publish, "africa", "chat", {"n": n})
            async for message in room:
                seen.append(message.off)
                assert len(room._messages) <= 8
                # An answer is read although messages wait.
                await reader.publish("other", "chat", {})
                if len(seen) == total:
                    break

    assert seen == list(range(1, total + 1))


async def test_a_handlers_exception_leaves_the_client_and_its_position() -> None:
    async with running(chat_server()) as url:
        client = Client(url)

        @client.on("chat")
        async def chat(client: Client, payload: dict[str, Any]) -> None:
            if payload["n"] == 2:
                raise ZeroDivisionError("in a handler")

        async with Client(url) as writer:
            with pytest.raises(ZeroDivisionError, match="in a handler"):
                async with client:
                    await client.join("africa")
                    for n in range(4):
                        await writer.publish("africa", "chat", {"n": n})
                    await anyio.sleep_forever()
            position = client.positions["africa"]
            assert position[1] == 2
            assert client.close_code == 1011
            with pytest.raises(ClientEnded):
                await client.send("echo")

            async with client:
                again: list[int] = []
                async for message in client.room("africa", since=position):
                    again.append(message.payload["n"])
                    if len(again) == 2:
                        break

    assert again == [2, 3]


async def test_on_error_hears_of_exceptions_and_the_client_goes_on() -> None:
    heard: list[str] = []
    done = anyio.Event()
    async with running(chat_server()) as url:
        client = Client(url)

        @client.on("echoed")
        def echoed(client: Client, payload: dict[str, Any]) -> None:
            raise ValueError(payload["n"])

        @client.on_error
        async def failed(client: Client, exc: Exception) -> None:
            heard.append(repr(exc))
            if len(heard) == 2:
                done.set()

        async with client:
            await client.send("echo", {"n": 1})
            await client.send("echo", {"n": 2})
            await done.wait()

        @client.on("greeting")
        def greeting(client: Client, payload: dict[str, Any]) -> None:
            raise KeyError("first")

        async def worse(client: Client, exc: Exception) -> None:
            raise LookupError("second") from exc

        client._router.failed = None
        client.on_error(worse)
        with pytest.raises(LookupError, match="second"):
            async with client:
                await anyio.sleep_forever()

    assert heard == ["ValueError(1)", "ValueError(2)"]


async def test_exceptions_and_cancellation_of_the_body_pass_as_they_are() -> None:
    async with running(chat_server()) as url:
        with pytest.raises(RuntimeError, match="mine"):
            async with Client(url) as client:
                await client.wait_open()
                raise RuntimeError("mine")
        assert client.close_code == 1000
        with anyio.move_on_after(0.05) as scope:
            async with Client(url):
                await anyio.sleep_forever()

    assert scope.cancelled_caught


async def test_a_server_that_stops_the_client_ends_its_calls() -> None:
    ended: list[ClientEnded] = []
    async with running(chat_server()) as url, Client(url) as client:
        await client.join("africa")

        async def read() -> None:
            try:
                async for _ in client.room("africa"):
                    raise AssertionError("nobody publishes")
            except ClientEnded as exc:
                ended.append(exc)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await client.send("close", {"code": 4003})
            await client.wait_closed()
        for call in (
            client.wait_open(),
            client.send("x"),
            client.publish("r", "t"),
            client.join("r"),
            client.position("r"),
        ):
            with pytest.raises(ClientEnded, match="4003: as you wish"):
                await call
        with pytest.raises(ClientEnded):
            client.room("r")
        await client.leave("africa")
        await client.close()

    assert [exc.code for exc in ended] == [4003]


async def test_calls_that_wait_are_answered_when_the_client_ends() -> None:
    outcomes: list[str] = []

    async def call(function: Any, *args: Any) -> None:
        try:
            await function(*args)
        except (PublishError, RequestError, ClientEnded) as exc:
            outcomes.append(str(exc))

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = Client(f"ws://127.0.0.1:{closed.getsockname()[1]}/", config=QUICK)
        async with client, anyio.create_task_group() as tasks:
            tasks.start_soon(call, client.publish, "r", "t")
            tasks.start_soon(call, client.position, "r")
            tasks.start_soon(call, client.join, "r")
            tasks.start_soon(call, client.send, "t")
            await anyio.wait_all_tasks_blocked()
            await client.close()

    assert sorted(outcomes) == [
        "closed: the client stopped",
        "closed: the client stopped before the answer: it may or may not have been stored",
        "the client has ended with 1000",
        "the client has ended with 1000",
    ]


async def test_cancelled_calls_leave_nothing_waiting() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with Client(f"ws://127.0.0.1:{closed.getsockname()[1]}/", config=QUICK) as client:
            for call in (client.publish, client.join, client.position):
                with anyio.move_on_after(0.01) as scope:
                    await call(*(("r", "t") if call == client.publish else ("r",)))
                assert scope.cancelled_caught

            assert client.machine.publishes_pending == 1
            assert client.machine.rooms == ()
            assert not client.machine._outbox._items.keys() - {"~p1"}


async def test_a_client_waits_for_a_server_that_comes_later() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    async with Client(f"ws://127.0.0.1:{port}/", config=QUICK) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.wait_open()
        assert scope.cancelled_caught
        async with running(chat_server(port=port)):
            await client.wait_open()
            place = await client.publish("africa", "chat", {})
        assert place.off == 1


async def test_a_server_that_says_no_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(chat_server()) as url, Client(url + "nowhere", config=QUICK) as client:
        with anyio.fail_after(PATIENCE_S):
            while "404" not in caplog.text:
                await anyio.sleep(0.01)
        assert client.state is not ClientState.OPEN


async def test_misuse_is_a_local_error(tmp_path: Path) -> None:
    async with running(chat_server()) as url:
        client = Client(url)
        with pytest.raises(LocalError, match="async with"):
            await client.send("x")
        with pytest.raises(LocalError, match="async with"):
            client.room("x")
        async with client:
            with pytest.raises(LocalError, match="runs already"):
                async with client:
                    raise AssertionError("entered twice")
            with pytest.raises(LocalError):
                await client.send_text("\ud800")
            with pytest.raises(LocalError):
                await client.send("x", 5)
        client.on_room(lambda client, event: None)
        with pytest.raises(LocalError, match="one handler"):
            client.on_room(lambda client, event: None)
        with pytest.raises(LocalError):
            Client("http://x/")
        with pytest.raises(LocalError, match=r"nothing\.pem"):
            Client("wss://x/", cafile=str(tmp_path / "nothing.pem"))


async def test_errors_for_plain_sends_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    answered = anyio.Event()
    async with running(chat_server()) as url:
        client = Client(url)
        client.on("echoed")(lambda client, payload: answered.set())
        async with client:
            before = client.refused
            await client.send_text("no json")
            await client.send("echo", {})
            await answered.wait()

    assert before is None
    assert client.refused is not None
    assert (client.refused.code, client.refused.ref) == ("bad_json", None)
    assert "the server refused a message: bad_json" in caplog.text


async def test_tls_is_checked_against_the_given_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    cafile = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(cafile))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    async with running(chat_server(tls=tls)) as url:
        assert url.startswith("wss://")
        async with Client(url, cafile=str(cafile)) as client:
            assert (await client.publish("africa", "chat", {})).off == 1
        stranger = ssl.create_default_context()
        suspicious = Client(url, ssl_context=stranger, config=QUICK)
        refused = anyio.Event()
        suspicious.on_close(lambda client: refused.set())
        async with suspicious:
            await refused.wait()
            assert suspicious.close_reason.startswith("TLS with 127.0.0.1:")


async def test_without_hello_a_plain_websocket_server_is_spoken_to() -> None:
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request, TextMessage

    async def serve(stream: anyio.abc.SocketStream) -> None:
        """Echoes, as any server of another library would; the first connection is cut at the word "cut"."""
        async with stream:
            ws = WSConnection(ConnectionType.SERVER)
            while True:
                try:
                    ws.receive_data(await stream.receive())
                except anyio.EndOfStream:
                    return
                for event in ws.events():
                    if isinstance(event, Request):
                        await stream.send(ws.send(AcceptConnection(subprotocol="v2")))
                    elif isinstance(event, TextMessage):
                        if event.data == "cut":
                            return
                        await stream.send(ws.send(TextMessage(event.data.upper())))
                    elif isinstance(event, BytesMessage):
                        await stream.send(ws.send(BytesMessage(bytes(event.data))))
                    elif isinstance(event, CloseConnection):
                        await stream.send(ws.send(event.response()))
                        return

    seen: list[str | bytes] = []
    progress = [anyio.Event(), anyio.Event()]
    cut = anyio.Event()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(PATIENCE_S):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            client = Client(f"ws://127.0.0.1:{port}/", hello=False, config=QUICK, subprotocols=["v1", "v2"])

            client.on_close(lambda client: cut.set())

            @client.on_message
            def message(client: Client, data: str | bytes) -> None:
                seen.append(data)
                if isinstance(data, bytes):
                    progress[len(data) - 1].set()

            async with client:
                await client.send_text("hi")
                await client.send_binary(b"1")
                await progress[0].wait()
                await client.send_text("cut")
                await cut.wait()
                await client.send_text("back")
                await client.send_binary(b"22")
                await progress[1].wait()
                assert client.welcome is not None
                assert (client.welcome.reconnect, client.welcome.subprotocol) == (True, "v2")
            tasks.cancel_scope.cancel()

    assert seen == ["HI", b"1", "BACK", b"22"]
