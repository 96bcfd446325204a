"""What one connection was sent, read back from the bytes: messages of rooms, the hub's own words, and its close."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec

from ..effects import Broadcast, Effect, SendBytes
from ..inputs import BytesFlushed
from ..wire.envelope import decode_incoming, find_place
from ..wire.frames import FrameReader
from ..wire.inflate import InflatingReader
from ..wire.received import CloseReceived

__all__ = ["Heard", "Hearing"]


class Heard(msgspec.Struct, frozen=True):
    """One message or close frame. `off` is 0 for what has no place in a log; `payload` is that of `$` messages."""

    type: str = ""
    room: str | None = None
    off: int = 0
    payload: dict[str, Any] = {}
    code: int = 0
    """Of a close frame; 0: it is none."""
    reason: str = ""
    end: int = 0
    """How many bytes the connection was sent, with these."""


class Hearing:
    """Reads what is sent to one connection, from its response on, and counts what of it was flushed."""

    def __init__(self, conn: int) -> None:
        self.conn: int = conn
        self.sent: int = 0
        """Bytes put into its outbox,"""
        self.flushed: int = 0
        """and of these, handed to the operating system."""
        self._reader: FrameReader | None = None

    def see(self, input: object, effects: Sequence[Effect]) -> Iterator[Heard]:
        """Takes one step; returns what the connection was sent in it."""
        if type(input) is BytesFlushed:
            self.flushed += sum(count for conn, count in input.flushed if conn == self.conn)
        for effect in effects:
            if type(effect) is SendBytes:
                mine = effect.conn == self.conn
            else:
                mine = type(effect) is Broadcast and self.conn in effect.conns
            if mine:
                assert isinstance(effect, SendBytes | Broadcast)
                self.sent += len(effect.data)
                yield from self._read(effect.data)

    def _read(self, data: bytes) -> Iterator[Heard]:
        if self._reader is None:
            head, _, data = data.partition(b"\r\n\r\n")  # A response is sent in one go.
            kind = InflatingReader if b"permessage-deflate" in head else FrameReader
            self._reader = kind(client=True, message_bytes_max=1 << 30)
        for item in self._reader.feed(data):
            if isinstance(item, str):
                yield self._message(item)
            elif isinstance(item, CloseReceived):
                yield Heard(code=item.code, reason=item.reason, end=self.sent)

    def _message(self, text: str) -> Heard:
        place = find_place(text)
        found = decode_incoming(text)
        if found is not None and found.type.startswith("$"):
            payload: Any = json.loads(bytes(found.payload))
            known = cast("dict[str, Any]", payload) if isinstance(payload, dict) else {}
            return Heard(found.type, found.room, 0, known, end=self.sent)
        if place is not None:
            return Heard("" if found is None else found.type, place.room, place.off, end=self.sent)
        return Heard("" if found is None else found.type, None if found is None else found.room, end=self.sent)
