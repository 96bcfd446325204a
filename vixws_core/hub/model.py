"""What a hub knows: its connections, their sessions, its rooms and who is in them. Data, and the moves it may make.

For each field `tests/test_owners.py` names the one module that assigns it; all others read it, or call its owner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Final

from ..bucket import TokenBucket
from ..codes import CLOSE_NO_FRAME
from ..effects import AppMessage
from ..inputs import Join, Since
from ..wire.codec import PLAIN, Codec
from ..wire.envelope import Envelope
from ..wire.frames import FrameReader
from .handshake import Handshake
from .identity import Budget, Identity
from .lookup import HistoryAsked
from .pause import Pause
from .rooms.tail import Tail

__all__ = [
    "ANYBODY",
    "ASKED",
    "CLOSED",
    "CLOSING",
    "ENDING",
    "FAR",
    "GONE",
    "HANDLED",
    "HEAD",
    "MOVES",
    "OPEN",
    "SENDABLE",
    "Connection",
    "ConnectionState",
    "Handshake",
    "Member",
    "Pause",
    "Pending",
    "Room",
    "Session",
    "Target",
]

Pending = AppMessage | str | bytes | Envelope
"""A message of a session that waits for its turn: for the application, or (an Envelope) for the hub itself."""

ANYBODY: Final = "-"
"""The scope of whoever says neither who it is nor which client: never "", which is the server's own."""

FAR: Final = float("inf")
"""Never, as a time."""


class ConnectionState(Enum):
    """Where a connection is in its life; `MOVES` lists the moves."""

    HEAD = "head"
    """Its request is being read."""
    ASKED = "asked"
    """The application was told of the request and has not answered."""
    OPEN = "open"
    """Messages flow."""
    ENDING = "ending"
    """The peer closed, or broke the framing; what came before is still handled."""
    CLOSING = "closing"
    """We sent a close frame and wait for the peer's."""
    CLOSED = "closed"
    """Its transport is being closed; nothing is sent or read any more."""
    GONE = "gone"
    """Its transport has ended; handlers, or messages that it had sent, may be unfinished."""


# Constants of the module, which are read faster than attributes of an Enum.
HEAD: Final = ConnectionState.HEAD
ASKED: Final = ConnectionState.ASKED
OPEN: Final = ConnectionState.OPEN
ENDING: Final = ConnectionState.ENDING
CLOSING: Final = ConnectionState.CLOSING
CLOSED: Final = ConnectionState.CLOSED
GONE: Final = ConnectionState.GONE

MOVES: Final[dict[ConnectionState, tuple[ConnectionState, ...]]] = {
    HEAD: (ASKED, CLOSED, GONE),
    ASKED: (OPEN, CLOSED, GONE),
    OPEN: (ENDING, CLOSING, CLOSED, GONE),
    ENDING: (CLOSED, CLOSING, GONE),
    CLOSING: (CLOSED, GONE),
    CLOSED: (GONE,),
    GONE: (),
}
"""The moves a connection's state can make; the picture in `docs/design.md` is drawn from it."""

# Tuples, not sets: `in` compares by identity first, and an Enum's hash is a Python call.
SENDABLE: Final = (OPEN, ENDING)
"""Something can still be sent."""
HANDLED: Final = (OPEN, ENDING, GONE)
"""What was received is still handled."""


