"""Bytes on their way: plain sockets, TLS and streams of any kind; cut, early, slow, half closed."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
import trustme
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.streams.tls import TLSStream

from vixws_anyio import Server, Session
from vixws_core.errors import LocalError
from vixws_core.wire.frames import encode_close
from vixws_store import SqliteMessageStore

from .rig import (
    MASK,
    PATIENCE_S,
    RawPeer,
    chat_server,
    connected,
    frame,
    get,
    http,
    limited,
    raw_peer,
    request,
    running,
)

pytestmark = pytest.mark.anyio


def echo_server(**options: Any) -> Server:
    server = Server(options.pop("config", None), port=0, **options)
    server.on_message(lambda session, message: session.send_text(message))
    return server


class MemoryStream(anyio.abc.ByteStream):
    """A byte stream in memory, one end of two."""

    def __init__(
        self, receiving: MemoryObjectReceiveStream[bytes], sending: MemoryObjectSendStream[bytes], most: int
    ) -> None:
        self._receiving = receiving
        self._sending = sending
        self._most = most
        self._left = b""

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data = self._left or await self._receiving.receive()
        size = min(max_bytes, self._most)
        self._left = data[size:]
        return data[:size]

    async def send(self, item: bytes) -> None:
        await self._sending.send(item)

    async def send_eof(self) -> None:
        await self._sending.aclose()

    async def aclose(self) -> None:
        await self._sending.aclose()
        await self._receiving.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Any]:
        return {}


def memory_pair(most: int = 65_536) -> tuple[MemoryStream, MemoryStream]:
    """Both ends; the first one receives at most so many bytes at once."""
    up_send, up_receive = anyio.create_memory_object_stream[bytes](0)
    down_send, down_receive = anyio.create_memory_object_stream[bytes](0)
    return MemoryStream(up_receive, down_send, most), MemoryStream(down_receive, up_send, 65_536)


# ---- plain sockets ------------------------------------------------------------------------------


async def test_frames_in_the_same_read_as_the_request_are_answered() -> None:
    async with running(echo_server()) as at, raw_peer(at.port, open=False) as peer:
        await peer.open(also=frame("early") + frame("and earlier")[:3])
        first = await peer.next()
        await peer.stream.send(frame("and earlier")[3:])
        second = await peer.next()

    assert (first, second) == ("early", "and earlier")


async def test_a_request_byte_by_byte_is_a_request() -> None:
    data = request() + frame("hello")
    async with running(echo_server()) as at, raw_peer(at.port, open=False) as peer:
        for byte in data:
            await peer.stream.send(bytes((byte,)))
        got = b""
        while not got.endswith(b"hello"):
            got += await peer.stream.receive()

    assert got.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
async def test_messages_of_every_length_come_back(size: int) -> None:
    async with running(echo_server()) as at, connected(at.ws) as peer:
        await peer.send("é" * (size // 2) + "x" * (size % 2))
        told = await peer.raw()

    assert isinstance(told, str)
    assert len(told.encode()) == size


async def test_what_the_kernel_does_not_take_at_once_is_written_later_and_in_order() -> None:
    server = Server(limited(send_buffer_bytes=4096, unsent_bytes_high=1 << 26))
    count, size = 40, 50_000

    @server.on_message
    def burst(session: Session, message: str | bytes) -> None:
        for number in range(count):
            assert session.send_text(f"{number:04d}" + "x" * size)
            assert session.send_text(f"small {number}")

    async with running(server) as at, raw_peer(at.port, receive_buffer=4096) as peer:
        await peer.stream.send(frame("go"))
        told = [await peer.next() for _ in range(2 * count)]

    assert [str(text)[:4] for text in told[::2]] == [f"{number:04d}" for number in range(count)]
    assert told[1::2] == [f"small {number}" for number in range(count)]
    assert all(len(str(text)) == size + 4 for text in told[::2])


@pytest.mark.threat(13)
async def test_row_13_a_slow_reader_of_a_stored_room_hurts_nobody_and_loses_nothing(tmp_path: Path) -> None:
    config = limited(send_buffer_bytes=8192, unsent_bytes_low=32_768, unsent_bytes_high=65_536, page_bytes_max=32_768)
    server = Server(config, store=SqliteMessageStore(tmp_path / "chat.db", synchronous="NORMAL"))
    server.on_open(lambda session: session.join("r"))
    count = 400
    async with (
        running(server) as at,
        raw_peer(at.port, receive_buffer=4096) as slow,
        raw_peer(at.port) as quick,
    ):
        hub = server._running().hub
        for number in range(count):
            await server.publish("r", "note", {"n": number, "text": "x" * 3000})
        seen_by_quick = [(await quick.receive())["off"] for _ in range(count)]
        held = hub.unsent_bytes
        refused = server.sessions()[0].send_text("a directed send")
        seen_by_slow = [(await slow.receive())["off"] for _ in range(count)]

    assert seen_by_quick == list(range(1, count + 1))
    assert seen_by_slow == list(range(1, count + 1))
    assert held < 200_000
    assert refused is False


async def test_a_peer_that_closes_its_half_still_gets_what_was_asked_before() -> None:
    async with running(echo_server()) as at, raw_peer(at.port, open=False) as peer:
        await peer.stream.send(get("/healthz").encode())
        await peer.stream.send_eof()
        answer = await peer.rest()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"ok\n")


async def test_a_peer_that_closes_its_half_behind_a_close_frame_gets_the_reply() -> None:
    async with running(echo_server()) as at, raw_peer(at.port) as peer:
        await peer.stream.send(frame("last words") + encode_close(1000, "", MASK))
        await peer.stream.send_eof()
        told = await peer.next()
        code = await peer.ended()

    assert (told, code) == ("last words", 1000)


async def test_a_peer_that_vanishes_is_gone() -> None:
    ended = anyio.Event()
    server = Server(port=0)

    @server.on_close
    def closed(session: Session) -> None:
        codes.append(session.close_code)
        ended.set()

    codes: list[int | None] = []
    async with running(server) as at:
        async with raw_peer(at.port) as peer:
            sock = peer.stream.extra(anyio.abc.SocketAttribute.raw_socket)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await ended.wait()
        left = server._running().hub.connections

    assert codes == [1006]
    assert left == 0


async def test_a_peer_that_is_reset_while_its_messages_wait_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read, so nothing else would tell: its handler is to learn of it, and its place is another's."""
    monkeypatch.setattr("vixws_anyio.transport.socket.LOOK_S", 0.02)
    server, over, busy = Server(port=0), anyio.Event(), anyio.Event()

    @server.on_message
    async def wait(session: Session, message: str | bytes) -> None:
        busy.set()
        await session.wait_closed()
        states.append(session.is_open)
        over.set()

    states: list[bool] = []
    async with running(server) as at:
        async with raw_peer(at.port) as peer:
            await peer.stream.send(frame("x") * 500)
            await busy.wait()
            await anyio.sleep(0.1)
            sock = peer.stream.extra(anyio.abc.SocketAttribute.raw_socket)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        with anyio.fail_after(PATIENCE_S):
            await over.wait()

    assert set(states) == {False}, "each message that waited meets the same end"


