"""The network of a world: connections whose bytes wait, come in pieces, get lost or never come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..effects import Broadcast, CloseTransport, Effect, PauseReading, ResumeReading, SendBytes
from ..inputs import BytesFlushed, BytesReceived, Connected, Disconnected, Input
from .faults import Faults
from .oracle import check
from .streams import Chance

__all__ = ["Network", "Peer", "Wire"]

_READ_BYTES = 65_536
"""The most bytes that come with one read, as a shell reads them."""


class Peer(Protocol):
    """What is at the client's end of a connection. `number` is the peer's own number for it."""

    slow: bool

    def opened(self, number: int) -> None:
        """The connection is there."""
        ...

    def failed(self, number: int) -> None:
        """The connection could not be had."""
        ...

    def received(self, number: int, data: bytes) -> None:
        """Bytes came."""
        ...

    def ended(self, number: int) -> None:
        """The connection ended, not by the peer's own wish."""
        ...


class Wire:
    """One connection. `up` goes to the server; `outbox` is the server's own, `kernel` is under way to the client."""

    __slots__ = (
        "client_done",
        "client_reads",
        "closing",
        "conn",
        "down_ends",
        "kernel",
        "lost",
        "number",
        "outbox",
        "peer",
        "server_done",
        "server_reads",
        "up",
        "up_ends",
    )

    def __init__(self, conn: int, peer: Peer, number: int) -> None:
        self.conn: int = conn
        self.peer: Peer = peer
        self.number: int = number
        self.up: bytearray = bytearray()
        self.outbox: bytearray = bytearray()
        self.kernel: bytearray = bytearray()
        self.server_reads: bool = True
        self.client_reads: bool = True
        self.closing: bool = False
        """The server ends it once the outbox is flushed."""
        self.lost: bool = False
        """Half-open: nothing passes."""
        self.up_ends: bool = False
        """Behind `up` comes the end."""
        self.down_ends: bool = False
        self.server_done: bool = False
        """The server was told of the end."""
        self.client_done: bool = False


