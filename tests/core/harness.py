"""A hub with everything around it that a test needs: a clock to set, a pure log, an application, raw peers.

Nothing waits and nothing is hidden: every step stands in `Harness.steps`, every effect in order. What the
store is asked can be run and delivered at once, or held back and run and delivered apart; what is sent can be
flushed at once, or stay unsent; a transport can end when it is asked to, or hang.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vixws_core import Hub, HubConfig, Pump
from vixws_core.effects import (
    AppMessage,
    Broadcast,
    Closed,
    CloseTransport,
    Effect,
    MessageReceived,
    Opened,
    Requested,
    SendBytes,
)
from vixws_core.inputs import (
    Accept,
    BytesFlushed,
    BytesReceived,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    TimePassed,
)
from vixws_core.log import PureLog, StoreAnswer, StoreAsk, run_asks, store_asks
from vixws_core.wire.frames import BINARY, TEXT, CloseReceived, FrameReader, Received, encode_close, encode_frame

__all__ = ["EPOCH", "KEY", "MASK", "REQUEST", "TS", "Harness", "Peer", "close_frame", "text_frame", "upgrade_request"]

EPOCH = "ep1"
MASK = b"\x11\x22\x33\x44"
TS = "2026-01-02T03:04:05.678Z"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

_E = TypeVar("_E")


def upgrade_request(*extra: str, target: str = "/") -> bytes:
    """A good opening handshake (RFC 6455 §1.3), with header lines more."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


REQUEST = upgrade_request()


def text_frame(message: object) -> bytes:
    """A client's text frame: of a text as it is, or of an object as JSON."""
    text = message if isinstance(message, str) else json.dumps(message)
    return encode_frame(TEXT, text.encode(), MASK)


def close_frame(code: int = 1000, reason: str = "") -> bytes:
    """A client's close frame."""
    return encode_close(code, reason, MASK)


class Peer:
    """The raw other end of one connection: it writes bytes and reads frames, and knows no rules."""

    def __init__(self, harness: Harness, conn: int) -> None:
        self.harness = harness
        self.conn = conn
        self.out = bytearray()
        """All that was sent to it."""
        self.head = b""
        """The answer to its request."""
        self.unflushed = 0
        self.takes = True
        """Whether what is sent to it is flushed at once."""
        self.closed = False
        """Whether its transport was asked to end, and how."""
        self.aborted = False
        self._seen = 0
        self._reader = FrameReader(client=True, message_bytes_max=1 << 40)

    def raw(self, data: bytes) -> list[Effect]:
        """Sends bytes; returns the effects of all that follows."""
        return self.harness.put(BytesReceived(self.conn, data))

    def send(self, *messages: object) -> list[Effect]:
        """Sends text messages in one read."""
        return self.raw(b"".join(map(text_frame, messages)))

    def send_binary(self, data: bytes) -> list[Effect]:
        return self.raw(encode_frame(BINARY, data, MASK))

    def frames(self) -> list[Received]:
        """What came since the last look."""
        if not self.head:
            head, mark, _ = bytes(self.out).partition(b"\r\n\r\n")
            if not mark or not head.startswith(b"HTTP/1.1 101"):
                return []
            self.head = head + mark
            self._seen = len(self.head)
        data = bytes(self.out[self._seen :])
        self._seen = len(self.out)
        return self._reader.feed(data)

    def messages(self) -> list[Any]:
        """The text messages that came since the last look, decoded; other frames are left out."""
        return [json.loads(frame) for frame in self.frames() if isinstance(frame, str)]

    def types(self) -> list[str]:
        """The types of the messages that came since the last look."""
        return [message["type"] for message in self.messages()]

    def close_seen(self) -> tuple[int, str] | None:
        """Code and reason of the close frame among what came since the last look."""
        for frame in self.frames():
            if isinstance(frame, CloseReceived):
                return frame.code, frame.reason
        return None

    def answer(self, message: object) -> Any:
        """Sends one message and returns the one answer; anything else that came is a failure."""
        self.messages()
        self.send(message)
        (found,) = self.messages()
        return found

    def hello(self) -> Any:
        return self.answer({"type": "$hello", "ref": "hello", "payload": {"v": [1]}})

    def join(self, room: str, **payload: object) -> list[Any]:
        """Joins with a `$join`; returns what came."""
        self.messages()
        self.send({"type": "$join", "ref": f"join {room}"[:64], "room": room, "payload": payload})
        return self.messages()

    def publish(self, room: str, text: str = "hi", **more: object) -> list[Effect]:
        """Publishes one `chat` message."""
        return self.send({"type": "chat", "room": room, "payload": {"text": text}, **more})

    def flush(self, count: int | None = None) -> list[Effect]:
        """Takes bytes that were sent: all, or so many."""
        taken = self.unflushed if count is None else min(count, self.unflushed)
        self.unflushed -= taken
        return self.harness.put(BytesFlushed(((self.conn, taken),)))

    def vanish(self, reason: str = "reset") -> list[Effect]:
        """Its transport ends."""
        return self.harness.put(Disconnected(self.conn, reason))


