"""Who is read in this turn of the loop: whose last read took little at once, a few of the others, in turn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

__all__ = ["LITTLE_BYTES", "MUCH_S", "READS_MAX", "Turns"]

MUCH_S: Final = 0.0005
"""A connection whose last read took so long makes much work: more than 20 messages, which take some 20 µs each."""

LITTLE_BYTES: Final = 160
"""So many bytes are no more than 26 frames: whether a read of them took long is not looked at."""

READS_MAX: Final = 3
"""How many of those are read in one turn: with 64 frames each, which is what a step takes of one, some 4 ms."""


class Turns:
    """Gives connections that make much work their turns, so that others are heard in between.

    `wake` asks for the next turn, `clock` returns seconds. What is not read stays readable: the loop tells of it again.
    """

    __slots__ = ("_first", "_free", "_later", "_wake", "clock", "used")

    def __init__(self, wake: Callable[[], object], clock: Callable[[], float]) -> None:
        self.clock: Callable[[], float] = clock
        self.used: bool = False
        """Whether anybody asked since the turn began: else the next is like this one."""
        self._wake = wake
        self._free = READS_MAX
        """How many may be read until the next turn, besides those whose turn it is."""
        self._first: set[int] = set()
        """Those whose turn it is, and who were not read yet."""
        self._later: dict[int, None] = {}
        """Those who wait, in order. Who is gone meanwhile loses a turn, and no more."""

    def has(self, conn: int) -> bool:
        """Whether a connection that makes much work may be read now; else it is its turn soon."""
        self.used = True
        if conn in self._first:
            self._first.discard(conn)
            return True
        if self._free > 0:
            self._free -= 1
            return True
        self._later[conn] = None
        self._wake()
        return False

    def begin(self) -> None:
        """A turn begins: those who wait longest come first."""
        self._free = READS_MAX
        if self._first or self._later:
            self._first = set(islice(self._later, READS_MAX))
            self._free -= len(self._first)
            for conn in self._first:
                del self._later[conn]
        self.used = bool(self._first)
