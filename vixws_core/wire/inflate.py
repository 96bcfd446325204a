"""permessage-deflate (RFC 7692) inwards: a reader of frames that takes compressed messages as well.

A compressed message is gathered as it came and inflated when it is complete, in one go and never beyond the limit of
a message: 70 bytes may stand for 64 KiB, so what is not complete must not be held inflated. No zlib object outlives
the call that makes it.
"""

from __future__ import annotations

import zlib
from typing import ClassVar, Final

from ..codes import BAD_DEFLATE, CLOSE_BAD_DATA, CLOSE_POLICY, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG
from .encoding import BINARY, CLOSE, TEXT, mask_bytes
from .frames import INFLATED_PER_STEP, NOT_UTF8, FrameReader
from .received import CloseReceived, FrameFailed, Received

__all__ = ["InflatingReader", "inflate"]

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


class InflatingReader(FrameReader):
    """Reads the frames of a connection that agreed on permessage-deflate without context takeover.

    Plain messages take the ways of `FrameReader`. Besides its limits, one call of `feed` stops taking compressed
    messages once they have cost `INFLATED_PER_STEP`; the rest waits, as behind `most` frames.
    """

    __slots__ = ("_key", "_last", "_packed", "_text")

    _RESERVED: ClassVar[bytes] = bytes(0x30 if opcode in (TEXT, BINARY) else 0x70 for opcode in range(16))

    def __init__(self, *, client: bool = False, message_bytes_max: int, fragments_max: int = 65_536) -> None:
        super().__init__(client=client, message_bytes_max=message_bytes_max, fragments_max=fragments_max)
        self._packed: bytearray | None = None  # The compressed message being gathered.
        self._text = False
        self._last = False  # Whether the frame being read is the message's last.
        self._key = b""  # Its mask, turned to the next byte.

    def feed(self, data: bytes, most: int = 1 << 30, apart: bool = False) -> list[Received]:
        """As `FrameReader.feed`; `inflated` says what the compressed messages cost, those of calls that left `more`
        with them."""
        if not self.more:
            self.inflated: int = 0
        return super().feed(data, most, apart)

    def skim(self, data: bytes) -> CloseReceived | FrameFailed | None:
        """As `FrameReader.skim`: a compressed message is passed over as any other."""
        self._packed = None
        return super().skim(data)

    def _unusual(self, data: bytes, at: int, out: list[Received]) -> int:
        if not data[at] & _RSV1:
            return super()._unusual(data, at, out)
        shape = self._shape(data, at)
        if shape is None or self.inflated >= INFLATED_PER_STEP:
            return 0
        if shape[1] < 0:
            return self._give_all(data, at, out)
        self._text = shape[2] == TEXT
        return self._enter(data, at, shape[0], shape[1], out)

    def _slow(self, data: bytes, at: int, out: list[Received]) -> int:
        if self._packed is None:
            return super()._slow(data, at, out)
        if self._slow_left:
            return self._take(data, at, out)
        shape = self._shape(data, at)
        if shape is None:
            return 0
        head_size, length, opcode = shape
        if length >= 0 and not opcode:
            return self._enter(data, at, head_size, length, out)
        if length >= 0 and opcode in (TEXT, BINARY):
            self._fail(CLOSE_PROTOCOL_ERROR, "a message began in the midst of another", out)
            return 0
        if length >= 0 and opcode != CLOSE:
            return self._fast(data, at, out, len(out) + 1)  # A ping or pong, whole; or none yet.
        self._packed = None  # Nothing that may follow makes a message of it.
        return self._give_all(data, at, out) if length < 0 else self._begin(data, at, head_size, length, opcode, out)

    def _enter(self, data: bytes, at: int, head_size: int, length: int, out: list[Received]) -> int:
        """Begins a frame of a compressed message; returns the bytes used."""
        most = self._message_bytes_max
        # What DEFLATE cannot shrink it makes longer: by less than this, whatever the sender's zlib (`deflateBound`).
        if self._gathered + length > most + (most >> 2) + 64:
            self._fail(CLOSE_TOO_BIG, f"message over {most} bytes", out)
            return 0
        if len(data) - at < head_size:
            return 0
        self._gathered += length
        self._fragments += 1
        if self._fragments > self._fragments_max:
            self._fail(CLOSE_POLICY, f"more than {self._fragments_max} fragments in a message", out)
            return 0
        if self._packed is None:
            self._packed = bytearray()
        self._last = data[at] >= 0x80
        self._key = data[at + head_size - 4 : at + head_size]
        self._slow_left = length
        return head_size + self._take(data, at + head_size, out)

    def _take(self, data: bytes, at: int, out: list[Received]) -> int:
        """Takes what is here of the frame's payload; with the message's last byte the message is made."""
        assert self._packed is not None  # One is being gathered.
        part = data[at : at + self._slow_left]
        self._slow_left -= len(part)
        if self._client:
            self._packed += part
        else:
            self._packed += mask_bytes(part, self._key)
            turn = len(part) & 3
            self._key = self._key[turn:] + self._key[:turn]
        if self._last and not self._slow_left:
            packed, self._packed = bytes(self._packed), None
            self._fragments = self._gathered = 0
            self._make(packed, out)
        return len(part)

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
