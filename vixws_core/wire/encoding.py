"""Writing WebSocket frames: headers, masks, close frames (RFC 6455 §5)."""

from __future__ import annotations

from typing import Final

from ..codes import CLOSE_NO_CODE, CLOSE_NO_FRAME

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "encode_close", "encode_frame", "mask_bytes"]

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_XOR_MAX: Final = 1024
"""Up to this many bytes one big-integer XOR is faster than four strided translations (measured, CPython 3.13)."""

_TRANSLATIONS: Final = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))


def mask_bytes(data: bytes, key: bytes) -> bytes:
    """XORs `data` with the 4-byte masking key, repeated (RFC 6455 §5.3); its own inverse."""
    size = len(data)
    if size <= _XOR_MAX:
        mask = (key * ((size + 3) >> 2))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
    out = bytearray(size)
    for at in range(4):
        out[at::4] = data[at::4].translate(_TRANSLATIONS[key[at]])
    return bytes(out)


def encode_frame(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """Writes one final frame; clients must give a fresh 4-byte `mask`, servers none (RFC 6455 §5.1, §5.2)."""
    size = len(payload)
    if mask is None:
        if size < 126:
            return bytes((0x80 | opcode, size)) + payload
        if size < 65_536:
            return bytes((0x80 | opcode, 126, size >> 8, size & 255)) + payload
        return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0xFE, size >> 8, size & 255))
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    return head + mask + mask_bytes(payload, mask)


def encode_close(code: int, reason: str = "", mask: bytes | None = None) -> bytes:
    """Writes a close frame; the reason is cut to whole characters within 123 bytes (RFC 6455 §5.5.1).

    1005 and 1006 must not be sent (RFC 6455 §7.4.1): for them the frame has no code.
    """
    if code in (CLOSE_NO_CODE, CLOSE_NO_FRAME):
        return encode_frame(CLOSE, b"", mask)
    text = reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text.encode(), mask)
