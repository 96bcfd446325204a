"""The seam between a driver and the connections that it drives: what each side needs of the other."""

from __future__ import annotations

from collections.abc import Callable
from socket import SO_ERROR, SOL_SOCKET, socket
from typing import Final, Protocol

from vixws_core.inputs import BytesReceived

from .pieces import Piece
from .turns import Turns

__all__ = ["LINGER_S", "LOOK_S", "READ_BYTES", "Gate", "Host", "SocketHost", "Transport", "Watched", "is_reset"]

READ_BYTES: Final = 65_536
"""Bytes of one read."""

LINGER_S: Final = 1.0
"""Seconds we read on and discard after our last byte, so that the peer gets it before the socket is gone."""

LOOK_S: Final = 5.0
"""How often we look whether somebody who is not read is still there."""


def is_reset(sock: socket) -> bool:
    """Whether the peer has reset the connection, or the system has given it up: what was read ahead is all there is."""
    try:
        return sock.getsockopt(SOL_SOCKET, SO_ERROR) != 0
    except OSError:
        return True


class Transport(Protocol):
    """What a driver needs of a connection, however its bytes travel.

    `pieces` wait to be written, in order. `dirty` is the driver's mark that no flush has to be asked for: one is due,
    or the peer takes no more.
    """

    conn: int
    peer: str
    pieces: list[Piece]
    dirty: bool

    def flush(self) -> bool:
        """Writes what can be written now, and reports the count to the driver.

        True: the peer takes no more; the transport asks the driver for the next flush itself.
        """
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
        """Ends the connection at once, for that reason; the driver hears of it by `lost`."""
        ...

    def close(self) -> None:
        """Lets go of everything; nothing is read, written or told afterwards. For the driver, once it is lost."""
        ...


class Watched(Transport, Protocol):
    """A connection whose socket the driver watches, in its loop's way."""

    sock: socket
    fd: int
    watched: bool
    """Whether it wants to hear that there is something to read."""

    def receive(self) -> bool:
        """Reads once; whether the read was full, so that more may be there already."""
        ...

    def writable(self) -> None:
        """The kernel has room again."""
        ...


class Host(Protocol):
    """What any connection needs of the driver that carries it.

    `flush_s` is the time that a closing connection may take to write its last bytes; `flushed` takes what was
    written: (conn, bytes).
    """

    flush_s: float
    flushed: list[tuple[int, int]]

    def put(self, *inputs: BytesReceived) -> None:
        """Hands inputs in."""
        ...

    def wake(self) -> None:
        """Has a look at `flushed`, soon."""
        ...

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Calls back in that many seconds, whatever has become of the connection."""
        ...

    def lost(self, link: Transport, reason: str) -> None:
        """The connection is over: it is closed and forgotten, and that is told, once."""
        ...

    def failed(self, link: Transport, exc: Exception) -> None:
        """A defect of ours while its bytes were handled."""
        ...


class SocketHost(Host, Protocol):
    """What a connection needs of a driver that watches its socket. `turns` say when who has much to say is read."""

    turns: Turns

    def flush(self, link: Transport) -> None:
        """The peer takes bytes again."""
        ...

    def watch_readable(self, link: Watched) -> None:
        """Has `link.receive` called while the socket is readable."""
        ...

    def unwatch_readable(self, link: Watched) -> None:
        """Ends that."""
        ...

    def watch_writable(self, link: Watched) -> None:
        """Has `link.writable` called when the socket takes bytes."""
        ...

    def unwatch_writable(self, link: Watched) -> None:
        """Ends that."""
        ...

    def forget(self, link: Watched) -> None:
        """Ends all watching; the socket is closed next."""
        ...


class Gate(Protocol):
    """Who may connect, as a driver asks it."""

    def admit(self, conn: int, host: str) -> bool:
        """Counts a new connection, unless a limit speaks against it."""
        ...

    def gave_way(self) -> int | None:
        """The connection, opening still, that must end because of the one admitted last; told once."""
        ...

    def limited_as(self, host: str) -> str:
        """The address whose limits hold for this one; "": none do."""
        ...

    def opened(self, conn: int) -> None:
        """It is open."""
        ...

    def release(self, conn: int) -> None:
        """It is gone."""
        ...
