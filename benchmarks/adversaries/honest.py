"""Sessions that mean well: they publish into rooms, and measure how long a message takes to each member."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final, cast

import msgspec

from vixws_core.wire.frames import PONG, CloseReceived, FrameFailed, FrameReader, PingReceived, encode_frame

from .frames import MASK, REQUEST, hello, text

__all__ = ["PUBLISH_S", "Crowd", "HonestError", "p99"]

ROOMS: Final = 5
PUBLISH_S: Final = 0.5
"""Each publishes once in so many seconds."""


class HonestError(Exception):
    """An honest session was refused, cut off, or lost something."""


class _Payload(msgspec.Struct):
    t: float = 0.0


class _Message(msgspec.Struct):
    type: str
    room: str = ""
    off: int = 0
    payload: _Payload = msgspec.field(default_factory=_Payload)


_MESSAGES: Final = msgspec.json.Decoder(_Message)


class _Session(asyncio.Protocol):
    def __init__(self, number: int, samples: list[float]) -> None:
        self.room = f"honest {number % ROOMS}"
        self.samples = samples
        self.live = asyncio.Event()
        self.off = 0
        """The newest offset that it has."""
        self.published = 0
        self.acked = 0
        self.wrong = ""
        self._name = f"honest-{number}"
        self._head: bytes | None = b""
        self._reader = FrameReader(client=True, message_bytes_max=1 << 24)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            head, mark, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = head if not mark else None
            if not mark:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.wrong = f"answered {head[:60]!r}"
            self.send(hello(f"good {self._name}") + text({"type": "$join", "room": self.room}))
        now = perf_counter()
        for item in self._reader.feed(data):
            if isinstance(item, str):
                self._take(_MESSAGES.decode(item), now)
            elif isinstance(item, PingReceived):
                self.send(encode_frame(PONG, item.payload, MASK))
            elif isinstance(item, CloseReceived | FrameFailed):
                self.wrong = self.wrong or f"closed {item.code} {item.reason}"

    def _take(self, message: _Message, now: float) -> None:
        if message.type == "note":
            self.samples.append(now - message.payload.t)
            if message.off != self.off + 1:
                self.wrong = self.wrong or f"offset {message.off} came behind {self.off}"
            self.off = message.off
        elif message.type == "$ack":
            self.acked += 1
        elif message.type == "$live":
            self.live.set()
        elif message.type in ("$err", "$gap", "$reset", "$kicked"):
            self.wrong = self.wrong or f"was told {message.type}"

    def connection_lost(self, exc: Exception | None) -> None:
        self.wrong = self.wrong or f"cut off: {exc}"
        self.live.set()

    def send(self, data: bytes) -> None:
        assert self.transport is not None  # It is connected.
        self.transport.write(data)

    def publish(self) -> None:
        self.published += 1
        message = {"type": "note", "room": self.room, "ref": str(self.published), "payload": {"t": perf_counter()}}
        self.send(text(message))


class Crowd:
    """All honest sessions of one server, each from an address of its own."""

    def __init__(self, port: int, count: int) -> None:
        self.samples: list[float] = []
        """Seconds from a publish to each member that got it."""
        self._port = port
        self._sessions = [_Session(number, self.samples) for number in range(count)]

    @property
    def published(self) -> int:
        """How often anybody published."""
        return sum(session.published for session in self._sessions)

    async def open(self) -> None:
        """Connects and joins. Raises: `HonestError`."""
        loop = asyncio.get_running_loop()
        for number, session in enumerate(self._sessions):
            # 127.1.0.0/16: a limit of one address is nobody else's.
            await loop.create_connection(
                lambda session=session: session,  # type: ignore[misc]  # mypy cannot infer such a lambda.
                "127.0.0.1",
                self._port,
                local_addr=(f"127.1.0.{number + 1}", 0),
            )
            await asyncio.wait_for(session.live.wait(), 20)
        self.check()

    async def talk(self, seconds: float) -> list[float]:
        """Publishes for so long, evenly spread; returns what was measured meanwhile. Raises: `HonestError`."""
        self.samples.clear()
        began, done = perf_counter(), 0
        pace = PUBLISH_S / len(self._sessions)
        while perf_counter() - began < seconds:
            self._sessions[done % len(self._sessions)].publish()
            done += 1
            await asyncio.sleep(max(0.0, began + done * pace - perf_counter()))
        await self._all_there()
        return sorted(self.samples)

    async def _all_there(self) -> None:
        """Waits until every member has every message of its room, and every publish its answer."""
        heads: dict[str, int] = {}
        for session in self._sessions:
            heads[session.room] = heads.get(session.room, 0) + session.published
        for _ in range(300):
            self.check()
            if all(each.off == heads[each.room] and each.acked == each.published for each in self._sessions):
                return
            await asyncio.sleep(0.1)
        behind = [f"{each.room}: {each.off} of {heads[each.room]}" for each in self._sessions]
        raise HonestError(f"30 s later something has not come: {behind}")

    def check(self) -> None:
        """Raises: `HonestError` where anything went wrong for anybody."""
        for session in self._sessions:
            if session.wrong:
                raise HonestError(f"a session in {session.room}: {session.wrong}")

    def close(self) -> None:
        """Hangs up."""
        for session in self._sessions:
            if session.transport is not None:
                session.transport.abort()


def p99(samples: list[float]) -> float:
    """The 99th percentile of sorted samples, in milliseconds."""
    return 1000 * samples[max(0, len(samples) * 99 // 100 - 1)] if samples else 0.0