class Connection:
    """The byte half of one peer: its transport, what it is sent, whether it is read, and its life."""

    __slots__ = (
        "armed",
        "budget",
        "close_by_peer",
        "close_code",
        "close_reason",
        "codec",
        "control_allowance",
        "discarded",
        "handshake",
        "id",
        "inflated_allowance",
        "last_data",
        "last_flush",
        "last_received",
        "message_allowance",
        "message_since",
        "parked",
        "pauses",
        "peer",
        "ping_sent",
        "reader",
        "received",
        "resume_at",
        "resumed_at",
        "session",
        "since",
        "state",
        "unsent",
    )

    def __init__(self, id: int, peer: str, now: float, handshake: Handshake) -> None:
        self.id: int = id
        self.peer: str = peer
        self.state: ConnectionState = HEAD
        self.since: float = now
        """When the state's time began: a request has one for both of its states."""
        self.close_code: int = CLOSE_NO_FRAME
        self.close_reason: str = ""
        self.close_by_peer: bool = False
        """Whether the peer asked for the end, or its fault did."""
        self.discarded: int = 0
        """Bytes that came behind our close frame."""
        self.handshake: Handshake | None = handshake
        self.session: Session | None = None
        """The message half; None until it is accepted, and after its end was told."""
        self.reader: FrameReader | None = None
        self.codec: Codec = PLAIN
        self.unsent: int = 0
        """Bytes in its outbox."""
        self.parked: bool = False
        """It is above its mark: its rooms stay at their cursors."""
        self.last_flush: float = now
        """When it last took bytes while more of them waited, or was parked."""
        self.last_data: float = now
        """When a data frame last went either way."""
        self.pauses: int = 0
        """Reasons for which it is not read: bits of `Pause`."""
        self.resume_at: float = FAR
        """When it may send messages again."""
        self.armed: float = FAR
        """When it is looked at next."""
        self.last_received: float = now
        self.received: int = 0
        """Bytes that it holds: of messages that are not complete, not parsed, or wait for their turn."""
        self.resumed_at: float = now
        """When it was last read again: the deadlines that only reading can meet begin anew."""
        self.ping_sent: float = -FAR
        """When the last ping was sent. RFC 6455 §5.5.3 lets only a pong answer it; any byte shows life as well."""
        self.message_since: float = FAR
        """When the message that is not complete yet began."""
        self.message_allowance: TokenBucket | None = None
        """Its allowance of messages; None where no rate holds."""
        self.budget: Budget | None = None
        """Its allowances of questions and of new rooms; None where no rates hold for it."""
        self.control_allowance: TokenBucket | None = None
        """Its allowance of control frames; made with the first one."""
        self.inflated_allowance: TokenBucket | None = None
        """Its allowance of bytes that compressed messages make; made with the first one."""

    def move(self, state: ConnectionState, since: float) -> None:
        """Moves on; `since` is when the new state's time began."""
        assert state in MOVES[self.state], f"connection {self.id} cannot move from {self.state} to {state}"
        self.state = state
        self.since = since

    def begin(self, session: Session) -> None:
        """Its messages begin to have somebody who takes them."""
        self.session = session

    def part(self) -> None:
        """Lets go of its session: the halves point at each other, and without a circle no collector is waited for."""
        self.session = None


class Session:
    """The message half of one client: what waits for its handlers, what it asked, and its rooms."""

    __slots__ = (
        "busy",
        "catching_up",
        "connection",
        "dropped",
        "greeting_over",
        "guarded",
        "guards_all",
        "hello",
        "identity",
        "lookups",
        "memberships",
        "page_pending",
        "queue",
        "queued",
        "retry_at",
        "scope",
        "speaks",
        "typed",
        "unanswered",
    )

    def __init__(
        self, connection: Connection, typed: bool, guarded: frozenset[str], identity: Identity | None = None
    ) -> None:
        self.connection: Connection = connection
        self.identity: Identity | None = identity
        """Who it is; None where the hub asks nobody."""
        self.typed: bool = typed
        """Whether text must be an envelope."""
        self.guarded: frozenset[str] = guarded
        """Types whose publishes go to the application."""
        self.guards_all: bool = "*" in guarded
        self.busy: bool = identity is None or identity.proved
        """The application has a record of ours (the opening is one), or was asked for a grant, and has not finished."""
        self.queue: deque[Pending] | None = None
        """Messages in turn behind the record that is handled."""
        self.queued: int = 0
        """Bytes of these messages."""
        self.speaks: bool = typed
        """Whether its texts are messages of the protocol: where they need not be, since a `$hello` said so."""
        self.greeting_over: bool = False
        """A message was handled: too late for a `$hello`."""
        self.hello: bool = False
        self.scope: str = ANYBODY
        """What separates its `mid`s from those of others."""
        self.unanswered: int = 0
        """Publishes and questions not answered yet, by weight."""
        self.memberships: dict[str, Member] | None = None
        self.catching_up: deque[Member] | None = None
        """Members whose cursor is before their room's head, in turn."""
        self.lookups: deque[HistoryAsked] | None = None
        """What it asks of rooms' logs by `$history` and the store was not asked for yet."""
        self.page_pending: bool = False
        """One read of the store for it is under way."""
        self.dropped: dict[str, int] | None = None
        """Messages of rooms that are not stored, dropped while it was parked."""
        self.retry_at: float = FAR
        """When it is looked at again because a room could not be read."""

    def keep(self, items: Iterable[Pending]) -> deque[Pending]:
        """Messages begin to wait for their turn."""
        self.queue = queue = deque(items)
        self.queued = sum(map(size_of, queue))
        return queue

    def line_up(self, item: Pending) -> None:
        """One more waits for its turn."""
        assert self.queue is not None  # Others wait.
        self.queue.append(item)
        self.queued += size_of(item)

    def drop_queue(self) -> None:
        """What waits for its turn is taken away: it is handled now, or not any more."""
        self.queue = None
        self.queued = 0


