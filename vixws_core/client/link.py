"""What the parts of a client's machine share: the present connection, and the effects of the step."""

from __future__ import annotations

from typing import Final

from ..effects import PeerMisbehaved, SendBytes
from ..wire.frames import TEXT, encode_frame
from .chance import Chance
from .records import ClientEffect

__all__ = ["FAR", "Link"]

FAR: Final = float("inf")
"""Never, as a time."""


class Link:
    """The present connection and the present step. Only `ClientMachine.handle` and what it calls change it."""

    __slots__ = ("chance", "conn", "failures", "is_open", "now", "out")

    def __init__(self, seed: bytes) -> None:
        self.chance: Chance = Chance(seed)
        self.conn: int = 0
        """The number of the transport in use or asked for; 0: none."""
        self.is_open: bool = False
        """Whether rooms may be joined and messages sent."""
        self.failures: int = 0
        """Attempts and connections that ended since the last progress."""
        self.now: float = 0.0
        self.out: list[ClientEffect] = []

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        """Sends one frame."""
        self.out.append(SendBytes(self.conn, encode_frame(opcode, payload, self.chance.mask())))

    def tell(self, effect: ClientEffect) -> None:
        """Adds an effect to the step."""
        self.out.append(effect)

    def blame(self, kind: str, detail: str) -> None:
        """Tells that the server broke a rule."""
        self.out.append(PeerMisbehaved(self.conn, kind, detail[:300]))

    def progress(self) -> None:
        """Takes note that the connection is good for something: back-off begins anew."""
        self.failures = 0

    def fail(self) -> int:
        """Takes note of one more attempt or connection that came to nothing; returns how many did before it."""
        self.failures += 1
        return self.failures - 1
