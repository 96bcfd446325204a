"""What a client's calls return and raise, and iteration over a room's messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from vixws_core.client import ClientMessage, RoomJoined
from vixws_core.codes import BAD_MESSAGE
from vixws_core.errors import LocalError
from vixws_core.inputs import Since
from vixws_core.message import StoredMessage

from .errors import RequestError

__all__ = [
    "History",
    "Room",
    "RoomPosition",
    "SinceLike",
    "read_history",
    "read_position",
    "since_of",
]

SinceLike = Since | Mapping[str, Any] | tuple[str, int, str | None]
"""A position to begin after: `Since`, `{"ep", "off", "id"}`, or an item of `Client.positions`."""


class RoomPosition(msgspec.Struct, frozen=True, gc=False):
    """Where a room's log stands: its epoch, newest offset, highest trimmed offset, and the newest entry's id."""

    ep: str
    head: int
    floor: int = 0
    id: str | None = None


class History(msgspec.Struct, frozen=True):
    """A page of a room's messages; `more`: the log holds further ones in that direction."""

    messages: tuple[StoredMessage, ...]
    more: bool


class _Entry(msgspec.Struct, gc=False):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    kind: str = "event"
    ep: str = ""
    off: int = 0
    id: str = ""
    ts: str = ""
    mid: str | None = None
    sender: str | None = msgspec.field(default=None, name="from")


class _Page(msgspec.Struct, gc=False):
    messages: list[_Entry]
    more: bool = False


_PAGES = msgspec.json.Decoder(_Page)
_POSITIONS = msgspec.json.Decoder(RoomPosition)


def read_history(room: str, payload: bytes) -> History:
    """Reads a `$page`. Raises: `RequestError` where it is none."""
    try:
        page = _PAGES.decode(payload)
    except (ValueError, RecursionError) as exc:
        raise RequestError(BAD_MESSAGE, f"expected a page of messages: {exc}") from None
    rows = (
        StoredMessage(e.id, e.kind, room, e.type, e.ts, bytes(e.payload), e.ep, e.off, e.mid, e.sender)
        for e in page.messages
    )
    return History(tuple(rows), page.more)


def read_position(payload: bytes) -> RoomPosition:
    """Reads a `$position`. Raises: `RequestError` where it is none."""
    try:
        return _POSITIONS.decode(payload)
    except ValueError as exc:
        raise RequestError(BAD_MESSAGE, f"expected a position: {exc}") from None


def since_of(value: SinceLike | None) -> Since | None:
    """Reads a position given in any of its shapes. Raises: `LocalError`."""
    if value is None or isinstance(value, Since):
        return value
    try:
        if isinstance(value, tuple):
            ep, off, id = value
        else:
            ep, off, id = value["ep"], value["off"], value.get("id")
    except (KeyError, ValueError, AttributeError, TypeError):
        raise LocalError(f"since must have an epoch and an offset, got {value!r:.200}") from None
    if not isinstance(ep, str) or not isinstance(off, int) or not (id is None or isinstance(id, str)):  # pyright: ignore[reportUnnecessaryIsInstance] — callers may have read it from a file
        raise LocalError(f"since must have an epoch and an offset, got {value!r:.200}")
    return Since(ep, off, id)


def stored(message: ClientMessage) -> StoredMessage:
    """A room's message as a record of its own."""
    return StoredMessage(
        message.id,
        message.kind,
        message.room or "",
        message.type,
        message.ts,
        message.payload,
        message.ep,
        message.off,
        message.mid,
        message.sender,
    )


class Room:
    """The messages of one room, in order: `async for message in client.room("africa", last=50)`.

    Each is a `StoredMessage` (`room ep off id ts kind type mid sender`, and `payload`, decoded when asked for).
    A message counts as handled when the next one is asked for: only then the room's position moves beyond it.
    Where the loop lags, a bounded number of messages waits here; the rest stays in the server's log.
    After a `break` another `async for` goes on behind the message of the break. The loop ends when the room is
    left or the client closed; it raises `JoinError` where the server puts us out, `ClientEnded` where it stops
    us. `async with client.room(…) as room:` leaves the room at the end.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], object],
        handled: Callable[[int], object],
        leave: Callable[[], object],
    ) -> None:
        self.name: str = name
        self.joined: RoomJoined | None = None
        """What the server said to the newest join; `recovered` False after a reconnect: something was missed."""
        self.live: bool = False
        """Whether all that was stored at the join has arrived."""
        self._begin = begin
        self._handled = handled
        self._leave = leave
        self._messages: deque[ClientMessage] = deque()
        self._current = 0
        self._wake = anyio.Event()
        self._over = False
        self._error: Exception | None = None
        self.iterated: bool = False

    def __aiter__(self) -> Room:
        return self

    async def __anext__(self) -> StoredMessage:
        """The next message."""
        if not self.iterated:
            self.iterated = True
            self._begin()
        if self._current:
            number, self._current = self._current, 0
            self._handled(number)
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            if self._wake.is_set():
                self._wake = anyio.Event()
            await self._wake.wait()
        message = self._messages.popleft()
        self._current = message.number
        return stored(message)

    async def __aenter__(self) -> Room:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._current and kind is None:
            self._handled(self._current)
        self._leave()

    def begin(self, joined: RoomJoined) -> None:
        """The server let us in; what is stored comes first."""
        self.joined = joined
        self.live = False

    def catch_up(self) -> None:
        """All that was stored at the join has arrived."""
        self.live = True

    def put(self, message: ClientMessage) -> None:
        """A message arrived."""
        self._messages.append(message)
        self._wake.set()

    def end(self, error: Exception | None) -> None:
        """No message follows what waits here; None: by our own wish."""
        self._over = True
        self._error = error
        self._wake.set()

    def forget(self) -> None:
        """Drops what waits here: the room was left."""
        self._messages.clear()
        self._current = 0
