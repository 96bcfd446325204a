"""The metrics server for a thread of the user's own, on prometheus_client's WSGI application and server."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import Any, Final, cast
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import make_wsgi_app  # pyright: ignore[reportUnknownVariableType] -- a bare Callable there.
from prometheus_client.exposition import ThreadingWSGIServer

from vixws_core.errors import LocalError

from .collector import WebSocketMetrics, safe_accept

__all__ = ["run_metrics_server"]

SCRAPES_MAX: Final = 8
"""Connections served at once, each in a thread; one more is closed at once."""
SCRAPE_S: Final = 10.0
"""Seconds a connection may take in all, from its first byte to its last."""
HEAD_BYTES_MAX: Final = 8_192
"""Largest request head; a larger one is answered 431."""
_LOOK_S: Final = 0.25
"""How often the server looks for `stop` and for connections that take too long."""
_JOIN_S: Final = 2.0
"""Seconds for which the end waits for each connection's thread, once its socket is shut."""

LOGGER = logging.getLogger("vixws.metrics")


def run_metrics_server(
    metrics: WebSocketMetrics,
    host: str = "127.0.0.1",
    port: int = 9100,
    *,
    ready: Callable[[int], object] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Answers `GET /metrics` on `host` and `port`, and blocks: for a thread of the caller's own.

    `ready` is called with the port, once it listens (`port` 0: any free one). Returns soon after `stop` is set;
    without `stop` it runs for as long as its thread does, which may be a daemon. At most 8 connections are served
    at once, each in a thread, one request and 10 s each; whatever a client sends, it harms nobody else. An address
    that is not loopback makes the figures readable for whoever reaches it.

    Raises: `OSError` where the address cannot be had, `LocalError` for a port that is none.
    """
    if not 0 <= port <= 65_535:
        raise LocalError(f"port must be 0 to 65535, got {port}")
    stop = stop if stop is not None else threading.Event()
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = infos[0]
    server = _Server(family, (str(address[0]), port))
    server.set_app(_application(metrics))
    try:
        if ready is not None:
            ready(server.server_port)
        while not stop.is_set():
            server.handle_request()
            server.end_overdue()
    finally:
        server.server_close()


def _application(metrics: WebSocketMetrics) -> WSGIApplication:
    """prometheus_client's application, reached by `GET /metrics` alone, and by no header that it cannot read."""
    inner = cast(WSGIApplication, make_wsgi_app(metrics.registry))

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        text = ("Content-Type", "text/plain; charset=utf-8")
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [text, ("Allow", "GET")])
            return [b"only GET is answered here\n"]
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [text])
            return [b"metrics are at /metrics\n"]
        environ["HTTP_ACCEPT"] = safe_accept(environ.get("HTTP_ACCEPT", ""))
        return inner(environ, start_response)

    return application


class _Handler(WSGIRequestHandler):
    """Answers one request whose head is read whole, and bounded, before it is parsed."""

    server_version = "vixws"
    sys_version = ""

    def handle(self) -> None:
        """Reads a head and answers it; a client that leaves before that gets nothing."""
        self._errors = io.StringIO()
        head = bytearray()
        with self.rfile as source:
            while line := source.readline(HEAD_BYTES_MAX + 1 - len(head)):
                head += line
                if len(head) > HEAD_BYTES_MAX or line in (b"\r\n", b"\n"):
                    break
        if len(head) > HEAD_BYTES_MAX:
            self.requestline = self.request_version = self.command = ""
            self.send_error(431)
            return
        self.rfile = io.BytesIO(head)
        super().handle()
        if errors := self._errors.getvalue():
            LOGGER.warning("a scrape could not be answered:\n%s", errors)

    def get_stderr(self) -> io.StringIO:
        """Where the WSGI handler writes the traceback of what it could not answer."""
        return self._errors

    def log_message(self, format: str, *args: Any) -> None:
        """Notes each request for whoever debugs, in place of a line on stderr."""
        LOGGER.debug("scrape: %r", format % args)


class _Server(ThreadingWSGIServer):
    """A thread for each connection, bounded in number and time."""

    timeout = _LOOK_S
    request_queue_size = 32

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self._open: dict[socket.socket, tuple[threading.Thread, float]] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Binds without the look-up of the host's name that the base class does, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection in a thread, or closes it where there are too many."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="vixws-scrape", daemon=True
        )
        with self._lock:
            full = len(self._open) >= SCRAPES_MAX
            if not full:
                self._open[request] = thread, time.monotonic() + SCRAPE_S
        if full:
            self.shutdown_request(request)
        else:
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes a connection that broke."""
        LOGGER.debug("a scrape broke off", exc_info=True)

    def end_overdue(self, after_s: float = 0.0) -> None:
        """Shuts connections whose time is over, or will be in `after_s` seconds; their threads see the end."""
        now = time.monotonic() + after_s
        with self._lock:
            for request, (_, deadline) in self._open.items():
                if now >= deadline:
                    try:
                        request.shutdown(socket.SHUT_RDWR)
                    except OSError as exc:  # The peer was faster.
                        LOGGER.debug("a scrape was over already: %s", exc)

    def server_close(self) -> None:
        """Stops listening, shuts what is open and waits for its threads."""
        with self._lock:
            threads = [thread for thread, _ in self._open.values()]
        self.end_overdue(SCRAPE_S)
        for thread in threads:
            thread.join(_JOIN_S)
        super().server_close()
