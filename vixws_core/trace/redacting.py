"""A copy of a trace without its contents, in which a hub decides the same: to be shown to others.

Payloads, tokens, cookies, headers, query strings, addresses and texts of applications are replaced by fillers of the
same length; session names by those that the copy's hub gives. What stays: rooms, types, kinds, `mid`s, user ids,
offsets, ids, times and sizes. What a client sends stands in the copy when it was complete, unmasked by its own key.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ..effects import Broadcast, Effect, SendBytes
from ..inputs import (
    Accept,
    Authenticated,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    Publish,
    Refuse,
    Respond,
    RoomAdvanced,
    Send,
    SendToAll,
    StoreFailed,
    StoreListed,
    StoreRead,
)
from ..message import StoredMessage
from ..wire.envelope import decode
from ..wire.frames import BINARY, PING, PONG, TEXT, FrameReader, encode_close, encode_frame
from ..wire.inflate import InflatingReader
from ..wire.received import CloseReceived, PingReceived, PongReceived
from .lines import Head

__all__ = ["Redactor", "decisions_of"]

_MASK: Final = b"\0\0\0\0"
_KEPT: Final = frozenset(
    {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"}
)
"""Headers on which a hub decides."""
_SECRET: Final = b"redacted"


class Redactor:
    """Turns the inputs of one trace into those of its copy, one after another. `head` is that of the copy.

    `key` makes the words that stand for tokens and addresses: where it is random and kept nowhere, nobody can find out
    what they stand for.
    """

    def __init__(self, head: Head, key: bytes) -> None:
        self._key = key
        self.head: Head = replace(head, redacted=True, seed=_SECRET, secret=None)
        self._sessions: dict[str, str] = {}
        """Session names as they were, and as they are in the copy."""
        self._heads: dict[int, bytes] = {}
        """What was received of requests that are not complete."""
        self._readers: dict[int, FrameReader] = {}
        self._unsent: dict[int, deque[list[int]]] = {}
        """What each connection was sent and has not taken: so many bytes, which are so many in the copy."""
        self._kinds: dict[type, Callable[[Any], Any]] = {
            BytesFlushed: self._flushed,
            BytesReceived: self._received,
            Connected: self._connected,
            Disconnected: self._disconnected,
            Accept: lambda input: replace(input, headers=_headers(input.headers), limited=self._person(input.limited)),
            Respond: lambda input: replace(input, headers=_headers(input.headers), body=b"x" * len(input.body)),
            Send: lambda input: replace(input, data=_filler(input.data)),
            SendToAll: lambda input: replace(input, data=_filler(input.data)),
            Publish: lambda input: replace(
                input, payload=_filler(input.payload), sent=None if input.sent is None else _filler(input.sent)
            ),
            Refuse: lambda input: replace(input, message="x" * len(input.message)),
            Close: lambda input: replace(input, reason="x" * len(input.reason)),
            Authenticated: lambda input: replace(input, message="x" * len(input.message)),
            StoreFailed: lambda input: replace(input, message="x" * len(input.message)),
            StoreRead: lambda input: replace(input, rows=_rows(input.rows)),
            StoreListed: lambda input: replace(input, rows=_rows(input.rows)),
            RoomAdvanced: lambda input: replace(input, entries=_rows(input.entries)),
        }

    def redact(self, input: Any) -> Any:
        """The input of the copy; the same where nothing in it is anybody's business."""
        kind: type[Any] = type(input)  # pyright: ignore[reportUnknownVariableType] -- it is any input
        change = self._kinds.get(kind)
        return input if change is None else change(input)

    def _person(self, value: Any) -> Any:
        """The same word for the same text, of the same length as far as it goes; what is no text stays."""
        if not isinstance(value, str) or not value:
            return value
        return blake2b(value.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).hexdigest()[: len(value)]

    # ---- what clients send --------------------------------------------------------------------------

    def _connected(self, input: Connected) -> Connected:
        self._heads[input.conn] = b""
        return replace(input, peer=self._person(input.peer), limited=self._person(input.limited))

    def _disconnected(self, input: Disconnected) -> Disconnected:
        self._heads.pop(input.conn, None)
        self._readers.pop(input.conn, None)
        self._unsent.pop(input.conn, None)
        return input

    def _flushed(self, input: BytesFlushed) -> BytesFlushed:
        """What was taken of the messages as they were, in those of the copy, which may be shorter or longer."""
        return BytesFlushed(tuple((conn, self._taken(conn, count)) for conn, count in input.flushed))

    def _taken(self, conn: int, count: int) -> int:
        unsent, taken = self._unsent.get(conn), 0
        while unsent and count:
            piece = unsent[0]
            part = min(count, piece[0])
            share = piece[1] if part == piece[0] else piece[1] * part // piece[0]
            count, taken = count - part, taken + share
            piece[0] -= part
            piece[1] -= share
            if not piece[0]:
                unsent.popleft()
        return taken

    def _received(self, input: BytesReceived) -> BytesReceived:
        conn, data = input.conn, input.data
        if conn in self._heads:
            whole = self._heads[conn] + data
            head, found, data = whole.partition(b"\r\n\r\n")
            if not found and len(whole) <= self.head.hub.head_bytes_max:
                self._heads[conn] = whole
                return BytesReceived(conn, b"")
            del self._heads[conn]
            begin = _request(head) + found
            deflated = self.head.hub.deflate and b"permessage-deflate" in head.lower()
            kind = InflatingReader if deflated else FrameReader
            self._readers[conn] = kind(message_bytes_max=self.head.hub.message_bytes_max)
            return BytesReceived(conn, begin + self._frames(conn, data))
        return BytesReceived(conn, self._frames(conn, data))

    def _frames(self, conn: int, data: bytes) -> bytes:
        reader = self._readers.get(conn)
        return b"" if reader is None else b"".join(map(self._frame, reader.feed(data)))

    def _frame(self, item: object) -> bytes:
        if isinstance(item, str):
            return encode_frame(TEXT, self._text(item), _MASK)
        if isinstance(item, bytes):
            return encode_frame(BINARY, b"x" * len(item), _MASK)
        if isinstance(item, PingReceived | PongReceived):
            kind = PING if isinstance(item, PingReceived) else PONG
            return encode_frame(kind, b"x" * len(item.payload), _MASK)
        if isinstance(item, CloseReceived):
            return encode_close(item.code, "x" * len(item.reason), _MASK)
        return encode_frame(0x3, b"", _MASK)  # It broke the framing, and does so in the copy.

    def _text(self, text: str) -> bytes:
        size = len(text.encode())
        try:
            found = decode(text, self.head.hub.json_depth_max)
        except ValueError:
            return b"x" * size
        payload = bytes(found.payload)
        known = {"type": found.type, "room": found.room, "ref": found.ref, "mid": found.mid, "kind": found.kind}
        parts = msgspec.json.encode({name: value for name, value in known.items() if value is not None})
        filler = self._asked(payload) if found.type.startswith("$") else _filler(payload)
        return (parts[:-1] + b',"payload":' + filler + b"}").ljust(size)

    def _asked(self, payload: bytes) -> bytes:
        """The payload of a `$` message: all of it but what is secret in it."""
        fields: dict[str, Any] = json.loads(payload)
        for name in ("token", "pub"):
            if isinstance(fields.get(name), str):
                fields[name] = self._person(fields[name])
        if isinstance(fields.get("session"), str):
            fields["session"] = self._sessions.get(fields["session"], "x")
        return msgspec.json.encode(fields)

    def learn(self, effects: list[Effect], again: list[Effect]) -> None:
        """Takes what the hub gave for an input, and the copy's hub for its own: names of sessions, and sizes."""
        for one, two in zip(effects, again, strict=False):
            if isinstance(one, SendBytes) and isinstance(two, SendBytes) and b'"$welcome"' in one.data:
                names = [_session_in(each.data) for each in (one, two)]
                if names[0] and names[1]:
                    self._sessions[names[0]] = names[1]
        sizes: dict[int, list[int]] = {}
        for which, side in enumerate((effects, again)):
            for effect in side:
                if isinstance(effect, SendBytes | Broadcast):
                    for conn in effect.conns if isinstance(effect, Broadcast) else (effect.conn,):
                        sizes.setdefault(conn, [0, 0])[which] += len(effect.data)
        for conn, size in sizes.items():
            if size[0]:
                self._unsent.setdefault(conn, deque()).append(size)


