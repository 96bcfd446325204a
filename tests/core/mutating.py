"""Streams of a client that mean well, and what can become of their bytes.

All that is drawn comes from one `Random`, so a number and a seed are a stream. Offsets and lengths are drawn small:
what breaks a reader is mostly near the head of a frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from vixws_core.wire.frames import BINARY, PING, PONG, TEXT, encode_close, encode_frame

from .harness import REQUEST

__all__ = ["SETTINGS", "Stream", "make_stream", "mutated"]

SETTINGS = ("open", "raw", "guarded", "proved", "granted", "small")
"""The names of the hubs that streams are for; `cutting` has what they mean."""

ROOMS = ("a", "b", "tmp.x", "deny", "soon", "@user/ada", "")
TOKENS = ("ada", "bob", "short", "nobody", "fail")
PAUSES_S = (0.0, 0.0, 0.0, 0.5, 6.0, 40.0)


class Stream(NamedTuple):
    """Bytes for one connection. At each stop, an offset and seconds, the world answers and so much time passes."""

    setting: str
    data: bytes
    stops: tuple[tuple[int, float], ...] = ()
    request: bytes = b""
    """A request to begin with; empty: the usual good one."""


def _envelope(stream: Random, type: str, room: bool, payload: object, **more: object) -> bytes:
    head: dict[str, object] = {"type": type, **more}
    if room:
        head["room"] = stream.choice(ROOMS[: 3 if stream.random() < 0.8 else 7])
    if stream.random() < 0.7:
        head["ref"] = f"r{stream.randrange(100)}"
    if payload is not None:
        head["payload"] = payload
    return json.dumps(head, ensure_ascii=stream.random() < 0.5, separators=(",", ":")).encode()


def _join(stream: Random) -> bytes:
    payload: dict[str, object] = {}
    choice = stream.randrange(3)
    if choice == 0:
        payload["since"] = {"ep": stream.choice(("ep1", "ep1", "other")), "off": stream.randrange(6)}
    elif choice == 1:
        payload["last"] = stream.randrange(8)
    return _envelope(stream, "$join", True, payload)


def _history(stream: Random) -> bytes:
    payload = {stream.choice(("before", "after", "limit")): stream.randrange(1, 9)}
    return _envelope(stream, "$history", True, payload)


def _publish(stream: Random) -> bytes:
    more = {"mid": f"m{stream.randrange(20)}"} if stream.random() < 0.5 else {}
    return _envelope(stream, stream.choice(("chat", "note")), True, {"n": stream.randrange(3)}, **more)


_TEXTS: tuple[Callable[[Random], bytes], ...] = (
    _join,
    _join,
    _publish,
    _publish,
    _publish,
    _history,
    lambda stream: _envelope(stream, "$position", True, None),
    lambda stream: _envelope(stream, "$leave", True, None),
    lambda stream: _envelope(stream, "$ping", False, None),
    lambda stream: _envelope(stream, "$hello", False, {"v": [1], "token": stream.choice(TOKENS)}),
    lambda stream: _envelope(stream, "$auth", False, {"token": stream.choice(TOKENS)}),
    lambda stream: _envelope(stream, "app", False, {"é": "\u20ac\U0001f600"}),
    lambda stream: stream.choice(
        (b"[]", b"hi", b"", b"{", b'{"type":"$none","ref":"x"}', "é\u20ac\U0001f600".encode())
    ),
)


def _hello(stream: Random) -> bytes:
    payload: dict[str, object] = {"v": [1], "token": stream.choice(TOKENS[:3]), "pub": f"p{stream.randrange(3)}"}
    return _envelope(stream, "$hello", False, payload)


def _text(stream: Random, mask: bytes, text: bytes) -> list[bytes]:
    """One message: whole, or in fragments with a ping between them (RFC 6455 §5.4)."""
    if stream.random() < 0.85:
        return [encode_frame(TEXT, text, mask)]
    cut = stream.randint(0, len(text))
    first, last = encode_frame(TEXT, text[:cut], mask), encode_frame(TEXT, text[cut:], mask)
    between = [encode_frame(PING, b"mid", mask)] if stream.random() < 0.5 else []
    return [bytes((TEXT,)) + first[1:], *between, bytes((0x80,)) + last[1:]]


def _frames(stream: Random, most: int) -> list[bytes]:
    """Whole good frames, with a greeting first where one is drawn."""
    mask = stream.randbytes(4)
    out = _text(stream, mask, _hello(stream)) if stream.random() < 0.7 else []
    for _ in range(stream.randint(1, most)):
        chance = stream.random()
        if chance < 0.82:
            out += _text(stream, mask, stream.choice(_TEXTS)(stream))
        elif chance < 0.90:
            out.append(encode_frame(stream.choice((PING, PONG)), stream.randbytes(stream.choice((0, 2, 125))), mask))
        elif chance < 0.95:
            out.append(encode_frame(BINARY, stream.randbytes(stream.choice((0, 3, 130))), mask))
        else:
            reason = stream.choice(("", "bye"))
            out.append(encode_close(stream.choice((1000, 1001, 3000)), reason, mask))
    return out


# ---- what becomes of it -----------------------------------------------------------------------------


def _flip(stream: Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << stream.randrange(8)


def _set(stream: Random, data: bytearray, at: int) -> None:
    data[at] = stream.choice((0, 0x7F, 0x80, 0xFF, 0x0A, 0x22, stream.randrange(256)))


def _delete(stream: Random, data: bytearray, at: int) -> None:
    del data[at : at + stream.choice((1, 1, 2, 4, 16))]


def _insert(stream: Random, data: bytearray, at: int) -> None:
    data[at:at] = stream.randbytes(stream.choice((1, 1, 2, 4, 16)))


def _double(stream: Random, data: bytearray, at: int) -> None:
    size = stream.choice((1, 2, 6, 40))
    data[at:at] = data[at : at + size]


def _truncate(stream: Random, data: bytearray, at: int) -> None:
    del data[at:]


def _length(stream: Random, data: bytearray, at: int) -> None:
    """Another length: one off, of a longer form, far too large."""
    if at + 1 >= len(data):
        return
    choice = stream.randrange(5)
    if choice == 0:
        data[at + 1] ^= stream.choice((1, 2, 3))
    else:
        form = (b"\xfe\0\x05", b"\xfe\x01\x2c", b"\xff" + b"\0" * 7 + b"\x05", b"\xff\x80" + b"\0" * 7)[choice - 1]
        data[at + 1 : at + 2] = form


def _mask(stream: Random, data: bytearray, at: int) -> None:
    """No mask, or another one."""
    if at + 6 < len(data):
        data[stream.choice((at + 1, at + 2, at + 3))] ^= 0x80


def _opcode(stream: Random, data: bytearray, at: int) -> None:
    data[at] = stream.choice((0, 1, 2, 3, 7, 8, 9, 10, 11, 15)) | stream.choice((0x80, 0x80, 0x80, 0, 0x40, 0xC0))


_ANYWHERE = (_flip, _flip, _flip, _set, _delete, _insert, _double, _truncate)
_AT_A_FRAME = (_length, _mask, _opcode, _opcode, _delete, _insert, _double)


def mutated(stream: Random, frames: list[bytes]) -> bytes:
    """The bytes of the frames after one to three faults; payloads may change inside a frame that stays whole."""
    starts = [0]
    for frame in frames:
        starts.append(starts[-1] + len(frame))
    data = bytearray(b"".join(frames))
    for _ in range(stream.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        if stream.random() < 0.4:
            at = min(stream.choice(starts), len(data) - 1)
            stream.choice(_AT_A_FRAME)(stream, data, at)
        else:
            stream.choice(_ANYWHERE)(stream, data, stream.randrange(len(data)))
    return bytes(data)


def make_stream(base: str, number: int) -> Stream:
    """The stream of that number: as it was meant (a tenth of them), mutated, or spliced from two."""
    stream = Random(f"{base}/{number}")
    most = 3 if stream.random() < 0.992 else 90
    frames = _frames(stream, most)
    chance = stream.random()
    if chance < 0.1:
        data = b"".join(frames)
    elif chance < 0.9:
        data = mutated(stream, frames)
    else:
        first, second = b"".join(frames), b"".join(_frames(stream, most))
        data = first[: stream.randint(0, len(first))] + second[stream.randint(0, len(second)) :]
    stops = sorted((stream.randint(0, len(data)), stream.choice(PAUSES_S)) for _ in range(stream.randrange(3)))
    request = b""
    if stream.random() < 0.05:
        request = mutated(stream, [line + b"\r\n" for line in REQUEST[:-2].split(b"\r\n")])
    return Stream(stream.choice(SETTINGS), data, tuple(stops), request)