def size_of(item: Pending) -> int:
    """Bytes of a message that waits; of text about as many as characters."""
    if isinstance(item, AppMessage):
        return len(item.text) + len(item.payload)
    return len(bytes(item.payload)) if isinstance(item, Envelope) else len(item)


Target = tuple[Codec, tuple[Connection, ...], tuple[int, ...]]
"""Connections of one kind that get what is new in a room, and their ids: the same tuple while they are the same."""


class Member:
    """One session's place in one room."""

    __slots__ = (
        "announced_head",
        "asking",
        "connection",
        "cursor",
        "cursor_id",
        "from_floor",
        "held",
        "last",
        "live",
        "open_ask",
        "owed_reset",
        "ref",
        "room",
        "session",
        "since",
        "told",
    )

    def __init__(self, session: Session, room: Room, ask: Join, ref: str | None, told: bool) -> None:
        self.session: Session = session
        self.connection: Connection = session.connection
        self.room: Room = room
        self.cursor: int = 0
        """The last offset sent; meaningless while `live`, when it is the room's position."""
        self.cursor_id: str = ""
        """The id of the entry there: who reads on compares it; "" for 0, and where it is not known."""
        self.live: bool = False
        self.asking: bool = True
        """Its position is not known yet."""
        self.open_ask: int = 0
        """The open question for its position; 0: none."""
        self.held: bool = False
        """Whether it may stay is being asked: nothing of the room is sent to it."""
        self.owed_reset: str = ""
        """Why it is to be told `$reset` if it may."""
        self.announced_head: int = -1
        """The announced head, until `$live` was told; -1: none."""
        self.since: Since | None = ask.since
        self.last: int = ask.last
        self.from_floor: bool = ask.from_floor
        self.ref: str | None = ref
        self.told: bool = told
        """Whether the client hears `$joined`, `$live`, `$gap` and `$reset`."""


class Room:
    """What the hub knows of one room that has members."""

    __slots__ = (
        "asking",
        "changes",
        "ep",
        "floor",
        "known",
        "members",
        "name",
        "pause_s",
        "pos",
        "pos_id",
        "rests_until",
        "stored",
        "tail",
        "targets",
        "waiting",
    )

    def __init__(self, name: str, stored: bool) -> None:
        self.name: str = name
        self.stored: bool = stored
        self.known: bool = not stored
        """Whether `ep` and `pos` are known."""
        self.ep: str = ""
        self.changes: int = 0
        """How often the log turned out not to be the one that was told: answers of the time before do not count."""
        self.pos: int = 0
        """The offset up to which live members have everything."""
        self.pos_id: str = ""
        """The id of the entry there; "" for 0, and where it is not known."""
        self.floor: int = -1
        """The highest trimmed offset; -1 until the log itself was asked."""
        self.members: dict[int, Member] = {}
        """By connection, in the order of joining."""
        self.targets: tuple[Target, ...] | None = None
        """Who gets what is new, by kind; None: to be gathered again."""
        self.asking: int = 0
        """Members whose position is not known yet."""
        self.pause_s: float = 0.0
        """How long it last rested because its log could not be read; 0 where it could."""
        self.rests_until: float = -FAR
        """Until then its log is not asked for what could not be read."""
        self.tail: Tail = Tail()
        self.waiting: dict[int, Member] = {}
        """Members who read on as soon as the room moves, by connection."""
