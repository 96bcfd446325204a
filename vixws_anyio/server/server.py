"""The server that a program embeds: handlers registered on it, served on asyncio or trio."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any, TypeVar, Unpack, cast

import anyio
from anyio.abc import ByteStream, TaskStatus

from vixws_core.app import App
from vixws_core.app.access import RootRouter
from vixws_core.app.commands import Publishing
from vixws_core.app.router import Handler, Router
from vixws_core.app.session import Session
from vixws_core.config import HubConfig
from vixws_core.effects import HistoryListed, Published, PublishFailed
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import Since
from vixws_core.message import StoredMessage
from vixws_core.protocols import Consumer, MessageStore

from ..config.config import Config
from ..logs import log
from .admission import AdmissionLimits
from .listeners import is_loopback
from .pages import HEALTH, OwnPage
from .retaining import retain
from .runtime import Listening, Runtime, Settings
from .signals import signals_heeded
from .tls import server_context

__all__ = ["Server"]

Function = TypeVar("Function", bound=OwnPage)


class Server(RootRouter):
    """A realtime server. It is the router of `/` and `/ws`: `on_open`, `on(type)` and the others register on it.

    `authenticate` and `authorize` hold for all routes; without them everybody may do everything, so it starts on
    loopback only, unless the configuration's `access` says that this is meant.

    `store` keeps the rooms' logs; without one they live in memory, up to 64 MiB, and end with the run. `metrics`
    sees every step. `tls` makes it `wss`, in place of the configuration's certificate. `host` and `port` are short for
    the configuration's. `config store metrics tls` may be set anew between runs; it serves once at a time.
    """

    def __init__(
        self,
        config: Config | HubConfig | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        store: MessageStore | None = None,
        metrics: Consumer | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(config, Config):
            config = Config() if config is None else Config(**hub_values(config))
        changes = {"host": host, "port": port}
        self.config: Config = config.replace(**{name: value for name, value in changes.items() if value is not None})
        self.tls: ssl.SSLContext | None = tls
        self.store: MessageStore | None = store
        self.metrics: Consumer | None = metrics
        self._routes: dict[str, tuple[Router, tuple[str, ...]]] = {"/": (self, ()), "/ws": (self, ())}
        self._pages: dict[str, OwnPage] = {}
        self._run: Runtime | None = None
        self._listening: Listening | None = None

    # ---- serving --------------------------------------------------------------------------------

    def route(self, path: str, subprotocols: Sequence[str] = ()) -> Router:
        """Opens another path for upgrades, with handlers of its own; `/` and `/ws` name the server's.

        The first of the client's subprotocols that is among `subprotocols`, or is `vixws.v1`, is agreed on
        (RFC 6455 §4.2.2).
        Raises: `LocalError` for a path that is taken or does not begin with `/`.
        """
        if not path.startswith("/") or "?" in path or "#" in path:
            raise LocalError(f"path must begin with '/' and have no query, got {path!r:.80}")
        known = self._routes.get(path)
        if known is not None and (known[0] is not self or known[1]):
            raise LocalError(f"path {path!r:.80} has handlers already")
        router = self if known is not None else Router()
        self._routes[path] = (router, tuple(subprotocols))
        return router

    def page(self, path: str) -> Callable[[Function], Function]:
        """Registers `function(request)` as the answer to `GET path` over plain HTTP, `HEAD` included.

        `request` is a `PageRequest`; it returns a `Page`, HTML as `str`, or what JSON can hold. It runs in the
        event loop and must not block; one that raises is reported and answered 500. `/` replaces the chat page.
        Raises: `LocalError` for a path that is taken, is a health check or has no `/` in front, or for `async`.
        """
        if not path.startswith("/") or "?" in path or "#" in path:
            raise LocalError(f"path must begin with '/' and have no query, got {path!r:.80}")
        if path in self._pages or path in HEALTH:
            raise LocalError(f"path {path!r:.80} has a page already")

        def register(function: Function) -> Function:
            handler = Handler(function)
            if handler.is_async:
                raise LocalError(f"page {handler.name!r} is async: expected a plain function, which must not block")
            self._pages[path] = function
            return function

        return register

    async def serve(
        self,
        *,
        ready: Callable[[Listening], object] | None = None,
        task_status: TaskStatus[Listening] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until `stop`, in the running asyncio or trio loop; cancellation ends it at once.

        `ready` is called with a `Listening` as soon as connections are taken; `await tasks.start(server.serve)`
        returns it. Raises: `LocalError` where it serves already or cannot listen.
        """
        await self._serve(ready, task_status, False)

    def listen_blocking(
        self,
        backend: str = "asyncio",
        *,
        uvloop: bool = False,
        ready: Callable[[Listening], object] | None = None,
    ) -> None:
        """Runs an event loop of its own and serves until SIGTERM or SIGINT (drained; a second one: at once).

        `backend` is `asyncio` or `trio`; `uvloop` is asyncio's. `ready` is called with a `Listening`; without it one
        line on stderr says where it listens. Signals are taken in the main thread only; in another one it serves
        until `stop`. Raises: as `serve`.
        """
        if backend not in ("asyncio", "trio") or (uvloop and backend != "asyncio"):
            raise LocalError(f"backend must be asyncio or trio, and uvloop goes with asyncio, got {backend!r:.40}")
        options = {"use_uvloop": uvloop} if backend == "asyncio" else {}
        signals = threading.current_thread() is threading.main_thread()
        told = say_where if ready is None else ready
        anyio.run(self._serve, told, anyio.TASK_STATUS_IGNORED, signals, backend=backend, backend_options=options)

    def stop(self, now: bool = False, reason: str = "stop() was called") -> None:
        """Begins to end the run: no new connections, each client told, then closed; `now` waits for nothing.

        `reason` is for the log. May be called from any thread, and again. Does nothing where it does not serve.
        """
        run = self._run
        if run is not None:
            run.stop(now, reason)

    async def serve_stream(self, stream: ByteStream, peer: str = "", *, secure: bool = False) -> None:
        """Carries one connection over any anyio byte stream, from your own listener, until it ends."""
        await self._running().serve_stream(stream, peer, secure)

    async def _serve(
        self, ready: Callable[[Listening], object] | None, task_status: TaskStatus[Listening], signals: bool
    ) -> None:
        if self._run is not None:
            raise LocalError("this server serves already; one run at a time")
        settings = settings_of(self.config, self.tls, self.store, self._pages)
        retain(self.config, self.store)

        def announce(listening: Listening) -> None:
            self._listening = listening
            if ready is not None:
                ready(listening)
            if is_open:
                log.info(
                    "open access: everybody on this machine may join, read and publish in every room (auth.access)"
                )
            task_status.started(listening)

        is_open = self._lets_everybody()
        self._run = run = Runtime(settings, self, self._routes, self.store, self.metrics)
        try:
            async with signals_heeded(self.stop) if signals else nullcontext():
                await run.serve(announce)
        except BaseExceptionGroup as exc:
            cause = only_cause(exc)
            if cause is None:
                raise
            raise cause from cause.__cause__
        finally:
            self._run = None
            self._listening = None

    def _lets_everybody(self) -> bool:
        """Whether everybody may do everything because nobody said otherwise: fine where this machine alone reaches it.

        Raises: `LocalError` where others reach it too.
        """
        if self.config.access != "auto" or self.authenticator is not None or self.authorizer is not None:
            return False
        if not is_loopback(self.config.host, self.config.port):
            raise LocalError(
                f"{self.config.place('host')}: expected server.authenticate and server.authorize, or an explicit "
                f"auth.access (--access open lets everybody into every room), got {self.config.host} without any"
            )
        return True

    @property
    def listening(self) -> Listening | None:
        """Where it can be reached; None while it does not serve."""
        return self._listening

    @property
    def port(self) -> int:
        """The port it listens on; the configured one while it does not serve."""
        return self.config.port if self._listening is None else self._listening.port

    @property
    def ws(self) -> str:
        """The `ws://` or `wss://` URL. Raises: `LocalError` while it does not serve."""
        return self._where().ws

    @property
    def http(self) -> str:
        """The `http://` or `https://` URL. Raises: `LocalError` while it does not serve."""
        return self._where().http

    def _where(self) -> Listening:
        if self._listening is None:
            raise LocalError("the server does not serve yet")
        return self._listening

    def _running(self) -> Runtime:
        if self._run is None:
            raise LocalError("the server does not serve; start it with serve() or listen_blocking()")
        return self._run

    @property
    def _app(self) -> App:
        return self._running().app

    # ---- rooms and messages ---------------------------------------------------------------------

    def join_room(
        self, session: Session, room: str, since: Since | Mapping[str, Any] | None = None, last: int = 0
    ) -> None:
        """Puts `session` into `room`; see `vixws_core.app.App.join_room`."""
        self._app.join_room(session, room, since, last)

    def leave_room(self, session: Session, room: str) -> None:
        """Takes `session` out of `room`; nothing happens where it is not a member."""
        self._app.leave_room(session, room)

    def leave_all_rooms(self, session: Session) -> None:
        """Takes `session` out of all its rooms."""
        self._app.leave_all_rooms(session)

    def broadcast_json(self, type: str, payload: object = None, but: Session | None = None) -> None:
        """Sends one typed message to every open session, except `but`; never stored."""
        self._app.broadcast_json(type, payload, but)

    def broadcast_room_json(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        session: Session | None = None,
        **how: Unpack[Publishing],
    ) -> None:
        """Publishes into `room`: appended to its log, then sent to its members; see `App.broadcast_room_json`."""
        self._app.broadcast_room_json(room, type, payload, session=session, **how)

    async def publish(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        session: Session | None = None,
        **how: Unpack[Publishing],
    ) -> Published:
        """Publishes into `room` and waits until it is stored; see `broadcast_room_json`.

        Raises: `StoreError` where that failed.
        """
        outcomes: list[Published | PublishFailed] = []
        answered = anyio.Event()

        def done(outcome: Published | PublishFailed) -> None:
            outcomes.append(outcome)
            answered.set()
            if told is not None:
                told(outcome)

        told = how.get("done")
        how["done"] = done
        self.broadcast_room_json(room, type, payload, session=session, **how)
        await answered.wait()
        outcome = outcomes[0]
        if isinstance(outcome, PublishFailed):
            raise StoreError(outcome.code, outcome.message, retry=outcome.retry, expected=outcome.expected)
        return outcome

    async def history(self, room: str, limit: int = 50, before_id: str | None = None) -> tuple[StoredMessage, ...]:
        """Reads the newest `limit` messages of `room` below the id `before_id`, oldest first.

        Raises: `StoreError` where the store could not.
        """
        answers: list[HistoryListed] = []
        answered = anyio.Event()

        def done(answer: HistoryListed) -> None:
            answers.append(answer)
            answered.set()

        self._app.history(room, limit, before_id, done)
        await answered.wait()
        answer = answers[0]
        if answer.code:
            raise StoreError(answer.code, answer.message)
        return answer.rows

    def revoke(self, user: str, room: str | None = None, *, now: bool = False) -> None:
        """Takes back what the user of that id was granted; see `vixws_core.app.App.revoke`."""
        self._app.revoke(user, room, now=now)

    def members(self, room: str) -> list[Session]:
        """The sessions in `room` now."""
        return self._app.members(room)

    def rooms(self) -> list[str]:
        """Names of the rooms that have members now."""
        return self._app.rooms()

    def sessions(self) -> list[Session]:
        """All open sessions, oldest first."""
        return self._app.sessions()


