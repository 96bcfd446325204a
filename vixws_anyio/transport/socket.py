"""A connection over a plain non-blocking socket, with direct `send` and `recv`."""

from __future__ import annotations

import socket
from typing import Final

from vixws_core.inputs import BytesReceived

from .interface import LINGER_S, LOOK_S, READ_BYTES, SocketHost, is_reset
from .pieces import JOIN_MAX, Piece, gather
from .turns import LITTLE_BYTES, MUCH_S

__all__ = ["SocketTransport"]

BUFFERS_MAX: Final = 64
"""Buffers of one `sendmsg`; the kernel takes 1024 (IOV_MAX)."""

LINGER_BYTES: Final = 65_536
"""Bytes discarded in that time, at most."""


class SocketTransport:
    """A non-blocking stream socket. The driver calls `receive` and `flush` when the kernel is ready."""

    __slots__ = (
        "_discarded",
        "_ended",
        "_finishing",
        "_lingering",
        "_looking",
        "_much",
        "conn",
        "dirty",
        "driver",
        "fd",
        "peer",
        "pieces",
        "sock",
        "watched",
    )

    def __init__(self, driver: SocketHost, sock: socket.socket, conn: int, peer: str) -> None:
        self.driver: SocketHost = driver
        self.sock: socket.socket = sock
        self.fd: int = sock.fileno()
        self.conn: int = conn
        self.peer: str = peer
        self.pieces: list[Piece] = []
        self.dirty: bool = False
        self.watched: bool = False
        self._finishing = False
        self._lingering = False
        self._ended = False
        self._looking = False
        self._discarded = 0
        self._much = False
        """Whether what the last read brought took long."""

    def receive(self) -> bool:
        """Reads once, where it is its turn; whether the read was full, so that more may be there already."""
        turns = self.driver.turns
        if self._much and not turns.has(self.conn):
            return False
        try:
            data = self.sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self.driver.lost(self, f"read failed: {exc}")
            return False
        if self._lingering:
            self._discarded += len(data)
            if not data or self._discarded > LINGER_BYTES:
                self.driver.lost(self, "closed")
            return False
        if not data:
            self._end_of_stream()
            return False
        little = len(data) <= LITTLE_BYTES
        began = 0.0 if little else turns.clock()
        try:
            self.driver.put(BytesReceived(self.conn, data))
        except Exception as exc:
            self.driver.failed(self, exc)
        self._much = not little and turns.clock() - began >= MUCH_S
        return len(data) == READ_BYTES

    def flush(self) -> bool:
        """Writes until the kernel takes no more (True); then the driver is asked to watch for room."""
        pieces = self.pieces
        if pieces:
            if len(pieces) == 1:
                data = pieces[0]
            elif sum(map(len, pieces)) <= JOIN_MAX:
                data = b"".join(pieces)
            else:
                return self._flush_many()
            try:
                count = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                count = 0
            except OSError as exc:
                self.driver.lost(self, f"write failed: {exc}")
                return False
            if count:
                self.driver.flushed.append((self.conn, count))
            if count < len(data):
                pieces[:] = (memoryview(data)[count:],)
                self.driver.watch_writable(self)
                return True
            pieces.clear()
        if self._finishing:
            self._linger()
        return False

    def _flush_many(self) -> bool:
        chunks = gather(self.pieces)
        sent = first = 0
        try:
            while first < len(chunks):
                batch = chunks[first : first + BUFFERS_MAX]
                count = self.sock.sendmsg(batch)
                sent += count
                while first < len(chunks) and count >= len(chunks[first]):
                    count -= len(chunks[first])
                    first += 1
                if count:
                    chunks[first] = memoryview(chunks[first])[count:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            self.driver.lost(self, f"write failed: {exc}")
            return False
        if sent:
            self.driver.flushed.append((self.conn, sent))
        self.pieces[:] = chunks[first:]
        if self.pieces:
            self.driver.watch_writable(self)
            return True
        if self._finishing:
            self._linger()
        return False

    def writable(self) -> None:
        """The kernel has room again."""
        self.driver.unwatch_writable(self)
        self.driver.flush(self)

    def pause(self) -> None:
        """Stops reading, unless the connection is ending."""
        if self.watched and not self._lingering:
            self.watched = False
            self.driver.unwatch_readable(self)
            self._look_later()

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self.driver.later(LOOK_S, self._look)

    def _look(self) -> None:
        """Who is not read, and has nothing to be written, may be gone without anybody noticing."""
        self._looking = False
        if self.watched or self._ended or self.sock.fileno() < 0:
            return
        if is_reset(self.sock):
            self.driver.lost(self, "reset by the peer while it was not read")
        else:
            self._look_later()

    def resume(self) -> None:
        """Reads on."""
        if not self.watched and not self._ended:
            self.watched = True
            self.driver.watch_readable(self)

    def finish(self) -> None:
        """Ends the connection once `pieces` are written, and after `flush_s` in any case."""
        self._finishing = True
        self.driver.later(self.driver.flush_s, self.abort)

    def abort(self, reason: str = "the peer took too long to read our last bytes") -> None:
        """Closes the socket at once."""
        self.driver.lost(self, reason)

    def close(self) -> None:
        """Closes the socket; what was not written is dropped."""
        self.pieces.clear()
        self.watched = False
        self.driver.forget(self)
        self.sock.close()

    def _linger(self) -> None:
        """Our side is done: says so, and reads on for a moment, or the kernel might drop what we sent last."""
        if self._lingering:
            return
        if self._ended:
            self.driver.lost(self, "closed")
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.driver.lost(self, "closed")
            return
        self._lingering = True
        self.resume()
        self.driver.later(LINGER_S, self._linger_over)

    def _linger_over(self) -> None:
        self.driver.lost(self, "closed")

    def _end_of_stream(self) -> None:
        self._ended = True
        if self._finishing:
            self.watched = False
            self.driver.unwatch_readable(self)  # What is left to write is written first.
            return
        self.driver.lost(self, "the peer ended the connection")
