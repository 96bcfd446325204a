"""Runs a client's handlers, one after another, in the order of what they are told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from vixws_core.app.router import BadPayload, Handler, Router
from vixws_core.client import ClientClosed, ClientMessage, ClientOpened
from vixws_core.codes import CLOSE_SERVER_FAULT
from vixws_core.errors import LocalError

from ..logs import clean, log

__all__ = ["ClientRouter", "Dispatcher"]

Function = TypeVar("Function", bound=Callable[..., object])

GOODBYE_S = 1.0
"""Seconds for the closing handshake after a handler failed."""


class ClientRouter(Router):
    """The handlers of a client: a route's, and the one for events of rooms."""

    def __init__(self) -> None:
        super().__init__()
        self.room: Handler | None = None

    def on_room(self, function: Function, /) -> Function:
        """Registers `handler(client, event)` for events of rooms. Raises: `LocalError` where there is one."""
        if self.room is not None:
            raise LocalError(f"one handler for this event, {self.room.name!r} is registered")
        self.room = Handler(function)
        return function


class Dispatcher:
    """Takes events with `put`, and runs their handlers in `run`.

    Every handler's first argument is `client`. `handled` is told the number of each message that is done;
    `stop` closes the client, and `over` is set when it is closed.
    """

    def __init__(
        self,
        client: object,
        router: ClientRouter,
        handled: Callable[[int], object],
        stop: Callable[[int, str], object],
        over: anyio.Event,
    ) -> None:
        self._client = client
        self._router = router
        self._handled = handled
        self._stop = stop
        self._over = over
        self._events: deque[Any] = deque()
        self._news = anyio.Event()
        self.failure: Exception | None = None
        """The exception of a handler that ended the client."""
        self.done: anyio.Event = anyio.Event()
        """Set when the last event is dealt with."""

    def put(self, event: Any) -> None:
        """Takes an event; what the machine counts as not handled bounds how many wait here."""
        self._events.append(event)
        self._news.set()

    async def run(self, scope: anyio.CancelScope) -> None:
        """Runs handlers until the client has stopped; cancels `scope` where one fails."""
        while True:
            while self._events:
                event = self._events.popleft()
                try:
                    await self._deliver(event)
                except Exception as exc:
                    if not await self._survives(exc):
                        scope.cancel()
                        return
                if isinstance(event, ClientMessage):
                    self._handled(event.number)
                elif isinstance(event, ClientClosed) and not event.reconnecting:
                    self.done.set()
                    return
            self._news = anyio.Event()
            await self._news.wait()

    async def _survives(self, exc: Exception) -> bool:
        """Tells `on_error` of a handler's exception; without one the client says goodbye and fails."""
        try:
            if self._router.failed is not None:
                await self._call(self._router.failed, exc)
                return True
            self.failure = exc
        except Exception as second:
            self.failure = second
        self._stop(CLOSE_SERVER_FAULT, "a handler failed")
        with anyio.move_on_after(GOODBYE_S):
            await self._over.wait()
        return False

    async def _deliver(self, event: Any) -> None:
        router = self._router
        if isinstance(event, ClientMessage):
            await self._deliver_message(event)
        elif isinstance(event, ClientOpened):
            if router.opened is not None:
                await self._call(router.opened)
        elif isinstance(event, ClientClosed):
            if router.closed is not None:
                await self._call(router.closed)
        elif router.room is not None:
            await self._call(router.room, event)

    async def _deliver_message(self, message: ClientMessage) -> None:
        router = self._router
        if router.raw is not None:
            await self._call(router.raw, message.data)
        handler = router.types.get(message.type, router.typed)
        if not message.type or handler is None:
            return
        try:
            payload = handler.decode(message.payload)
        except BadPayload as exc:
            if router.bad is not None:
                await self._call(router.bad, message.type, str(exc))
            else:
                log.warning("message %s has a bad payload: %s", clean(message.type), clean(exc))
            return
        if handler is router.typed:
            await self._call(handler, message.type, payload)
        elif handler.wants_message:
            await self._call(handler, payload, message)
        else:
            await self._call(handler, payload)

    async def _call(self, handler: Handler, *args: object) -> None:
        if handler.thread:
            call = partial(handler.function, self._client, *args)
            await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        elif handler.is_async:
            await handler.function(self._client, *args)
        else:
            handler.function(self._client, *args)