def only_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception in a group, however deep; None where there are several."""
    found: list[BaseException] = list(group.exceptions)
    if len(found) > 1:
        return None
    cause = found[0]
    if isinstance(cause, BaseExceptionGroup):
        return only_cause(cast("BaseExceptionGroup[BaseException]", cause))
    return cause


def say_where(listening: Listening) -> None:
    """Tells a person at a terminal where the server listens."""
    places = ", ".join(listening.all_ws)
    print(f"vixws: listening on {places} and {listening.http} (Ctrl-C stops)", file=sys.stderr, flush=True)


def hub_values(hub: HubConfig) -> dict[str, Any]:
    """The settings that a hub's configuration holds, by the names that `Config` shares."""
    return {field.name: getattr(hub, field.name) for field in fields(hub) if field.name != "durable"}


def settings_of(
    config: Config, tls: ssl.SSLContext | None, store: MessageStore | None, own_pages: Mapping[str, OwnPage]
) -> Settings:
    """What a run is started with. Raises: `ConfigError` for a certificate or key that cannot be used."""
    return Settings(
        hub=config.hub("memory" if store is None else store.durable),
        host=config.host,
        port=config.port,
        admission=AdmissionLimits(
            config.connections_max,
            config.connections_opening_max,
            config.connections_per_ip,
            config.handshakes_per_ip_per_s,
            config.limit_loopback,
            config.trusted_proxies,
        ),
        unsent_bytes_kernel=config.send_buffer_bytes,
        metrics_address=config.metrics_address,
        tls=server_context(config) if tls is None else tls,
        pages=own_pages,
        access=None if config.access == "auto" else config.access,
        allowed_origins=config.allowed_origins,
        auth_deadline_s=config.auth_deadline_s,
        handler_timeout_s=config.handler_timeout_s,
        cancel_handlers=config.cancel_handlers,
        trace=config.trace,
        trace_bytes=config.trace_bytes,
    )
