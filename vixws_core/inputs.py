"""Everything that can enter the hub: what the application asks and what the world tells.

Imperative names ask, past-tense names tell. A request that is answered carries a `request` number chosen
by the asker; answers to unknown numbers are ignored. Records hold encoded payloads and numbers, never a
user's objects, so the sequence of inputs is a complete, serialisable history of a hub.
"""

from __future__ import annotations

import msgspec

from .codes import CLOSE_NORMAL, DENIED
from .message import StoredMessage

__all__ = [
    "Accept",
    "Authenticated",
    "Authorized",
    "BytesFlushed",
    "BytesReceived",
    "Close",
    "Connected",
    "Disconnected",
    "EntryRedacted",
    "HandlerFinished",
    "Input",
    "Join",
    "Leave",
    "LeaveAll",
    "ListHistory",
    "PositionKnown",
    "Publish",
    "Refuse",
    "Respond",
    "Revoke",
    "RoomAdvanced",
    "Send",
    "SendToAll",
    "Shutdown",
    "Since",
    "StoreAppended",
    "StoreFailed",
    "StoreListed",
    "StoreRead",
    "TimePassed",
]


# ---- what the application asks ------------------------------------------------------------------


class Accept(msgspec.Struct, frozen=True, gc=False):
    """Completes the upgrade of `conn`, whose `Requested` was told (RFC 6455 §4.2.2).

    `typed`: text messages must be envelopes, anything else is answered `$err`; with False, text that is no envelope
    reaches the application as it is. `guarded`: types whose publishes go to the application instead of the log, `*` for
    those of all types. `limited`: as in `Connected`, where more is known by now. `headers` are added to the answer.

    `user`: who this is, for `expires_in_s` more seconds (None: for good). Where the hub's policy wants that to be
    proved and `user` is None, the first message must be a `$hello` with a token.
    """

    conn: int
    subprotocol: str | None = None
    typed: bool = True
    guarded: frozenset[str] = frozenset()
    limited: bool | str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    expires_in_s: float | None = None
    expires: float | None = None


class Respond(msgspec.Struct, frozen=True, gc=False):
    """Answers the request of `conn` with a plain HTTP response, then closes; also how pages are served."""

    conn: int
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Since(msgspec.Struct, frozen=True, gc=False):
    """A position in a room's log: epoch, the last offset seen, and that entry's id where it is known."""

    ep: str
    off: int
    id: str | None = None


class Join(msgspec.Struct, frozen=True, gc=False):
    """Puts `conn` into `room`. Without `since` the cursor starts at the head, less `last` messages.

    `from_floor`: where `since` was trimmed, start at the oldest message kept, not at the head.
    """

    conn: int
    room: str
    since: Since | None = None
    last: int = 0
    from_floor: bool = False


class Leave(msgspec.Struct, frozen=True, gc=False):
    """Takes `conn` out of `room`; nothing happens where it is not a member."""

    conn: int
    room: str


class LeaveAll(msgspec.Struct, frozen=True, gc=False):
    """Takes `conn` out of every room it is in."""

    conn: int


class Send(msgspec.Struct, frozen=True, gc=False):
    """Sends one message to `conn`: `data` is UTF-8 text, or any bytes with `binary`.

    It is refused where `conn` takes no more, unless it is the `answer` to a request: those are bounded already.
    """

    conn: int
    data: bytes
    binary: bool = False
    answer: bool = False


class SendToAll(msgspec.Struct, frozen=True, gc=False):
    """Sends one message to every open connection, except `but`; never stored."""

    data: bytes
    binary: bool = False
    but: int | None = None


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Publishes into `room`: stored first (unless `store` is False or the room is not a stored one).

    `payload` is encoded JSON. `request`, where given, is answered by `Published` or `PublishFailed`.
    `conn` and `ref` name the connection whose publish this is: it gets the `$ack` or `$err`. `sent` is the payload as
    its client sent it, where the application changed it: a repeat is known by that.
    """

    room: str
    type: str
    payload: bytes
    kind: str = "event"
    mid: str | None = None
    store: bool = True
    request: int | None = None
    conn: int | None = None
    ref: str | None = None
    sent: bytes | None = None


class ListHistory(msgspec.Struct, frozen=True, gc=False):
    """Asks for at most `limit` stored messages of `room` older than the message `before_id` (or the newest).

    Answered by `HistoryListed` with the same `request`, oldest first. `conn`: whose it is; its open ones are limited.
    """

    request: int
    room: str
    limit: int
    before_id: str | None = None
    conn: int | None = None


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """Answers the message `ref` of `conn` with `$err`."""

    conn: int
    code: str
    message: str
    ref: str | None = None


class Revoke(msgspec.Struct, frozen=True, gc=False):
    """Forgets what `user` was granted, in `room` or in all rooms: the application is asked again.

    Nothing more of the rooms is sent until it has answered. `now`: its connections that are in the room, or all of
    them, are closed instead (4003), without sending what waits.
    """

    user: str
    room: str | None = None
    now: bool = False


class Close(msgspec.Struct, frozen=True, gc=False):
    """Starts the closing handshake of `conn` (RFC 6455 §7.1.2) after what was sent before."""

    conn: int
    code: int = CLOSE_NORMAL
    reason: str = ""


class Shutdown(msgspec.Struct, frozen=True, gc=False):
    """Drains the hub: no new connections, a `$drain` to each client, then flush, commit and close.

    `Drained` is told when the last connection is gone, at most `drain_s` seconds later. Whoever has something under
    way is closed shortly before that.
    """

    drain_s: float


# ---- what the world tells -----------------------------------------------------------------------


class Connected(msgspec.Struct, frozen=True, gc=False):
    """A transport has been accepted. `conn` is a number never used before; `peer` is its address, for logs.

    `limited`: whether rates hold for it; a text says that they do, and for whom: what connections of the same text (an
    address) had spent when they ended, those that come after them lack. `waited_s`: how much of the time for its
    handshake is gone already, for TLS.
    """

    conn: int
    peer: str = ""
    secure: bool = False
    limited: bool | str = True
    waited_s: float = 0.0


class BytesReceived(msgspec.Struct, frozen=True, gc=False):
    """Bytes arrived on `conn`, cut anywhere, never empty."""

    conn: int
    data: bytes


class BytesFlushed(msgspec.Struct, frozen=True, gc=False):
    """Bytes were handed to the operating system: `((conn, bytes), …)`, one record a tick for all."""

    flushed: tuple[tuple[int, int], ...]


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The transport of `conn` ended, whoever ended it; told once. `reason` is for logs."""

    conn: int
    reason: str = ""


