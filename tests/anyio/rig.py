"""A running server in the test's own loop, somebody else's client in threads, and a peer that writes raw bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import websockets.asyncio.client as asyncio_client
from anyio.abc import SocketStream
from anyio.from_thread import BlockingPortal, start_blocking_portal
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from vixws_anyio import Config, Listening, Server
from vixws_core.app.chat import build
from vixws_core.wire.frames import TEXT, CloseReceived, FrameReader, Received, encode_frame

PATIENCE_S = 20.0
"""Seconds after which something that should have happened is a failure; nothing waits this long that works."""

MASK = b"\x0a\x0b\x0c\x0d"


def chat_server(**options: Any) -> Server:
    """The built-in chat on a free port."""
    server = Server(port=0, **options)
    build(server)
    return server


@asynccontextmanager
async def running(server: Server) -> AsyncGenerator[Listening]:
    """Serves beside the block, which has to end in time, then stops at once."""
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(PATIENCE_S):
            listening = await tasks.start(server.serve)
        try:
            with anyio.fail_after(PATIENCE_S):
                yield listening
        finally:
            server.stop(now=True)


class LoopConnection:
    """A connection of `websockets`' asyncio client, in a loop of its own, with the calls of its client for threads.

    That one reads and writes at once from two threads, which OpenSSL does not bear: of 150 connections on CPython
    3.11, 5 lost their request; 3.13.0 crashed once. So `wss` is for this one.
    """

    def __init__(self, portal: BlockingPortal, connection: asyncio_client.ClientConnection) -> None:
        self._portal = portal
        self._connection = connection

    def send(self, data: str | bytes) -> None:
        self._portal.call(self._connection.send, data)

    def recv(self, timeout: float) -> str | bytes:
        return self._portal.call(self._receive, timeout)

    async def _receive(self, timeout: float) -> str | bytes:
        return await asyncio.wait_for(self._connection.recv(), timeout)

    def close(self) -> None:
        self._portal.call(self._connection.close)


@contextmanager
def connect_in_loop(uri: str, **options: Any) -> Generator[LoopConnection]:
    """Opens one, until the end of the block."""
    with start_blocking_portal("asyncio") as portal:

        async def opening() -> asyncio_client.ClientConnection:
            return await asyncio_client.connect(uri, **options)

        connection = LoopConnection(portal, portal.call(opening))
        try:
            yield connection
        finally:
            connection.close()


class Peer:
    """Somebody else's client (`websockets`), each call in a worker thread."""

    def __init__(self, connection: ClientConnection | LoopConnection) -> None:
        self.connection = connection

    async def send(self, *messages: object) -> None:
        """Sends texts and bytes as they are, other things as JSON."""
        for message in messages:
            data = message if isinstance(message, str | bytes) else json.dumps(message)
            await anyio.to_thread.run_sync(self.connection.send, data)

    async def raw(self) -> str | bytes:
        """The next message, as it came."""
        return await anyio.to_thread.run_sync(partial(self.connection.recv, timeout=PATIENCE_S))

    async def receive(self) -> dict[str, Any]:
        """The next message, decoded."""
        found: dict[str, Any] = json.loads(await self.raw())
        return found

    async def receive_type(self, type: str) -> dict[str, Any]:
        """The next message of that type; others before it are passed over."""
        while True:
            found = await self.receive()
            if found.get("type") == type:
                return found

    async def ask(self, message: object) -> dict[str, Any]:
        """Sends one message and returns the next that comes."""
        await self.send(message)
        return await self.receive()

    async def ended(self) -> tuple[int, str]:
        """Code and reason of the close that comes, whatever comes before it."""
        try:
            while True:
                await self.raw()
        except ConnectionClosed as exc:
            return (1006, "") if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)

    async def close(self) -> None:
        """The whole closing handshake."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.connection.close)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncGenerator[Peer]:
    """A client that is open until the end of the block; with `path`, over that Unix socket. It offers no compression
    unless it is told to."""
    opening: Callable[..., Any] = connect_in_loop if url.startswith("wss:") else connect
    if "path" in options:
        opening = partial(unix_connect, uri=url)
    else:
        options |= {"uri": url, "proxy": None}
    options.setdefault("compression", None)
    stack = ExitStack()

    def enter() -> ClientConnection | LoopConnection:
        return stack.enter_context(  # type: ignore[no-any-return]  # one of the two
            opening(open_timeout=PATIENCE_S, close_timeout=5, ping_interval=None, **options)
        )

    connection = await anyio.to_thread.run_sync(enter)
    try:
        yield Peer(connection)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(stack.close)


@asynccontextmanager
async def chatting(url: str, count: int, room: str = "africa") -> AsyncGenerator[list[Peer]]:
    """So many clients of the chat, all in one room; nothing is left for them to read."""
    async with _all_connected(url, count) as peers:
        for at, peer in enumerate(peers):
            assert (await peer.receive())["payload"]["text"] == "Welcome!"
            await peer.send({"type": "chat.join", "payload": {"room": room, "user": f"user{at}"}})
            for other in peers[: at + 1]:
                told = await other.receive()
                assert told["payload"]["text"] == f"user{at} joined"
        yield peers


@asynccontextmanager
async def _all_connected(url: str, count: int) -> AsyncGenerator[list[Peer]]:
    if not count:
        yield []
        return
    async with connected(url) as first, _all_connected(url, count - 1) as others:
        yield [first, *others]


# ---- raw bytes ----------------------------------------------------------------------------------


def request(target: str = "/", *headers: str) -> bytes:
    """A good opening handshake (RFC 6455 §1.3), with header lines more."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def frame(message: object) -> bytes:
    """A client's text frame: of a text as it is, of anything else as JSON."""
    text = message if isinstance(message, str) else json.dumps(message)
    return encode_frame(TEXT, text.encode(), MASK)


