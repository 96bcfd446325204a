"""One connection's bytes: what waits to be written, and the ways to read, write and end it.

`SocketTransport` drives a plain non-blocking socket with direct `send` and `recv`; a driver tells it when the
kernel is ready. `StreamTransport` runs any anyio byte stream (TLS, Unix sockets, in-memory) with two tasks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio.abc import ByteStream

from vixws_core.inputs import BytesReceived

if TYPE_CHECKING:
    from .driver import Driver

__all__ = ["READ_BYTES", "SocketTransport", "StreamTransport", "Transport", "gather"]

READ_BYTES: Final = 65_536
"""Bytes of one read."""

JOIN_MAX: Final = 65_536
"""Pieces are joined up to this size for one `send`."""

PIECE_MAX: Final = 16_384
"""A piece above this is not copied to be joined."""

BUFFERS_MAX: Final = 64
"""Buffers of one `sendmsg`; the kernel takes 1024 (IOV_MAX)."""

LINGER_S: Final = 1.0
"""Seconds we read on and discard after our last byte, so that the peer gets it before the socket is gone."""

LINGER_BYTES: Final = 65_536
"""Bytes discarded in that time, at most."""

Piece = bytes | memoryview


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


def gather(pieces: Sequence[Piece]) -> list[Piece]:
    """Joins neighbours that are small, up to 64 KiB; leaves pieces over 16 KiB as they are."""
    chunks: list[Piece] = []
    run: list[Piece] = []
    size = 0
    for piece in pieces:
        length = len(piece)
        if run and (length > PIECE_MAX or size + length > JOIN_MAX):
            chunks.append(run[0] if len(run) == 1 else b"".join(run))
            run = []
            size = 0
        if length > PIECE_MAX:
            chunks.append(piece)
        else:
            run.append(piece)
            size += length
    if run:
        chunks.append(run[0] if len(run) == 1 else b"".join(run))
    return chunks


class SocketTransport:
    """A non-blocking stream socket. The driver calls `receive` and `flush` when the kernel is ready."""

    __slots__ = (
        "_discarded",
        "_ended",
        "_finishing",
        "_lingering",
        "conn",
        "dirty",
        "driver",
        "fd",
        "peer",
        "pieces",
        "sock",
        "wake",
        "watched",
    )

    def __init__(self, driver: Driver, sock: socket.socket, conn: int, peer: str) -> None:
        self.driver = driver
        self.sock = sock
        self.fd = sock.fileno()
        self.conn = conn
        self.peer = peer
        self.pieces: list[Piece] = []
        self.dirty = False
        self.watched = False
        """Whether the driver watches for readability."""
        self.wake: Callable[[], object] | None = None
        """Set by a driver whose reader is parked."""
        self._finishing = False
        self._lingering = False
        self._ended = False
        self._discarded = 0

    def receive(self) -> bool:
        """Reads once; whether the read was full, so that more may be there already."""
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
        try:
            self.driver.put(BytesReceived(self.conn, data))
        except Exception as exc:
            self.driver.failed(self, exc)
        return len(data) == READ_BYTES

    def flush(self) -> None:
        """Writes until the kernel takes no more; then the driver is asked to watch for room."""
        pieces = self.pieces
        if pieces:
            if len(pieces) == 1:
                data = pieces[0]
            elif sum(map(len, pieces)) <= JOIN_MAX:
                data = b"".join(pieces)
            else:
                self._flush_many()
                return
            try:
                count = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                count = 0
            except OSError as exc:
                self.driver.lost(self, f"write failed: {exc}")
                return
            if count:
                self.driver.flushed.append((self.conn, count))
            if count < len(data):
                pieces[:] = (memoryview(data)[count:],)
                self._wait_for_room()
                return
            pieces.clear()
        if self._finishing:
            self._linger()

    def _flush_many(self) -> None:
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
            return
        if sent:
            self.driver.flushed.append((self.conn, sent))
        self.pieces[:] = chunks[first:]
        if self.pieces:
            self._wait_for_room()
        elif self._finishing:
            self._linger()

    def _wait_for_room(self) -> None:
        self.dirty = True  # No tick flushes it until the kernel has room.
        self.driver.watch_writable(self)

    def writable(self) -> None:
        """The kernel has room again."""
        self.driver.unwatch_writable(self)
        self.dirty = False
        self.flush()
        self.driver.wake()

    def pause(self) -> None:
        """Stops reading, unless the connection is ending."""
        if self.watched and not self._lingering:
            self.driver.unwatch_readable(self)

    def resume(self) -> None:
        """Reads on."""
        if not self.watched and not self._ended:
            self.driver.watch_readable(self)

    def finish(self) -> None:
        """Ends the connection once `pieces` are written, and after `flush_s` in any case."""
        self._finishing = True
        self.driver.later(self.driver.flush_s, self.abort)

    def abort(self, reason: str = "the peer took too long to read our last bytes") -> None:
        """Closes the socket at once."""
        self.driver.lost(self, reason)

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
            self.driver.unwatch_readable(self)  # What is left to write is written first.
            return
        self.driver.lost(self, "the peer ended the connection")


class StreamTransport:
    """Any anyio byte stream. `run` reads and writes until the connection ends, then tells so, once."""

    def __init__(self, driver: Driver, stream: ByteStream, conn: int, peer: str) -> None:
        self.driver = driver
        self.stream = stream
        self.conn = conn
        self.peer = peer
        self.pieces: list[Piece] = []
        self.dirty = False
        self._finishing = False
        self._work = anyio.Event()
        self._may_read = anyio.Event()
        self._may_read.set()
        self._scope = anyio.CancelScope()
        self._reason = "closed"

    def flush(self) -> None:
        """Wakes the writer."""
        self.dirty = True  # The writer takes all that comes until it is done.
        self._work.set()

    def pause(self) -> None:
        """Stops reading after the current read."""
        if self._may_read.is_set():
            self._may_read = anyio.Event()

    def resume(self) -> None:
        """Reads on."""
        self._may_read.set()

    def finish(self) -> None:
        """Ends the connection once `pieces` are written, and after `flush_s` in any case."""
        self._finishing = True
        self.driver.later(self.driver.flush_s, self.abort)

    def abort(self, reason: str = "the peer took too long to read our last bytes") -> None:
        """Cancels both tasks, which closes the stream."""
        self._reason = reason
        self._scope.cancel()

    async def run(self) -> None:
        """Carries bytes both ways until either side ends. Does not raise for what the stream does."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._read)
                    await self._write()
                    await self._last_words()
                    tasks.cancel_scope.cancel()
        finally:
            self.driver.lost(self, self._reason)
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self.stream)

    async def _read(self) -> None:
        try:
            while True:
                data = await self.stream.receive(READ_BYTES)
                while not self._may_read.is_set():
                    await self._may_read.wait()
                if not self._finishing:
                    self.driver.put(BytesReceived(self.conn, data))
        except anyio.EndOfStream:
            self._reason = "the peer ended the connection"
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            self._reason = f"read failed: {exc}"
        except Exception as exc:
            self.driver.failed(self, exc)
        if not self._finishing:
            self._scope.cancel()

    async def _write(self) -> None:
        try:
            while True:
                if self.pieces:
                    chunks = gather(self.pieces)
                    self.pieces.clear()
                    for chunk in chunks:
                        await self.stream.send(bytes(chunk))
                        self.driver.flushed.append((self.conn, len(chunk)))
                        self.driver.wake()
                elif self._finishing:
                    return
                else:
                    self.dirty = False
                    self._work = anyio.Event()
                    await self._work.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            self._reason = f"write failed: {exc}"
            self._scope.cancel()
        except Exception as exc:  # Somebody else's stream; it must not take the others along.
            self.driver.failed(self, exc)
            self._scope.cancel()

    async def _last_words(self) -> None:
        """Says that our side is done, in the stream's own way, within a second."""
        with anyio.move_on_after(LINGER_S):
            try:
                await self.stream.aclose()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                return
