"""Listening sockets, and the small HTTP listener that metrics are scraped from."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Final, NamedTuple

import anyio
from anyio.abc import SocketStream

from vixws_core.errors import LocalError
from vixws_core.wire.http import Head, HeadReader, http_answer

from ..logs import clean, log
from ..transport import children

__all__ = ["MetricsListener", "bind", "host_text", "is_loopback", "port_of"]

BACKLOG: Final = 1024
"""Connections that the kernel completes before they are accepted."""

PORTS_TRIED: Final = 8
"""Free ports that are tried where several hosts need the same."""

SCRAPES_MAX: Final = 8
SCRAPE_S: Final = 10.0
HEAD_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 64


def is_loopback(host: str, port: int = 0) -> bool:
    """Whether only this machine reaches what listens on `host`: on all of them, where commas separate several.

    Raises: `LocalError` for a host that is none: what cannot be looked up now may be somebody's a moment later.
    """
    return all(_is_loopback(one, port) for one in host.split(","))


def _is_loopback(host: str, port: int) -> bool:
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise LocalError(f"cannot listen on {host}:{port}: {exc}") from exc
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def bind(host: str, port: int, setting: str) -> list[socket.socket]:
    """Listens on every address of `host`, or of several hosts separated by commas, all on one port.

    `port` 0 takes one that is free. `::` takes IPv4 connections too, unless an IPv4 address is among the others.
    Raises: `LocalError` where one of the hosts cannot be had, in one line that ends in `setting`.
    """
    hosts = host.split(",")
    for left in reversed(range(PORTS_TRIED if port == 0 and len(hosts) > 1 else 1)):
        taken = ExitStack()
        try:
            with taken:
                sockets = _bind_all(hosts, port, taken)
                taken.pop_all()
                return sockets
        except _Failed as exc:
            if left and exc.failure.errno == errno.EADDRINUSE:
                continue  # The port that one host had free is not free with the next.
            where = f"[{exc.host}]" if ":" in exc.host else exc.host
            raise LocalError(f"cannot listen on {where}:{port}: {exc.failure} ({setting})") from exc.failure
    raise AssertionError("the last try returns or raises")


class _Failed(Exception):
    """A host cannot be had."""

    def __init__(self, host: str, failure: OSError) -> None:
        super().__init__(host, failure)
        self.host: str = host
        self.failure: OSError = failure


def _bind_all(hosts: Sequence[str], port: int, taken: ExitStack) -> list[socket.socket]:
    """Sockets of all hosts, which `taken` closes where one fails."""
    found = {host: _addresses(host, port) for host in hosts}
    is_dual = not any(address.family == socket.AF_INET for addresses in found.values() for address in addresses)
    sockets: list[socket.socket] = []
    bound: set[_Address] = set()
    for host, addresses in found.items():
        failure: OSError | None = None
        for address in addresses:
            if address in bound:
                continue
            try:
                sock = taken.enter_context(_listener(address, port_of(sockets[0]) if sockets else port, is_dual))
            except OSError as exc:
                failure = exc
                if exc.errno == errno.EADDRINUSE and port:
                    raise _Failed(host, exc) from exc  # Half a host is worse: whoever comes might reach a stranger.
            else:
                sockets.append(sock)
                bound.add(address)
        if failure is not None and bound.isdisjoint(addresses):
            raise _Failed(host, failure)
    return sockets


class _Address(NamedTuple):
    """An address to listen on: its family, and what `bind` takes, without the port."""

    family: int
    host: str
    rest: tuple[int, ...]


def _addresses(host: str, port: int) -> list[_Address]:
    """The addresses of one host, each once."""
    flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError as exc:
        raise _Failed(host, exc) from exc
    except UnicodeError as exc:
        raise _Failed(host, OSError(str(exc))) from exc
    return list(dict.fromkeys(_Address(family, str(address[0]), address[2:]) for family, _, _, _, address in found))


def _listener(address: _Address, port: int, is_dual: bool) -> socket.socket:
    with children.GUARD:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        children.keep(sock)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not (is_dual and address.host == "::"))
        sock.bind((address.host, port, *address.rest))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


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
        except Exception as exc:
            if stream is None and isinstance(exc, ValueError):
                return  # A reset before its first turn, in anyio's words.
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
