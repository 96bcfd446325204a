"""One run of a server: hub, pump, store and sockets, from the first listen to the last flush."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from threading import get_ident
from typing import Any, Protocol, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import ByteStream, TaskGroup
from anyio.streams.tls import TLSStream

from vixws_core.app import App
from vixws_core.app.access import RootRouter
from vixws_core.app.origins import Origins
from vixws_core.app.router import Router
from vixws_core.config import HubConfig
from vixws_core.effects import Effect
from vixws_core.errors import LocalError
from vixws_core.hub import Hub
from vixws_core.inputs import Input, Shutdown
from vixws_core.log import LogExecutor, PureLog
from vixws_core.protocols import Consumer, MessageStore
from vixws_core.pump import Pump

from ..logs import log, report
from ..transport.driver import Driver, host_of
from ..transport.loops import driver_for
from ..transport.stream import StreamTransport
from .admission import Admission, AdmissionLimits, open_files_max
from .handlers import Handlers
from .listeners import MetricsListener, bind, host_text, port_of
from .pages import OwnPage, pages
from .tls import shake_hands

__all__ = ["Listening", "Metrics", "Runtime", "Settings"]

T = TypeVar("T")


DRAIN_GRACE_S = 0.5
"""Seconds past the drain's end that the hub may take to say so."""