class Harness:
    """One hub and its surroundings."""

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        log: PureLog | None = None,
        typed: bool = True,
        guarded: frozenset[str] = frozenset(),
        **hub: Any,
    ) -> None:
        self.now = 1000.0
        self.log = log or PureLog(EPOCH)
        self.hub = Hub(config, **hub)
        self.typed = typed
        self.guarded = guarded
        self.steps: list[tuple[float, Input, list[Effect]]] = []
        self.peers: dict[int, Peer] = {}
        self.asks: list[StoreAsk] = []
        """What the store was asked while it is held."""
        self.store_held = False
        self.accepting = True
        """Whether requests are accepted at once."""
        self.finishing = True
        """Whether the application finishes each record at once."""
        self.ending = True
        """Whether transports end as soon as they are asked to."""
        self.on_record: Callable[[MessageReceived], object] | None = None
        self.received: list[AppMessage | str | bytes] = []
        """The application's messages, in order."""
        self.records: list[MessageReceived] = []
        self.pump = Pump(
            self.hub,
            lambda: self.now,
            [self],
            {Requested: self._requested, Opened: self._opened, MessageReceived: self._record},
        )

    # ---- what surrounds the hub -----------------------------------------------------------------

    def see(self, now: float, input: Input, effects: list[Effect]) -> None:
        """Carries out what a step asks of transports and store."""
        self.steps.append((now, input, effects))
        flushed: list[tuple[int, int]] = []
        for effect in effects:
            if isinstance(effect, SendBytes):
                self._take(effect.conn, effect.data, flushed)
            elif isinstance(effect, Broadcast):
                for conn in effect.conns:
                    self._take(conn, effect.data, flushed)
            elif isinstance(effect, CloseTransport):
                peer = self.peers[effect.conn]
                peer.aborted = peer.aborted or effect.abort
                if self.ending and not peer.closed:
                    self.pump.put(Disconnected(effect.conn))
                peer.closed = True
        if flushed:
            self.pump.put(BytesFlushed(tuple(flushed)))
        asks = store_asks(effects)
        if asks:
            if self.store_held:
                self.asks += asks
            else:
                self.pump.put(*run_asks(self.log, asks, TS))

    def _take(self, conn: int, data: bytes, flushed: list[tuple[int, int]]) -> None:
        peer = self.peers[conn]
        assert not peer.closed, f"bytes were sent to {conn}, whose transport ends: {data!r}"
        peer.out += data
        if peer.takes:
            flushed.append((conn, len(data)))
        else:
            peer.unflushed += len(data)

    def _requested(self, effect: Requested) -> None:
        if self.accepting:
            self.pump.do(Accept(effect.conn, typed=self.typed, guarded=self.guarded))

    def _opened(self, effect: Opened) -> None:
        if self.finishing:
            self.pump.put(HandlerFinished(effect.conn))

    def _record(self, effect: MessageReceived) -> None:
        self.records.append(effect)
        self.received += effect.messages
        if self.on_record is not None:
            self.on_record(effect)
        if self.finishing:
            self.pump.put(HandlerFinished(effect.conn))

    # ---- what a test does ------------------------------------------------------------------------

    def put(self, *inputs: Input) -> list[Effect]:
        """Hands inputs in; returns the effects of all steps that follow, in order."""
        mark = len(self.steps)
        self.pump.put(*inputs)
        return [effect for _, _, effects in self.steps[mark:] for effect in effects]

    def finish(self, peer: Peer, *, failed: bool = False) -> list[Effect]:
        """The application finishes its record of this peer."""
        return self.put(HandlerFinished(peer.conn, failed=failed))

    def connect(self, *, request: bytes = REQUEST, conn: int | None = None) -> Peer:
        """A new connection that has sent `request` (nothing where it is empty)."""
        number = conn if conn is not None else len(self.peers) + 1
        peer = self.peers[number] = Peer(self, number)
        self.put(Connected(number))
        if request:
            peer.raw(request)
        return peer

    def client(self, *rooms: str) -> Peer:
        """A new open connection that has said `$hello` and joined the rooms; nothing to read is left."""
        peer = self.connect()
        peer.hello()
        for room in rooms:
            peer.join(room)
        return peer

    def pass_time(self, seconds: float) -> list[Effect]:
        """Lets time pass in one go, then once more for what became due meanwhile."""
        self.now += seconds
        return self.put(TimePassed())

    def run_until(self, when: float) -> list[Effect]:
        """Lets time pass from deadline to deadline."""
        out: list[Effect] = []
        while (due := self.hub.next_deadline()) is not None and due <= when:
            self.now = max(self.now, due)
            out += self.put(TimePassed())
        self.now = max(self.now, when)
        return out

    def settle(self) -> list[Effect]:
        """Goes on until nothing is due now."""
        return self.run_until(self.now)

    def run_store(self, count: int | None = None) -> tuple[StoreAnswer, ...]:
        """Runs what the held store was asked, without telling the answers."""
        asks, self.asks = self.asks[:count], self.asks[count:] if count is not None else []
        return run_asks(self.log, asks, TS)

    def deliver(self, answers: Sequence[StoreAnswer] | None = None) -> list[Effect]:
        """Tells answers; without any, runs what was asked first."""
        return self.put(*(self.run_store() if answers is None else answers))

    def deliver_all(self) -> None:
        """Runs and tells until the held store has nothing left to do."""
        while self.asks:
            self.deliver()

    def effects(self, kind: type[_E]) -> list[_E]:
        """All effects of one type so far."""
        return [effect for _, _, effects in self.steps for effect in effects if isinstance(effect, kind)]

    def closes(self, peer: Peer) -> list[tuple[int, str]]:
        """How often, and how, the end of a connection was told."""
        return [(end.code, end.reason) for end in self.effects(Closed) if end.conn == peer.conn]
