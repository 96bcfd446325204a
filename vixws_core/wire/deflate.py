"""permessage-deflate (RFC 7692) outwards: what is agreed on with a client, and the codec of those who agreed.

No context is taken over, either way: each message is compressed by itself, so that nothing is kept for a connection
between two messages, and the bytes of one message are the same for all members of a room.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Final

from .codec import PLAIN, Codec
from .encoding import BINARY, TEXT, encode_frame
from .http import Offer

__all__ = ["DEFLATED_MIN", "NAME", "TAIL", "Deflate", "agree"]

NAME: Final = "permessage-deflate"
TAIL: Final = b"\x00\x00\xff\xff"
"""The end of a sync flush, which is not sent (RFC 7692 §7.2.1)."""

DEFLATED_MIN: Final = 128
"""Shorter messages go as they are: an `$ack` of 127 bytes would shrink by 32, in 10 µs, and the heads of IP and TCP
add 40 to it anyway (measured, zlib 1.2.13)."""

_LEVEL: Final = 1
"""Of 1 to 9. All connections wait meanwhile, and the worst is a client's to choose: 64 KiB of random `a` and `b` take
0.8 ms at 1, 7 ms at 6, 184 ms at 9. Of 64 KiB of JSON 1 leaves 21 % in 0.4 ms, 6 leaves 16 % in 1 ms; below 1 KiB all
leave the same within 2 % (measured, zlib 1.2.13)."""
_MEMORY: Final = 5
"""Of 1 to 9. zlib's own 8 takes 5 to 23 % more time for messages up to 1 KiB, which has to be cleared for each, and
makes none of them shorter (measured, zlib 1.2.13)."""
_RSV1: Final = 0x40
"""Says that a message is compressed (RFC 7692 §6)."""

_KEPT_BYTES: Final = 2_048
"""Shared messages up to this size are remembered compressed: they cost most for their size, and are shared again."""
_KEPT: Final = 4_096
"""So many of them, of all hubs: 16 MiB at most, 2 MiB for messages of 300 bytes."""


def _compressed(window_bits: int, opcode: int, data: bytes) -> bytes | None:
    """One compressed frame (RFC 7692 §7.2.1); None where a plain one is as short."""
    if len(data) < DEFLATED_MIN:
        return None
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window_bits, _MEMORY)  # The sign: no head of zlib's own.
    packed = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(TAIL)]
    return encode_frame(_RSV1 | opcode, packed) if len(packed) < len(data) else None


_remembered = lru_cache(_KEPT)(_compressed)
"""The same, without doing it again: a message of a room is shared with the live members, then with each one that reads
on, and after a restart or a cut many do (measured: 300 messages of 340 bytes take 3.7 ms without it)."""


class Deflate:
    """Frames with compressed payloads (RFC 7692 §7.2.1), where that makes them shorter; else plain ones.

    `window_bits`: the client keeps a window of two to the power of so many bytes.
    """

    __slots__ = ("_window_bits",)

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits

    def text(self, data: bytes, /) -> bytes:
        """One text message, UTF-8."""
        return _compressed(self._window_bits, TEXT, data) or PLAIN.text(data)

    def binary(self, data: bytes, /) -> bytes:
        """One binary message."""
        return _compressed(self._window_bits, BINARY, data) or PLAIN.binary(data)

    def share(self, frame: bytes, /) -> bytes:
        """Plain frames of a server, one or several joined; each is compressed by itself, or stays as it is."""
        size = len(frame)
        at = kept = 0
        out: list[bytes] = []
        while at < size:
            length, body = frame[at + 1], at + 2
            if length == 126:
                length, body = frame[at + 2] << 8 | frame[at + 3], at + 4
            elif length == 127:
                length, body = int.from_bytes(frame[at + 2 : at + 10], "big"), at + 10
            end = body + length
            compressed = _remembered if DEFLATED_MIN <= length <= _KEPT_BYTES else _compressed
            packed = compressed(self._window_bits, frame[at] & 0x0F, frame[body:end])
            if packed is not None:
                out += (frame[kept:at], packed)
                kept = end
            at = end
        return b"".join((*out, frame[kept:])) if out else frame


_KINDS: Final = {bits: Deflate(bits) for bits in (9, 12, 15)}
"""By window. Each kind in a room compresses its messages once more, so there are three of them, not seven: a client is
answered with the next smaller one, as RFC 7692 §7.1.2.1 allows."""


def agree(offers: list[Offer]) -> tuple[str, Codec] | None:
    """The first offer that will do: what to answer (RFC 7692 §7.1), and the codec. None: it goes without.

    `client_max_window_bits` is never answered: a client with a smaller window is understood all the same, and no
    memory is kept for it that one could save (§7.1.2.2 leaves it to the server).
    """
    for name, parameters in offers:
        window_bits = _window_bits(parameters) if name == NAME else None
        if window_bits is None:
            continue
        answer = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
        kind = max(bits for bits in _KINDS if bits <= window_bits)
        if any(key == "server_max_window_bits" for key, _ in parameters):
            answer += f"; server_max_window_bits={kind}"
        return answer, _KINDS[kind]
    return None


def _window_bits(parameters: tuple[tuple[str, str | None], ...]) -> int | None:
    """The window that an offer leaves to the server; None where it has to be declined (RFC 7692 §7.1, §5.1)."""
    found = dict(parameters)
    if len(found) != len(parameters):
        return None
    for key, value in parameters:
        if key in ("server_no_context_takeover", "client_no_context_takeover"):
            good = value is None
        elif key == "client_max_window_bits":
            good = value is None or value in _WINDOWS
        else:
            good = key == "server_max_window_bits" and value in _WINDOWS
        if not good:
            return None
    asked = found.get("server_max_window_bits")
    # zlib writes no raw stream with a window of 256 bytes; with 512 it would break the promise that the answer makes.
    return None if asked == "8" else int(asked or "15")


_WINDOWS: Final = tuple(str(bits) for bits in range(8, 16))
"""As texts, since `int` takes more than the decimal numbers of RFC 7692 §7.1.2."""
