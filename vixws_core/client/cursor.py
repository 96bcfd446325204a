"""How far a client is in one room: what was told of it, and what was handled."""

from __future__ import annotations

from collections import deque
from enum import Enum

from .link import FAR
from .records import ClientJoin

__all__ = ["Phase", "Position", "RoomCursor"]

Position = tuple[str, int, str | None]
"""Epoch, offset, and the id of the entry there where it is known."""


class Phase(Enum):
    """Where a wanted room is on the present connection."""

    OUT = 0
    """There is no connection, or the server said to try later."""
    ASKED = 1
    """`$join` is sent."""
    IN = 2
    """The server has let us in."""
    PARKED = 3
    """Left by ourselves until what was told of it is handled."""


class RoomCursor:
    """One room that is wanted."""

    __slots__ = (
        "asked",
        "at",
        "done",
        "failures",
        "handled",
        "ledger",
        "name",
        "phase",
        "ref",
        "retry_at",
        "stalls",
        "unhandled",
        "unhandled_bytes",
    )

    def __init__(self, asked: ClientJoin) -> None:
        self.name: str = asked.room
        self.asked: ClientJoin = asked
        since = asked.since
        self.at: Position | None = None if since is None else (since.ep, since.off, since.id)
        """The cursor; None: not known yet, or the room is not stored."""
        self.handled: Position | None = self.at
        self.ledger: deque[tuple[int, Position]] = deque()
        """What was told and is not below `handled` yet, in order: (number, position); number 0 needs no handling."""
        self.done: set[int] = set()
        """Numbers in the ledger that are handled."""
        self.unhandled: int = 0
        self.unhandled_bytes: int = 0
        self.phase: Phase = Phase.OUT
        self.ref: str = ""
        self.failures: int = 0
        self.stalls: int = 0
        """Times it was joined again because offsets were missing, since a message was handled."""
        self.retry_at: float = FAR

    def is_at(self, ep: str, off: int, id: str) -> bool:
        """Whether the cursor is there; an id that either side does not know says nothing."""
        at = self.at
        return at is not None and at[:2] == (ep, off) and not (id and at[2] and id != at[2])

    def note(self, number: int, at: Position) -> None:
        """Moves the cursor."""
        self.at = at
        ledger = self.ledger
        if not number and ledger and not ledger[-1][0]:
            ledger[-1] = (0, at)  # A server may say so as often as it likes: only the last one counts.
        else:
            ledger.append((number, at))
        if not number:
            self.settle()

    def settle(self) -> None:
        """Moves the position over all that is handled."""
        ledger, done = self.ledger, self.done
        while ledger and (not ledger[0][0] or ledger[0][0] in done):
            number, self.handled = ledger.popleft()
            done.discard(number)