class Metrics(Consumer, Protocol):
    """Counts what passes the door, and writes it down for a scraper."""

    def render(self, accept: str, /) -> tuple[str, bytes]:
        """Content type and body for an `Accept` header."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run is started with."""

    hub: HubConfig
    host: str
    port: int
    admission: AdmissionLimits
    unsent_bytes_kernel: int
    metrics_address: tuple[str, int] | None
    tls: ssl.SSLContext | None
    pages: Mapping[str, OwnPage]
    access: str | None
    allowed_origins: tuple[str, ...]
    auth_deadline_s: float
    handler_timeout_s: float
    cancel_handlers: bool
    threads_max: int = 40


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server can be reached, once it really listens. `metrics` is a URL, or None where it is off."""

    host: str
    port: int
    ws: str
    http: str
    metrics: str | None


class Runtime:
    """Serves once. `stop` may be called from any thread; everything else belongs to the loop's thread."""

    def __init__(
        self,
        settings: Settings,
        root: RootRouter,
        routes: Mapping[str, tuple[Router, tuple[str, ...]]],
        store: MessageStore | None,
        metrics: Consumer | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._thread = get_ident()
        self._stopping = anyio.Event()
        self._drained = anyio.Event()
        self._draining = False
        self._now = False
        self._asked = False
        """Whether `stop` was called, perhaps before there was anything to stop."""
        self._over = False
        self._drain_scope = anyio.CancelScope()
        self._base: TaskGroup | None = None
        self._handlers = Handlers(settings.handler_timeout_s, settings.cancel_handlers, settings.threads_max)
        limits = settings.admission
        limits = replace(limits, connections_max=min(limits.connections_max, open_files_max()))
        self._admission = Admission(limits, time.monotonic)
        self._driver: Driver | None = None
        policy = root.policy(settings.access)
        self.hub: Hub = Hub(settings.hub, seed=secrets.token_bytes(32), policy=policy)
        self.app: App = App(
            self.hub,
            self.do,
            routes,
            clock=time.monotonic,
            report=report,
            wait=self._handlers.wait,
            call=self.call,
            pages=pages(self._is_ready, settings.pages),
            message_bytes_max=settings.hub.message_bytes_max,
            arrived=self._arrived,
            drained=self._drained.set,
            root=root,
            origins=Origins(settings.allowed_origins),
            wall=time.time,
            auth_deadline_s=settings.auth_deadline_s,
            make_signal=anyio.Event,
            ending=self._handlers.session_ends,
        )

    # ---- the way to the hub ---------------------------------------------------------------------

    def do(self, command: Input) -> list[Effect]:
        """Runs one command at once; from a worker thread of ours it hops to the loop's thread and back."""
        if self._over:
            return []  # All sessions are gone, and what is asked of one that is gone is ignored.
        if get_ident() == self._thread:
            return self._pump.do(command)
        return self.call(self.do, command)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function on the loop's thread.

        Raises: `LocalError` in a thread that is neither the loop's nor one of its workers.
        """
        if self._over or get_ident() == self._thread:
            return function(*args)
        try:
            return anyio.from_thread.run_sync(function, *args)
        except RuntimeError as exc:
            raise LocalError(
                "sessions and servers may be called from the event loop's thread, and from handlers that were "
                f"registered with thread=True, not from the thread {get_ident()}: {exc}"
            ) from exc

    def post(self, *inputs: Input) -> None:
        """Hands inputs in from the store; after the end they have no reader."""
        if not self._over:
            self._pump.put(*inputs)

    def _arrived(self, conn: int, headers: tuple[tuple[str, str], ...]) -> tuple[str, bool | None] | None:
        """Who sends a request: the peer, or whom a trusted proxy names; None where that address has too many."""
        assert self._driver is not None
        peer, admission = self._driver.peer(conn), self._admission
        forwarded = [value for name, value in headers if name == "x-forwarded-for"]
        client = admission.client_of(host_of(peer), ",".join(forwarded)) if forwarded else host_of(peer)
        if client == host_of(peer):
            return peer, None
        return (client, admission.is_limited(client)) if admission.identify(conn, client) else None

    def _is_ready(self) -> bool:
        return not self._draining and (self._store is None or self._store.ready)

    # ---- serving --------------------------------------------------------------------------------

    async def serve(self, announce: Callable[[Listening], object]) -> None:
        """Binds, opens the store, serves until `stop` or cancellation, and leaves nothing behind."""
        settings = self._settings
        sockets = bind(settings.host, settings.port)
        try:
            metrics_sockets: list[socket.socket] = []
            if settings.metrics_address is not None and hasattr(self._metrics, "render"):
                metrics_sockets = bind(*settings.metrics_address)
                sockets += metrics_sockets
            store: AbstractAsyncContextManager[Any] = (
                nullcontext() if self._store is None else self._store.run(self.post)
            )
            async with store:
                try:
                    await self._serve(sockets, metrics_sockets, announce)
                finally:
                    self._end()
        finally:
            for sock in sockets:
                sock.close()

    async def _serve(
        self,
        sockets: list[socket.socket],
        metrics_sockets: list[socket.socket],
        announce: Callable[[Listening], object],
    ) -> None:
        settings = self._settings
        async with driver_for(self._admission, settings.hub.close_timeout_s, settings.unsent_bytes_kernel) as driver:
            self._driver = driver
            if self._asked:
                self._stopping.set()
            self._pump = Pump(self.hub, clock=time.monotonic, consumers=self._consumers(driver), calls=self.app.calls)
            driver.attach(self._pump)
            async with anyio.create_task_group() as base:
                self._base = base
                try:
                    async with anyio.create_task_group() as handlers:
                        self._handlers.begin(handlers, driver.call_soon_threadsafe)
                        for sock in sockets:
                            driver.listen(sock, self._taken(sock in metrics_sockets))
                        announce(self._listening(sockets, metrics_sockets))
                        await self._stopping.wait()
                        await self._drain(driver, handlers)
                finally:
                    self._handlers.end()
                    driver.stop_listening()
                    for link in tuple(driver.links.values()):
                        link.abort("the server stopped")
                    driver.tick()
                    base.cancel_scope.cancel()

    def _consumers(self, driver: Driver) -> list[Consumer]:
        if self._store is None:
            log_of_rooms = PureLog(secrets.token_hex(4), secrets.randbelow(1 << 31) + 1)
            consumers: list[Consumer] = [driver, LogExecutor(log_of_rooms, self.post, _wall)]
        else:
            consumers = [driver, self._store.consumer]
        if self._metrics is not None:
            consumers.append(self._metrics)
        return consumers

    def _listening(self, sockets: list[socket.socket], metrics_sockets: list[socket.socket]) -> Listening:
        settings = self._settings
        port = port_of(sockets[0])
        place = f"{host_text(settings.host)}:{port}"
        secure = "s" if settings.tls is not None else ""
        metrics = None
        if metrics_sockets and settings.metrics_address is not None:
            host = host_text(settings.metrics_address[0])
            metrics = f"http://{host}:{port_of(metrics_sockets[0])}/metrics"
        return Listening(settings.host, port, f"ws{secure}://{place}/", f"http{secure}://{place}/", metrics)

    async def _drain(self, driver: Driver, handlers: TaskGroup) -> None:
        self._draining = True
        driver.stop_listening()
        ends_at = anyio.current_time()
        if not self._now:
            drain_s = self._settings.hub.drain_s
            ends_at += drain_s
            self._pump.put(Shutdown(drain_s))
            self._drain_scope.deadline = ends_at + DRAIN_GRACE_S
            with self._drain_scope:
                await self._drained.wait()
        handlers.cancel_scope.deadline = anyio.current_time() if self._now else ends_at

    def _end(self) -> None:
        """The last word: every session's end is told, every open call answered, nothing is taken any more."""
        if self._driver is not None:
            self._driver.tick()
            self._over = True
            self.app.abandon("the server stopped")
        self._over = True

    def stop(self, now: bool) -> None:
        """Begins the drain, or with `now` skips what is left of it. From any thread."""
        self._asked = True
        if get_ident() != self._thread:
            if now:
                self._now = True
            if self._driver is not None:
                try:
                    self._driver.call_soon_threadsafe(partial(self.stop, now))
                except RuntimeError as exc:  # The loop has ended meanwhile, and the run with it.
                    log.debug("stop came too late: %s", exc)
            return
        if now:
            self._now = True
            self._drain_scope.cancel()
            if self._draining:
                self._handlers.cancel()
        self._stopping.set()

    # ---- what was accepted ----------------------------------------------------------------------

    def _taken(self, for_metrics: bool) -> Callable[[socket.socket, str], object]:
        driver = self._driver
        assert driver is not None
        if for_metrics:
            listener = MetricsListener(self._metrics.render)  # type: ignore[union-attr] # checked where bound
            return partial(self._take_scrape, listener)
        return driver.serve_socket if self._settings.tls is None else self._take_tls

    def _take_scrape(self, listener: MetricsListener, sock: socket.socket, peer: str) -> None:
        listener.admit(sock)
        self._start(listener.serve, sock)

    def _take_tls(self, sock: socket.socket, peer: str) -> None:
        driver = self._driver
        assert driver is not None
        conn = driver.admit(host_of(peer))
        if conn is None:
            sock.close()  # It waits for a handshake; there is nothing it would understand.
        else:
            self._start(self._serve_tls, sock, conn, peer)

    def _start(self, function: Callable[..., Any], *args: Any) -> None:
        assert self._base is not None
        self._base.start_soon(function, *args)

    async def _serve_tls(self, sock: socket.socket, conn: int, peer: str) -> None:
        driver, context = self._driver, self._settings.tls
        assert driver is not None
        assert context is not None
        secured: TLSStream | None = None
        try:
            secured = await shake_hands(sock, peer, context, self._settings.hub.handshake_timeout_s)
        finally:
            if secured is None:
                self._admission.release(conn)
        if secured is not None:
            await self._carry(driver, StreamTransport(driver, secured, conn, peer), True)

    async def serve_stream(self, stream: ByteStream, peer: str, secure: bool) -> None:
        """Carries one connection over any byte stream, until it ends; closed at once where a limit is reached."""
        driver = self._driver
        if driver is None or self._draining or self._over:
            raise LocalError("the server takes no connections now")
        conn = driver.admit(host_of(peer))
        if conn is None:
            await anyio.aclose_forcefully(stream)
        else:
            await self._carry(driver, StreamTransport(driver, stream, conn, peer), secure)

    @staticmethod
    async def _carry(driver: Driver, link: StreamTransport, secure: bool) -> None:
        driver.add(link, secure)
        await link.run()


def _wall() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
