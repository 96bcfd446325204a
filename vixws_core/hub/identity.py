"""Who a session is, and what it was granted: data, as in `model.py`; each field is assigned by its owner."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from ..bucket import TokenBucket
from ..effects import Opened
from ..names import user_room

__all__ = ["Budget", "Expiry", "Identity", "Verdict"]

_FAR: Final = float("inf")

Verdict = tuple[str, str, bool, str]
"""What was asked (an action and a room), whether it was granted, and the code of a failure."""

Proof = tuple[str, tuple[float | None, float | None]]
"""Why a token is no proof ("": it is one), and when it ends."""

Expiry = tuple[float | None, float | None]
"""When a proof ends: in so many seconds, and in Unix seconds; None: never."""


class Budget:
    """The allowances of one connection, or of all connections of one user."""

    __slots__ = ("address", "asks", "messages", "rooms")

    def __init__(self, messages: TokenBucket, asks: TokenBucket, rooms: TokenBucket, address: str = "") -> None:
        self.messages: TokenBucket = messages
        self.asks: TokenBucket = asks
        self.rooms: TokenBucket = rooms
        self.address: str = address
        """Whose connections after this one lack what it spent; "": nobody's."""


class Identity:
    """Who a session is, and what it was granted; kept only where the hub's policy asks for either."""

    __slots__ = (
        "allowed",
        "budget",
        "due_at",
        "ends_at",
        "kicked",
        "lost",
        "next_at",
        "opening",
        "proof",
        "proved",
        "renewal_ref",
        "renewing",
        "revision",
        "scope",
        "told",
        "user",
        "verdict",
    )

    def __init__(self, user: str | None, proved: bool, ends_at: float) -> None:
        self.user: str | None = user
        """Their id; None: nobody, or nobody yet."""
        self.scope: str = scope_of(user)
        """What separates their `mid`s from those of others."""
        self.budget: Budget | None = None
        """What all connections of the user have together."""
        self.opening: Opened | None = None
        """What the application is told once it is proved."""
        self.revision: int = 0
        """How often what was granted was taken back: an answer to an older question counts no more."""
        self.proved: bool = proved
        """Whether it may do more than say `$hello`."""
        self.ends_at: float = ends_at
        """When the proof ends, or has to be given."""
        self.due_at: float = _FAR
        """When another proof is asked for."""
        self.next_at: float = ends_at
        """The earliest end: of the proof, of its time, or of a grant of a room it is in."""
        self.allowed: dict[str, dict[str, float]] = {}
        """By room the actions granted, and until when."""
        self.kicked: set[str] | None = None
        """Rooms it was put out of while something of it was unanswered: nothing of them is told any more."""
        self.verdict: Verdict | None = None
        """What the message at the front of the queue waited for."""
        self.proof: Proof | None = None
        """What is known of the token that an `$auth` waits for."""
        self.renewing: int = 0
        """Rooms that are asked for again because of a new proof."""
        self.renewal_ref: str | None = None
        self.lost: list[str] | None = None
        """Rooms that the new proof did not keep."""
        self.told: Expiry | None = None
        """The end of the new proof, to be told when all rooms are."""

    def owns(self, room: str) -> bool:
        """Whether a room is this user's own."""
        return self.user is not None and room == user_room(self.user)

    def prove(self, user: str) -> None:
        """It is this user."""
        self.user, self.proved, self.scope = user, True, scope_of(user)


def scope_of(user: str | None) -> str:
    """What separates the `mid`s of a user from those of others; no secret, for a repeat may come by another server."""
    return "" if user is None else blake2b(user.encode(), digest_size=16, person=b"vixws user").hexdigest()