class Authenticated(msgspec.Struct, frozen=True, gc=False):
    """The answer to `Authenticate`: `user`, for `expires_in_s` more seconds (None: for good), or nobody.

    Without a `user`, `code` says why: `denied`, or `internal` where the application failed; `message` is for the peer.
    `expires` is the same end in Unix seconds, for the peer to read.
    """

    request: int
    user: str | None = None
    expires_in_s: float | None = None
    expires: float | None = None
    code: str = DENIED
    message: str = ""


class Authorized(msgspec.Struct, frozen=True, gc=False):
    """The answer to `Authorize`: the actions granted in the room, for `expires_in_s` more seconds (None: for good).

    `code` is `internal` where the application failed: nothing is granted then.
    """

    request: int
    actions: tuple[str, ...] = ()
    expires_in_s: float | None = None
    code: str = ""


class StoreAppended(msgspec.Struct, frozen=True, gc=False):
    """A `StoreAppend` is committed. `dup`: the key was stored before, with this offset and id."""

    request: int
    ep: str
    off: int
    id: str
    dup: bool = False


class StoreFailed(msgspec.Struct, frozen=True, gc=False):
    """A store request failed, by a wire code; whether trying again helps; the number that is expected (`seq_gap`)."""

    request: int
    code: str
    message: str = ""
    retry: bool = True
    expected: int | None = None


class StoreRead(msgspec.Struct, frozen=True, gc=False):
    """The answer to `ReadStore`, from one snapshot: `rows` in the order asked for, possibly fewer than asked.

    `floor` is the highest trimmed offset (0: none), `head` the newest; `floor_id` and `head_id` are the ids there.
    `id_at` is the id of the entry at `after`, None where that does not exist or was trimmed (the floor's own is kept).
    """

    request: int
    ep: str
    floor: int
    head: int
    rows: tuple[StoredMessage, ...]
    id_at: str | None = None
    floor_id: str = ""
    head_id: str = ""


class StoreListed(msgspec.Struct, frozen=True, gc=False):
    """The answer to `ListStore`, oldest first."""

    request: int
    rows: tuple[StoredMessage, ...]


class PositionKnown(msgspec.Struct, frozen=True, gc=False):
    """The answer to `FindPosition`, from one snapshot.

    `id` is the head entry's id, "" in an empty room; `id_at` is that at the offset asked for, as in `StoreRead`.
    """

    request: int
    ep: str
    floor: int
    head: int
    id: str
    id_at: str | None = None
    floor_id: str = ""


class RoomAdvanced(msgspec.Struct, frozen=True, gc=False):
    """A room's log grew (or changed): the only thing that moves a room.

    `entries` are the new ones in offset order, ending at `head`; the first may leave a gap, which is read.
    `prev_id` is the id of the entry before the first of them, or at `head` where there are none: "" for 0, None where
    it is not known: whether the log is the one told before. A commit tells `RoomAdvanced` before its `StoreAppended`s.
    """

    room: str
    ep: str
    head: int
    entries: tuple[StoredMessage, ...]
    prev_id: str | None = None


class EntryRedacted(msgspec.Struct, frozen=True, gc=False):
    """The payload of the entry at `off` was replaced in the log, for ever; its place and its `id` are as before."""

    room: str
    off: int
    id: str


class HandlerFinished(msgspec.Struct, frozen=True, gc=False):
    """The application is done with the last record of messages (or the opening) of `conn`.

    Releases its next messages. `failed` closes it with 1011. `seconds` is for metrics; `type` is "" for several types.
    """

    conn: int
    type: str = ""
    seconds: float = 0.0
    failed: bool = False


class TimePassed(msgspec.Struct, frozen=True, gc=False):
    """`now` reached what `next_deadline()` said, or later; early and repeated ones are harmless."""


Input = (
    Accept
    | Respond
    | Join
    | Leave
    | LeaveAll
    | Send
    | SendToAll
    | Publish
    | ListHistory
    | Refuse
    | Revoke
    | Close
    | Shutdown
    | Connected
    | BytesReceived
    | BytesFlushed
    | Disconnected
    | Authenticated
    | Authorized
    | (StoreAppended | StoreFailed | StoreRead | StoreListed | PositionKnown)
    | RoomAdvanced
    | EntryRedacted
    | HandlerFinished
    | TimePassed
)
