"""What becomes of an accepted socket: a connection, a TLS handshake first, or a scrape."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import ByteStream, TaskGroup
from anyio.streams.tls import TLSStream

from ..transport.driver import Driver, host_of
from ..transport.stream import StreamTransport
from .listeners import MetricsListener
from .tls import shake_hands

__all__ = ["Acceptor"]


class Acceptor:
    """Takes accepted sockets over, each in a task of `tasks` where it needs one.

    `tls` secures connections; None: they are plain. TLS and request together have `handshake_timeout_s`.
    """

    def __init__(
        self, driver: Driver, tasks: TaskGroup, tls: ssl.SSLContext | None, handshake_timeout_s: float
    ) -> None:
        self._driver = driver
        self._tasks = tasks
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s

    def connections(self) -> Callable[[socket.socket, str], object]:
        """Takes sockets of clients."""
        return self._driver.serve_socket if self._tls is None else self._take_tls

    def scrapes(self, render: Callable[[str], tuple[str, bytes]]) -> Callable[[socket.socket, str], object]:
        """Takes sockets of scrapers, for whom `render` writes the metrics."""
        return partial(self._take_scrape, MetricsListener(render))

    def _take_scrape(self, listener: MetricsListener, sock: socket.socket, peer: str) -> None:
        listener.admit(sock)
        self._tasks.start_soon(listener.serve, sock)

    def _take_tls(self, sock: socket.socket, peer: str) -> None:
        scope = anyio.CancelScope()
        conn = self._driver.admit(host_of(peer), scope.cancel)
        if conn is None:
            sock.close()  # It waits for a handshake; there is nothing it would understand.
        else:
            self._tasks.start_soon(self._serve_tls, sock, conn, peer, scope, anyio.current_time())

    async def _serve_tls(
        self, sock: socket.socket, conn: int, peer: str, scope: anyio.CancelScope, began: float
    ) -> None:
        assert self._tls is not None
        secured: TLSStream | None = None
        try:
            with scope:
                secured = await shake_hands(sock, peer, self._tls, began + self._handshake_timeout_s)
            if secured is not None and scope.cancel_called:  # It had to give way while it finished.
                await anyio.aclose_forcefully(secured)
                secured = None
        finally:
            if secured is None:
                self._driver.forgo(conn)
        if secured is not None:
            waited_s = anyio.current_time() - began
            await self._carry(StreamTransport(self._driver, secured, conn, peer), True, waited_s)

    async def serve_stream(self, stream: ByteStream, peer: str, secure: bool) -> None:
        """Carries one connection over any byte stream, until it ends; closed at once where a limit is reached."""
        conn = self._driver.admit(host_of(peer))
        if conn is None:
            await anyio.aclose_forcefully(stream)
        else:
            await self._carry(StreamTransport(self._driver, stream, conn, peer), secure)

    async def _carry(self, link: StreamTransport, secure: bool, waited_s: float = 0.0) -> None:
        self._driver.add(link, secure, waited_s)
        await link.run()
