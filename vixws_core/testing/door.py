"""What an oracle at a hub's door knows of one connection."""

from __future__ import annotations

from collections import Counter, deque

from ..config import HubConfig
from .cursor_oracle import Place
from .decoding import Asked, InTap

__all__ = ["Conn"]

_NEVER = float("-inf")


class Conn:
    """One connection, as its bytes and the hub's effects show it."""

    __slots__ = (
        "accepted",
        "answered",
        "asked",
        "closed",
        "ending",
        "flushed_at",
        "frame_at",
        "heard_at",
        "heavy",
        "held",
        "hello",
        "kicked",
        "loose_errors",
        "mids",
        "opened",
        "partial_since",
        "paused",
        "peer_code",
        "ping_at",
        "pings",
        "places",
        "read_at",
        "said",
        "scope",
        "since",
        "tap",
        "transport_ended",
    )

    def __init__(self, config: HubConfig, now: float) -> None:
        self.tap: InTap = InTap(config.message_bytes_max)
        self.accepted: bool = False
        """Its upgrade was answered; the application may hear of it later, once it is known who it is."""
        self.opened: bool = False
        self.hello: bool = False
        self.said: int = 0
        """Messages that came, pings and what is no JSON left out."""
        self.peer_code: int = 0
        """How the peer closed, or what its framing is answered with."""
        self.mids: Counter[str] = Counter()
        """Keys of publishes without a `ref` that are not acknowledged."""
        self.loose_errors: int = 0
        """Errors told without a `ref`."""
        self.kicked: set[str] = set()
        """Rooms it was put out of: an answer may have to be silent about them."""
        self.scope: str = ""
        self.closed: bool = False
        """A close frame was sent: nothing follows it."""
        self.ending: bool = False
        """The peer's end or ours has begun; what is unanswered may stay so."""
        self.transport_ended: bool = False
        """The hub asked for the end of its transport."""
        self.held: int = 0
        self.heavy: bool = False
        """It was above its mark and has not come below the low one since."""
        self.places: dict[str, Place] = {}
        self.asked: dict[str, Asked] = {}
        """What was asked with a `ref` and is not answered."""
        self.answered: set[str] = set()
        self.pings: deque[bytes] = deque()
        """The peer's pings that are not answered."""
        self.paused: bool = False
        """The hub does not read it."""
        # ---- times -------------------------------------------------------------------------------
        self.since: float = now
        """When its present state began: its request, being open, its end."""
        self.heard_at: float = now
        """When its last byte came."""
        self.read_at: float = now
        """When it was last read again."""
        self.flushed_at: float = now
        """When it last took bytes, or passed its mark."""
        self.frame_at: float = now
        """When a data frame last went either way."""
        self.ping_at: float = _NEVER
        """When the hub last sent a ping."""
        self.partial_since: float | None = None
        """When the message began that is not complete."""

    @property
    def active_at(self) -> float:
        """When it last gave a sign of life, or was allowed to be silent."""
        return max(self.heard_at, self.read_at, self.flushed_at)
