"""Listening sockets, and the small HTTP listener that metrics are scraped from."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

import anyio
from anyio.abc import SocketStream

from vixws_core.errors import LocalError
from vixws_core.wire.http import Head, HeadReader, http_answer

from ..logs import clean, log

__all__ = ["MetricsListener", "bind", "host_text", "is_loopback", "port_of"]

BACKLOG: Final = 1024
"""Connections that the kernel completes before they are accepted."""

SCRAPES_MAX: Final = 8
SCRAPE_S: Final = 10.0
HEAD_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 64


Address = tuple[socket.AddressFamily, socket.SocketKind, int, tuple[Any, ...]]
"""Family, kind and protocol of a socket, and what it is to be bound to."""


def _addresses(host: str, port: int, flags: socket.AddressInfo = socket.AI_PASSIVE) -> list[Address]:
    """What a host stands for, in order. Raises: `LocalError`, in one line."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as exc:
        raise LocalError(f"cannot listen on {host_text(host)}:{port}: {exc}") from exc
    return list(dict.fromkeys((family, kind, protocol, address) for family, kind, protocol, _, address in found))


def is_loopback(host: str, port: int) -> bool:
    """Whether only this machine reaches what listens there. Raises: `LocalError` for a host that is none."""
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in _addresses(host, port))


def bind(host: str, port: int) -> list[socket.socket]:
    """Binds every address of `host`, all on one port; `listen` is the caller's. `port` 0 takes a free one.

    Raises: `LocalError` where none can be bound, in one line.
    """
    found = _addresses(host, port, socket.AI_PASSIVE | socket.AI_ADDRCONFIG)
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = port_of(sockets[0]) if sockets else port
            sock.bind((address[0], taken, *address[2:]))
            sock.listen(BACKLOG)
        except OSError as exc:
            sock.close()
            failure = exc
            if exc.errno == errno.EADDRINUSE and port:
                for other in sockets:  # Half a host is worse than none: whoever comes might reach a stranger.
                    other.close()
                sockets.clear()
                break
            continue
        sockets.append(sock)
    if not sockets:
        raise LocalError(f"cannot listen on {host_text(host)}:{port}: {failure}") from failure
    return sockets


def port_of(sock: socket.socket) -> int:
    """The port a socket is bound to."""
    port: int = sock.getsockname()[1]
    return port


def host_text(host: str) -> str:
    """A host as it stands in a URL; a wildcard as the loopback address that reaches it."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


class MetricsListener:
    """Answers `GET /metrics` and nothing else: 8 connections at most, 10 s each, one request each.

    A ninth takes the place of the one that has been here longest: a scrape takes milliseconds, so that whoever stays
    does not scrape, and cannot keep the scraper out.

    `render(accept)` gives the content type and the body for an `Accept` header.
    """

    def __init__(self, render: Callable[[str], tuple[str, bytes]]) -> None:
        self._render = render
        self._open: dict[socket.socket, anyio.CancelScope] = {}
        """Connections, in order of arrival."""

    def admit(self, sock: socket.socket) -> None:
        """Takes a connection in; where there are too many, the one that is here longest has to go."""
        if len(self._open) >= SCRAPES_MAX:
            self._open.pop(next(iter(self._open))).cancel()
        self._open[sock] = anyio.CancelScope()

    async def serve(self, sock: socket.socket) -> None:
        """Reads one request of a connection that was taken in, and answers it."""
        scope = self._open.get(sock)
        if scope is None:  # It had to go before it began.
            sock.close()
            return
        scope.deadline = anyio.current_time() + SCRAPE_S
        stream: SocketStream | None = None
        try:
            with scope:
                stream = await SocketStream.from_socket(sock)
                async with stream:
                    await stream.send(await self._answer(stream))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError):
            return  # The scraper is gone; it will come again.
        except Exception as exc:  # A reset before its first turn is a ValueError of anyio's; nobody else may notice.
            log.warning("a connection to the metrics listener failed: %s", clean(repr(exc)))
        finally:
            if stream is None:
                sock.close()
            if self._open.get(sock) is scope:
                del self._open[sock]

    async def _answer(self, stream: SocketStream) -> bytes:
        reader = HeadReader(HEAD_BYTES_MAX, HEADERS_MAX)
        head = None
        while head is None:
            head, _ = reader.feed(await stream.receive())
        text = (("content-type", "text/plain; charset=utf-8"),)
        if not isinstance(head, Head):
            return http_answer(head.status, text, head.reason.encode("latin-1", "replace") + b"\n")
        is_head = head.method == "HEAD"
        if head.method not in ("GET", "HEAD"):
            return http_answer(405, (*text, ("allow", "GET, HEAD")), b"only GET and HEAD are answered here\n")
        if head.target.partition("?")[0] != "/metrics":
            return http_answer(404, text, b"metrics are at /metrics\n", head_only=is_head)
        accept = ", ".join(value for name, value in head.headers if name == "accept")
        try:
            kind, body = self._render(accept)
        except Exception:
            log.exception("metrics could not be rendered")
            return http_answer(500, text, b"internal error\n", head_only=is_head)
        return http_answer(200, (("content-type", kind),), body, head_only=is_head)
