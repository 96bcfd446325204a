"""The seam between a driver and the connections that it drives."""

from __future__ import annotations

from typing import Final, Protocol

from .pieces import Piece

__all__ = ["LINGER_S", "READ_BYTES", "Transport"]

READ_BYTES: Final = 65_536
"""Bytes of one read."""

LINGER_S: Final = 1.0
"""Seconds we read on and discard after our last byte, so that the peer gets it before the socket is gone."""


class Transport(Protocol):
    """What a driver needs of a connection, however its bytes travel.

    `pieces` wait to be written, in order. `dirty` is True while a flush is due or the peer takes no more.
    """

    conn: int
    peer: str
    pieces: list[Piece]
    dirty: bool

    def flush(self) -> None:
        """Writes what can be written now, and reports the count to the driver."""
        ...

    def pause(self) -> None:
        """Stops reading."""
        ...

    def resume(self) -> None:
        """Reads on."""
        ...

    def finish(self) -> None:
        """Ends the connection when `pieces` are written; a flush follows."""
        ...

    def abort(self, reason: str) -> None:
        """Ends the connection at once."""
        ...
