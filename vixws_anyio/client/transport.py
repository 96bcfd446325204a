"""Carries out a client machine's transport asks over anyio streams: TCP, TLS, time."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import ByteStream, TaskGroup
from anyio.streams.tls import TLSStream

from vixws_core.client import ClientMachine, OpenTransport, TransportFailed, TransportOpened
from vixws_core.effects import CloseTransport, PauseReading, ResumeReading, SendBytes
from vixws_core.inputs import BytesReceived, Disconnected, TimePassed
from vixws_core.pump import Pump

__all__ = ["ClientDriver"]

READ_BYTES = 65_536
"""Most bytes taken in one read."""
WRITE_BYTES = 65_536
"""Frames are joined up to about this size for one write."""
UNSENT_BYTES_HIGH = 1_048_576
"""Above so many unsent bytes `wait_sendable` waits."""
FLUSH_S = 5.0
"""Seconds that a closing connection may take to write its last bytes."""


class ClientDriver:
    """A consumer that owns a client's transports, and the task that tells it the time.

    `tls` is used for `wss:`. Belongs to one event loop; everything runs in `tasks`.
    """

    def __init__(self, tasks: TaskGroup, machine: ClientMachine, tls: ssl.SSLContext | None) -> None:
        self._tasks = tasks
        self._machine = machine
        self._tls = tls
        self._pump: Pump | None = None
        self._links: dict[int, _Link] = {}
        self._armed = float("inf")
        self._sooner = anyio.Event()

    def attach(self, pump: Pump) -> None:
        """Names the pump that inputs go to, and begins to keep time."""
        self._pump = pump
        self._tasks.start_soon(self._keep_time)

    def put(self, *inputs: Any) -> None:
        """Hands inputs to the machine."""
        assert self._pump is not None
        self._pump.put(*inputs)

    def see(self, now: float, input: Any, effects: Sequence[Any]) -> None:
        """Carries out the transport asks of one step."""
        for effect in effects:
            if isinstance(effect, OpenTransport):
                link = self._links[effect.conn] = _Link(self, effect)
                self._tasks.start_soon(link.run, self._tls)
            elif isinstance(effect, SendBytes | CloseTransport | PauseReading | ResumeReading):
                target = self._links.get(effect.conn)
                if target is not None:
                    target.ask(effect)
        deadline = self._machine.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._armed = deadline
            self._sooner.set()

    def gone(self, conn: int, reason: str) -> None:
        """Takes note that a transport has ended, and tells so."""
        del self._links[conn]
        self.put(Disconnected(conn, reason))

    async def wait_sendable(self) -> None:
        """Waits until the connections' unsent bytes are below their mark."""
        for link in tuple(self._links.values()):
            await link.wait_sendable()

    async def _keep_time(self) -> None:
        """Puts `TimePassed` at every deadline; woken when one comes to stand before the one it waits for."""
        pump = self._pump
        assert pump is not None
        while True:
            self._sooner = anyio.Event()
            deadline = self._machine.next_deadline()
            self._armed = float("inf") if deadline is None else deadline
            if deadline is None:
                await self._sooner.wait()
                continue
            with anyio.move_on_after(max(0.0, deadline - pump.clock())):
                await self._sooner.wait()
            if pump.clock() >= deadline:
                pump.put(TimePassed())


class _Link:
    """One transport: connects, then reads and writes until either side ends."""

    def __init__(self, driver: ClientDriver, asked: OpenTransport) -> None:
        self._driver = driver
        self._asked = asked
        self._conn = asked.conn
        self._pieces: list[bytes] = []
        self._unsent = 0
        self._work = anyio.Event()
        self._may_read = anyio.Event()
        self._may_read.set()
        self._sendable = anyio.Event()
        self._sendable.set()
        self._finishing = False
        self._scope = anyio.CancelScope()
        self._reason = "closed"

    def ask(self, effect: SendBytes | CloseTransport | PauseReading | ResumeReading) -> None:
        """Carries out one ask."""
        if isinstance(effect, SendBytes):
            self._pieces.append(effect.data)
            self._unsent += len(effect.data)
            if self._unsent > UNSENT_BYTES_HIGH and self._sendable.is_set():
                self._sendable = anyio.Event()
            self._work.set()
        elif isinstance(effect, ResumeReading):
            self._may_read.set()
        elif isinstance(effect, PauseReading):
            if self._may_read.is_set():
                self._may_read = anyio.Event()
        elif effect.abort:
            self._scope.cancel()
        else:
            self._finishing = True
            self._scope.deadline = anyio.current_time() + FLUSH_S
            self._work.set()

    async def wait_sendable(self) -> None:
        await self._sendable.wait()

    async def run(self, tls: ssl.SSLContext | None) -> None:
        """Carries bytes both ways; tells once that it has ended."""
        stream: ByteStream | None = None
        try:
            with self._scope:
                stream = await self._connect(tls)
                if stream is not None:
                    self._driver.put(TransportOpened(self._conn))
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._read, stream)
                        await self._write(stream)
                        await stream.aclose()
                        tasks.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as group:
            self._reason = f"closing failed: {group.exceptions[0]}"
        finally:
            self._sendable.set()
            if stream is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(stream)
            self._driver.gone(self._conn, self._reason)

    async def _connect(self, tls: ssl.SSLContext | None) -> ByteStream | None:
        """A connected stream; None where there is none, which is told."""
        host, port = self._asked.host, self._asked.port
        plain: ByteStream | None = None
        try:
            plain = await anyio.connect_tcp(host, port)
            if not self._asked.secure:
                return plain
            return await TLSStream.wrap(plain, hostname=host, ssl_context=tls, standard_compatible=False)
        except (anyio.BrokenResourceError, anyio.EndOfStream, OSError, ValueError) as exc:
            what = "TLS with" if plain is not None else "connecting to"
            self._driver.put(TransportFailed(self._conn, f"{what} {host}:{port} failed: {exc or repr(exc)}"))
            if plain is not None:
                await anyio.aclose_forcefully(plain)
            return None
        except BaseException:
            if plain is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(plain)
            raise

    async def _read(self, stream: ByteStream) -> None:
        try:
            while True:
                data = await stream.receive(READ_BYTES)
                while not self._may_read.is_set():
                    await self._may_read.wait()
                if not self._finishing:
                    self._driver.put(BytesReceived(self._conn, data))
        except anyio.EndOfStream:
            self._reason = "the server ended the connection"
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            self._reason = f"reading failed: {exc or repr(exc)}"
        if not self._finishing:
            self._scope.cancel()

    async def _write(self, stream: ByteStream) -> None:
        try:
            while True:
                if self._pieces:
                    data = b"".join(self._pieces) if self._unsent <= WRITE_BYTES else self._pieces[0]
                    del self._pieces[: len(self._pieces) if self._unsent <= WRITE_BYTES else 1]
                    await stream.send(data)
                    self._unsent -= len(data)
                    if self._unsent <= UNSENT_BYTES_HIGH:
                        self._sendable.set()
                elif self._finishing:
                    return
                else:
                    self._work = anyio.Event()
                    await self._work.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            self._reason = f"writing failed: {exc or repr(exc)}"
            self._scope.cancel()
