"""A client of a world that keeps few rules: it joins twice, asks for impossible positions, repeats keys, errs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import msgspec

from ..codes import CLOSE_NORMAL
from ..message import Json, encode_json
from ..wire.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, PingReceived, encode_close, encode_frame
from .faults import Habits
from .network import Network
from .store import Truth
from .streams import Chance

__all__ = ["WildClient"]

_BAD = (
    b"[]",
    b"{",
    b'{"type":""}',
    b'{"type":"$join","room":"","ref":"%s"}',
    b'{"type":"$join","room":"@x","ref":"%s"}',
    b'{"type":"$nonsense","ref":"%s"}',
    b'{"type":"$nonsense"}',
    b'{"type":"chat.message","payload":{"room":"africa"},"ref":"%s"}',
    b'{"type":"x","ref":"%s"}',
    b'{"type":"$history","room":"africa","payload":{"before":1,"after":1},"ref":"%s"}',
)
"""Messages that break a rule, or that nobody takes; each is answered by `$err` where it has a ref."""


class WildClient:
    """Talks raw frames. Every payload it publishes is unique, unless it repeats a publish with its key."""

    def __init__(
        self, index: int, network: Network, chance: Chance, habits: Habits, truth: Callable[[], Truth]
    ) -> None:
        self.index: int = index
        self.slow: bool = False
        self._network = network
        self._chance = chance
        self._stream = chance.of(f"wild {index}")
        self._habits = habits
        self._truth = truth
        self._number = 0
        self._open = False
        self._head = b""
        self._reader: FrameReader | None = None
        self._refs = 0
        self._mids: list[tuple[str, str, bytes]] = []
        self._numbers: dict[str, int] = {}
        """Of an ordered producer, by room."""
        self._epoch = 0
        self._says_hello = True
        self._is_deaf = False
        """It answers no ping."""
        self._stalls = False
        """It has begun a message, and does not end it."""
        self._acts: tuple[Callable[[], object], ...] = (
            *(self._join,) * 6,
            *(self._publish,) * 6,
            *(self._chat,) * 3,
            self._leave,
            self._leave,
            self._ask,
            self._ask,
            self._control,
            self._bad,
            self._end,
            self._stall,
        )

    def __repr__(self) -> str:
        return f"wild client {self.index}"

    # ---- the network ----------------------------------------------------------------------------

    def opened(self, number: int) -> None:
        """Sends the request."""
        key = b64encode(self._stream.randbytes(16))
        head = b"GET / HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
        self._head = b""
        self._reader = None
        self._network.send(self, number, head + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n")

    def failed(self, number: int) -> None:
        """Gives up for now."""
        self._number = 0

    def received(self, number: int, data: bytes) -> None:
        """Reads frames, answers pings and the close."""
        if self._reader is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self._head[end + 4 :]
            if not self._head.startswith(b"HTTP/1.1 101"):
                return
            self._reader = FrameReader(client=True, message_bytes_max=1 << 20)
            self._open = True
            self._stalls = False
            self._is_deaf = self._stream.random() < 0.2
            self._says_hello = self._stream.random() < 0.8
            if self._says_hello:
                versions = [1] if self._stream.random() < 0.97 else [2, 3]
                self._say("$hello", payload={"v": versions, "pub": f"wild {self.index}"})
        for item in self._reader.feed(data):
            if isinstance(item, PingReceived) and not (self._is_deaf or self._stalls):
                self._frame(PONG, item.payload)

    def ended(self, number: int) -> None:
        """Takes note of the end."""
        self._number = 0
        self._open = False

    # ---- what it does ---------------------------------------------------------------------------

    def act(self) -> None:
        """Does one thing; connects first."""
        if not self._number:
            self._refs += 1
            self._number = self._refs
            self._network.connect(self, self._number)
        elif self._open and not self._stalls:
            self._stream.choice(self._acts)()

    def _frame(self, opcode: int, data: bytes) -> None:
        self._network.send(self, self._number, encode_frame(opcode, data, self._stream.randbytes(4)))

    def _say(
        self,
        type: str,
        room: str | None = None,
        payload: Json = None,
        mid: str | None = None,
        ref: bool = True,
        kind: str = "event",
    ) -> None:
        head: dict[str, Json] = {"type": type}
        if kind != "event":
            head["kind"] = kind
        if room is not None:
            head["room"] = room
        if mid is not None:
            head["mid"] = mid
        if ref:
            self._refs += 1
            head["ref"] = f"w{self._refs}"
        if payload is not None:
            head["payload"] = msgspec.Raw(payload) if isinstance(payload, bytes) else payload
        data = encode_json(head)
        if self._stream.random() < 0.1:  # RFC 6455 §5.4: a message may come in fragments.
            cut = self._stream.randint(0, len(data))
            first = encode_frame(TEXT, data[:cut], self._stream.randbytes(4))
            self._network.send(self, self._number, bytes((TEXT,)) + first[1:])
            self._frame(0, data[cut:])
        else:
            self._frame(TEXT, data)

    def _room(self) -> str:
        stream = self._stream
        return "tmp.x" if stream.random() < 0.1 else stream.choice(self._habits.rooms)

    def _since(self, room: str) -> Json:
        """A position: a good one, or one of another epoch, of another log, or beyond the head."""
        stream, truth = self._stream, self._truth()
        head = truth.head(room)
        off = stream.choice((stream.randint(0, head), head, max(0, head - 1), head + 1, truth.floor(room)))
        row = truth.row(room, off)
        since: dict[str, Json] = {"ep": truth.epoch(room), "off": off}
        if row is not None and stream.random() < 0.6:
            since["id"] = row.id
        if stream.random() < 0.1:
            since["id"] = "1".zfill(20)
        if stream.random() < 0.1:
            since["ep"] = "other"
        return since

    def _join(self) -> None:
        stream, room = self._stream, self._room()
        payload: dict[str, Json] = {}
        choice = stream.randrange(4)
        if choice < 2:
            payload["since"] = self._since(room)
        elif choice == 2:
            payload["last"] = stream.randint(0, 20)
        if stream.random() < 0.3:
            payload["on_fail"] = "floor"
        self._say("$join", room, payload)
        if stream.random() < 0.2:
            self._say("$leave", room)

    def _leave(self) -> None:
        self._say("$leave", self._room())

    def _content(self) -> bytes:
        stream = self._stream
        size = self._habits.payload_bytes
        most = min(20 * size, self._habits.payload_max) if stream.random() < 0.125 else size
        size = stream.randint(0, most)
        self._refs += 1
        return encode_json({"by": f"w{self.index}", "n": self._refs, "pad": "x" * size})

    def _publish(self) -> None:
        stream = self._stream
        choice = stream.random()
        if self._mids and choice < 0.2:
            room, mid, payload = stream.choice(self._mids)
            if stream.random() < 0.2:
                payload = self._content()  # Another content under a known key.
            elif stream.random() < 0.2:
                room = stream.choice(self._habits.rooms)
        else:
            room, payload = self._room(), self._content()
            mid = f"k{stream.randrange(1 << 16)}" if stream.random() < 0.8 else f"k{len(self._mids)}"
            if stream.random() < 0.2:  # Not always the next number: that is the log's to see.
                number = self._numbers[room] = self._numbers.get(room, 0) + stream.choice((0, 1, 1, 1, 2))
                mid = f"~w{self.index}:{self._epoch}:{max(1, number)}"
                if stream.random() < 0.1:
                    self._epoch, self._numbers = max(0, self._epoch + stream.choice((1, 1, -1))), {}
            if choice < 0.5:
                self._say("note", room, payload, ref=room[:4] == "tmp." or stream.random() < 0.5)
                return
            if self._says_hello:  # Without `pub` all clients share one scope, and repeats would be others'.
                self._mids.append((room, mid, payload))
        if self._says_hello:
            # A repeat under another kind is another content.
            kind, type = "event" if stream.random() < 0.95 else "memo", stream.choice(self._habits.types)
            self._say(type, room, payload, mid=mid, kind=kind, ref=room[:4] == "tmp." or stream.random() < 0.8)

    def _chat(self) -> None:
        stream, room = self._stream, self._room()
        user = f"w{self.index}"
        if self._habits.sends and stream.random() < 0.3:
            self._say(stream.choice(self._habits.sends), payload={"n": self._refs}, ref=stream.random() < 0.5)
        elif stream.random() < 0.4:
            self._say("chat.message", None, {"room": room, "user": user, "text": f"{self._refs}"})
        elif stream.random() < 0.5:
            self._say("chat.typing", None, {"room": room, "user": user}, ref=False)
        elif stream.random() < 0.5:
            self._say("chat.history", None, {"room": room, "limit": 5}, ref=False)
        else:
            join = {"room": room, "user": user, "last": stream.randint(0, 3)}
            self._say(stream.choice(("chat.join", "chat.join", "chat.leave")), None, join, ref=False)

    def _ask(self) -> None:
        stream, room = self._stream, self._room()
        if stream.random() < 0.5:
            self._say("$position", room)
        elif stream.random() < 0.5:
            side, limit = stream.choice(("after", "before")), stream.choice((1, 3, 9, 50))
            self._say("$history", room, {side: stream.randint(0, 30), "limit": limit})
        else:
            self._say("$history", room, {"limit": stream.randint(1, 9)})

    def _control(self) -> None:
        if self._stream.random() < 0.5:
            self._frame(PING, b"hi")
        else:
            self._say("$ping")

    def _bad(self) -> None:
        self._refs += 1
        text = self._stream.choice(_BAD)
        if b"%s" in text:
            text %= b"w%d" % self._refs
        if self._stream.random() < 0.05:
            self._frame(BINARY, b"\x00\x01")
        if self._stream.random() < 0.1:
            self._say("$hello", payload={"v": [1], "pub": "another"})
        self._frame(TEXT, text)

    def _stall(self) -> None:
        if self._stream.random() < 0.3:
            frame = encode_frame(TEXT, b'{"type":"note"}', self._stream.randbytes(4))
            self._network.send(self, self._number, frame[: self._stream.randint(1, len(frame) - 1)])
            self._stalls = True

    def _end(self) -> None:
        choice = self._stream.random()
        if choice < 0.1:
            self._network.send(self, self._number, b"\xff\xff\xff\xff")
        elif choice < 0.2:
            self._frame(TEXT, b" " * 100_000)
        elif choice < 0.3:
            self._frame(CLOSE, b"")
        elif choice < 0.5:
            self._network.send(self, self._number, encode_close(CLOSE_NORMAL, "bye", self._stream.randbytes(4)))
        elif choice < 0.7:
            self._network.hang_up(self, self._number, abort=True)
            self.ended(self._number)
