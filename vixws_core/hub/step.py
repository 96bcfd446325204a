"""The step: the time, what must be done, and the facts that lower parts leave for higher ones."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b

from ..config import HubConfig
from ..effects import Effect
from .model import Connection, Room, Session

__all__ = ["Step"]


class Step:
    """What the parts of one hub share while they handle one input."""

    __slots__ = (
        "_secret",
        "_tokens",
        "config",
        "connections",
        "lost",
        "now",
        "out",
        "parked",
        "ready",
        "rooms",
        "users",
    )

    def __init__(self, config: HubConfig, secret: bytes) -> None:
        self.config: HubConfig = config
        self.now: float = 0.0
        self.out: list[Effect] = []
        self.connections: dict[int, Connection] = {}
        self.rooms: dict[str, Room] = {}
        """Rooms that have members."""
        self.users: dict[str, dict[int, Session]] = {}
        """Sessions that proved who they are, by user and connection."""
        self.parked: list[Connection] = []
        """Fact for the cursors: connections that passed their mark since the cursors last looked."""
        self.ready: dict[int, None] = {}
        """Fact for the deadlines: connections to look at in the next step. Their bytes wait, or they may be drained."""
        self.lost: deque[tuple[int, float, float]] = deque()
        """Fact for `resume`: connections that said `$hello` and ended since another did: when, and when something
        was last heard of them."""
        self._secret = secret
        self._tokens = 0

    def token(self, purpose: str, size: int = 16) -> str:
        """A fresh unguessable token in hexadecimal, from the secret."""
        self._tokens += 1
        return blake2b(f"{purpose}:{self._tokens}".encode(), key=self._secret, digest_size=size).hexdigest()
