"""What the parts of a hub share: its connections, the effects of the step, the heap of deadlines."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from hashlib import blake2b
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from .config import HubConfig
from .effects import AppMessage, Effect, SendBytes
from .wire.envelope import Envelope
from .wire.frames import FrameReader
from .wire.http import Head, HeadReader

if TYPE_CHECKING:
    from .room import Member, Room

__all__ = ["BACKLOG_BYTES", "FAR", "Conn", "HubState", "Pause", "Pending", "Phase"]

Pending = AppMessage | str | bytes | Envelope
"""A message of a connection that waits for its turn: for the application, or (an Envelope) for the hub itself."""

FAR: Final = float("inf")
"""Never, as a time."""

BACKLOG_BYTES: Final = 131_072
"""Unparsed bytes of one connection above which it is not read; two reads' worth."""


class Phase(IntEnum):
    """Where a connection is in its life; it only moves down this list."""

    HEAD = 0
    """Its request is being read."""
    ASKED = 1
    """The application was told of the request and has not answered."""
    OPEN = 2
    """Its WebSocket is open."""
    CLOSING = 3
    """We sent a close frame and wait for the peer's."""
    CLOSED = 4
    """Its transport is being closed; nothing more is sent or read."""


class Pause(IntEnum):
    """Why a connection is not read, as bits.

    No IntFlag: its `&` takes 1 to 2 µs, and each message needs several (measured, CPython 3.11 and 3.13).
    """

    PENDING = 1
    """Its messages wait for the application."""
    UNSENT = 2
    """It is parked: it does not take what it is sent."""
    BACKLOG = 4
    """Its bytes wait to be parsed."""
    OWED = 8
    """Too many of its publishes and questions are not answered."""
    RATE = 16
    """It sends more messages a second than it may."""
    HOLDING = UNSENT | OWED | RATE
    """Its frames are not even parsed: it has asked for more than it takes, or than is its due."""


class Conn:
    """One connection, as the hub knows it."""

    __slots__ = (
        "armed",
        "behind",
        "busy",
        "close_code",
        "close_reason",
        "control_at",
        "control_tokens",
        "dropped",
        "early",
        "ending",
        "gone",
        "guarded",
        "head",
        "heard",
        "hello",
        "id",
        "last_data",
        "last_flush",
        "last_received",
        "limited",
        "message_at",
        "message_since",
        "message_tokens",
        "opened",
        "owed",
        "parked",
        "pauses",
        "peer",
        "pending",
        "phase",
        "ping_sent",
        "reader",
        "reading",
        "request",
        "resume_at",
        "retry_at",
        "rooms",
        "scope",
        "since",
        "typed",
        "unsent",
    )

    def __init__(self, id: int, peer: str, now: float, head: HeadReader) -> None:
        self.id = id
        self.peer = peer
        self.phase = Phase.HEAD
        self.since = now
        """When the phase began."""
        self.head: HeadReader | None = head
        self.request: Head | None = None
        self.early = b""
        """Bytes that came with or after the request, before it was accepted."""
        self.reader: FrameReader | None = None
        self.typed = True
        self.guarded: frozenset[str] = frozenset()
        self.last_received = now
        self.last_data = now
        self.last_flush = now
        self.ping_sent = FAR
        """When the ping that is not answered yet was sent."""
        self.message_since = FAR
        """When the message that is not complete yet began."""
        self.retry_at = FAR
        """When a read that failed is asked again."""
        self.limited = False
        """Whether the rate of messages holds for it."""
        self.message_tokens = 0.0
        self.message_at = now
        self.resume_at = FAR
        """When it may send messages again."""
        self.control_tokens = -1.0
        self.control_at = now
        self.busy = False
        """The application has a record of ours and has not finished."""
        self.pending: deque[Pending] | None = None
        self.ending: tuple[int, str, bool] | None = None
        """How it ends once all before it is handled: code, reason, whether the peer asked for it."""
        self.pauses = 0
        """Reasons for which it is not read: bits of `Pause`."""
        self.unsent = 0
        self.parked = False
        self.gone = False
        """Its transport has ended."""
        self.opened = False
        self.hello = False
        self.heard = False
        """A message was handled: too late for a `$hello`."""
        self.scope = ""
        self.owed = 0
        """Publishes not answered yet."""
        self.rooms: dict[str, Member] | None = None
        self.behind: deque[Member] | None = None
        """Members whose cursor is before their room's head, in turn."""
        self.reading = False
        """One read of the store for it is under way."""
        self.dropped: dict[str, int] | None = None
        """Messages of rooms that are not stored, dropped while it was parked."""
        self.close_code = 1006
        self.close_reason = ""
        self.armed = FAR


class HubState:
    """The state of one hub. Only `Hub.handle` and what it calls change it."""

    __slots__ = (
        "_counter",
        "_heap",
        "_last_request",
        "config",
        "conns",
        "drain_deadline",
        "drained",
        "draining",
        "everyone",
        "now",
        "out",
        "overdue",
        "ready",
        "rooms",
        "secret",
        "seed",
        "sessions",
        "unsent_total",
    )

    def __init__(self, config: HubConfig, seed: bytes, secret: bytes) -> None:
        self.config = config
        self.seed = seed
        self.secret = secret
        self.now = 0.0
        self.out: list[Effect] = []
        self.conns: dict[int, Conn] = {}
        self.rooms: dict[str, Room] = {}
        """Rooms that have members."""
        self.sessions = 0
        """Open WebSockets."""
        self.ready: dict[int, None] = {}
        """Connections with bytes that wait for the next step."""
        self.everyone: tuple[Conn, ...] | None = None
        """Connections that a message to all goes to; None: to be gathered again."""
        self.unsent_total = 0
        self.draining = False
        self.drain_deadline = FAR
        self.drained = False
        self.overdue = False
        """The time for the drain is over."""
        self._heap: list[tuple[float, int]] = []
        self._last_request = 0
        self._counter = 0

    def request(self) -> int:
        """A number for a new request to the store."""
        self._last_request += 1
        return self._last_request

    def token(self, purpose: str, size: int = 16) -> str:
        """A fresh unguessable token in hexadecimal, from the secret."""
        self._counter += 1
        text = f"{purpose}:{self._counter}".encode()
        return blake2b(text, key=self.secret, digest_size=size).hexdigest()

    def arm(self, conn: Conn, when: float) -> None:
        """Sees to it that `conn` is looked at no later than `when`."""
        if when < conn.armed:
            conn.armed = when
            heappush(self._heap, (when, conn.id))

    def due(self) -> Conn | None:
        """Takes the next connection whose time to be looked at has come."""
        heap = self._heap
        while heap and heap[0][0] <= self.now:
            when, id = heappop(heap)
            conn = self.conns.get(id)
            if conn is not None and conn.armed == when:
                conn.armed = FAR
                return conn
        return None

    def deadline(self) -> float | None:
        """When to look next; None where nothing waits for time."""
        heap = self._heap
        while heap:
            when, id = heap[0]
            conn = self.conns.get(id)
            if conn is not None and conn.armed == when:
                break
            heappop(heap)
        return heap[0][0] if heap else None

    def send(self, conn: Conn, data: bytes, frames: int = 0) -> None:
        """Puts bytes, `frames` messages, into the outbox of a connection; it may be above its mark afterwards."""
        size = len(data)
        conn.unsent += size
        self.unsent_total += size
        self.out.append(SendBytes(conn.id, data, frames))
