"""Sessions that mean harm: `python -m benchmarks.adversaries.attacks PORT SECONDS COUNT [KIND]`, in one process.

Each kind repeats one fault at a bounded pace, from an address of its own in 127.2.0.0/16, until the time is over. In
the end one line of JSON says how often each kind connected, and what it sent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Final, TypeAlias

from vixws_core.wire.frames import PING, TEXT, encode_close, encode_frame

from .frames import MASK, REQUEST, hello, text

__all__ = ["KINDS", "main"]

WRITE_S: Final = 5.0
"""Who is not read for so long connects anew."""

_FRAGMENT: Final = b"\x00\x81" + MASK + b"x"
_UNFINISHED: Final = b"\x01\x81" + MASK + b"x" + _FRAGMENT * 1_500
_FRAGMENTS: Final = _UNFINISHED + b"\x80" + _FRAGMENT[1:]
_EMPTY: Final = encode_frame(TEXT, b"", MASK) * 500
_PINGS: Final = encode_frame(PING, b"", MASK) * 40
_BRACKETS: Final = encode_frame(TEXT, b"[" + b"[]," * 349_524 + b"0]", MASK)
_HISTORY: Final = text({"type": "$history", "room": "honest 0", "ref": "h", "payload": {"limit": 500}}) * 16
_JOINS: Final = b"".join(
    text({"type": type, "room": f"j{number}", "ref": "j"}) for number in range(40) for type in ("$join", "$leave")
)


class _Attacker:
    """One session's socket, opened anew as often as it is cut off."""

    def __init__(self, number: int, port: int, until: float) -> None:
        self.number = number
        self.until = until
        self.connected = 0
        self.sent = 0
        self._port = port
        self._sock: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def on(self) -> bool:
        """Whether there is time left."""
        return monotonic() < self.until

    async def connect(self, *, buffer: int = 0) -> None:
        """Opens a TCP connection; the one before is reset."""
        self.reset()
        sock = self._sock = socket.socket()
        sock.setblocking(False)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.bind((f"127.2.0.{self.number + 1}", 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        self.connected += 1

    async def open(self, *, buffer: int = 0, reads: bool = True, token: str = "") -> None:
        """Opens a WebSocket and greets."""
        await self.connect(buffer=buffer)
        await self.send(REQUEST + hello(token or f"good bad-{self.number}"))
        if reads:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        sock = self._sock
        assert sock is not None  # It is connected.
        try:
            while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                pass
        except OSError:
            pass

    async def send(self, data: bytes) -> None:
        """Sends bytes. Raises: `OSError`, `TimeoutError` where they are not taken."""
        assert self._sock is not None  # It is connected.
        if self._reading is not None and self._reading.done():
            raise ConnectionError("cut off")
        async with asyncio.timeout(min(WRITE_S, max(0.1, self.until - monotonic()))):
            await asyncio.get_running_loop().sock_sendall(self._sock, data)
        self.sent += len(data)

    def reset(self) -> None:
        """Ends the connection without a word."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if self._sock is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._sock.close()
            self._sock = None


Attack: TypeAlias = Callable[[_Attacker], Awaitable[None]]
"""One round: from a fresh connection until it is cut off or has done enough."""


def _flood(data: bytes, pace: float) -> Attack:
    """Greets, then sends the same bytes again and again."""

    async def attack(one: _Attacker) -> None:
        await one.open()
        while one.on:
            await one.send(data)
            await asyncio.sleep(pace)

    return attack


async def _half_handshake(one: _Attacker) -> None:
    await one.connect()
    await one.send(REQUEST[: len(REQUEST) // 2])
    await asyncio.sleep(2)


async def _byte_by_byte(one: _Attacker) -> None:
    await one.connect()
    for at in range(len(REQUEST)):
        await one.send(REQUEST[at : at + 1])
        await asyncio.sleep(0.1)
        if not one.on:
            break


async def _new_rooms(one: _Attacker) -> None:
    await one.open()
    while one.on:
        names = (f"room {one.number} {one.sent} {at}" for at in range(20))
        await one.send(b"".join(text({"type": "x", "room": name, "ref": "x"}) for name in names))
        await asyncio.sleep(0.1)


async def _slow_reader(one: _Attacker) -> None:
    await one.open(buffer=4_096, reads=False)
    await one.send(
        b"".join(text({"type": "$join", "room": f"honest {at}", "payload": {"last": 500}}) for at in range(5))
    )
    await one.send(_HISTORY)
    for _ in range(80):
        await asyncio.sleep(0.5)
        if not one.on:
            break


async def _close_without_end(one: _Attacker) -> None:
    await one.open()
    await one.send(encode_close(1000, "bye", MASK))
    while one.on:
        await one.send(b"\x82\xfe\x20\x00" + MASK + b"x" * 8_192)
        await asyncio.sleep(0.05)


async def _invalid_frames(one: _Attacker) -> None:
    await one.open()
    await one.send(b"\xff\xff\xff\xff")
    await asyncio.sleep(0.02)


async def _bad_tokens(one: _Attacker) -> None:
    await one.open(token="bad")
    await asyncio.sleep(0.02)


KINDS: Final[dict[str, Attack]] = {
    "fragments": _flood(_FRAGMENTS, 0.05),
    "broken fragments": _flood(_UNFINISHED, 0.05),  # The next message begins in the midst of one: 1002, and again.
    "empty frames": _flood(_EMPTY, 0.05),
    "pings": _flood(_PINGS, 0.2),
    "joins": _flood(_JOINS, 0.1),
    "half handshakes": _half_handshake,
    "head byte by byte": _byte_by_byte,
    "1 MiB of []": _flood(_BRACKETS, 0.5),
    "history": _flood(_HISTORY, 0.1),
    "new rooms": _new_rooms,
    "slow readers": _slow_reader,
    "close without end": _close_without_end,
    "invalid frames": _invalid_frames,
    "bad tokens": _bad_tokens,
}
"""By name: what one round of it does."""


async def _run(one: _Attacker, attack: Attack) -> None:
    while one.on:
        try:
            await attack(one)
        except (OSError, TimeoutError):
            await asyncio.sleep(0.01)
    one.reset()


async def _main(port: int, seconds: float, count: int, only: str) -> dict[str, dict[str, int]]:
    until = monotonic() + seconds
    kinds = [only] if only else list(KINDS)
    attackers = [_Attacker(number, port, until) for number in range(count)]
    async with asyncio.TaskGroup() as tasks:
        for one in attackers:
            tasks.create_task(_run(one, KINDS[kinds[one.number % len(kinds)]]))
    told: dict[str, dict[str, int]] = {}
    for one in attackers:
        kind = told.setdefault(kinds[one.number % len(kinds)], {"sessions": 0, "connected": 0, "sent": 0})
        kind["sessions"] += 1
        kind["connected"] += one.connected
        kind["sent"] += one.sent
    return told


def main(arguments: Sequence[str]) -> None:
    """Attacks, and tells what was done."""
    port, seconds, count, only = (*arguments, "")[:4]
    print(json.dumps(asyncio.run(_main(int(port), float(seconds), int(count), only))))


if __name__ == "__main__":
    main(sys.argv[1:])