async def test_the_server_reads_on_behind_its_close_so_that_the_peer_gets_it() -> None:
    server = Server(port=0)
    server.on_message(lambda session, message: session.close(4000, "enough"))
    async with running(server) as at, raw_peer(at.port) as peer:
        await peer.stream.send(frame("x") * 2000)
        code = await peer.ended()
        await peer.stream.send(encode_close(4000, "", MASK))
        rest = await peer.rest()

    assert code == 4000
    assert rest == b""


# ---- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's context, and one of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_wss_is_served(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    large = "x" * 65_000
    async with running(echo_server(tls=tls[0])) as at, connected(at.ws, ssl=tls[1]) as peer:
        await peer.send("hello", large)
        told = [await peer.raw(), await peer.raw()]
        status, _, body = await http(at.port, get("/healthz"), tls=tls[1])

    assert at.ws.startswith("wss://127.0.0.1:")
    assert told == ["hello", large]
    assert (status, body) == (200, b"ok\n")


async def test_a_certificate_of_the_configuration_is_used(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "cert.pem"), append=True)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    config = limited(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem"))
    async with running(echo_server(config=config)) as at, connected(at.ws, ssl=client) as peer:
        await peer.send("hello")
        told = await peer.raw()

    assert told == "hello"


async def test_a_certificate_that_is_none_is_told_before_listening(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("no certificate")
    server = Server(limited(tls_cert=str(path), tls_key=str(path)))

    with pytest.raises(LocalError, match=r"^websocket.tlsCert: expected a certificate and its key in PEM"):
        await server.serve()


async def test_who_speaks_no_tls_is_let_go_and_others_are_served(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with running(echo_server(tls=tls[0])) as at:
        async with raw_peer(at.port, open=False) as stranger, raw_peer(at.port, open=False) as gone:
            await stranger.stream.send(get("/").encode())
            await gone.stream.send(b"\x16\x03\x01")
            await gone.stream.aclose()
            rest = await stranger.rest()
        async with connected(at.ws, ssl=tls[1]) as peer:
            await peer.send("hello")
            told = await peer.raw()

    assert b"HTTP/" not in rest
    assert told == "hello"


async def test_a_tls_handshake_that_takes_too_long_is_ended(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    config = limited(handshake_timeout_s=0.2)
    async with (
        running(echo_server(config=config, tls=tls[0])) as at,
        raw_peer(at.port, open=False) as peer,
    ):
        rest = await peer.rest()

    assert rest == b""


async def test_tls_that_came_late_leaves_the_request_what_is_left_of_the_time(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    config = limited(handshake_timeout_s=1.0)
    async with running(echo_server(config=config, tls=tls[0])) as at:
        began = anyio.current_time()
        async with await anyio.connect_tcp("127.0.0.1", at.port) as plain:
            await anyio.sleep(0.7)
            secured = await TLSStream.wrap(plain, hostname="127.0.0.1", ssl_context=tls[1], standard_compatible=False)
            answer = await secured.receive()
            took = anyio.current_time() - began

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.95 < took < 1.5


async def test_a_slow_reader_over_tls_gets_everything(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server = Server(limited(send_buffer_bytes=4096, unsent_bytes_high=1 << 26), tls=tls[0])

    @server.on_message
    def burst(session: Session, message: str | bytes) -> None:
        for number in range(200):
            session.send_text(f"{number:04d}" + "x" * 10_000)
        session.close(1000, "done")

    async with running(server) as at, connected(at.ws, ssl=tls[1]) as peer:
        await peer.send("go")
        told = [str(await peer.raw())[:4] for _ in range(200)]
        end = await peer.ended()

    assert told == [f"{number:04d}" for number in range(200)]
    assert end == (1000, "done")


# ---- streams of one's own -----------------------------------------------------------------------


@asynccontextmanager
async def streamed(server: Server, most: int = 65_536) -> AsyncGenerator[RawPeer]:
    """A peer at the other end of a stream in memory."""
    ours, theirs = memory_pair(most)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve_stream, ours, "192.0.2.1:9")
        yield RawPeer(theirs)
        await theirs.aclose()


@pytest.mark.parametrize("most", [1, 7, 65_536])
async def test_any_byte_stream_carries_a_connection(most: int) -> None:
    server = echo_server()
    async with running(server), streamed(server, most) as peer:
        await peer.open(also=frame("early"))
        first = await peer.next()
        (session,) = server.sessions()
        await peer.stream.send(frame("later"))
        second = await peer.next()
        await peer.stream.send(encode_close(1000, "", MASK))
        code = await peer.ended()
        rest = await peer.rest()

    assert (first, second, code, rest) == ("early", "later", 1000, b"")
    assert session.peer == "192.0.2.1:9"


async def test_a_stream_that_ends_is_a_peer_that_vanished() -> None:
    server = echo_server()
    ends: list[tuple[int | None, str]] = []
    ended = anyio.Event()

    @server.on_close
    def closed(session: Session) -> None:
        ends.append((session.close_code, session.close_reason))
        ended.set()

    async with running(server):
        async with streamed(server) as peer:
            await peer.open()
        await ended.wait()
        left = server._running().hub.connections

    assert ends == [(1006, "the peer ended the connection")]
    assert left == 0


async def test_a_stream_that_breaks_in_its_own_way_takes_nobody_along(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenStream(MemoryStream):
        async def receive(self, max_bytes: int = 65_536) -> bytes:
            await anyio.lowlevel.checkpoint()
            raise ArithmeticError("not a stream's error")

    server = echo_server()
    ours, theirs = memory_pair()
    with caplog.at_level(logging.ERROR, "vixws"):
        async with running(server) as at:
            await server.serve_stream(BrokenStream(ours._receiving, ours._sending, 1))
            await theirs.aclose()
            async with connected(at.ws) as peer:
                await peer.send("hello")
                told = await peer.raw()

    assert told == "hello"
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [ArithmeticError]


async def test_stop_ends_streams_too() -> None:
    server = chat_server()
    async with running(server), streamed(server) as peer:
        await peer.open()
        await peer.receive()
        server.stop()
        code = await peer.ended()
        await peer.stream.send(encode_close(1012, "", MASK))
        await peer.rest()

    assert code == 1012


async def test_a_stopped_server_takes_no_stream() -> None:
    server = chat_server()
    ours, theirs = memory_pair()
    with pytest.raises(LocalError, match="does not serve"):
        await server.serve_stream(ours)
    await ours.aclose()
    await theirs.aclose()


async def test_a_unix_socket_of_ones_own_is_served(tmp_path: Path) -> None:
    path = tmp_path / "vixws.sock"
    server = chat_server()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        await server.serve_stream(stream, "unix")

    async with running(server), await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        async with connected("ws://localhost/", path=str(path)) as peer:
            told = await peer.receive()
        tasks.cancel_scope.cancel()

    assert told["payload"]["text"] == "Welcome!"


async def test_a_slow_reader_of_a_stored_room_over_a_stream_loses_nothing() -> None:
    config = limited(unsent_bytes_low=4096, unsent_bytes_high=8192, page_bytes_max=4096)
    server = Server(config)
    server.on_open(lambda session: session.join("r"))
    count = 200
    async with running(server), streamed(server) as slow:
        await slow.open()
        for number in range(count):
            await server.publish("r", "note", {"n": number, "text": "x" * 500})
        held = server._running().hub.unsent_bytes
        seen = [(await slow.receive())["off"] for _ in range(count)]

    assert seen == list(range(1, count + 1))
    assert held < 16_384


async def test_a_hub_that_pauses_a_stream_reads_it_on_later() -> None:
    server = Server(port=0)
    seen: list[int] = []
    let_go = anyio.Event()

    @server.on("step")
    async def step(session: Session, payload: dict[str, int]) -> None:
        await let_go.wait()
        seen.append(payload["n"])

    async with running(server), streamed(server) as peer, anyio.create_task_group() as tasks:
        await peer.open()
        finished = anyio.Event()

        async def push() -> None:
            for number in range(300):
                await peer.stream.send(frame({"type": "step", "payload": {"n": number}}))
            finished.set()

        tasks.start_soon(push)
        await anyio.wait_all_tasks_blocked()
        held = not finished.is_set()
        let_go.set()
        with anyio.fail_after(PATIENCE_S):
            await finished.wait()
            while len(seen) < 300:
                await anyio.sleep(0.001)

    assert held
    assert seen == list(range(300))
