"""Why a connection is not read."""

from __future__ import annotations

from typing import Final

__all__ = ["Pause"]


class Pause:
    """Why a connection is not read, as bits of `Connection.pauses`.

    Plain numbers: an IntFlag's `&` takes 1 to 2 µs, and each message needs several (measured, CPython 3.11 and 3.13).
    """

    QUEUED: Final = 1
    """Its messages wait for the application."""
    PARKED: Final = 2
    """It does not take what it is sent."""
    BACKLOG: Final = 4
    """Its bytes wait to be parsed."""
    UNANSWERED: Final = 8
    """Too many of its publishes and questions are not answered."""
    RATE: Final = 16
    """It sends more messages a second than it may, or more compressed ones."""
    CROWDED: Final = 32
    """All connections together hold too much, and it holds some of that."""
    HOLDING: Final = 2 | 8 | 16
    """Its frames are not even parsed: it has asked for more than it takes, or than is its due."""
