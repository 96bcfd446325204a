"""Everything that can leave the hub: what it asks a shell to do and what it tells whoever cares.

There is one total order over all effects of a step: an append stands before the broadcast it allows, and
a connection's bytes stand before its close. An ask has exactly one executor; a tell any number of readers.
"""

from __future__ import annotations

import msgspec

from .message import StoredMessage

__all__ = [
    "AppMessage",
    "Authenticate",
    "Authorize",
    "Broadcast",
    "CloseTransport",
    "Closed",
    "Closing",
    "Drained",
    "Effect",
    "FindPosition",
    "HistoryListed",
    "Joined",
    "Left",
    "ListStore",
    "MessageReceived",
    "MessageSkipped",
    "Opened",
    "PauseReading",
    "PeerMisbehaved",
    "PublishFailed",
    "Published",
    "ReadStore",
    "Requested",
    "ResumeReading",
    "SendBytes",
    "StoreAppend",
]


# ---- asks ---------------------------------------------------------------------------------------


class SendBytes(msgspec.Struct, frozen=True, gc=False):
    """Put `data` into the outbox of `conn`, behind what is there; report it later by `BytesFlushed`.

    `frames` says how many messages `data` holds; control frames and HTTP are none.
    """

    conn: int
    data: bytes
    frames: int = 1


class Broadcast(msgspec.Struct, frozen=True, gc=False):
    """Put the same bytes into the outboxes of all `conns`; the tuple is the same object while membership is.

    `frames` says how many messages `data` holds.
    """

    conns: tuple[int, ...]
    data: bytes
    frames: int = 1


class PauseReading(msgspec.Struct, frozen=True, gc=False):
    """Stop reading from `conn`; what was already read may still be told."""

    conn: int


class ResumeReading(msgspec.Struct, frozen=True, gc=False):
    """Read from `conn` again."""

    conn: int


class CloseTransport(msgspec.Struct, frozen=True, gc=False):
    """End the transport of `conn`: after its outbox is flushed, or at once with `abort`.

    Answered by `Disconnected`, always.
    """

    conn: int
    abort: bool = False


class StoreAppend(msgspec.Struct, frozen=True, gc=False):
    """Append one message to the log of `room`; answered by `StoreAppended` or `StoreFailed`.

    The key is (`room`, `scope`, `mid`), unique where `mid` is given: a repeat with the same `digest` (16
    bytes over kind, type and payload) is a `dup`, with another it fails `mid_conflict`. A `mid` of an ordered producer
    (`producers.numbered`) is stored where its number is the next one; it fails `fenced`, `seq_gap` or `stale_mid`.
    `sender` is the public user id, shown as `from`; `scope` is private and only separates the `mid`s of senders.
    """

    request: int
    room: str
    kind: str
    type: str
    payload: bytes
    mid: str | None = None
    digest: bytes | None = None
    scope: str = ""
    sender: str | None = None


class ReadStore(msgspec.Struct, frozen=True, gc=False):
    """Read entries with `after` < off ≤ `until`, at most `rows_max` and about `bytes_max` payload bytes.

    At least one row is returned where one exists. Ascending, or descending with `newest_first`. Answered
    by `StoreRead` or `StoreFailed`.
    """

    request: int
    room: str
    after: int
    until: int
    rows_max: int
    bytes_max: int
    newest_first: bool = False


class ListStore(msgspec.Struct, frozen=True, gc=False):
    """Read the newest `limit` messages of `room` before the id `before_id`; answered by `StoreListed`."""

    request: int
    room: str
    limit: int
    before_id: str | None = None


class FindPosition(msgspec.Struct, frozen=True, gc=False):
    """Ask the log itself where `room` stands, and which id stands at `off`; answered by `PositionKnown`.

    With `last`, `off` is so many entries before the head, but not below the floor.

    The answer is of a moment before any append that was asked after it, is told before the `RoomAdvanced` of
    any such append, and after the `RoomAdvanced` of every commit that it includes (one that was reported
    failed and is there all the same has none).
    """

    request: int
    room: str
    off: int | None = None
    last: int = 0


