"""One life of a client: its machine, pump, transports, and who waits for which answer."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from vixws_core.client import (
    ClientClosed,
    ClientEffect,
    ClientInput,
    ClientMachine,
    ClientMessage,
    ClientOpened,
    ClientStart,
    ClientStop,
    MessageHandled,
    PublishSettled,
    RequestSettled,
    RoomGap,
    RoomJoined,
    RoomLeft,
    RoomLive,
    RoomReset,
    ServerRefused,
)
from vixws_core.errors import LocalError
from vixws_core.pump import Pump

from ..logs import clean, log
from .dispatch import ClientRouter, Dispatcher
from .errors import ClientEnded, JoinError
from .room import Room
from .transport import ClientDriver

__all__ = ["ClientRun", "Waiter"]

T = TypeVar("T")


class Waiter:
    """Where a call waits for its answer, which is set once."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: Any = None

    def set(self, value: object) -> None:
        """Gives the answer."""
        self._value = value
        self._event.set()

    async def wait(self) -> Any:
        """Waits for the answer and returns it."""
        await self._event.wait()
        return self._value


class ClientRun:
    """From `start` to the machine's last word. `client` is what handlers take first."""

    def __init__(self, client: object, machine: ClientMachine, router: ClientRouter) -> None:
        self.machine: ClientMachine = machine
        self.welcome: ClientOpened | None = None
        self.close_code: int = 0
        self.close_reason: str = ""
        self.refused: ServerRefused | None = None
        self.ended: ClientEnded | None = None
        """Set once the client has stopped for good."""
        self.over: anyio.Event = anyio.Event()
        self.rooms: dict[str, Room] = {}
        self.joins: dict[str, Waiter] = {}
        self.publishes: dict[int, Waiter] = {}
        self.questions: dict[int, Waiter] = {}
        self.dispatcher: Dispatcher = Dispatcher(client, router, self.handled, self.stop, self.over)
        self._opened = anyio.Event()
        self._stopping = False
        self._pump: Pump[ClientInput, ClientEffect] | None = None
        self._driver: ClientDriver | None = None

    def start(self, tasks: TaskGroup, tls: ssl.SSLContext | None) -> None:
        """Begins to connect; all its tasks run in `tasks`."""
        self._driver = ClientDriver(tasks, tls)
        self._pump = Pump(self.machine, time.monotonic, (self._driver,), self._calls())
        self._driver.attach(self._pump)
        tasks.start_soon(self.dispatcher.run, tasks.cancel_scope)
        self.do(ClientStart())

    # ---- the way to the machine -----------------------------------------------------------------

    def check(self) -> None:
        """Raises: `ClientEnded` where the client has stopped, `LocalError` where it has not begun."""
        if self.ended is not None:
            raise self.ended
        if self._pump is None:
            raise LocalError("the client is not running; use it inside 'async with'")

    def do(self, ask: ClientInput) -> None:
        """Runs one ask at once. Raises: `LocalError` where it cannot be carried out."""
        self.check()
        assert self._pump is not None
        self._pump.do(ask)

    def handled(self, number: int) -> None:
        """A message is done with."""
        if self._pump is not None:
            self._pump.do(MessageHandled(number))

    def stop(self, code: int, reason: str) -> None:
        """Begins to close; nothing happens where it has ended."""
        if self.ended is None and self._pump is not None:
            self._stopping = True
            self.do(ClientStop(code, reason))

    async def wait_open(self) -> None:
        """Waits until the connection is open."""
        self.check()
        while not self._opened.is_set():
            await self._opened.wait()
            self.check()

    async def wait_sendable(self) -> None:
        """Waits until the connection is open and its unsent bytes are below their mark."""
        self.check()
        assert self._driver is not None
        await self._driver.wait_sendable()
        await self.wait_open()

    # ---- what the machine tells -----------------------------------------------------------------

    def _calls(self) -> dict[type, Callable[[Any], object]]:
        queue = self.dispatcher.put
        return {
            ClientOpened: self._told_opened,
            ClientClosed: self._told_closed,
            ClientMessage: self._told_message,
            PublishSettled: lambda told: self._settle(self.publishes, told),
            RequestSettled: lambda told: self._settle(self.questions, told),
            RoomJoined: self._told_joined,
            RoomLive: self._told_live,
            RoomGap: queue,
            RoomReset: queue,
            RoomLeft: self._told_left,
            ServerRefused: self._told_refused,
        }

    @staticmethod
    def _settle(waiting: dict[int, Waiter], told: PublishSettled | RequestSettled) -> None:
        waiter = waiting.get(told.request)
        if waiter is not None:
            waiter.set(told)

    def _told_opened(self, told: ClientOpened) -> None:
        self.welcome = told
        self._opened.set()
        self.dispatcher.put(told)

    def _told_closed(self, told: ClientClosed) -> None:
        self.close_code, self.close_reason = told.code, told.reason
        if told.reconnecting:
            if self._opened.is_set():  # Else there are calls that wait on it.
                self._opened = anyio.Event()
            reason = clean(told.reason)
            log.warning("client connection ended with %d: %s; again in %.1f s", told.code, reason, told.delay_s)
        else:
            self.ended = ended = ClientEnded(told.code, told.reason)
            for waiter in self.joins.values():
                waiter.set(ended)
            for room in self.rooms.values():
                room.end(None if self._stopping else ended)
            self._opened.set()
            self.over.set()
        self.dispatcher.put(told)

    def _told_message(self, told: ClientMessage) -> None:
        room = self.rooms.get(told.room or "")
        if room is not None and room.iterated:
            room.put(told)
        else:
            self.dispatcher.put(told)

    def _told_joined(self, told: RoomJoined) -> None:
        room = self.rooms.get(told.room)
        if room is not None:
            room.begin(told)
        self._settle_join(told)

    def _told_live(self, told: RoomLive) -> None:
        room = self.rooms.get(told.room)
        if room is not None:
            room.catch_up()
        self.dispatcher.put(told)

    def _told_left(self, told: RoomLeft) -> None:
        room = self.rooms.pop(told.room, None)
        if room is not None:
            room.forget()
            room.end(JoinError(told.code, told.message) if told.code else None)
        self._settle_join(told)

    def _settle_join(self, told: RoomJoined | RoomLeft) -> None:
        waiter = self.joins.pop(told.room, None)
        if waiter is not None:
            waiter.set(told)
        self.dispatcher.put(told)

    def _told_refused(self, told: ServerRefused) -> None:
        self.refused = told
        log.warning("the server refused a message: %s: %s", clean(told.code), clean(told.message))
