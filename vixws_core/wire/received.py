"""What is received in WebSocket frames: messages, control frames, and the end."""

from __future__ import annotations

import msgspec

from ..codes import (
    CLOSE_BAD_DATA,
    CLOSE_NO_CODE,
    CLOSE_OWN_FIRST,
    CLOSE_OWN_LAST,
    CLOSE_PROTOCOL_ERROR,
    SENDABLE_CLOSES,
)

__all__ = ["CloseReceived", "FrameFailed", "PingReceived", "PongReceived", "Received", "close_of"]


class PingReceived(msgspec.Struct, frozen=True, gc=False):
    """A ping (RFC 6455 §5.5.2); `payload` is at most 125 bytes."""

    payload: bytes


class PongReceived(msgspec.Struct, frozen=True, gc=False):
    """A pong (RFC 6455 §5.5.3)."""

    payload: bytes


class CloseReceived(msgspec.Struct, frozen=True, gc=False):
    """A close frame (RFC 6455 §5.5.1); `code` is 1005 where it had none. Nothing follows it."""

    code: int
    reason: str


class FrameFailed(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the framing: close with `code` (1002, 1007, 1008 or 1009). Nothing follows it.

    `word`: what the peer did, where the code alone does not say it.
    """

    code: int
    reason: str
    word: str = ""


Received = str | bytes | PingReceived | PongReceived | CloseReceived | FrameFailed
"""One whole thing received: a text message, a binary message, a control frame, or the end."""


def close_of(payload: bytes) -> CloseReceived | FrameFailed:
    """What the payload of a close frame says (RFC 6455 §5.5.1, §7.4)."""
    if not payload:
        return CloseReceived(CLOSE_NO_CODE, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (code in SENDABLE_CLOSES or CLOSE_OWN_FIRST <= code <= CLOSE_OWN_LAST):
        return FrameFailed(CLOSE_PROTOCOL_ERROR, "a close frame with a bad code")
    try:
        return CloseReceived(code, str(payload[2:], "utf-8"))
    except UnicodeDecodeError:
        return FrameFailed(CLOSE_BAD_DATA, "a close frame with a bad reason")
