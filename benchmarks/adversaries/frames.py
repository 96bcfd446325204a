"""What both sorts of sessions say: the request, the greeting, frames."""

from __future__ import annotations

import json
from typing import Final

from vixws_core.wire.frames import TEXT, encode_frame

__all__ = ["MASK", "REQUEST", "hello", "text"]

MASK: Final = b"\x21\x43\x65\x07"

REQUEST: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def text(message: object) -> bytes:
    """A text frame of a JSON object."""
    return encode_frame(TEXT, json.dumps(message, separators=(",", ":")).encode(), MASK)


def hello(token: str) -> bytes:
    """A greeting with a token."""
    return text({"type": "$hello", "payload": {"v": [1], "token": token}})
