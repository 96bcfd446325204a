"""WebSocket frames: a fast lane for whole data frames, another for those in pieces, and wsproto for what is broken.

The fast lane takes complete, unfragmented text and binary frames and complete pings and pongs straight from
the bytes received, many in one call. Fragments, and frames that arrive in pieces, are gathered. Everything else (close
frames, reserved bits, broken headers) is given to a `wsproto.Connection`, which stays the authority about all of it: a
property test feeds any bytes in any chunking to both and compares.
"""

from __future__ import annotations

from typing import ClassVar, Final

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

from ..codes import CLOSE_BAD_DATA, CLOSE_POLICY, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG
from .encoding import BINARY, CLOSE, PING, PONG, TEXT, encode_close, encode_frame, mask_bytes
from .gathering import Bytes, Gathering, Text
from .received import CloseReceived, FrameFailed, PingReceived, PongReceived, Received, close_of
from .shape import shape_of

__all__ = [
    "BINARY",
    "CLOSE",
    "NOT_UTF8",
    "PING",
    "PONG",
    "TEXT",
    "CloseReceived",
    "FrameFailed",
    "FrameReader",
    "PingReceived",
    "PongReceived",
    "Received",
    "encode_close",
    "encode_frame",
    "mask_bytes",
]

_HELD_MAX: Final = 4096
"""An incomplete frame up to this size waits in our buffer; a larger one is gathered as it comes."""

SKIMMED_MAX: Final = 512
"""Frames behind our own close among which the peer's is looked for; about 1 ms of work."""

NOT_UTF8: Final = "text that is not UTF-8"
"""Why a message is refused with 1007 (RFC 6455 §8.1)."""

_INTERLEAVED: Final = "a message began in the midst of another"
_NEWS: Final = b"\x81\x82"