class Network:
    """All connections of a world; a consumer of the hub, whose bytes it carries. Each `step` moves some of them."""

    def __init__(self, chance: Chance, faults: Faults) -> None:
        self.wires: dict[int, Wire] = {}
        self.calm: bool = False
        """Whether everything passes and nothing breaks from now on."""
        self.post: Callable[..., None] | None = None
        """Hands inputs to the present server; None while there is none."""
        self._chance = chance
        self._faults = faults
        self._attempts: list[tuple[Peer, int]] = []
        self._last_conn = 0
        self._names: dict[int, str] = {}

    # ---- what the hub asks ----------------------------------------------------------------------

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Carries out what a step asks of the transports."""
        for effect in effects:
            if isinstance(effect, SendBytes):
                self._put(effect.conn, effect.data)
            elif isinstance(effect, Broadcast):
                for conn in effect.conns:
                    self._put(conn, effect.data)
            elif isinstance(effect, CloseTransport):
                self._close(effect)
            elif isinstance(effect, PauseReading | ResumeReading):
                wire = self.wires.get(effect.conn)
                if wire is not None:
                    wire.server_reads = isinstance(effect, ResumeReading)

    def _put(self, conn: int, data: bytes) -> None:
        wire = self.wires.get(conn)
        check(wire is not None, f"bytes were sent to connection {conn}, which is over")
        if wire is not None and not wire.server_done:
            wire.outbox += data

    def _close(self, effect: CloseTransport) -> None:
        wire = self.wires.get(effect.conn)
        if wire is None:
            return
        wire.closing = True
        if effect.abort:
            wire.outbox.clear()
            del wire.kernel[self._chance.of("abort").randint(0, len(wire.kernel)) :]

    # ---- what clients ask -----------------------------------------------------------------------

    def connect(self, peer: Peer, number: int) -> None:
        """Begins an attempt; the peer is told the outcome in a later step."""
        self._attempts.append((peer, number))

    def find(self, peer: Peer, number: int) -> Wire | None:
        """A peer's connection, while the peer has not ended it."""
        for wire in self.wires.values():
            if wire.peer is peer and wire.number == number and not wire.client_done:
                return wire
        return None

    def name_of(self, conn: int) -> str:
        """Who is at the client's end of a connection, in words, also when it is over."""
        return self._names.get(conn, f"connection {conn}")

    def send(self, peer: Peer, number: int, data: bytes) -> None:
        """Bytes from a client."""
        wire = self.find(peer, number)
        if wire is not None and not wire.up_ends:
            wire.up += data

    def hang_up(self, peer: Peer, number: int, abort: bool = False) -> None:
        """A client ends its connection, or gives up an attempt."""
        self._attempts = [tried for tried in self._attempts if tried != (peer, number)]
        wire = self.find(peer, number)
        if wire is None:
            return
        wire.client_done = wire.up_ends = True
        wire.kernel.clear()
        if abort:
            del wire.up[self._chance.of("abort").randint(0, len(wire.up)) :]

    # ---- a step ---------------------------------------------------------------------------------

    def step(self) -> bool:
        """Moves what chance picks (all there is, when calm); whether anything moved."""
        moved = self._connect_some()
        for part in self._order():
            moved = part() or moved
        for conn in [conn for conn, wire in self.wires.items() if wire.server_done and wire.client_done]:
            del self.wires[conn]
        return moved

    def _order(self) -> list[Callable[[], bool]]:
        parts: list[Callable[[], bool]] = [self._up, self._flush, self._down]
        if not self.calm:
            self._chance.of("order").shuffle(parts)
        return parts

    def _connect_some(self) -> bool:
        attempts, self._attempts = self._attempts, []
        for peer, number in attempts:
            refused = not self.calm and self._chance.fault("refuse", self._faults.refuse)
            if self.post is None or refused:
                peer.failed(number)
                continue
            self._last_conn += 1
            self.wires[self._last_conn] = Wire(self._last_conn, peer, number)
            self._names[self._last_conn] = repr(peer)
            self.post(Connected(self._last_conn, "sim"))
            peer.opened(number)
        return bool(attempts)

    def _picked(self, purpose: str) -> list[Wire]:
        wires = list(self.wires.values())
        if self.calm:
            return wires
        stream = self._chance.of(purpose)
        stream.shuffle(wires)
        return [wire for wire in wires if stream.random() < 0.5]

    def _size(self, purpose: str, most: int) -> int:
        """How many of at most `most` bytes move at once."""
        if self.calm or most <= 1 or not self._chance.fault("chunk", self._faults.chunk):
            return most
        return self._chance.of(purpose).randint(1, most)

    def _up(self) -> bool:
        moved = False
        for wire in self._picked("up"):
            if wire.server_done or self.post is None:
                continue
            if wire.lost and not (wire.closing and not wire.outbox):
                continue
            if wire.closing and not wire.outbox:  # The server's own end, which it always hears of.
                wire.down_ends = True
                self._tell_server(wire, "closed")
            elif wire.up and wire.server_reads:
                size = self._size("up bytes", min(len(wire.up), _READ_BYTES))
                data = bytes(wire.up[:size])
                del wire.up[:size]
                self.post(BytesReceived(wire.conn, data))
            elif wire.up_ends and (wire.server_reads or wire.closing):
                self._tell_server(wire, "connection lost")
            else:
                continue
            moved = True
        return moved

    def _tell_server(self, wire: Wire, reason: str) -> None:
        wire.server_done = True
        wire.outbox.clear()
        wire.up.clear()
        assert self.post is not None
        self.post(Disconnected(wire.conn, reason))

    def _flush(self) -> bool:
        flushed: list[tuple[int, int]] = []
        broken: list[Wire] = []
        for wire in self._picked("flush"):
            if wire.server_done or not wire.outbox:
                continue
            if not wire.lost and (wire.client_done or wire.down_ends):
                broken.append(wire)
                continue
            room = (1 << 30 if self.calm else self._faults.kernel_bytes) - len(wire.kernel)
            if room <= 0 or (self.calm and wire.lost):
                continue
            size = self._size("flush bytes", min(len(wire.outbox), room))
            wire.kernel += wire.outbox[:size]
            del wire.outbox[:size]
            flushed.append((wire.conn, size))
        if flushed and self.post is not None:
            self.post(BytesFlushed(tuple(flushed)))
        for wire in broken:
            if self.post is not None and not wire.server_done:
                self._tell_server(wire, "write failed")
        return bool(flushed or broken)

    def _down(self) -> bool:
        moved = False
        for wire in self._picked("down"):
            if wire.client_done:
                continue
            if wire.lost:
                if self.calm and wire.server_done:
                    wire.kernel.clear()
                    wire.client_done = moved = True
                    wire.peer.ended(wire.number)
                continue
            if wire.kernel and wire.client_reads:
                most = len(wire.kernel)
                if wire.peer.slow and not self.calm:
                    most = min(most, self._faults.slow_bytes)
                size = self._size("down bytes", most)
                data = bytes(wire.kernel[:size])
                del wire.kernel[:size]
                moved = True
                wire.peer.received(wire.number, data)
            elif wire.down_ends and not wire.kernel:
                wire.client_done = moved = True
                wire.peer.ended(wire.number)
        return moved

    # ---- what goes wrong ------------------------------------------------------------------------

    def break_some(self) -> None:
        """Cuts connections, or leaves them half-open, as the faults say."""
        for wire in tuple(self.wires.values()):
            if self._chance.fault("cut", self._faults.cut):
                self.cut(wire)
            if self._chance.fault("half_open", self._faults.half_open):
                wire.lost = True

    def cut(self, wire: Wire) -> None:
        """Loses what is under way from some byte on; each side hears of the end behind what it still gets."""
        stream = self._chance.of("cut bytes")
        del wire.up[stream.randint(0, len(wire.up)) :]
        del wire.kernel[stream.randint(0, len(wire.kernel)) :]
        wire.up_ends = wire.down_ends = True

    def server_died(self) -> None:
        """Every connection loses its server."""
        self.post = None
        for wire in self.wires.values():
            self.cut(wire)
            wire.outbox.clear()
            wire.server_done = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way on any connection, nor an attempt or an end."""
        return not self._attempts and all(
            not (wire.up or wire.outbox or wire.kernel or wire.up_ends or wire.down_ends or wire.closing or wire.lost)
            for wire in self.wires.values()
        )
