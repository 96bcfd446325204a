"""What goes into and comes out of a client's machine.

Imperative names ask, past-tense names tell, as at the hub's door. Transports are numbered: what is told of an
older one is ignored. `BytesReceived`, `Disconnected`, `TimePassed`, `SendBytes`, `CloseTransport`,
`PauseReading` and `ResumeReading` are the hub's own records.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from ..codes import CLOSE_NORMAL
from ..effects import CloseTransport, MessageSkipped, PauseReading, PeerMisbehaved, ResumeReading, SendBytes
from ..inputs import BytesReceived, Disconnected, Since, TimePassed

__all__ = [
    "ClientCancel",
    "ClientClosed",
    "ClientEffect",
    "ClientInput",
    "ClientJoin",
    "ClientLeave",
    "ClientMessage",
    "ClientOpened",
    "ClientPublish",
    "ClientRequest",
    "ClientSend",
    "ClientStart",
    "ClientState",
    "ClientStop",
    "MessageHandled",
    "OpenTransport",
    "PublishSettled",
    "RequestSettled",
    "RoomGap",
    "RoomJoined",
    "RoomLeft",
    "RoomLive",
    "RoomReset",
    "ServerRefused",
    "TransportFailed",
    "TransportOpened",
]


class ClientState(Enum):
    """Where a client is; `vixws_core.client.MOVES` lists the moves."""

    IDLE = "idle"
    """Not started."""
    WAITING = "waiting"
    """Between two attempts."""
    CONNECTING = "connecting"
    """A transport was asked for."""
    UPGRADING = "upgrading"
    """The request is sent."""
    GREETING = "greeting"
    """`$hello` is sent."""
    OPEN = "open"
    """Messages flow."""
    ENDING = "ending"
    """A server without hello broke the framing; what came before is still handled, and may be answered."""
    CLOSING = "closing"
    """We sent a close frame and wait for the server's."""
    STOPPED = "stopped"
    """Over, by our own wish or the server's; may be started again."""


# ---- what the application asks ------------------------------------------------------------------


class ClientStart(msgspec.Struct, frozen=True, gc=False):
    """Begins to connect; nothing happens where it has begun."""


class ClientStop(msgspec.Struct, frozen=True, gc=False):
    """Closes with `code` and stays closed. What has no answer yet is settled with the code `closed`."""

    code: int = CLOSE_NORMAL
    reason: str = ""


class ClientSend(msgspec.Struct, frozen=True, gc=False):
    """Sends one message, at most once: UTF-8 text, or any bytes with `binary`. Only while open."""

    data: bytes
    binary: bool = False


class ClientJoin(msgspec.Struct, frozen=True, gc=False):
    """Joins `room` now and after each reconnect, then from the client's own position.

    `since`: where to begin; without it at the head, less `last` messages. `from_floor`: where `since` was
    trimmed, begin at the oldest message kept, not at the head.
    """

    room: str
    since: Since | None = None
    last: int = 0
    from_floor: bool = False


class ClientLeave(msgspec.Struct, frozen=True, gc=False):
    """Leaves `room`: no message of it is told from now on, and its position is forgotten."""

    room: str


class ClientPublish(msgspec.Struct, frozen=True, gc=False):
    """Publishes into `room`; answered by one `PublishSettled`, after as many transmissions as it takes.

    `payload` is the JSON of an object. `mid` is the idempotency key; without one a unique one is made.
    """

    request: int
    room: str
    type: str
    payload: bytes = b"{}"
    kind: str = "event"
    mid: str | None = None


class ClientRequest(msgspec.Struct, frozen=True, gc=False):
    """Asks the server `type` (`$history`, `$position`, …) about `room`; answered by one `RequestSettled`.

    It is sent again after a reconnect, so it must be one that may be repeated.
    """

    request: int
    type: str
    room: str | None = None
    payload: bytes = b"{}"


class ClientCancel(msgspec.Struct, frozen=True, gc=False):
    """Forgets a `ClientRequest` that is not answered yet; no `RequestSettled` follows."""

    request: int


class MessageHandled(msgspec.Struct, frozen=True, gc=False):
    """The application is done with a `ClientMessage`: its room's position may move beyond it."""

    number: int


# ---- what the world tells -----------------------------------------------------------------------


class TransportOpened(msgspec.Struct, frozen=True, gc=False):
    """The transport `conn` is connected, its TLS included."""

    conn: int


class TransportFailed(msgspec.Struct, frozen=True, gc=False):
    """The transport `conn` could not be had. `reason` is for people."""

    conn: int
    reason: str


# ---- what the machine asks ----------------------------------------------------------------------


class OpenTransport(msgspec.Struct, frozen=True, gc=False):
    """Connect to `host`:`port`, with TLS where `secure`; answered by `TransportOpened` or `TransportFailed`.

    A `CloseTransport` may come before the answer: then the attempt is given up.
    """

    conn: int
    host: str
    port: int
    secure: bool