class FrameReader:
    """Reads the frames of one connection, in order, from bytes cut anywhere.

    `client`: read what a server sends (unmasked) instead of what a client sends. Limits: a message of more
    than `message_bytes_max` bytes is refused with 1009 from its header, before its payload is kept; more
    than `fragments_max` fragments are refused with 1008.
    """

    __slots__ = (
        "_authority",
        "_buffer",
        "_client",
        "_failed",
        "_fragments",
        "_fragments_max",
        "_gathered",
        "_key",
        "_last",
        "_message",
        "_message_bytes_max",
        "_skims_left",
        "_slow_left",
        "_start",
        "inflated",
        "more",
        "quiet",
    )

    _RESERVED: ClassVar[bytes] = bytes((0x70,) * 16)
    """By opcode, the bits of a frame's first byte that must be 0 where no extension was agreed on (RFC 6455 §5.2)."""

    def __init__(self, *, client: bool = False, message_bytes_max: int, fragments_max: int = 65_536) -> None:
        self._client = client
        self._message_bytes_max = message_bytes_max
        self._fragments_max = fragments_max
        self._buffer: bytes = b""
        self._start: int = 0  # Where in the buffer the next call begins.
        self._failed = False
        self._authority: Connection | None = None
        self._slow_left = 0  # Bytes of the frame being gathered, or given to wsproto, which have not come yet.
        self._fragments = 0  # Frames of the message being gathered; 0: none is.
        self._gathered = 0  # Payload bytes of the message being gathered, by its headers.
        self._message: Gathering | None = None
        self._last = False  # Whether the frame being gathered is its message's last.
        self._key = b""  # Its mask, turned to the next byte.
        self._skims_left = SKIMMED_MAX
        self.quiet: int = 0
        """Frames of the last `feed` that made nothing received: fragments, each of which costs as much as a message."""
        self.more: bool = False
        """The last `feed` stopped before what comes `apart`: the next one goes on, and may be given nothing.

        Whoever sets it to False begins anew to count what messages cost.
        """
        self.inflated: int = 0
        """What the compressed messages of the last `feed` cost, in bytes made: nothing here, but `InflatingReader`
        knows some. A compressed byte counts as 16 where that is more."""

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended: its time is running."""
        return bool(self._fragments or self._slow_left or self._buffer)

    @property
    def held(self) -> int:
        """Unparsed bytes waiting here."""
        return len(self._buffer) - self._start

    @property
    def weight(self) -> int:
        """Bytes kept here: unparsed ones, and of a message that is not complete."""
        return len(self._buffer) + max(0, self._gathered - self._slow_left)

    def feed(self, data: bytes, most: int = 1 << 30, apart: bool = False) -> list[Received]:
        """Takes bytes (possibly none) and returns what was received; the rest waits for the next call.

        At most `most` frames are taken, those included that make nothing received by themselves (`quiet`). After
        `CloseReceived` or `FrameFailed` everything further is discarded.

        `apart`: whatever is no whole, plain message, ping or pong comes first in what is returned, and what stands
        before it comes in a call of its own (`more`). Who closes because of a message can then still `skim` what
        stands behind it as if it came later.
        """
        self.quiet = 0
        self.more = False
        if self._failed:
            return []
        at = self._start
        if self._buffer:
            if at and data:
                data, at = self._buffer[at:] + data, 0
            else:
                data = self._buffer + data
        out: list[Received] = []
        quiet = 0
        size = len(data)
        while at < size and len(out) + quiet < most:
            before = len(out)
            slow = self._slow_left or self._fragments
            used = 0 if slow else self._fast(data, at, out, most - quiet)
            if not used:
                if apart and out:
                    self.more = True
                    self._buffer, self._start, self.quiet = data, at, quiet
                    return out
                used = self._slow(data, at, out) if slow else self._unusual(data, at, out)
            if self._failed:
                self._buffer, self._start = b"", 0
                return out
            if not used:
                break
            if len(out) == before:
                quiet += 1
            at += used
        self._buffer, self._start, self.quiet = data[at:] if at else data, 0, quiet
        return out

    def skim(self, data: bytes) -> CloseReceived | FrameFailed | None:
        """Looks for the peer's close frame and for nothing else: no payload is unmasked, checked or kept.

        For what comes behind our own close frame, which is discarded (RFC 6455 §1.4). It takes over from `feed` in
        the midst of a frame or a message; afterwards only `skim` may be called.
        """
        if self._failed:
            return None
        if self._buffer:
            data = self._buffer[self._start :] + data
            self._start = 0
        self._authority = self._message = None
        at = min(len(data), self._slow_left)
        self._slow_left -= at
        while not self._slow_left:
            shape = self._shape(data, at)
            if shape is None:
                break
            head_size, length, opcode = shape
            self._skims_left -= 1
            if length < 0 or self._skims_left < 0:
                return self._skimmed(FrameFailed(CLOSE_PROTOCOL_ERROR, "a broken frame, or too many"))
            stop = at + head_size + length
            if opcode == CLOSE:
                if stop > len(data):
                    break
                payload = data[at + head_size : stop]
                if not self._client:
                    payload = mask_bytes(payload, data[at + head_size - 4 : at + head_size])
                return self._skimmed(close_of(payload))
            self._slow_left = max(0, stop - len(data))
            at = min(stop, len(data))
        self._buffer = data[at:]
        return None

    def _skimmed(self, found: CloseReceived | FrameFailed) -> CloseReceived | FrameFailed:
        self._failed = True
        self._buffer = b""
        return found

    def _fast(self, data: bytes, start: int, out: list[Received], most: int) -> int:
        """Takes whole unfragmented frames from `data[start:]`; returns the bytes used, 0 where none is there."""
        at = start
        size = len(data)
        room = most - len(out)
        limit = self._message_bytes_max
        mask_bit = 0 if self._client else 0x80
        mask_size = mask_bit >> 5
        while room and at + 2 <= size:
            first = data[at]
            length = data[at + 1] ^ mask_bit
            body = at + 2
            if length > 125:
                if length == 126 and body + 2 <= size and first < 0x83:
                    length = data[body] << 8 | data[body + 1]
                    body += 2
                    if length < 126:
                        break
                elif length == 127 and body + 8 <= size and first < 0x83:
                    length = int.from_bytes(data[body : body + 8], "big")
                    body += 8
                    if length < 65_536:
                        break
                else:  # Unmasked, incomplete, or a control frame that is too long.
                    break
            key_end = body + mask_size
            end = key_end + length
            if end > size or length > limit:
                break
            payload = data[key_end:end]
            if mask_bit and length:
                payload = mask_bytes(payload, data[body:key_end])
            if first == 0x81:
                try:
                    out.append(str(payload, "utf-8"))
                except UnicodeDecodeError:
                    break
            elif first == 0x82:
                out.append(payload)
            elif first == 0x89:
                out.append(PingReceived(payload))
            elif first == 0x8A:
                out.append(PongReceived(payload))
            else:
                break
            at = end
            room -= 1
        return at - start

    def _unusual(self, data: bytes, at: int, out: list[Received]) -> int:
        """Decides about the frame at `data[at:]` that the fast lane did not take; returns the bytes used."""
        shape = self._shape(data, at)
        if shape is None:
            return 0  # The header is incomplete and may still become a good one.
        head_size, length, opcode = shape
        if length < 0:
            return self._give_all(data, at, out)
        if opcode < 8 and self._too_large(length, out):
            return 0
        have = len(data) - at
        if have < head_size + length and data[at] in _NEWS and length <= _HELD_MAX:
            if data[at] == 0x82 or self._may_be_text(data[at + head_size - 4 : at + head_size], data[at + head_size :]):
                return 0
        elif have < head_size + length and opcode in (PING, PONG):
            return 0
        return self._begin(data, at, head_size, length, opcode, out)

    def _slow(self, data: bytes, at: int, out: list[Received]) -> int:
        """Goes on with a frame that has begun, or with the next frame of a fragmented message."""
        if self._slow_left:
            if self._authority is None:
                return self._take(data, at, out)
            stop = min(len(data), at + self._slow_left)
            self._slow_left -= stop - at
            return self._give(data, at, stop, out)
        shape = self._shape(data, at)
        if shape is None:
            return 0
        head_size, length, opcode = shape
        if length < 0:
            return self._give_all(data, at, out)
        if opcode < 8 and self._too_large(length, out):
            return 0
        return self._begin(data, at, head_size, length, opcode, out)

    def _begin(self, data: bytes, at: int, head_size: int, length: int, opcode: int, out: list[Received]) -> int:
        """Begins a frame whose header is sound; returns the bytes used."""
        if opcode >= 8:
            if opcode != CLOSE:
                return self._fast(data, at, out, len(out) + 1)  # Whole, or none yet.
            stop = min(len(data), at + head_size + length)
            self._slow_left = head_size + length - (stop - at)
            return self._give(data, at, stop, out)
        if (opcode == 0) is (self._message is None):
            # RFC 6455 §5.4: the fragments of one message must not be interleaved with those of another.
            self._fail(CLOSE_PROTOCOL_ERROR, "a fragment of no message" if not opcode else _INTERLEAVED, out)
            return 0
        if opcode:
            self._message = Text() if opcode == TEXT else Bytes()
        return self._enter(data, at, head_size, length, out)

    def _enter(self, data: bytes, at: int, head_size: int, length: int, out: list[Received]) -> int:
        """Begins a frame of the message being gathered; returns the bytes used."""
        self._gathered += length
        self._fragments += 1
        if self._fragments > self._fragments_max:
            self._fail(CLOSE_POLICY, f"more than {self._fragments_max} fragments in a message", out)
            return 0
        self._last = data[at] >= 0x80
        self._key = data[at + head_size - 4 : at + head_size]
        self._slow_left = length
        return head_size + self._take(data, at + head_size, out)

    def _take(self, data: bytes, at: int, out: list[Received]) -> int:
        """Takes what is here of the frame's payload; with the message's last byte the message is complete."""
        message = self._message
        assert message is not None  # One is being gathered.
        part = data[at : at + self._slow_left]
        size = len(part)
        self._slow_left -= size
        if size and not self._client:
            part = mask_bytes(part, self._key)
            if turn := size & 3:
                self._key = self._key[turn:] + self._key[:turn]
        is_complete = self._last and not self._slow_left
        try:
            message.add(part, is_complete)
        except UnicodeDecodeError:
            self._fail(CLOSE_BAD_DATA, NOT_UTF8, out)
            return size
        if is_complete:
            self._message = None
            self._fragments = self._gathered = 0
            self._complete(message, out)
        return size

    def _complete(self, message: Gathering, out: list[Received]) -> None:
        out.append(message.value())

    def _shape(self, data: bytes, at: int) -> tuple[int, int, int] | None:
        return shape_of(data, at, self._client, self._RESERVED, self._message_bytes_max)

    def _too_large(self, length: int, out: list[Received]) -> bool:
        if self._gathered + length <= self._message_bytes_max:
            return False
        # RFC 6455 §7.4.1: 1009 for "a message that is too big for it to process".
        self._fail(CLOSE_TOO_BIG, f"message over {self._message_bytes_max} bytes", out)
        return True

    def _may_be_text(self, key: bytes, part: bytes) -> bool:
        """Whether the part of a text frame that is here can be the beginning of UTF-8."""
        if not self._client:
            part = mask_bytes(part, key)
        try:
            part.decode("utf-8")
        except UnicodeDecodeError as exc:
            return exc.reason == "unexpected end of data"
        return True

    def _give_all(self, data: bytes, at: int, out: list[Received]) -> int:
        """Gives everything from a broken header on: wsproto says which rule it breaks, as soon as it can tell."""
        self._slow_left = 1 << 62
        return self._give(data, at, len(data), out)

    def _give(self, data: bytes, at: int, stop: int, out: list[Received]) -> int:
        """Gives `data[at:stop]` to wsproto, which says what becomes of the connection."""
        authority = self._authority
        if authority is None:
            kind = ConnectionType.CLIENT if self._client else ConnectionType.SERVER
            authority = self._authority = Connection(kind)
        authority.receive_data(data[at:stop])
        for event in authority.events():
            assert isinstance(event, CloseConnection)  # It is given close frames, and what is broken.
            self._end(event, out)
        return stop - at

    def _end(self, event: CloseConnection, out: list[Received]) -> None:
        # wsproto reports a peer's close frame and its own verdict by the same event; the state tells them apart.
        assert self._authority is not None
        failed = self._authority.state.name != "REMOTE_CLOSING"
        self._failed = True
        self._authority = self._message = None
        reason = event.reason or ""
        if failed and event.code == CLOSE_BAD_DATA:
            reason = NOT_UTF8  # wsproto's own tells where in the piece that it was given.
        out.append(FrameFailed(int(event.code), reason) if failed else CloseReceived(int(event.code), reason))

    def _fail(self, code: int, reason: str, out: list[Received]) -> None:
        self._failed = True
        self._authority = self._message = None
        out.append(FrameFailed(code, reason))
