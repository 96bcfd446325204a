"""Carries out a client machine's transport asks: connects over TCP and TLS, writes, reads, ends, and keeps time."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute, TaskGroup
from anyio.streams.tls import TLSStream

from vixws_core.client import ClientEffect, ClientInput, OpenTransport, TransportFailed, TransportOpened
from vixws_core.effects import CloseTransport, PauseReading, ResumeReading, SendBytes
from vixws_core.inputs import Disconnected, TimePassed
from vixws_core.pump import Pump

from ..transport import children
from ..transport.interface import Transport
from ..transport.stream import StreamTransport

__all__ = ["ClientDriver"]

UNSENT_BYTES_HIGH: Final = 1_048_576
"""Above so many unsent bytes `wait_sendable` waits."""

FLUSH_S: Final = 5.0
"""Seconds that a closing connection may take to write its last bytes."""


class ClientDriver:
    """A consumer that owns a client's connections, and the task that tells it the time.

    `tls` is used for `wss:`. Belongs to one event loop; everything runs in `tasks`.
    """

    def __init__(self, tasks: TaskGroup, tls: ssl.SSLContext | None) -> None:
        self.flush_s: float = FLUSH_S
        self.flushed: list[tuple[int, int]] = []
        self._tasks = tasks
        self._tls = tls
        self._pump: Pump[ClientInput, ClientEffect] | None = None
        self._attempts: dict[int, anyio.CancelScope] = {}
        self._links: dict[int, StreamTransport] = {}
        self._unsent: dict[int, int] = {}
        self._sendable = anyio.Event()
        self._sendable.set()
        self._armed = float("inf")
        self._sooner = anyio.Event()

    def attach(self, pump: Pump[ClientInput, ClientEffect]) -> None:
        """Names the pump that inputs go to, and begins to keep time."""
        self._pump = pump
        self._tasks.start_soon(self._keep_time)

    # ---- the consumer ---------------------------------------------------------------------------

    def see(self, now: float, input: ClientInput, effects: Sequence[ClientEffect]) -> None:
        """Carries out the transport asks of one step."""
        for effect in effects:
            if isinstance(effect, SendBytes):
                self._send(effect)
            elif isinstance(effect, OpenTransport):
                self._attempts[effect.conn] = anyio.CancelScope()
                self._tasks.start_soon(self._carry, effect)
            elif isinstance(effect, CloseTransport):
                self._close(effect)
            elif isinstance(effect, PauseReading) and effect.conn in self._links:
                self._links[effect.conn].pause()
            elif isinstance(effect, ResumeReading) and effect.conn in self._links:
                self._links[effect.conn].resume()
        assert self._pump is not None
        deadline = self._pump.door.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._armed = deadline
            self._sooner.set()

    def _send(self, effect: SendBytes) -> None:
        link = self._links.get(effect.conn)
        if link is None:
            return
        link.pieces.append(effect.data)
        link.flush()
        unsent = self._unsent[effect.conn] = self._unsent[effect.conn] + len(effect.data)
        if unsent > UNSENT_BYTES_HIGH and self._sendable.is_set():
            self._sendable = anyio.Event()

    def _close(self, effect: CloseTransport) -> None:
        attempt, link = self._attempts.get(effect.conn), self._links.get(effect.conn)
        if attempt is not None:
            attempt.cancel()
        elif link is not None and effect.abort:
            link.abort("aborted")
        elif link is not None:
            link.finish()
            link.flush()

    async def wait_sendable(self) -> None:
        """Waits until the connections' unsent bytes are below their mark."""
        while not self._sendable.is_set():
            await self._sendable.wait()

    def _look_at_unsent(self) -> None:
        if not self._sendable.is_set() and all(unsent <= UNSENT_BYTES_HIGH for unsent in self._unsent.values()):
            self._sendable.set()

    # ---- what its connections ask for -----------------------------------------------------------

    def put(self, *inputs: ClientInput) -> None:
        """Hands inputs to the machine."""
        assert self._pump is not None
        self._pump.put(*inputs)

    def wake(self) -> None:
        """Counts what was written."""
        for conn, count in self.flushed:
            self._unsent[conn] -= count
        self.flushed.clear()
        self._look_at_unsent()

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Calls back in that many seconds, unless all is over."""
        self._tasks.start_soon(_call_later, seconds, callback)

    def lost(self, link: Transport, reason: str) -> None:
        """Forgets a connection that has ended, and tells so, once."""
        if self._links.get(link.conn) is not link:
            return
        del self._links[link.conn], self._unsent[link.conn]
        link.close()
        self._look_at_unsent()
        self.put(Disconnected(link.conn, reason))

    def failed(self, link: Transport, exc: Exception) -> None:
        """A defect of ours, which ends the client: its program hears of it."""
        raise exc

    # ---- tasks ----------------------------------------------------------------------------------

    async def _carry(self, asked: OpenTransport) -> None:
        """One connection, from the attempt at it to its end."""
        stream: ByteStream | None = None
        attempt = self._attempts[asked.conn]
        try:
            with attempt:
                stream = await self._connect(asked)
        finally:
            del self._attempts[asked.conn]
            if stream is None:
                self.put(Disconnected(asked.conn, "closed"))
        if stream is not None:
            link = StreamTransport(self, stream, asked.conn, f"{asked.host}:{asked.port}", far="the server")
            self._links[asked.conn] = link
            self._unsent[asked.conn] = 0
            self.put(TransportOpened(asked.conn))
            await link.run()

    async def _connect(self, asked: OpenTransport) -> ByteStream | None:
        """A connected stream; None where there is none, which is told."""
        host, port = asked.host, asked.port
        plain: ByteStream | None = None
        try:
            plain = await anyio.connect_tcp(host, port)
            children.keep_number(plain, plain.extra(SocketAttribute.raw_socket).fileno())
            stream: ByteStream = plain
            if asked.secure:
                stream = await TLSStream.wrap(plain, hostname=host, ssl_context=self._tls, standard_compatible=False)
            await anyio.lowlevel.checkpoint()  # The last moment to give up.
        except (anyio.BrokenResourceError, anyio.EndOfStream, OSError, ValueError) as exc:
            what = "TLS with" if plain is not None else "connecting to"
            self.put(TransportFailed(asked.conn, f"{what} {host}:{port} failed: {str(exc) or repr(exc)}"))
            if plain is not None:
                children.forget(plain)
                await anyio.aclose_forcefully(plain)
            return None
        except BaseException:
            if plain is not None:
                children.forget(plain)
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(plain)
            raise
        children.forget(plain)  # From here on its transport keeps it.
        return stream

    async def _keep_time(self) -> None:
        """Puts `TimePassed` at every deadline; woken when one comes to stand before the one it waits for."""
        pump = self._pump
        assert pump is not None
        while True:
            self._sooner = anyio.Event()
            deadline = pump.door.next_deadline()
            self._armed = float("inf") if deadline is None else deadline
            if deadline is None:
                await self._sooner.wait()
                continue
            with anyio.move_on_after(max(0.0, deadline - pump.clock())):
                await self._sooner.wait()
            if pump.clock() >= deadline:
                pump.put(TimePassed())


async def _call_later(seconds: float, callback: Callable[[], object]) -> None:
    await anyio.sleep(seconds)
    callback()
