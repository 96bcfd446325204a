"""The header of one frame (RFC 6455 §5.2)."""

from __future__ import annotations

from typing import Final

from .encoding import BINARY, CLOSE, PING, PONG, TEXT

__all__ = ["shape_of"]

_CONTROL_OPCODES: Final = frozenset((CLOSE, PING, PONG))
_DATA_OPCODES: Final = frozenset((0x0, TEXT, BINARY))


def shape_of(data: bytes, at: int, client: bool, reserved: bytes, bytes_max: int) -> tuple[int, int, int] | None:
    """(header size, payload length, opcode) of the frame at `at`; None: incomplete; length -1: broken.

    `client`: a server's frame. `reserved`: by opcode, the bits of the first byte that must be 0. A header that
    announces more than `bytes_max` is told before its mask is there.
    """
    size = len(data) - at
    if size < 2:
        return None
    opcode = data[at] & 0x0F
    short = data[at + 1] & 0x7F
    control = opcode in _CONTROL_OPCODES
    # RFC 6455 §5.2: reserved bits MUST be 0; §5.1: a client's frame is masked, a server's is not; §5.5:
    # control frames are short and whole.
    bad = (
        data[at] & reserved[opcode]
        or (data[at + 1] >= 0x80) is client
        or not (control or opcode in _DATA_OPCODES)
        or (control and (short > 125 or data[at] < 0x80))
    )
    if bad:
        return 0, -1, opcode
    head_size = 2 if short < 126 else 4 if short == 126 else 10
    if size < head_size:
        return None
    length = short if short < 126 else int.from_bytes(data[at + 2 : at + head_size], "big")
    if (short == 126 and length < 126) or (short == 127 and (length < 65_536 or length >> 63)):
        return 0, -1, opcode
    if not client:
        head_size += 4
    if size < head_size and length <= bytes_max:
        return None
    return head_size, length, opcode
