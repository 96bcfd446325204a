"""A client's machine and the server's half of its connection, in one hand, for the tests of the client."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from wsproto.utilities import generate_accept_token

from vixws_core.client import (
    ClientJoin,
    ClientMachine,
    ClientMessage,
    ClientStart,
    ClientState,
    MessageHandled,
    OpenTransport,
    TransportOpened,
)
from vixws_core.effects import SendBytes
from vixws_core.inputs import BytesReceived, TimePassed
from vixws_core.wire.frames import TEXT, FrameReader, encode_frame

SEED = b"a seed of this test"
WELCOME: dict[str, Any] = {
    "v": 1,
    "session": "s1",
    "resumed": False,
    "limits": {"message_bytes": 65_536},
    "reconnect_ms": 4000,
}


class Rig:
    """A machine and the server's half of its connection, in one hand, with a clock that we move."""

    def __init__(self, url: str = "ws://chat.test/ws", **options: Any) -> None:
        options.setdefault("seed", SEED)
        self.machine = ClientMachine(url, **options)
        self.hello = options.get("hello", True)
        self.now = 100.0
        self.conn = 0
        self.told: list[Any] = []
        self.received: list[Any] = []
        """What the server has read: decoded JSON, bytes, or control frames."""
        self.request = b""
        self._reader: FrameReader | None = None

    def put(self, *inputs: Any) -> list[Any]:
        """Hands inputs in; returns the effects, and reads what is sent as a server would."""
        effects: list[Any] = []
        for item in inputs:
            effects += self.machine.handle(item, self.now)
        for effect in effects:
            if isinstance(effect, OpenTransport):
                self.conn = effect.conn
                self._reader = None
                self.request = b""
            elif isinstance(effect, SendBytes):
                assert effect.conn == self.conn
                self._take(effect.data)
        self.told += effects
        return effects

    def _take(self, data: bytes) -> None:
        if self._reader is None:
            self.request += data
            if self.request.endswith(b"\r\n\r\n"):
                self._reader = FrameReader(message_bytes_max=1 << 30)
            return
        for item in self._reader.feed(data):
            self.received.append(json.loads(item) if isinstance(item, str) and item[:1] == "{" else item)

    def key(self) -> bytes:
        head = dict(line.split(b": ", 1) for line in self.request.split(b"\r\n")[1:] if b": " in line)
        return head[b"Sec-WebSocket-Key"]

    def switching(self, extra: bytes = b"") -> bytes:
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + generate_accept_token(self.key()) + b"\r\n" + extra + b"\r\n"
        )

    def connect(self) -> None:
        """From an asked-for transport to the sent request."""
        self.put(TransportOpened(self.conn))

    def bytes(self, data: bytes) -> list[Any]:
        return self.put(BytesReceived(self.conn, data))

    def say(self, *messages: dict[str, Any] | str) -> list[Any]:
        """The server sends JSON messages (or texts), all in one read."""
        texts = (message if isinstance(message, str) else json.dumps(message) for message in messages)
        return self.bytes(b"".join(encode_frame(TEXT, text.encode()) for text in texts))

    def open(self, **welcome: Any) -> None:
        """From idle, waiting or asked-for to open."""
        if self.machine.state in (ClientState.IDLE, ClientState.STOPPED):
            self.put(ClientStart())
        elif self.machine.state is ClientState.WAITING:
            self.wait()
        self.connect()
        self.bytes(self.switching())
        if self.hello:
            self.say({"type": "$welcome", "ref": "~hello", "payload": {**WELCOME, **welcome}})
        assert self.machine.state is ClientState.OPEN

    def wait(self) -> list[Any]:
        """Moves the clock to the next deadline."""
        deadline = self.machine.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        return self.put(TimePassed())

    def pass_time(self, seconds: float) -> None:
        """Moves the clock, meeting each deadline on the way."""
        end = self.now + seconds
        while (deadline := self.machine.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.put(TimePassed())
        self.now = end

    def join(self, room: str, off: int = 0, **options: Any) -> None:
        """Joins a room that stands at `off`."""
        self.put(ClientJoin(room, **options))
        self.joined(room, off)

    def joined(self, room: str, off: int = 0, ep: str = "e1", **more: Any) -> list[Any]:
        """The server answers the last `$join` of `room`."""
        ask = self.sent("$join", room)[-1]
        payload = {
            "ep": ep,
            "from": off,
            "head": off,
            "floor": 0,
            "recovered": False,
            "reason": "fresh",
            "stored": True,
        }
        return self.say({"type": "$joined", "ref": ask["ref"], "room": room, "payload": {**payload, **more}})

    def sent(self, type: str, room: str | None = None) -> list[Any]:
        """What the server read of this type (and room)."""
        return [
            item
            for item in self.received
            if isinstance(item, dict) and item["type"] == type and room in (None, item.get("room"))
        ]

    def of(self, kind: type) -> list[Any]:
        """What was told, of one kind."""
        return [effect for effect in self.told if type(effect) is kind]

    def handle_all(self) -> None:
        """The application is done with everything told so far."""
        for message in self.of(ClientMessage):
            self.put(MessageHandled(message.number))


def entry(room: str, off: int, ep: str = "e1", **more: Any) -> dict[str, Any]:
    return {"type": "chat", "room": room, "ep": ep, "off": off, "id": f"{off:020}", "payload": {"n": off}, **more}


def offsets(messages: Iterable[Any]) -> list[int]:
    return [message.off for message in messages]
