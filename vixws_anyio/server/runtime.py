"""One run of a server: hub, pump, store and sockets, from the first listen to the last flush."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from threading import get_ident
from typing import Any, Protocol, TypeVar

import anyio
import anyio.from_thread
from anyio.abc import ByteStream, TaskGroup

from vixws_core.app import App
from vixws_core.app.access import RootRouter
from vixws_core.app.origins import Origins
from vixws_core.app.router import Router
from vixws_core.config import HubConfig
from vixws_core.effects import Effect
from vixws_core.errors import LocalError
from vixws_core.hub import Hub
from vixws_core.inputs import Input, Shutdown
from vixws_core.protocols import Consumer, Damageable, Hurried, Limited, MessageStore
from vixws_core.pump import Pump

from ..logs import log, report
from ..transport.driver import Driver, host_of
from ..transport.loops import driver_for
from .acceptor import Acceptor
from .admission import Admission, AdmissionLimits, open_files_max
from .ending import DrainTimes, Ending
from .handlers import Handlers
from .listeners import bind, host_text, port_of
from .memory import memory_log
from .pages import OwnPage, pages
from .tracing import Recorder, recorder
from .turned_away import TurnedAway

__all__ = ["Listening", "Metrics", "Runtime", "Settings"]

T = TypeVar("T")


LISTEN_SETTING = "websocket.host and websocket.port: --host, --port"
METRICS_SETTING = "metrics.listen: --metrics HOST:PORT puts it elsewhere, --metrics off leaves it out"
"""What to change where a port is taken."""


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
    trace: str | None = None
    trace_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server can be reached, once it really listens. `metrics` is a URL, or None where it is off.

    `host`, `ws` and `http` are those of the first host; `all_ws` has the URLs of all.
    """

    host: str
    port: int
    ws: str
    http: str
    metrics: str | None
    all_ws: tuple[str, ...] = ()


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
        self._announced = False
        self._last_words = Ending()
        self._drain_scope = anyio.CancelScope()
        self._acceptor: Acceptor | None = None
        self._handlers = Handlers(settings.handler_timeout_s, settings.cancel_handlers, settings.threads_max)
        limits = settings.admission
        limits = replace(limits, connections_max=min(limits.connections_max, open_files_max()))
        self._turned_away = TurnedAway(metrics, time.monotonic)
        self._admission = Admission(limits, time.monotonic, self._turned_away)
        self._driver: Driver | None = None
        self._recorder: Recorder | None = None
        watch_log: Callable[[Callable[[], int]], object] | None = getattr(metrics, "watch_log", None)
        if watch_log is not None:
            watch_log(lambda: getattr(store, "log_bytes", 0))
        self._policy = policy = root.policy(settings.access)
        self._seed = secrets.token_bytes(32)
        self.hub: Hub = Hub(settings.hub, seed=self._seed, policy=policy)
        self.app: App = App(
            self.hub,
            self.do,
            routes,
            clock=time.monotonic,
            report=report,
            wait=self._handlers.wait,
            call=self.call,
            pages=pages(self._is_ready, settings.pages, self._damaged_rooms),
            message_bytes_max=settings.hub.message_bytes_max,
            arrived=self._arrived,
            drained=self._drained.set,
            root=root,
            origins=Origins(settings.allowed_origins, loopback_only=policy.trusting and settings.access is None),
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

    def _arrived(self, conn: int, headers: tuple[tuple[str, str], ...]) -> tuple[str, bool | str | None] | None:
        """Who sends a request: the peer, or whom a trusted proxy names; None where that address has too many."""
        assert self._driver is not None
        peer, admission = self._driver.peer(conn), self._admission
        forwarded = [value for name, value in headers if name == "x-forwarded-for"]
        client = admission.client_of(host_of(peer), ",".join(forwarded)) if forwarded else host_of(peer)
        if client == host_of(peer):
            return peer, None
        return (client, admission.limited_as(client) or False) if admission.identify(conn, client) else None

    def _is_ready(self) -> bool:
        return not self._draining and (self._store is None or self._store.ready)

    def _damaged_rooms(self) -> tuple[str, ...]:
        return self._store.damaged_rooms if isinstance(self._store, Damageable) else ()

    # ---- serving --------------------------------------------------------------------------------

    async def serve(self, announce: Callable[[Listening], object]) -> None:
        """Binds, opens the store, serves until `stop` or cancellation, and leaves nothing behind."""
        try:
            await self._open(announce)
        except BaseException as exc:
            if self._announced:
                self._last_words.stopped(exc, anyio.get_cancelled_exc_class())
            raise
        self._last_words.stopped(None, anyio.get_cancelled_exc_class())

    async def _open(self, announce: Callable[[Listening], object]) -> None:
        settings = self._settings
        sockets = bind(settings.host, settings.port, LISTEN_SETTING)
        try:
            metrics_sockets: list[socket.socket] = []
            if settings.metrics_address is not None and hasattr(self._metrics, "render"):
                metrics_sockets = bind(*settings.metrics_address, METRICS_SETTING)
                sockets += metrics_sockets
            if isinstance(self._store, Limited):
                self._store.message_bytes_max = settings.hub.message_bytes_max
            store: AbstractAsyncContextManager[Any] = (
                nullcontext() if self._store is None else self._store.run(self.post)
            )
            policy, seed = self._policy, self._seed
            traced = recorder(settings.trace, settings.trace_bytes, settings.hub, policy, seed)
            async with store, traced as self._recorder:
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
            make = Pump[Input, Effect] if self._recorder is None else self._recorder.pump
            self._pump = make(self.hub, time.monotonic, self._consumers(driver), self.app.calls)
            driver.attach(self._pump)
            async with anyio.create_task_group() as base:
                tls, timeout_s = settings.tls, settings.hub.handshake_timeout_s
                self._acceptor = acceptor = Acceptor(driver, base, tls, timeout_s)
                try:
                    async with anyio.create_task_group() as handlers:
                        self._handlers.begin(handlers, driver.call_soon_threadsafe)
                        for sock in sockets:
                            is_metrics = sock in metrics_sockets
                            driver.listen(sock, self._scrapes(acceptor) if is_metrics else acceptor.connections())
                        listening = self._listening(sockets, metrics_sockets)
                        announce(listening)
                        self._announced = True
                        log.info("listening on %s", ", ".join(listening.all_ws))
                        await self._stopping.wait()
                        await self._drain(driver, handlers)
                finally:
                    self._handlers.end()
                    driver.stop_listening()
                    for link in tuple(driver.links.values()):
                        link.abort("the server stopped")
                    driver.tick()
                    base.cancel_scope.cancel()

    def _scrapes(self, acceptor: Acceptor) -> Callable[[socket.socket, str], object]:
        return acceptor.scrapes(self._metrics.render)  # type: ignore[union-attr] # checked where bound

    def _consumers(self, driver: Driver) -> list[Consumer]:
        if self._store is None:
            consumers: list[Consumer] = [driver, memory_log(self.post)]
        else:
            consumers = [driver, self._store.consumer]
        if self._metrics is not None:
            consumers.append(self._metrics)
        return consumers

    def _listening(self, sockets: list[socket.socket], metrics_sockets: list[socket.socket]) -> Listening:
        settings = self._settings
        port = port_of(sockets[0])
        hosts = settings.host.split(",")
        places = [f"{host_text(host)}:{port}" for host in hosts]
        secure = "s" if settings.tls is not None else ""
        metrics = None
        if metrics_sockets and settings.metrics_address is not None:
            host = host_text(settings.metrics_address[0])
            metrics = f"http://{host}:{port_of(metrics_sockets[0])}/metrics"
        all_ws = tuple(f"ws{secure}://{place}/" for place in places)
        return Listening(hosts[0], port, all_ws[0], f"http{secure}://{places[0]}/", metrics, all_ws)

    async def _drain(self, driver: Driver, handlers: TaskGroup) -> None:
        self._draining = True
        driver.stop_listening()
        ends_at = anyio.current_time()
        if not self._now:
            drain_s = self._settings.hub.drain_s
            times = DrainTimes.of(drain_s)
            ends_at += times.hub_s
            self._last_words.draining(drain_s, self.hub.connections)
            self._hurry(times.store_s, times.flush_s)
            self._pump.put(Shutdown(times.hub_s))
            self._drain_scope.deadline = anyio.current_time() + (times.hub_s + times.flush_s) / 2
            try:
                with self._drain_scope:
                    await self._drained.wait()
            finally:
                self._last_words.drained(self.hub.connections)
        handlers.cancel_scope.deadline = anyio.current_time() if self._now else ends_at

    def _hurry(self, wait_s: float, flush_s: float | None = None) -> None:
        if isinstance(self._store, Hurried):
            self._store.hurry(wait_s, flush_s)

    def _end(self) -> None:
        """The last word: every session's end is told, every open call answered, nothing is taken any more."""
        if self._driver is not None:
            self._driver.tick()
            self._over = True
            self.app.abandon("the server stopped")
        self._over = True
        self._turned_away.tell_rest()

    def stop(self, now: bool, reason: str) -> None:
        """Begins the drain, or with `now` skips what is left of it. From any thread."""
        self._asked = True
        self._last_words.asked(reason)
        if get_ident() != self._thread:
            if now:
                self._now = True
            if self._driver is not None:
                try:
                    self._driver.call_soon_threadsafe(partial(self.stop, now, reason))
                except RuntimeError as exc:  # The loop has ended meanwhile, and the run with it.
                    log.debug("stop came too late: %s", exc)
            return
        if now:
            self._now = True
            self._hurry(0.0)
            self._drain_scope.cancel()
            if self._draining:
                self._handlers.cancel()
        self._stopping.set()

    async def serve_stream(self, stream: ByteStream, peer: str, secure: bool) -> None:
        """Carries one connection over any byte stream, until it ends; closed at once where a limit is reached."""
        acceptor = self._acceptor
        if acceptor is None or self._draining or self._over:
            raise LocalError("the server takes no connections now")
        await acceptor.serve_stream(stream, peer, secure)