# ---- what the machine tells ---------------------------------------------------------------------


class ClientOpened(msgspec.Struct, frozen=True, gc=False):
    """The connection is open. `welcome` is the JSON of the server's `$welcome` ("{}" without hello).

    `reconnect`: it is not the first one. `resumed`: the server still knew the session.
    """

    conn: int
    reconnect: bool
    resumed: bool
    user: str
    welcome: bytes
    subprotocol: str | None


class ClientMessage(msgspec.Struct, frozen=True, gc=False):
    """One message for the application; answer with `MessageHandled(number)`.

    `data` is the message as received. `type` is "" for binary messages and text that is no envelope;
    else `payload` is JSON. `ep`, `off` and `id` are set where it is an entry of a room's log; of a room that we
    did not join ourselves (the server's application put us there) they are as the server sent them.
    """

    number: int
    data: str | bytes
    type: str = ""
    payload: bytes = b""
    room: str | None = None
    kind: str = "event"
    ep: str = ""
    off: int = 0
    id: str = ""
    ts: str = ""
    mid: str | None = None
    sender: str | None = None
    ref: str | None = None


class RoomJoined(msgspec.Struct, frozen=True, gc=False):
    """The server let us into `room`: messages after `off` follow, up to `head` before `RoomLive`.

    `recovered`: nothing is missed since the position asked for; else `reason` says why: `fresh` (none was),
    `epoch trimmed ahead fork`. `stored` False: the room has no log and no position. `id` is that of the entry at
    `off`, "" where it is not known.
    """

    room: str
    ep: str
    off: int
    head: int
    floor: int
    recovered: bool
    reason: str
    stored: bool
    id: str = ""


class RoomLive(msgspec.Struct, frozen=True, gc=False):
    """All that `RoomJoined` announced has been told; what follows is new."""

    room: str
    off: int


class RoomGap(msgspec.Struct, frozen=True, gc=False):
    """The offsets `first` to `last` of `room`, both included, were trimmed before we read them.

    `dropped`: how many messages of a room that is not stored we were too slow for. `id` is that of the entry at
    `last`, "" where it is not known. `unreadable`: one entry came that is no message, and is passed over.
    """

    room: str
    first: int = 0
    last: int = 0
    dropped: int = 0
    id: str = ""
    unreadable: bool = False


class RoomReset(msgspec.Struct, frozen=True, gc=False):
    """The log of `room` was replaced (`reason`: `epoch ahead fork`): we go on after `off` in epoch `ep`.

    `id` is that of the entry at `off`, "" where it is not known.
    """

    room: str
    ep: str
    off: int
    head: int
    floor: int
    reason: str
    id: str = ""


class RoomLeft(msgspec.Struct, frozen=True, gc=False):
    """We are no longer in `room`: `code` is "" by our own wish, else why the server put us out or kept us out."""

    room: str
    code: str = ""
    message: str = ""


class PublishSettled(msgspec.Struct, frozen=True, gc=False):
    """The final answer to a `ClientPublish`. `ok`: stored at `off` with `id` (0 and "": the room is not stored).

    Else `code` is the server's error code, `too_large`, or `closed` (then it may or may not be stored).
    """

    request: int
    ok: bool
    mid: str
    ep: str = ""
    off: int = 0
    id: str = ""
    dup: bool = False
    code: str = ""
    message: str = ""


class RequestSettled(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `ClientRequest`: the server's `type` and `payload`, or where not `ok` a `code`."""

    request: int
    ok: bool
    type: str = ""
    payload: bytes = b"{}"
    code: str = ""
    message: str = ""
    retry: bool = False


class ServerRefused(msgspec.Struct, frozen=True, gc=False):
    """The server answered `$err` to a message that was sent with `ClientSend`."""

    code: str
    message: str
    ref: str | None = None


class ClientClosed(msgspec.Struct, frozen=True, gc=False):
    """A connection, or an attempt at one, is over. `delay_s`: seconds to the next attempt where `reconnecting`.

    `code` is the close code, 1006 where there was none; `status` the HTTP status of a refused upgrade, else 0.
    """

    code: int
    reason: str
    reconnecting: bool
    delay_s: float = 0.0
    status: int = 0


ClientInput = (
    ClientStart
    | ClientStop
    | ClientSend
    | ClientJoin
    | ClientLeave
    | ClientPublish
    | ClientRequest
    | ClientCancel
    | MessageHandled
    | TransportOpened
    | TransportFailed
    | BytesReceived
    | Disconnected
    | TimePassed
)
ClientEffect = (
    OpenTransport
    | SendBytes
    | CloseTransport
    | PauseReading
    | ResumeReading
    | ClientOpened
    | ClientMessage
    | RoomJoined
    | RoomLive
    | RoomGap
    | RoomReset
    | RoomLeft
    | PublishSettled
    | RequestSettled
    | ServerRefused
    | PeerMisbehaved
    | MessageSkipped
    | ClientClosed
)
