"""A connection over any anyio byte stream: TLS, Unix sockets, in-memory streams."""

from __future__ import annotations

from functools import partial
from socket import socket

import anyio
from anyio.abc import ByteStream, SocketAttribute

from vixws_core.inputs import BytesReceived

from . import children
from .interface import LINGER_S, LOOK_S, READ_BYTES, Host, is_reset
from .pieces import Piece, gather

__all__ = ["StreamTransport"]


class StreamTransport:
    """Any anyio byte stream, a server's or a client's. `run` reads and writes until it ends, then tells so, once.

    `far` is what reasons call the other side.
    """

    def __init__(self, driver: Host, stream: ByteStream, conn: int, peer: str, *, far: str = "the peer") -> None:
        self.driver: Host = driver
        self.stream: ByteStream = stream
        self.conn: int = conn
        self.peer: str = peer
        self.pieces: list[Piece] = []
        self.dirty: bool = False
        self._far = far
        self._finishing = False
        self._work = anyio.Event()
        self._may_read = anyio.Event()
        self._may_read.set()
        self._scope = anyio.CancelScope()
        self._reason = "closed"
        self._looking = False
        self._sock: socket | None = stream.extra(SocketAttribute.raw_socket, None)
        """The socket beneath, where there is one."""
        if self._sock is not None:
            children.keep_number(self, self._sock.fileno())

    def flush(self) -> bool:
        """Wakes the writer, which takes all that comes until it is done."""
        self._work.set()
        return False

    def pause(self) -> None:
        """Stops reading after the current read."""
        if self._may_read.is_set():
            self._may_read = anyio.Event()
            if self._sock is not None and not self._looking:
                self._looking = True
                self.driver.later(LOOK_S, self._look)

    def _look(self) -> None:
        """As `SocketTransport` does."""
        self._looking = False
        if self._may_read.is_set() or self._sock is None or self._sock.fileno() < 0:
            return
        if is_reset(self._sock):
            self.abort("reset by the peer while it was not read")
        else:
            self._looking = True
            self.driver.later(LOOK_S, self._look)

    def resume(self) -> None:
        """Reads on."""
        self._may_read.set()

    def finish(self) -> None:
        """Ends the connection once `pieces` are written, and after `flush_s` in any case."""
        self._finishing = True
        too_long = f"{self._far} took too long to read our last bytes"
        self.driver.later(self.driver.flush_s, partial(self.abort, too_long))

    def abort(self, reason: str) -> None:
        """Cancels both tasks, which closes the stream."""
        self._reason = reason
        self._scope.cancel()

    def close(self) -> None:
        """Drops what was not written, and ends both tasks where they still run."""
        self.pieces.clear()
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
            children.forget(self)
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
            self._reason = f"{self._far} ended the connection"
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            self._reason = f"read failed: {str(exc) or repr(exc)}"
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
                    self._work = anyio.Event()
                    await self._work.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            self._reason = f"write failed: {str(exc) or repr(exc)}"
            self._scope.cancel()
        except Exception as exc:  # Somebody else's stream; it must not take the others along.
            self.driver.failed(self, exc)
            self._scope.cancel()

    async def _last_words(self) -> None:
        """Says that our side is done, in the stream's own way, within a second."""
        children.forget(self)
        with anyio.move_on_after(LINGER_S):
            try:
                await self.stream.aclose()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                return
