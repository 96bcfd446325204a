"""What passes a hub's door, read from its bytes: what clients ask and what they hear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, cast

import msgspec
from msgspec.structs import replace

from ..message import Json
from ..wire.envelope import find_ref
from ..wire.frames import CloseReceived, FrameFailed, FrameReader, PingReceived, PongReceived
from .oracle import check

__all__ = ["Asked", "Heard", "InTap", "frames_of", "heard_of"]


class Asked(msgspec.Struct):
    """One message from a client. `told`, `head`, `floor`: how its room stood when the server got it."""

    type: str
    ref: str | None = None
    room: str | None = None
    mid: str | None = None
    payload: bytes = b"{}"
    since: Json = None
    last: int = 0
    from_floor: bool = False
    inner_room: str = ""
    """The room inside the payload, where there is one."""
    pub: str = ""
    ends: bool = False
    """Not a message but the end: a close frame, or broken framing."""
    code: int = 0
    """How it ends."""
    ping: bytes | None = None
    """Not a message but a ping, with this payload."""
    text: str | bytes = ""
    """The message as it came."""
    kind: str = "event"
    before: int | None = None
    after: int | None = None
    limit: int = 50
    """What a `$history` asks."""
    number: int = 0
    """How many messages of its connection came up to this one."""
    by_turn: int = 0
    """How many messages came before a `$hello`, pings and what is no JSON left out."""
    by_app: bool = False
    """A handler or guard published in its name."""
    scope: str = ""
    turn: int = 0
    told: int = 0
    head: int = 0
    floor: int = 0
    times_back: int = 0
    """How often the log had gone back by then."""


class Heard(msgspec.Struct, frozen=True):
    """One frame from a server; `payload` is decoded where the type is the protocol's own."""

    type: str = ""
    room: str | None = None
    ref: str | None = None
    ep: str = ""
    off: int = 0
    id: str = ""
    raw: bytes = b""
    payload: dict[str, Json] = {}
    close: bool = False
    code: int = 0
    reason: str = ""
    """How it closes."""
    ping: bool = False
    pong: bytes | None = None
    kind: str = "event"
    mid: str | None = None
    ts: str = ""
    sender: str | None = None


class _Envelope(msgspec.Struct):
    type: str = ""
    room: str | None = None
    ref: str | None = None
    mid: str | None = None
    ep: str = ""
    off: int = 0
    id: str = ""
    kind: str = "event"
    ts: str = ""
    sender: str | None = msgspec.field(default=None, name="from")
    payload: msgspec.Raw = msgspec.Raw(b"{}")


_ENVELOPES: Final = msgspec.json.Decoder(_Envelope)


class InTap:
    """Reads what one client sends, from its request on."""

    def __init__(self, message_bytes_max: int) -> None:
        self._head: bytes | None = b""
        self._reader = FrameReader(message_bytes_max=message_bytes_max)

    def feed(self, data: bytes) -> Iterator[Asked]:
        """Takes bytes and returns the messages that became whole."""
        if self._head is not None:
            head = self._head + data
            end = head.find(b"\r\n\r\n")
            if end < 0:
                self._head = head
                return
            self._head = None
            data = head[end + 4 :]
        for item in self._reader.feed(data):
            if isinstance(item, str):
                yield _asked(item)
            elif isinstance(item, bytes):
                yield Asked("", text=item)
            elif isinstance(item, PingReceived):
                yield Asked("", ping=item.payload)
            elif isinstance(item, CloseReceived | FrameFailed):
                yield Asked("", ends=True, code=item.code)

    @property
    def in_message(self) -> bool:
        """Whether part of a message, or of a request, has come."""
        return bool(self._head) if self._head is not None else self._reader.in_message


def _asked(text: str) -> Asked:
    try:
        found = _ENVELOPES.decode(text)
        payload: Json = json.loads(bytes(found.payload))
    except (ValueError, msgspec.MsgspecError):
        return Asked("", find_ref(text), text=text)
    asked = Asked(found.type, found.ref, found.room, found.mid, bytes(found.payload), text=text, kind=found.kind)
    if isinstance(payload, dict):
        fields = cast(dict[str, Json], payload)
        inner = fields.get("room")
        asked.inner_room = inner if isinstance(inner, str) else ""
        asked.since = fields.get("since")
        asked.last = fields.get("last", 0)
        asked.from_floor = fields.get("on_fail") == "floor"
        asked.pub = fields.get("pub") or ""
        asked.before, asked.after = fields.get("before"), fields.get("after")
        asked.limit = fields.get("limit", 50)
    return asked


@lru_cache(512)
def frames_of(data: bytes) -> tuple[Heard, ...]:
    """The frames in bytes that a hub put out at once, which are always whole frames."""
    reader = FrameReader(client=True, message_bytes_max=1 << 30)
    items = reader.feed(data)
    check(not reader.in_message, f"a hub put out {data!r:.80}, expected whole frames")
    return tuple(_heard(item) for item in items)


def _heard(item: object) -> Heard:
    if isinstance(item, CloseReceived):
        return Heard(close=True, code=item.code, reason=item.reason)
    if isinstance(item, PingReceived):
        return Heard(ping=True)
    if isinstance(item, PongReceived):
        return Heard(pong=item.payload)
    check(not isinstance(item, FrameFailed), f"a hub broke the framing: {item!r:.200}")
    return heard_of(item) if isinstance(item, str) and item.startswith("{") else Heard()


def heard_of(item: str) -> Heard:
    """One message of a server."""
    found = _ENVELOPES.decode(item)
    payload: dict[str, Json] = json.loads(bytes(found.payload)) if found.type[:1] == "$" else {}
    heard = Heard(found.type, found.room, found.ref, found.ep, found.off, found.id, bytes(found.payload), payload)
    if found.type[:1] == "$":
        return heard
    return replace(heard, kind=found.kind, mid=found.mid, ts=found.ts, sender=found.sender)
