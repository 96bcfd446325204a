"""permessage-deflate (RFC 7692) inwards: a reader of frames that takes compressed messages as well.

A compressed message is gathered as it came and inflated when it is complete, in one go and never beyond the limit of
a message: 70 bytes may stand for 64 KiB, so what is not complete must not be held inflated. No zlib object outlives
the call that makes it.
"""

from __future__ import annotations

import zlib
from typing import ClassVar, Final

from ..codes import BAD_DEFLATE, CLOSE_BAD_DATA, CLOSE_TOO_BIG
from .encoding import BINARY, TEXT
from .frames import NOT_UTF8, FrameReader
from .gathering import Bytes, Gathering
from .received import FrameFailed, Received

__all__ = ["INFLATED_PER_STEP", "InflatingReader", "inflate"]

INFLATED_PER_STEP: Final = 262_144
"""What the compressed messages of one connection may cost in one step, give or take one; 2 ms for text (measured)."""

_RSV1: Final = 0x40
_TAIL: Final = b"\x00\x00\xff\xff\x03\x00"
"""What the sender took from the end (RFC 7692 §7.2.2), and an empty last block: zlib reaches that one only where the
message ended at the end of a block, and so tells a message that was cut off."""

_STREAMS_MAX: Final = 8
"""Blocks that call themselves the last, in one message. More may follow them (RFC 7692 §7.2.1), but each costs a
zlib object, two bytes are enough for one, and senders that write any write one (§7.2.3.4)."""

_PACKED_WEIGHT: Final = 16
"""Bytes made that one compressed byte costs at worst: 64 KiB of blocks with a Huffman table each and nothing in them
take as long as 0.9 MiB of text (measured, zlib 1.2.13: 6.6 ms; a byte of text takes 7 ns)."""

_WINDOW_BITS: Final = -15
"""Whatever window the client keeps, this one holds it; the sign: no head of zlib's own."""


def inflate(packed: bytes, most: int) -> bytes | FrameFailed:
    """The message that `packed` stands for, of at most `most` bytes; no more than one more is ever made."""
    if not packed:
        return b""  # RFC 7692 §7.2.3.6 asks for one byte, but zlib's users send none now and then, and mean the same.
    rest, data = packed + _TAIL, b""
    for _ in range(_STREAMS_MAX):
        # Blocks behind a last one may point back before it: the window goes on.
        inflater = zlib.decompressobj(_WINDOW_BITS, data[-32_768:]) if data else zlib.decompressobj(_WINDOW_BITS)
        try:
            data += inflater.decompress(rest, most + 1 - len(data))
        except zlib.error:
            break
        if len(data) > most:
            return FrameFailed(CLOSE_TOO_BIG, f"message over {most} bytes")
        rest = inflater.unused_data
        if not inflater.eof:
            break
        if not rest or rest == _TAIL:
            return data
    return FrameFailed(CLOSE_BAD_DATA, "a compressed message that is not DEFLATE to its end", BAD_DEFLATE)


class _Packed(Bytes):
    """The compressed bytes of a message."""

    __slots__ = ()


class InflatingReader(FrameReader):
    """Reads the frames of a connection that agreed on permessage-deflate without context takeover.

    Plain messages take the ways of `FrameReader`. Besides its limits, one call of `feed` stops taking compressed
    messages once they have cost `INFLATED_PER_STEP`; the rest waits, as behind `most` frames.
    """

    __slots__ = ("_text",)

    _RESERVED: ClassVar[bytes] = bytes(0x30 if opcode in (TEXT, BINARY) else 0x70 for opcode in range(16))

    def __init__(self, *, client: bool = False, message_bytes_max: int, fragments_max: int = 65_536) -> None:
        super().__init__(client=client, message_bytes_max=message_bytes_max, fragments_max=fragments_max)
        self._text = False  # Whether the compressed message being gathered is one of text.

    def feed(self, data: bytes, most: int = 1 << 30, apart: bool = False) -> list[Received]:
        """As `FrameReader.feed`; `inflated` says what the compressed messages cost, those of calls that left `more`
        with them."""
        if not self.more:
            self.inflated: int = 0
        return super().feed(data, most, apart)

    def _unusual(self, data: bytes, at: int, out: list[Received]) -> int:
        if not data[at] & _RSV1:
            return super()._unusual(data, at, out)
        shape = self._shape(data, at)
        if shape is None or self.inflated >= INFLATED_PER_STEP:
            return 0
        if shape[1] < 0:
            return self._give_all(data, at, out)
        self._text, self._message = shape[2] == TEXT, _Packed()
        return self._gather(data, at, shape[0], shape[1], out)

    def _slow(self, data: bytes, at: int, out: list[Received]) -> int:
        if self._slow_left or not isinstance(self._message, _Packed):
            return super()._slow(data, at, out)
        shape = self._shape(data, at)
        if shape is None:
            return 0
        head_size, length, opcode = shape
        if length >= 0 and not opcode:
            return self._gather(data, at, head_size, length, out)
        return self._give_all(data, at, out) if length < 0 else self._begin(data, at, head_size, length, opcode, out)

    def _gather(self, data: bytes, at: int, head_size: int, length: int, out: list[Received]) -> int:
        """Begins a frame of a compressed message; returns the bytes used."""
        most = self._message_bytes_max
        # What DEFLATE cannot shrink it makes longer: by less than this, whatever the sender's zlib (`deflateBound`).
        if self._gathered + length > most + (most >> 2) + 64:
            self._fail(CLOSE_TOO_BIG, f"message over {most} bytes", out)
            return 0
        return self._enter(data, at, head_size, length, out) if len(data) - at >= head_size else 0

    def _complete(self, message: Gathering, out: list[Received]) -> None:
        if isinstance(message, _Packed):
            self._make(message.value(), out)
        else:
            super()._complete(message, out)

    def _make(self, packed: bytes, out: list[Received]) -> None:
        """Gives out the message that `packed` stands for, or why it is none."""
        made = inflate(packed, self._message_bytes_max)
        if isinstance(made, FrameFailed):
            self._failed = True
            out.append(made)
            return
        self.inflated += max(len(made), _PACKED_WEIGHT * len(packed))
        if not self._text:
            out.append(made)
            return
        try:
            out.append(str(made, "utf-8"))
        except UnicodeDecodeError:
            self._fail(CLOSE_BAD_DATA, NOT_UTF8, out)
