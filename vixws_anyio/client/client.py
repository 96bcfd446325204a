"""The client that a program uses: one connection that comes back, on asyncio or trio."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count
from types import TracebackType
from typing import TypeVar

import anyio

from vixws_core.client import (
    ClientCancel,
    ClientConfig,
    ClientJoin,
    ClientLeave,
    ClientMachine,
    ClientOpened,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientState,
    Position,
    PublishSettled,
    RequestSettled,
    RoomJoined,
    RoomLeft,
    ServerRefused,
)
from vixws_core.codes import CLOSE_GOING_AWAY, CLOSE_NORMAL
from vixws_core.effects import Published
from vixws_core.errors import LocalError
from vixws_core.message import JsonMessage, payload_json

from .dispatch import ClientRouter
from .errors import ClientEnded, JoinError, PublishError, RequestError
from .room import (
    History,
    Room,
    RoomPosition,
    SinceLike,
    read_history,
    read_position,
    since_of,
)
from .run import ClientRun, Waiter

__all__ = ["Client"]

Function = TypeVar("Function", bound=Callable[..., object])


class Client:
    """A client of the server at `url` (`ws:` or `wss:`): `async with Client(url) as client:`.

    It connects in the background and comes back after every loss: each room goes on at its own position,
    every publish is repeated under its own key until it is answered. Calls that need the connection wait for
    it. `rooms` are joined from the start. `ssl_context`, or the certificates in `cafile`, decide about `wss:`.
    `hello` False: a server that does not speak this protocol. `pub`: see `ClientMachine`.

    Handlers take the client first, as a server's take the session; messages of an iterated room go to its loop
    instead. They run one after another, in order. A handler that raises ends the client: the exception leaves
    the `async with` (where `on_error` is registered it hears of it instead, and the client goes on), and the
    room's position stays before that message. One `async with` at a time; belongs to one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        rooms: Iterable[str] = (),
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        hello: bool = True,
        token: str | None = None,
        pub: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        cafile: str | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        self._make = partial(
            ClientMachine,
            url,
            config=config,
            headers=headers,
            subprotocols=subprotocols,
            hello=hello,
            pub=pub if pub is not None else secrets.token_hex(16),
            token=token,
        )
        self._first_rooms = tuple(rooms)
        self._router = ClientRouter()
        self._run = self._new_run()
        if self._run.machine.target.secure and ssl_context is None:
            try:
                ssl_context = ssl.create_default_context(cafile=cafile)
            except OSError as exc:
                raise LocalError(f"cannot use the certificates in {cafile!r}: {exc}") from exc
        self._tls = ssl_context
        self._life: AbstractAsyncContextManager[Client] | None = None
        self._requests = count(1)

    def _new_run(self) -> ClientRun:
        return ClientRun(self, self._make(seed=secrets.token_bytes(32)), self._router)

    # ---- handlers -------------------------------------------------------------------------------

    def on(self, type: str, *, thread: bool = False) -> Callable[[Function], Function]:
        """Registers `handler(client, payload[, message])` for messages of `type`; payloads are checked.

        As on the server: the annotation says what the payload must be; `message` is the `ClientMessage`.
        """
        return self._router.on(type, thread=thread)

    def on_open(self, function: Function, /) -> Function:
        """Registers `handler(client)`, called each time the connection is open."""
        return self._router.on_open(function)

    def on_close(self, function: Function, /) -> Function:
        """Registers `handler(client)`, called each time it is lost, with `close_code` and `close_reason` set."""
        return self._router.on_close(function)

    def on_error(self, function: Function, /) -> Function:
        """Registers `handler(client, exception)` for exceptions of other handlers; the client then goes on."""
        return self._router.on_error(function)

    def on_message(self, function: Function, /) -> Function:
        """Registers `handler(client, str | bytes)`, called with every message, raw."""
        return self._router.on_message(function)

    def on_typed_message(self, function: Function, /) -> Function:
        """Registers `handler(client, type, payload)` for typed messages that no `on(type)` takes."""
        return self._router.on_typed_message(function)

    def on_bad_payload(self, function: Function, /) -> Function:
        """Registers `handler(client, type, detail)` for payloads that do not fit; default: a line in the log."""
        return self._router.on_bad_payload(function)

    def on_room(self, function: Function, /) -> Function:
        """Registers `handler(client, event)` for `RoomJoined RoomLive RoomGap RoomReset RoomLeft`."""
        return self._router.on_room(function)

    # ---- its life -------------------------------------------------------------------------------

    async def __aenter__(self) -> Client:
        if self._life is not None:
            raise LocalError("this client runs already; one 'async with' at a time")
        self._life = self._live()
        return await self._life.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        life, self._life = self._life, None
        assert life is not None
        return await life.__aexit__(kind, value, trace)

    @asynccontextmanager
    async def _live(self) -> AsyncGenerator[Client, None]:
        failure: Exception | None = None
        self._run = run = self._new_run()
        async with anyio.create_task_group() as tasks:
            run.start(tasks, self._tls)
            try:
                for room in self._first_rooms:
                    run.do(ClientJoin(room))
                try:
                    yield self
                except Exception as exc:
                    failure = exc
                await self.close()
                with anyio.move_on_after(run.machine.config.close_timeout_s):
                    await run.dispatcher.done.wait()
            finally:
                run.stop(CLOSE_GOING_AWAY, "")
                tasks.cancel_scope.cancel()
        if run.dispatcher.failure is not None:
            raise run.dispatcher.failure
        if failure is not None:
            raise failure

    async def close(self, code: int = CLOSE_NORMAL, reason: str = "") -> None:
        """Closes and stays closed; returns when the server has answered, after 5 s in any case."""
        self._run.stop(code, reason)
        if self._life is not None or self._run.ended is None:
            await self._run.over.wait()

    async def wait_open(self) -> None:
        """Waits until the connection is open. Raises: `ClientEnded` where it never will be."""
        await self._run.wait_open()

    async def wait_closed(self) -> None:
        """Waits until the client has stopped for good."""
        await self._run.over.wait()

    # ---- what may be looked at ------------------------------------------------------------------

    @property
    def state(self) -> ClientState:
        """Where the client is."""
        return self._run.machine.state

    @property
    def positions(self) -> dict[str, Position]:
        """Per room, where its handled messages end: keep it, and give it as `since` to a later `join` or `room`."""
        return self._run.machine.positions

    @property
    def machine(self) -> ClientMachine:
        """The machine inside; look, do not touch."""
        return self._run.machine

    @property
    def welcome(self) -> ClientOpened | None:
        """What the server said when the connection last opened."""
        return self._run.welcome

    @property
    def close_code(self) -> int:
        """The close code of the last connection, 0 before its end; 1006: it had none."""
        return self._run.close_code

    @property
    def close_reason(self) -> str:
        """Why the last connection ended."""
        return self._run.close_reason

    @property
    def refused(self) -> ServerRefused | None:
        """The newest `$err` to what `send`, `send_text` or `send_binary` sent; None: there was none."""
        return self._run.refused

    # ---- messages -------------------------------------------------------------------------------

    async def send(self, type: str, payload: object = None) -> None:
        """Sends one typed message, at most once. Waits for the connection, and where it takes no more bytes."""
        await self._send(ClientSend(JsonMessage.serialize(type, payload).encode()))

    async def send_text(self, text: str) -> None:
        """Sends a text as it is."""
        try:
            data = text.encode()
        except UnicodeEncodeError as exc:
            raise LocalError(f"text must be valid Unicode: {exc}") from None
        await self._send(ClientSend(data))

    async def send_binary(self, data: bytes) -> None:
        """Sends bytes."""
        await self._send(ClientSend(bytes(data), binary=True))

    async def _send(self, ask: ClientSend) -> None:
        await self._run.wait_sendable()
        self._run.do(ask)

    async def publish(
        self, room: str, type: str, payload: object = None, *, mid: str | None = None, kind: str = "event"
    ) -> Published:
        """Publishes into `room` and waits for the final answer, over reconnects if need be.

        Cancelled, it goes on being sent; only nobody waits. Raises: `PublishError`; `LocalError` for a bad
        name or type, or where too many publishes have no answer.
        """
        run = self._run
        request = next(self._requests)
        answer = run.publishes[request] = Waiter()
        try:
            run.do(ClientPublish(request, room, type, payload_json(payload), kind, mid))
            settled: PublishSettled = await answer.wait()
        finally:
            del run.publishes[request]
        if not settled.ok:
            raise PublishError(settled.code, settled.message)
        return Published(request, room, settled.ep, settled.off, settled.id, settled.dup)

    # ---- rooms ----------------------------------------------------------------------------------

    async def join(
        self, room: str, since: SinceLike | None = None, last: int = 0, *, from_floor: bool = False
    ) -> RoomJoined:
        """Joins `room` and waits for the server's word; its messages go to the handlers.

        Raises: `JoinError` where the server refuses; `LocalError` for a bad name or a room that is joined.
        """
        run = self._run
        run.do(ClientJoin(room, since_of(since), last, from_floor))
        waiter = run.joins[room] = Waiter()
        try:
            told: RoomJoined | RoomLeft | ClientEnded = await waiter.wait()
        except BaseException:
            if run.joins.get(room) is waiter:
                del run.joins[room]
                self._leave(room)
            raise
        if isinstance(told, ClientEnded):
            raise told
        if isinstance(told, RoomLeft):
            raise JoinError(told.code or "left", told.message)
        return told

    def room(self, room: str, since: SinceLike | None = None, last: int = 0, *, from_floor: bool = False) -> Room:
        """The messages of `room`, to iterate over; joins it when the iteration begins, unless it is joined.

        The same room gives the same iterator until it is left. See `Room`.
        """
        run = self._run
        run.check()
        known = run.rooms.get(room)
        if known is None:
            ask = ClientJoin(room, since_of(since), last, from_floor)
            known = Room(room, partial(self._begin, ask), run.handled, partial(self._leave, room))
            run.rooms[room] = known
        return known

    async def leave(self, room: str) -> None:
        """Leaves `room`; a loop over it ends. Nothing happens where it is not joined."""
        self._leave(room)

    async def history(
        self, room: str, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> History:
        """Reads stored messages: below the offset `before`, newest first, or above `after`, oldest first.

        Without both, the newest. Raises: `RequestError`.
        """
        payload: dict[str, int] = {"limit": limit}
        if before is not None:
            payload["before"] = before
        if after is not None:
            payload["after"] = after
        return read_history(room, await self.request("$history", payload, room=room))

    async def position(self, room: str) -> RoomPosition:
        """Asks where the log of `room` stands. Raises: `RequestError`."""
        return read_position(await self.request("$position", room=room))

    async def request(self, type: str, payload: object = None, *, room: str | None = None) -> bytes:
        """Asks the server `type`, which must be one that may be repeated; returns the answer's payload, as JSON.

        Raises: `RequestError` where the answer is `$err`.
        """
        run = self._run
        request = next(self._requests)
        answer = run.questions[request] = Waiter()
        try:
            run.do(ClientRequest(request, type, room, payload_json(payload)))
            settled: RequestSettled = await answer.wait()
        except BaseException:
            if run.ended is None:
                run.do(ClientCancel(request))
            raise
        finally:
            del run.questions[request]
        if not settled.ok:
            raise RequestError(settled.code, settled.message)
        return settled.payload

    def _begin(self, ask: ClientJoin) -> None:
        if ask.room not in self._run.machine.rooms:
            self._run.do(ask)

    def _leave(self, room: str) -> None:
        if self._run.ended is None:
            self._run.do(ClientLeave(room))
