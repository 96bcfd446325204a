"""The codec seam: how a message becomes the bytes of one kind of connection.

A codec is stateless: one object for each kind, and a connection points at one. Rooms keep plain text frames, once for
all members; each kind makes its own bytes of them once, and they are shared.
"""

from __future__ import annotations

from typing import Final, Protocol

from .frames import BINARY, TEXT, encode_frame

__all__ = ["PLAIN", "Codec"]


class Codec(Protocol):
    """Turns messages into what one kind of connection takes."""

    def text(self, data: bytes, /) -> bytes:
        """One text message, UTF-8, for one connection."""
        ...

    def binary(self, data: bytes, /) -> bytes:
        """One binary message for one connection."""
        ...

    def share(self, frame: bytes, /) -> bytes:
        """Plain text frames, as rooms keep them (one or several, joined), in this kind's bytes."""
        ...


_SHORT: Final = tuple(encode_frame(TEXT, b"x" * size)[:2] for size in range(126))
"""Headers of text frames whose length fits into the second byte (RFC 6455 §5.2)."""


class _Plain:
    """WebSocket frames as RFC 6455 has them, without an extension."""

    __slots__ = ()

    @staticmethod
    def text(data: bytes, /) -> bytes:
        return _SHORT[len(data)] + data if len(data) < 126 else encode_frame(TEXT, data)

    @staticmethod
    def binary(data: bytes, /) -> bytes:
        return encode_frame(BINARY, data)

    @staticmethod
    def share(frame: bytes, /) -> bytes:
        return frame


PLAIN: Final[Codec] = _Plain()
"""The codec of every connection that agreed on nothing else."""