class RawPeer:
    """A peer that writes and reads bytes over any stream."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = stream
        self.head = b""
        self._reader = FrameReader(client=True, message_bytes_max=1 << 40)
        self._frames: list[Received] = []

    async def open(self, *headers: str, also: bytes = b"", target: str = "/") -> None:
        """Sends the request, and `also` in the same write; reads the answer's head."""
        await self.stream.send(request(target, *headers) + also)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive()
        self.head, _, rest = data.partition(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 "), data
        self._frames += self._reader.feed(rest)

    async def next(self) -> Received:
        """The next frame."""
        while not self._frames:
            self._frames += self._reader.feed(await self.stream.receive())
        return self._frames.pop(0)

    async def receive(self) -> Any:
        """The next text message, decoded."""
        found = await self.next()
        assert isinstance(found, str), found
        return json.loads(found)

    async def ended(self) -> int:
        """The code of the close frame that comes, whatever comes before it."""
        while True:
            found = await self.next()
            if isinstance(found, CloseReceived):
                return found.code

    async def rest(self) -> bytes:
        """All bytes until the end of the stream."""
        data = b""
        try:
            while True:
                data += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return data


@asynccontextmanager
async def raw_peer(port: int, *, receive_buffer: int = 0, open: bool = True) -> AsyncGenerator[RawPeer]:
    """A connection from a plain socket, closed at the end of the block."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await anyio.to_thread.run_sync(sock.connect, ("127.0.0.1", port))
    async with await SocketStream.from_socket(sock) as stream:
        peer = RawPeer(stream)
        if open:
            await peer.open()
        yield peer


async def http(port: int, text: str, *, tls: ssl.SSLContext | None = None) -> tuple[int, dict[str, str], bytes]:
    """One plain request, by its head as it stands; returns status, headers in lower case, and body."""
    stream: anyio.abc.ByteStream
    if tls is None:
        stream = await anyio.connect_tcp("127.0.0.1", port)
    else:
        stream = await anyio.connect_tcp("127.0.0.1", port, tls=True, ssl_context=tls, tls_standard_compatible=False)
    async with stream:
        await stream.send(text.encode("latin-1"))
        data = await RawPeer(stream).rest()
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


def get(path: str, method: str = "GET") -> str:
    """The head of a plain request."""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"


def limited(**settings: Any) -> Config:
    """A configuration on a free port, with these settings."""
    return Config(port=0, **settings)
