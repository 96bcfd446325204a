"""The typed JSON message, as programs hold it, and the record of a stored one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from .codes import BAD_MESSAGE
from .errors import BadMessage, LocalError

__all__ = ["Json", "JsonMessage", "StoredMessage", "encode_json", "kvs_to_json"]

Json: TypeAlias = Any
"""Any value that JSON can hold: None, bool, int of any size, finite float, str, list, dict with str keys."""

_ENCODER = msgspec.json.Encoder()
_ANY = msgspec.json.Decoder(msgspec.Raw)


def encode_json(value: object) -> bytes:
    """Encodes a value as compact UTF-8 JSON.

    Structs and dataclasses are encoded by field. NaN, infinities, lone surrogates and other things that
    JSON cannot hold raise `LocalError`. A `bytes` value is taken as JSON that is already encoded.
    """
    if isinstance(value, bytes):
        return value
    dump = getattr(value, "model_dump_json", None)  # A pydantic model knows its own aliases.
    if dump is not None:
        return str(dump()).encode()
    try:
        data = _ENCODER.encode(value)
        # msgspec writes null for NaN and the infinities; the check is needed only where a null stands.
        if b"null" in data:
            json.dumps(msgspec.to_builtins(value, enc_hook=_nothing_to_find), allow_nan=False)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
        raise LocalError(f"payload must be a value that JSON can hold: {exc}") from None
    return data


def _nothing_to_find(_: object) -> None:
    """Stands for JSON that is encoded already (`msgspec.Raw`), the only thing that comes here."""


def kvs_to_json(kvs: Sequence[Json]) -> dict[str, Json]:
    """Turns flat pairs, `["user", "ada", "text", "Hi"]`, into an object.

    Raises: `LocalError` for an odd number of items or a key that is not a string. A later pair with the
    same key replaces an earlier one.
    """
    if isinstance(kvs, str) or len(kvs) % 2:
        raise LocalError(f"flat pairs must be a list of keys and values in turn, got {kvs!r:.80}")
    pairs: dict[str, Json] = {}
    for key, value in zip(kvs[::2], kvs[1::2], strict=True):
        if not isinstance(key, str):
            raise LocalError(f"flat pairs must have strings as keys, got {key!r:.80}")
        pairs[key] = value
    return pairs


def payload_json(payload: object) -> bytes:
    """Encodes a payload given as an object (mapping, Struct, model) or as flat pairs; the result is an object.

    Raises: `LocalError` where it is neither.
    """
    if isinstance(payload, list | tuple):
        return encode_json(kvs_to_json(cast(Sequence[Json], payload)))
    if payload is None:
        return b"{}"
    data = encode_json(payload)
    if data is payload:
        try:
            data.decode()
            _ANY.decode(data)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
            raise LocalError(f"payload as bytes must be JSON, got {data!r:.80}: {exc}") from None
    if not data.lstrip().startswith(b"{"):
        raise LocalError(f"payload must be an object or flat pairs, got {payload!r:.80}")
    return data


class _Envelope(msgspec.Struct, gc=False):
    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    id: str = ""
    kind: str = "event"
    ts: str = ""
    room: str = ""


_ENVELOPES = msgspec.json.Decoder(_Envelope)


class JsonMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One typed message: `{"type", "payload"}` with the optional `id kind ts room` of the seed.

    `payload` is any JSON object: nested values and integers of any size survive. `id` and `ts` are given
    by the log and are "" before that; `room` is "" where there is none.
    """

    type: str
    payload: Mapping[str, Json] = {}
    room: str = ""
    id: str = ""
    kind: str = "event"
    ts: str = ""

    @staticmethod
    def serialize(type: str, payload: object = None) -> str:
        """Writes `{"type": …, "payload": …}`; `payload` is an object or flat pairs.

        Raises: `LocalError` for an empty type or a payload that JSON cannot hold.
        """
        if not type:
            raise LocalError("type must be a non-empty string")
        return f'{{"type":{encode_json(type).decode()},"payload":{payload_json(payload).decode()}}}'

    @classmethod
    def parse(cls, text: str | bytes) -> JsonMessage:
        """Reads one message. Unknown keys are ignored.

        Raises: `BadMessage` (a `ValueError`) that names what was expected.
        """
        try:
            found = _ENVELOPES.decode(text)
            payload: Json = json.loads(bytes(found.payload))
        except (ValueError, RecursionError, msgspec.MsgspecError) as exc:
            raise BadMessage(BAD_MESSAGE, f"expected an object with a string type: {exc}") from None
        if not found.type:
            raise BadMessage(BAD_MESSAGE, "type must be a non-empty string")
        if not isinstance(payload, dict):
            raise BadMessage(BAD_MESSAGE, f"payload must be an object, got {payload!r:.80}")
        return cls(
            type=found.type,
            payload=cast(dict[str, Json], payload),
            room=found.room,
            id=found.id,
            kind=found.kind,
            ts=found.ts,
        )

    def to_json(self) -> str:
        """Writes the message with those of `id kind ts room` that are set."""
        head = {"type": self.type}
        for key in ("room", "id", "ts"):
            if value := getattr(self, key):
                head[key] = value
        if self.kind != "event":
            head["kind"] = self.kind
        return f'{encode_json(head).decode()[:-1]},"payload":{payload_json(self.payload).decode()}}}'


class StoredMessage(msgspec.Struct, frozen=True, gc=False):
    """One entry of a room's log, as the store holds it.

    `id`: 20 digits, rising over the whole store. `ep`, `off`: the log's epoch and the dense offset in it,
    from 1. `ts`: RFC 3339 UTC time of the append, informational. `payload_json`: the payload's JSON as
    published, byte for byte. `mid`: the sender's idempotency key. `sender`: the authenticated user.
    """

    id: str
    kind: str
    room: str
    type: str
    ts: str
    payload_json: bytes
    ep: str = ""
    off: int = 0
    mid: str | None = None
    sender: str | None = None

    @property
    def payload(self) -> Json:
        """The decoded payload; decoding happens at each call."""
        return json.loads(self.payload_json)
