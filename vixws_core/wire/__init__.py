"""Bytes and JSON of the wire, in both directions; no hub."""

from ..codes import RETRY_CODES
from .envelope import (
    Envelope,
    answer,
    decode,
    error,
    find_ref,
    quote,
    room_message,
    store_error,
    stored_message,
)
from .payloads import HelloPayload, HistoryPayload, JoinPayload, SincePayload, decode_payload

__all__ = [
    "RETRY_CODES",
    "Envelope",
    "HelloPayload",
    "HistoryPayload",
    "JoinPayload",
    "SincePayload",
    "answer",
    "decode",
    "decode_payload",
    "error",
    "find_ref",
    "quote",
    "room_message",
    "store_error",
    "stored_message",
]
