"""A real hub with metrics beside it: a pure log, transports that are lists, and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Sequence

from vixws_core.config import HubConfig
from vixws_core.effects import Broadcast, CloseTransport, Effect, MessageReceived, Opened, Requested, SendBytes
from vixws_core.hub import Hub
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    StoreFailed,
    TimePassed,
)
from vixws_core.log import LogExecutor, PureLog, store_asks
from vixws_core.pump import Pump
from vixws_metrics import WebSocketMetrics

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame with a mask of zeros (RFC 6455 §5.2)."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([0x80 | opcode]) + size + b"\0\0\0\0" + payload


def messages_in(data: bytes) -> int:
    """Counts the messages in whole frames of a server (RFC 6455 §5.2); control frames and HTTP are none."""
    at = count = 0
    while at < len(data) and not data.startswith(b"HTTP/", at):
        count += data[at] & 0x0F in (1, 2)
        length = data[at + 1]
        at += 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        at += length
    return count


class Driving:
    """Hands inputs to a hub. Transports close when asked to; handlers finish when `finish` says so."""

    def __init__(self, config: HubConfig | None = None) -> None:
        self.now = 0.0
        self.metrics = WebSocketMetrics()
        self.hub = Hub(config or HubConfig())
        self.broken_store = False
        self.open: list[int] = []
        """Transports that are open."""
        self.busy: list[int] = []
        """Connections whose handler has not finished, oldest first."""
        self.unsent: dict[int, int] = {}
        self._log = LogExecutor(PureLog("ep"), lambda *inputs: self.pump.put(*inputs), lambda: "")
        self.pump = Pump(
            self.hub,
            lambda: self.now,
            (self, self.metrics),
            {
                Requested: lambda told: self.pump.do(Accept(told.conn)),
                Opened: lambda told: self.busy.append(told.conn),
                MessageReceived: lambda told: self.busy.append(told.conn),
            },
        )
        self._last = 0

    def see(self, now: float, input: Input, effects: Sequence[Effect]) -> None:
        """Carries out what the hub asks."""
        for effect in effects:
            if isinstance(effect, SendBytes):
                assert effect.frames == messages_in(effect.data), effect
                if effect.conn in self.unsent:
                    self.unsent[effect.conn] += len(effect.data)
            elif isinstance(effect, Broadcast):
                for conn in effect.conns:
                    if conn in self.unsent:
                        self.unsent[conn] += len(effect.data)
            elif isinstance(effect, CloseTransport):
                self.disconnect(effect.conn)
        if self.broken_store:
            for ask in store_asks(effects):
                self.pump.put(StoreFailed(ask.request, "store_unavailable"))
        else:
            self._log.see(now, input, effects)

    def connect(self) -> int:
        """A new transport; returns its number."""
        self._last += 1
        self.open.append(self._last)
        self.unsent[self._last] = 0
        self.pump.put(Connected(self._last))
        return self._last

    def opened(self) -> int:
        """A new WebSocket, whose opening the application has handled."""
        conn = self.connect()
        self.receive(conn, REQUEST)
        self.finish()
        return conn

    def receive(self, conn: int, data: bytes) -> None:
        """Bytes of the peer."""
        if conn in self.open:
            self.pump.put(BytesReceived(conn, data))

    def text(self, conn: int, text: str) -> None:
        """A text message of the peer."""
        self.receive(conn, frame(1, text.encode()))

    def disconnect(self, conn: int) -> None:
        """The transport ends, told once."""
        if conn in self.open:
            self.open.remove(conn)
            del self.unsent[conn]
            self.pump.put(Disconnected(conn))

    def finish(self, failed: bool = False) -> None:
        """The handler that runs longest ends."""
        if self.busy:
            self.pump.put(HandlerFinished(self.busy.pop(0), "", 0.001, failed))

    def flush(self) -> None:
        """Every transport takes all it was given."""
        flushed = tuple((conn, count) for conn, count in self.unsent.items() if count)
        for conn, count in flushed:
            self.unsent[conn] -= count
        self.pump.put(BytesFlushed(flushed))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.pump.put(TimePassed())

    def value(self, name: str, **labels: str) -> float:
        """A metric, as it is scraped."""
        found = self.metrics.registry.get_sample_value(name, labels)
        assert found is not None
        return found
