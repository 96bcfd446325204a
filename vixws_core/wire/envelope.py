"""The JSON of the wire protocol: reading envelopes strictly, writing the server's messages.

A payload is never decoded here: it is relayed byte for byte. What msgspec lets by and the protocol forbids
(duplicate keys, deep nesting) is found by a cheap scan that sends a suspicious text the slow way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final

import msgspec

from ..codes import BAD_JSON, BAD_MESSAGE, INTERNAL, RETRY_CODES, STORE_FULL, STORE_UNAVAILABLE, TOO_DEEP
from ..entries import KIND_MAX, MID_MAX, REF_MAX, TYPE_MAX
from ..errors import BadMessage, LocalError
from ..message import StoredMessage
from ..mids import is_mid
from ..nesting import depth_of, repeats_a_key
from .payloads import Offset, Text

__all__ = [
    "Envelope",
    "Incoming",
    "Place",
    "answer",
    "client_message",
    "decode",
    "decode_incoming",
    "error",
    "find_place",
    "find_ref",
    "is_readable",
    "quote",
    "room_message",
    "store_error",
    "stored_message",
    "unreadable",
]

_STORE_ERRORS: Final = {
    STORE_UNAVAILABLE: "the store is not available",
    STORE_FULL: "the store is full",
    INTERNAL: "the store failed",
}

_EMPTY: Final = msgspec.Raw(b"{}")
_EVENT: Final = "event"
_encode = msgspec.json.Encoder().encode


class Envelope(msgspec.Struct, gc=False):
    """The head of one message; `payload` is the raw JSON of an object."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=TYPE_MAX)]
    payload: msgspec.Raw = _EMPTY
    room: str | None = None
    ref: Annotated[str, msgspec.Meta(min_length=1, max_length=REF_MAX)] | None = None
    mid: Annotated[str, msgspec.Meta(min_length=1, max_length=MID_MAX)] | None = None
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=KIND_MAX)] = _EVENT


