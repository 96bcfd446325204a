"""The words and numbers of failure: every `$err` code, every close code, every word for a peer's misbehaviour.

One vocabulary for the hub, the client, the stores, the metrics and the docs; each is written out here and nowhere
else. It stands on the ground, beneath the wire, because the exceptions and the log speak it too.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = [
    "CLOSES",
    "ERRORS",
    "MISBEHAVIOUR",
    "RETRY_CODES",
    "SENDABLE_CLOSES",
    "CloseCode",
    "ErrorCode",
    "Misbehaviour",
]


class ErrorCode(msgspec.Struct, frozen=True):
    """One `$err` code: whether the same message may be sent again, who says it, and what it means."""

    code: str
    retry: bool
    by: Literal["hub", "store", "application", "client", "later"]
    """Who says it first; `client`: our own, before it sends; `later`: reserved for what is not built yet."""
    meaning: str


class CloseCode(msgspec.Struct, frozen=True):
    """One close code (RFC 6455 §7.4): who sends it, what a client does then, and what it means."""

    code: int
    by: Literal["hub", "client", "either", "others", "nobody", "later"]
    """Who sends it; `others`: gateways and other servers; `nobody`: it only stands for a close frame without a code, or
    none at all."""
    client: Literal["stops", "backs off", "comes back at its time"]
    meaning: str


class Misbehaviour(msgspec.Struct, frozen=True):
    """One word of `PeerMisbehaved` that is no `$err` code: what the peer did."""

    word: str
    meaning: str


# ---- `$err` ---------------------------------------------------------------------------------------

BAD_JSON: Final = "bad_json"
BAD_MESSAGE: Final = "bad_message"
TOO_DEEP: Final = "too_deep"
TOO_LARGE: Final = "too_large"
UNKNOWN_TYPE: Final = "unknown_type"
UNKNOWN_ROOM: Final = "unknown_room"
BAD_ROOM: Final = "bad_room"
TOO_MANY_ROOMS: Final = "too_many_rooms"
DENIED: Final = "denied"
RATE_LIMITED: Final = "rate_limited"
MID_CONFLICT: Final = "mid_conflict"
STORE_UNAVAILABLE: Final = "store_unavailable"
STORE_FULL: Final = "store_full"
INTERNAL: Final = "internal"
SEQ_GAP: Final = "seq_gap"
FENCED: Final = "fenced"
STALE_MID: Final = "stale_mid"
BAD_BATCH: Final = "bad_batch"
BAD_BINARY: Final = "bad_binary"

ERRORS: Final = (
    ErrorCode(BAD_JSON, False, "hub", "the text is not JSON, or has a lone surrogate"),
    ErrorCode(
        BAD_MESSAGE,
        False,
        "hub",
        "JSON, but no envelope, or not its type's payload; a join that was left or repeated before its answer",
    ),
    ErrorCode(TOO_DEEP, False, "hub", "nested deeper than 64 (`maxJsonDepth`)"),
    ErrorCode(
        TOO_LARGE,
        False,
        "client",
        "a publish over `message_bytes`, settled by the client itself: a server that gets it closes 1009",
    ),
    ErrorCode(
        UNKNOWN_TYPE, False, "hub", "a message with a `ref`, of a type that nobody handles; without one it is dropped"
    ),
    ErrorCode(UNKNOWN_ROOM, False, "hub", "`$history` or `$position` of a room that keeps none"),
    ErrorCode(BAD_ROOM, False, "hub", "a name that no room can have"),
    ErrorCode(TOO_MANY_ROOMS, False, "hub", "one room more than the 128 (`maxRooms`) that a connection may be in"),
    ErrorCode(
        DENIED, False, "application", "not granted, or refused by a guard or a handler; a token that proves nothing"
    ),
    ErrorCode(MID_CONFLICT, False, "store", "this `mid` was used in this room for something else"),
    ErrorCode(STORE_UNAVAILABLE, True, "store", "the store could not, for now"),
    ErrorCode(STORE_FULL, True, "store", "the store has no space, for now"),
    ErrorCode(INTERNAL, True, "store", "the store failed in a way that was not expected"),
    ErrorCode(RATE_LIMITED, True, "hub", "too many of this kind for now"),
    ErrorCode(SEQ_GAP, False, "store", "a producer's number is beyond the next one, which `expected` says"),
    ErrorCode(FENCED, False, "store", "a producer's epoch is over"),
    ErrorCode(STALE_MID, False, "store", "a producer's number was stored, and its message is not kept any more"),
    ErrorCode(BAD_BATCH, False, "later", "a batch that breaks its rules"),
    ErrorCode(BAD_BINARY, False, "later", "a binary envelope whose parts do not add up"),
)
"""All `$err` codes of the protocol (PROTOCOL §11)."""

RETRY_CODES: Final = frozenset(error.code for error in ERRORS if error.retry)
"""Error codes after which the same message may be sent again."""

# ---- closes ---------------------------------------------------------------------------------------

CLOSE_NORMAL: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_BAD_KIND: Final = 1003
CLOSE_NO_CODE: Final = 1005
CLOSE_NO_FRAME: Final = 1006
CLOSE_BAD_DATA: Final = 1007
CLOSE_POLICY: Final = 1008
CLOSE_TOO_BIG: Final = 1009
CLOSE_NO_EXTENSION: Final = 1010
CLOSE_SERVER_FAULT: Final = 1011
CLOSE_RESTART: Final = 1012
CLOSE_TRY_LATER: Final = 1013
CLOSE_BAD_GATEWAY: Final = 1014
CLOSE_BAD_TOKEN: Final = 4001
CLOSE_BAD_PROTOCOL: Final = 4002
CLOSE_DENIED: Final = 4003
CLOSE_REPLACED: Final = 4009
CLOSE_VERSION: Final = 4010
CLOSE_TOKEN_EXPIRED: Final = 4101
CLOSE_SLOW: Final = 4108
CLOSE_OVERLOADED: Final = 4113
CLOSE_DRAIN: Final = 4200
CLOSE_MOVED: Final = 4201

CLOSES: Final = (
    CloseCode(CLOSE_NORMAL, "either", "backs off", "done"),
    CloseCode(
        CLOSE_GOING_AWAY,
        "either",
        "backs off",
        "no message either way for 10 minutes (`idleTimeout`); the other end goes away",
    ),
    CloseCode(CLOSE_PROTOCOL_ERROR, "either", "backs off", "a broken frame"),
    CloseCode(CLOSE_BAD_KIND, "others", "backs off", "a kind of data that is not taken"),
    CloseCode(CLOSE_NO_CODE, "nobody", "backs off", "a close frame without a code"),
    CloseCode(CLOSE_NO_FRAME, "nobody", "backs off", "the connection ended without a close frame"),
    CloseCode(
        CLOSE_BAD_DATA, "either", "backs off", "text that is not UTF-8, or a compressed message that is not DEFLATE"
    ),
    CloseCode(
        CLOSE_POLICY,
        "either",
        "backs off",
        "a flood of pings or fragments; a message not complete within 30 s (`messageTimeout`)",
    ),
    CloseCode(CLOSE_TOO_BIG, "either", "backs off", "a message over the limit: `message_bytes` of `$welcome`"),
    CloseCode(CLOSE_NO_EXTENSION, "others", "backs off", "an extension is missing"),
    CloseCode(
        CLOSE_SERVER_FAULT, "either", "backs off", "a ping unanswered for 20 s (`pongTimeout`); a handler failed"
    ),
    CloseCode(CLOSE_RESTART, "hub", "backs off", "the server restarts: said to clients that never said `$hello`"),
    CloseCode(CLOSE_TRY_LATER, "others", "backs off", "try later"),
    CloseCode(CLOSE_BAD_GATEWAY, "others", "backs off", "a gateway got no good answer"),
    CloseCode(CLOSE_BAD_TOKEN, "hub", "stops", "the identity was not proved: a bad token, none, or not in time"),
    CloseCode(
        CLOSE_BAD_PROTOCOL, "hub", "stops", "a rule of the protocol was broken: a second `$hello`, or a late one"
    ),
    CloseCode(CLOSE_DENIED, "hub", "stops", "the application refused the connection, or took back all rights"),
    CloseCode(CLOSE_REPLACED, "hub", "stops", "another connection took the session over"),
    CloseCode(CLOSE_VERSION, "hub", "stops", "no common version of the protocol"),
    CloseCode(CLOSE_TOKEN_EXPIRED, "hub", "backs off", "the proof of the identity is over, and no other came"),
    CloseCode(CLOSE_SLOW, "hub", "backs off", "parked, it took no byte for 30 s (`flushStall`)"),
    CloseCode(CLOSE_OVERLOADED, "hub", "backs off", "for now it could not be told who one is"),
    CloseCode(CLOSE_DRAIN, "hub", "comes back at its time", "the server drains: said to clients that said `$hello`"),
    CloseCode(CLOSE_MOVED, "later", "comes back at its time", "the session lives elsewhere"),
)
"""All close codes that vixws sends or gives a meaning to (RFC 6455 §7.4.1, the IANA registry, PROTOCOL §11)."""

SENDABLE_CLOSES: Final = tuple(close.code for close in CLOSES if close.by != "nobody" and close.code < 3000)
"""Close codes below 3000 that an endpoint may send (RFC 6455 §7.4.1 and the IANA registry)."""

CLOSE_STOPS_FIRST: Final = 4000
CLOSE_STOPS_LAST: Final = 4099
"""After a close code in this band a client stops (PROTOCOL §11)."""

CLOSE_OWN_FIRST: Final = 3000
CLOSE_OWN_LAST: Final = 4999
"""Close codes that applications may choose freely (RFC 6455 §7.4.2)."""

# ---- misbehaviour ---------------------------------------------------------------------------------

BAD_HANDSHAKE: Final = "bad_handshake"
HANDSHAKE_TIMEOUT: Final = "handshake_timeout"
PROTOCOL_ERROR: Final = "protocol_error"
BAD_UTF8: Final = "bad_utf8"
BAD_DEFLATE: Final = "bad_deflate"
TOO_MANY_FRAGMENTS: Final = "too_many_fragments"
MESSAGE_TIMEOUT: Final = "message_timeout"
PING_TIMEOUT: Final = "ping_timeout"
SLOW: Final = "slow"
VERSION: Final = "version"

MISBEHAVIOUR: Final = (
    Misbehaviour(BAD_HANDSHAKE, "a request that breaks a rule"),
    Misbehaviour(HANDSHAKE_TIMEOUT, "no complete request in time"),
    Misbehaviour(PROTOCOL_ERROR, "broken framing, or a rule of the protocol"),
    Misbehaviour(BAD_UTF8, "text that is not UTF-8"),
    Misbehaviour(BAD_DEFLATE, "a compressed message that is not DEFLATE"),
    Misbehaviour(TOO_MANY_FRAGMENTS, "more fragments than a message may have"),
    Misbehaviour(MESSAGE_TIMEOUT, "a message not complete in time"),
    Misbehaviour(PING_TIMEOUT, "a ping unanswered"),
    Misbehaviour(SLOW, "took no byte in time"),
    Misbehaviour(VERSION, "no common version"),
)
"""Words of `PeerMisbehaved` besides the `$err` codes."""

FRAMING_FAULTS: Final = {
    CLOSE_PROTOCOL_ERROR: PROTOCOL_ERROR,
    CLOSE_BAD_DATA: BAD_UTF8,
    CLOSE_POLICY: TOO_MANY_FRAGMENTS,
    CLOSE_TOO_BIG: TOO_LARGE,
}
"""What a peer did, by the close code that answers its framing."""