def _session_in(data: bytes) -> str:
    start = data.find(b'"session":"')
    return "" if start < 0 else data[start + 11 : data.find(b'"', start + 11)].decode("ascii", "replace")


# ---- fillers --------------------------------------------------------------------------------------


def _filler(payload: bytes) -> bytes:
    """Bytes of the same length, and an object where that was one."""
    size = len(payload)
    if payload.lstrip()[:1] != b"{" or size < 2:
        return b"x" * size
    return b'{"x":"' + b"x" * (size - 8) + b'"}' if size >= 8 else b"{" + b" " * (size - 2) + b"}"


def _rows(rows: tuple[StoredMessage, ...]) -> tuple[StoredMessage, ...]:
    return tuple(replace(row, payload_json=_filler(row.payload_json)) for row in rows)


def _headers(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, "x" * len(value)) for name, value in headers)


def _request(head: bytes) -> bytes:
    """A request's head, as long as it was: the path without its query, and of headers those on which a hub decides."""
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) == 3:
        path, mark, query = words[1].partition(b"?")
        words[1] = path + mark + b"x" * len(query)
    shown = [b" ".join(words)]
    for line in lines:
        name, colon, value = line.partition(b":")
        if name.strip().lower().decode("latin-1") in _KEPT:
            shown.append(line)
        elif name.strip().lower() == b"sec-websocket-protocol":
            offered = [_subprotocol(one) for one in value.split(b",")]
            shown.append(name + colon + b",".join(offered))
        else:
            shown.append(name + colon + b" " * (len(value) > 0) + b"x" * (len(value) - 1))
    return b"\r\n".join(shown)


def _subprotocol(offered: bytes) -> bytes:
    """One that a client offers; of one that carries a token, what shows that it does."""
    at = offered.lower().find(b"bearer.")
    return offered if at < 0 else offered[: at + 7] + b"x" * (len(offered) - at - 7)


# ---- what is decided ------------------------------------------------------------------------------


def decisions_of(effects: list[Effect]) -> list[tuple[str, Any]]:
    """What a step decides: its effects by type, and to whom; not the bytes."""
    found: list[tuple[str, Any]] = []
    for effect in effects:
        name = type(effect).__name__
        if isinstance(effect, Broadcast):
            found.append((name, (effect.conns, effect.frames)))
        else:
            to: Any = getattr(effect, "conn", None) or getattr(effect, "request", None)
            found.append((name, (to, getattr(effect, "room", None), getattr(effect, "frames", None))))
    return found
