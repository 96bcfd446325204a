"""The loads whose instructions are counted, as the raw bytes of clients, and in turns.

In a turn every sender sends all that it may have in flight, in one read, and gets all its answers. So what a server
does depends on no clock and no scheduler, and two runs do the same.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOADS", "REQUEST", "Load", "frames_in", "text_frame"]

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""A client's opening handshake."""

_MASK = b"\x11\x22\x33\x44"
_SIZE = 125


@dataclass(frozen=True, slots=True)
class Load:
    """One workload of `benchmarks.workloads`: `conns` connections, of which the last `senders` send `depth` messages
    in a turn. `unit` is what instructions are charged to, `units` how many of it a turn has, `answers` how many
    messages the clients get in a turn; the difference of two runs is `turns` turns.
    """

    name: str
    title: str
    unit: str
    application: str
    conns: int
    senders: int
    depth: int
    units: int
    answers: int
    turns: int

    def first(self, conn: int) -> bytes:
        """What a connection, numbered from 1, sends once, when it is open."""
        if self.application == "room" and conn < self.conns:
            return text_frame('{"type":"room.join","payload":{"room":"r0"}}')
        if self.application == "publish":
            return text_frame('{"type":"$join","ref":"join","room":"r0"}')
        return b""

    def sent(self, turn: int) -> dict[int, bytes]:
        """What each sender sends in a turn."""
        data = b"".join(text_frame(self._message(turn * self.depth + each)) for each in range(self.depth))
        return dict.fromkeys(range(self.conns - self.senders + 1, self.conns + 1), data)

    def _message(self, number: int) -> str:
        """One message of 125 bytes; its number always has eight digits."""
        if self.application == "room":
            start, end = (
                f'{{"type":"chat.message","payload":{{"room":"r0","user":"pub","t0":1{number:07},"text":"',
                '"}}',
            )
        elif self.application == "publish":
            start, end = f'{{"type":"bench.message","room":"r0","ref":"1{number:07}","payload":{{"text":"', '"}}'
        else:
            start, end = f"1{number:07}", ""
        return start + "x" * (_SIZE - len(start) - len(end)) + end


def text_frame(text: str) -> bytes:
    """A client's masked text frame of at most 125 bytes (RFC 6455 §5.2)."""
    data = text.encode()
    if len(data) > _SIZE:
        raise ValueError(f"a message of {len(data)} bytes, expected at most {_SIZE}")
    mask = (_MASK * 32)[: len(data)]
    masked = int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")
    return bytes((0x81, 0x80 | len(data))) + _MASK + masked.to_bytes(len(data), "big")


def frames_in(data: bytes) -> tuple[int, int]:
    """How many whole frames of a server the data begins with, and their bytes."""
    count = start = 0
    while start + 2 <= len(data):
        head, size = 2, data[start + 1]
        if size == 126:
            head, size = 4, int.from_bytes(data[start + 2 : start + 4], "big")
        elif size == 127:
            head, size = 10, int.from_bytes(data[start + 2 : start + 10], "big")
        if start + head + size > len(data):
            break
        start += head + size
        count += 1
    return count, start


LOADS = {
    each.name: each
    for each in (
        Load("echo", "echo, 100×16", "message", "echo", 100, 100, 16, units=1_600, answers=1_600, turns=4),
        Load("echo-single", "echo, 100×1", "message", "echo", 100, 100, 1, units=100, answers=100, turns=40),
        Load("room", "room of 100, 1 in flight", "delivery", "room", 101, 1, 1, units=100, answers=100, turns=80),
        Load("publish", "durable publish, 8 in flight", "publish", "publish", 1, 1, 8, units=8, answers=16, turns=200),
    )
}
"""All loads, by the names of their workloads."""