class Incoming(msgspec.Struct, gc=False):
    """The head of one message from a server; `payload` is raw JSON."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=TYPE_MAX)]
    payload: msgspec.Raw = _EMPTY
    room: str | None = None
    ref: str | None = None
    kind: str = "event"
    ep: Text = ""
    off: Offset = 0
    id: Text = ""
    ts: Text = ""
    mid: str | None = None
    sender: str | None = msgspec.field(default=None, name="from")


_ENVELOPES: Final = msgspec.json.Decoder(Envelope)
_INCOMING: Final = msgspec.json.Decoder(Incoming)


def decode(text: str, depth_max: int = 64) -> Envelope:
    """Reads one envelope.

    Raises: `BadMessage` with `bad_json` (not JSON), `bad_message` (JSON, but no envelope) or `too_deep`.
    """
    try:
        found = _ENVELOPES.decode(text)
    except msgspec.ValidationError as exc:
        raise BadMessage(BAD_MESSAGE, f"expected an object with a string type: {exc}") from None
    except (msgspec.DecodeError, UnicodeError) as exc:
        if "\\ud" in text.lower() and "truncated" in str(exc):  # So msgspec words a surrogate without its other half.
            raise BadMessage(BAD_JSON, "expected no lone surrogates in strings") from None
        raise BadMessage(BAD_JSON, f"expected a JSON object: {exc}") from None
    except RecursionError:
        raise BadMessage(TOO_DEEP, f"nesting must be at most {depth_max} deep") from None
    payload = bytes(found.payload)
    if payload[:1] != b"{":
        raise BadMessage(BAD_MESSAGE, "expected an object as payload")
    if found.mid is not None and not is_mid(found.mid):
        raise BadMessage(BAD_MESSAGE, "expected ~producer:epoch:seq as a mid that begins with ~")
    if (
        text.count("{") + text.count("[") > depth_max
        or text.count('"type"') > 1
        or text.count('"payload"') > 1
        or "\\u" in text
        or (found.room is not None and text.count('"room"') > 1)
        or (found.ref is not None and text.count('"ref"') > 1)
        or (found.mid is not None and text.count('"mid"') > 1)
        # The last of two equal keys holds: the first is hidden behind a kind "event", or behind a null.
        or (found.kind is not _EVENT and text.count('"kind"') > 1)
        or ("null" in text and any(text.count(key) > 1 for key in ('"room"', '"ref"', '"mid"')))
    ):
        _look_closely(text, depth_max)
    return found


def _look_closely(text: str, depth_max: int) -> None:
    """Looks for what the scan suspected: a duplicate envelope key (escaped, perhaps), deep nesting."""
    data = text.encode()
    if depth_of(data) > depth_max:
        raise BadMessage(TOO_DEEP, f"nesting must be at most {depth_max} deep")
    if repeats_a_key(data):
        raise BadMessage(BAD_MESSAGE, "expected each key of the outermost object once")


class _OnlyRef(msgspec.Struct, gc=False):
    ref: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


_ONLY_REF: Final = msgspec.json.Decoder(_OnlyRef)


def find_ref(text: str) -> str | None:
    """The `ref` of a text that is no good envelope, where it can be made out, so that it is answered."""
    try:
        return _ONLY_REF.decode(text).ref
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@lru_cache(4096)
def quote(text: str) -> str:
    """A string as JSON."""
    return _encode(text).decode()


def answer(type: str, ref: str | None = None, room: str | None = None, payload: object = None) -> bytes:
    """One message of the protocol itself."""
    head = f'{{"type":"{type}"'
    if ref is not None:
        head += f',"ref":{_encode(ref).decode()}'
    if room is not None:
        head += f',"room":{quote(room)}'
    if payload is None:
        return (head + "}").encode()
    return b'%b,"payload":%b}' % (head.encode(), _encode(payload))


def error(
    code: str,
    message: str,
    ref: str | None = None,
    room: str | None = None,
    retry: bool | None = None,
    expected: int | None = None,
) -> bytes:
    """An `$err`. `retry` follows from the code unless given; `expected` stands in it where it is."""
    again = code in RETRY_CODES if retry is None else retry
    payload: dict[str, object] = {"code": code, "retry": again, "msg": message[:300]}
    if expected is not None:
        payload["expected"] = expected
    return answer("$err", ref, room, payload)


def store_error(code: str, message: str) -> str:
    """What a client is told of a store's failure: the log has the rest, with the server's own paths."""
    return _STORE_ERRORS.get(code, message)


def stored_message(row: StoredMessage) -> bytes:
    """A stored message as its room sees it: the head the log gave it, spliced in front of the stored payload."""
    head = (
        f'{{"type":{quote(row.type)},"room":{quote(row.room)},"ep":"{row.ep}","off":{row.off},'
        f'"id":"{row.id}","ts":"{row.ts}"'
    )
    if row.kind != "event":
        head += f',"kind":{quote(row.kind)}'
    if row.mid is not None:
        head += f',"mid":{_encode(row.mid).decode()}'
    if row.sender is not None:
        head += f',"from":{_encode(row.sender).decode()}'
    return b'%b,"payload":%b}' % (head.encode(), row.payload_json)


def is_readable(row: StoredMessage) -> bool:
    """Whether an entry is one that a client takes for a message: a log may come from elsewhere."""
    type = row.type
    payload = row.payload_json
    return 0 < len(type) <= TYPE_MAX and type[0] != "$" and (payload[:1] == b"{" or payload.lstrip()[:1] == b"{")


def unreadable(row: StoredMessage) -> bytes:
    """What stands in a page for an entry that no client could read."""
    head = f'{{"type":"$unreadable","ep":"{row.ep}","off":{row.off},"id":"{row.id}","ts":"{row.ts}","payload":{{}}}}'
    return head.encode()


def room_message(
    type: str, room: str, payload: bytes, kind: str = "event", mid: str | None = None, sender: str | None = None
) -> bytes:
    """A message of a room that is not stored: no `ep`, no `off`."""
    head = f'{{"type":{quote(type)},"room":{quote(room)}'
    if kind != "event":
        head += f',"kind":{quote(kind)}'
    if mid is not None:
        head += f',"mid":{_encode(mid).decode()}'
    if sender is not None:
        head += f',"from":{_encode(sender).decode()}'
    return b'%b,"payload":%b}' % (head.encode(), payload)


def decode_incoming(text: str) -> Incoming | None:
    """Reads one message of a server; None where the text is no envelope."""
    try:
        found = _INCOMING.decode(text)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors.
        return None
    return found if memoryview(found.payload)[0] == 0x7B else None


class Place(msgspec.Struct, gc=False):
    """Where an entry stands: its room, and its place in the room's log."""

    room: str
    off: Offset
    ep: Text
    id: Text = ""


_PLACES: Final = msgspec.json.Decoder(Place)


def find_place(text: str) -> Place | None:
    """The place of a text that is an entry of a room's log, whatever else is wrong with it; None where it is none.

    A server writes the place before the payload, which may be no JSON at all.
    """
    at = text.find(',"payload":')
    try:
        return _PLACES.decode(text if at < 0 else text[:at] + "}")
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors.
        return None


def client_message(
    type: str,
    payload: bytes,
    *,
    ref: str | None = None,
    room: str | None = None,
    mid: str | None = None,
    kind: str = "event",
) -> bytes:
    """One message of a client as UTF-8 JSON. Raises: `LocalError` for text that is not Unicode."""
    head: dict[str, str] = {"type": type}
    if room is not None:
        head["room"] = room
    if ref is not None:
        head["ref"] = ref
    if mid is not None:
        head["mid"] = mid
    if kind != "event":
        head["kind"] = kind
    try:
        return b'%b,"payload":%b}' % (_encode(head)[:-1], payload)
    except (UnicodeError, msgspec.MsgspecError) as exc:
        raise LocalError(f"type, room and mid must be valid Unicode: {exc}") from None