class Authenticate(msgspec.Struct, frozen=True, gc=False):
    """Ask who shows this token, in a message of `conn`; answered by `Authenticated`."""

    request: int
    conn: int
    token: str

    def __repr__(self) -> str:
        # A step that is written down must be no key to anything.
        return f"Authenticate(request={self.request}, conn={self.conn}, token={'…' if self.token else ''!r})"


class Authorize(msgspec.Struct, frozen=True, gc=False):
    """Ask whether whoever `conn` is may do `action` in `room`; answered by `Authorized`."""

    request: int
    conn: int
    action: str
    room: str


# ---- tells --------------------------------------------------------------------------------------


class Requested(msgspec.Struct, frozen=True, gc=False):
    """A request head arrived on `conn`: answer with `Accept` (where `upgrade`) or `Respond`.

    `target` is the path with its query; header names are lower case, values as sent (latin-1).
    """

    conn: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    upgrade: bool
    subprotocols: tuple[str, ...] = ()


class Opened(msgspec.Struct, frozen=True, gc=False):
    """The WebSocket of `conn` is open; messages follow, after the application's `HandlerFinished`."""

    conn: int
    target: str
    subprotocol: str | None


class AppMessage(msgspec.Struct, frozen=True, gc=False):
    """One envelope for the application: `text` as received, and its parsed head. `payload` is JSON."""

    text: str
    type: str
    payload: bytes
    kind: str = "event"
    ref: str | None = None
    room: str | None = None
    mid: str | None = None


class MessageReceived(msgspec.Struct, frozen=True):
    """Messages of one read, in order: envelopes, raw text (`str`) or binary (`bytes`).

    No further one is told for `conn` until `HandlerFinished`.
    """

    conn: int
    messages: tuple[AppMessage | str | bytes, ...]


class Joined(msgspec.Struct, frozen=True, gc=False):
    """`conn` is now a member of `room`."""

    conn: int
    room: str


class Left(msgspec.Struct, frozen=True, gc=False):
    """`conn` is no longer a member of `room`, by its own wish, the application's or its end."""

    conn: int
    room: str


class Published(msgspec.Struct, frozen=True, gc=False):
    """The publish `request` is done; `off` is 0 and `id`, `ep` are "" where it was not stored."""

    request: int
    room: str
    ep: str
    off: int
    id: str
    dup: bool


class PublishFailed(msgspec.Struct, frozen=True, gc=False):
    """The publish `request` failed; nothing was stored under its key (or a later repeat will tell).

    `expected` as in `StoreFailed`.
    """

    request: int
    room: str
    code: str
    message: str
    retry: bool
    expected: int | None = None


class HistoryListed(msgspec.Struct, frozen=True, gc=False):
    """The answer to `ListHistory`, oldest first; `code` is "" or the wire code of a failure."""

    request: int
    rows: tuple[StoredMessage, ...]
    code: str = ""
    message: str = ""


class PeerMisbehaved(msgspec.Struct, frozen=True, gc=False):
    """A peer broke a rule: `kind` is a wire error code or a short fixed word, `detail` is for logs."""

    conn: int
    kind: str
    detail: str


class MessageSkipped(msgspec.Struct, frozen=True, gc=False):
    """A message was dropped on purpose, without an answer: `reason` is a short fixed word."""

    conn: int
    reason: str


class Closing(msgspec.Struct, frozen=True, gc=False):
    """The end of an open `conn` has begun, from either side, or the server shuts down; what came before is handled.

    May be told more than once.
    """

    conn: int


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The connection that was `Opened` is over, told once. `code` as in RFC 6455 §7.1.5, 1006 for no close frame."""

    conn: int
    code: int
    reason: str


class Drained(msgspec.Struct, frozen=True, gc=False):
    """After `Shutdown`: no connection and no unanswered append is left."""


Effect = (
    SendBytes
    | Broadcast
    | PauseReading
    | ResumeReading
    | CloseTransport
    | StoreAppend
    | ReadStore
    | ListStore
    | FindPosition
    | Authenticate
    | Authorize
    | Requested
    | Opened
    | MessageReceived
    | Joined
    | Left
    | Published
    | PublishFailed
    | HistoryListed
    | PeerMisbehaved
    | MessageSkipped
    | Closing
    | Closed
    | Drained
)
