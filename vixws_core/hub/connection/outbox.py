"""What connections are sent: their outboxes, the marks of PROTOCOL §5, and what is said to many at once."""

from __future__ import annotations

from collections.abc import Sequence

from ...effects import Broadcast, SendBytes
from ...inputs import BytesFlushed, Send, SendToAll
from ...wire.frames import BINARY, TEXT, encode_frame
from ..model import GONE, SENDABLE, Connection, Pause, Target
from ..step import Step
from .reading import Reading
from .timers import Timers

__all__ = ["Outbox", "grouped"]


class Outbox:
    """Puts bytes into the outboxes of connections, and counts what is unsent."""

    __slots__ = ("_everyone", "_reading", "_step", "_timers", "unsent_total")

    def __init__(self, step: Step, timers: Timers, reading: Reading) -> None:
        self._step = step
        self._timers = timers
        self._reading = reading
        self._everyone: tuple[Connection, ...] | None = None
        """Who gets a message to all; None: to be gathered again."""
        self.unsent_total: int = 0
        """Bytes in all outboxes."""

    # ---- to one ---------------------------------------------------------------------------------

    def send(self, connection: Connection, data: bytes) -> None:
        """Sends bytes that are no message: HTTP, a control frame. The connection may be above its mark afterwards."""
        size = len(data)
        connection.unsent += size
        self.unsent_total += size
        self._step.out.append(SendBytes(connection.id, data, 0))

    def put(self, connection: Connection, data: bytes, frames: int = 1) -> None:
        """Sends data frames, joined, and parks the connection where that takes it over its mark."""
        step, size = self._step, len(data)
        connection.last_data = step.now
        connection.unsent = unsent = connection.unsent + size
        self.unsent_total += size
        step.out.append(SendBytes(connection.id, data, frames))
        if unsent > step.config.unsent_bytes_low:
            self.apply_watermark(connection)

    def answer(self, connection: Connection, text: bytes) -> None:
        """Sends one message of the protocol; it is not refused above the mark, since requests are bounded."""
        if connection.state in SENDABLE:
            self.put(connection, connection.codec.text(text))

    def send_asked(self, input: Send) -> None:
        """The application sends one message."""
        connection = self._step.connections.get(input.conn)
        if connection is None or connection.state not in SENDABLE or (connection.parked and not input.answer):
            return  # Gone is a race; above its mark a directed send is refused: no SendBytes tells the caller.
        codec = connection.codec
        self.put(connection, codec.binary(input.data) if input.binary else codec.text(input.data))

    def touch(self, connection: Connection) -> None:
        """A data frame came."""
        connection.last_data = self._step.now

    # ---- to many --------------------------------------------------------------------------------

    def share(self, connections: Sequence[Connection], ids: tuple[int, ...], data: bytes, frames: int) -> None:
        """Puts the same bytes into many outboxes, and parks whom that takes over its mark."""
        step, size = self._step, len(data)
        step.out.append(Broadcast(ids, data, frames))
        self.unsent_total += size * len(ids)
        low, now = step.config.unsent_bytes_low, step.now
        heavy: list[Connection] = []
        for connection in connections:
            connection.unsent = unsent = connection.unsent + size
            connection.last_data = now
            if unsent > low:
                heavy.append(connection)
        for connection in heavy:
            self.apply_watermark(connection)

    def send_to_all(self, input: SendToAll) -> None:
        """The application sends one message to every open connection that takes something."""
        everyone = self._everyone
        if everyone is None:
            self._everyone = everyone = tuple(
                connection
                for connection in self._step.connections.values()
                if connection.state in SENDABLE and not connection.parked and is_proved(connection)
            )
        frame = encode_frame(BINARY if input.binary else TEXT, input.data)
        for codec, connections, ids in grouped([one for one in everyone if one.id != input.but]):
            self.share(connections, ids, codec.binary(input.data) if input.binary else codec.share(frame), 1)

    def forget_everyone(self) -> None:
        """Somebody opened or ended: who gets a message to all is gathered again."""
        self._everyone = None

    # ---- the marks --------------------------------------------------------------------------------

    def apply_watermark(self, connection: Connection) -> None:
        """Parks a connection that holds too much (PROTOCOL §5)."""
        step = self._step
        if connection.parked or connection.unsent <= step.config.unsent_bytes_low:
            return
        if connection.unsent > step.config.unsent_bytes_high or self.unsent_total > step.config.unsent_bytes_total:
            connection.parked = True
            connection.last_flush = step.now
            self._everyone = None
            step.parked.append(connection)
            self._reading.pause(connection, Pause.PARKED)
            self._timers.arm(connection, step.now + step.config.flush_stall_s)

    def flushed(self, input: BytesFlushed) -> list[Connection] | None:
        """Outboxes shrank. Returns those below the mark that were parked, or whose rooms catch up; None: nobody."""
        connections, low, now = self._step.connections, self._step.config.unsent_bytes_low, self._step.now
        found: list[Connection] | None = None
        total = 0
        for id, count in input.flushed:
            connection = connections.get(id)
            if connection is None or connection.state is GONE:
                continue
            total += count
            connection.unsent = unsent = connection.unsent - count
            if unsent:
                connection.last_flush = now  # More waits than the system takes: that it took some is a sign of life.
            if not connection.parked and ((session := connection.session) is None or not session.catching_up):
                continue
            if unsent < low:
                if found is None:
                    found = []
                found.append(connection)
        self.unsent_total -= total
        return found

    def unpark(self, connection: Connection) -> None:
        """It takes what it is sent again."""
        connection.parked = False
        self._everyone = None
        self._reading.resume(connection, Pause.PARKED)

    def drop(self, connection: Connection) -> None:
        """Its transport ended: nothing of it is unsent any more."""
        self.unsent_total -= connection.unsent
        connection.unsent = 0


def is_proved(connection: Connection) -> bool:
    """Whether it may hear anything of the application: it proved who it is, where that is asked."""
    session = connection.session
    return session is not None and (session.identity is None or session.identity.proved)


def grouped(connections: Sequence[Connection]) -> tuple[Target, ...]:
    """Connections by their codec, in order of the first of each kind: one group nearly always."""
    if not connections:
        return ()
    kinds = {connection.codec for connection in connections}
    if len(kinds) == 1:
        return ((connections[0].codec, tuple(connections), tuple(connection.id for connection in connections)),)
    groups: dict[object, list[Connection]] = {}
    for connection in connections:
        groups.setdefault(connection.codec, []).append(connection)
    return tuple((group[0].codec, tuple(group), tuple(one.id for one in group)) for group in groups.values())
