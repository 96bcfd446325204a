"""What the payloads of `$` messages hold, as either end reads them."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from ..codes import BAD_MESSAGE, INTERNAL
from ..errors import BadMessage

__all__ = [
    "AckPayload",
    "AuthPayload",
    "DrainPayload",
    "ErrorPayload",
    "GapPayload",
    "HelloPayload",
    "HistoryPayload",
    "JoinPayload",
    "JoinedPayload",
    "Limits",
    "LivePayload",
    "Offset",
    "SincePayload",
    "Text",
    "WelcomePayload",
    "decode_payload",
]

Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Millis = Annotated[float, msgspec.Meta(ge=0, le=1 << 53)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Token = Annotated[str, msgspec.Meta(max_length=16_384)]


# ---- what a client says ---------------------------------------------------------------------------


class HelloPayload(msgspec.Struct, gc=False):
    """What a `$hello` says: the versions spoken, a session to resume, the secret that scopes `mid`s."""

    v: Annotated[tuple[int, ...], msgspec.Meta(max_length=16)] = (1,)
    session: Text | None = None
    pub: Text | None = None
    caps: Annotated[tuple[Text, ...], msgspec.Meta(max_length=32)] = ()
    token: Token | None = None


class AuthPayload(msgspec.Struct, gc=False):
    """What an `$auth` says."""

    token: Token


class SincePayload(msgspec.Struct, gc=False):
    """A position in a room's log."""

    ep: Text
    off: Offset
    id: Text | None = None


class JoinPayload(msgspec.Struct, gc=False):
    """What a `$join` asks."""

    since: SincePayload | None = None
    last: Offset = 0
    on_fail: str = "head"


class HistoryPayload(msgspec.Struct, gc=False):
    """What a `$history` asks: entries below `before`, newest first, or above `after`, oldest first."""

    before: Offset | None = None
    after: Offset | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


# ---- what a server says ---------------------------------------------------------------------------


class Limits(msgspec.Struct, frozen=True, gc=False):
    """The limits of a `$welcome`."""

    message_bytes: Annotated[int, msgspec.Meta(ge=1)] = 65_536


class WelcomePayload(msgspec.Struct, gc=False):
    """What a `$welcome` says, and (of it `reconnect_ms`) a `$pong`."""

    session: Text | None = None
    resumed: bool = False
    user: Text | None = None
    limits: Limits = Limits()
    reconnect_ms: Millis | None = None


class JoinedPayload(msgspec.Struct, gc=False):
    """What a `$joined` and a `$reset` say."""

    ep: Text = ""
    from_: Offset = msgspec.field(default=0, name="from")
    id: Text = ""
    head: Offset = 0
    floor: Offset = 0
    recovered: bool = False
    reason: Text | None = None
    stored: bool = True


class GapPayload(msgspec.Struct, gc=False):
    """What a `$gap` says: offsets, bounds included, or how many messages of a room that is not stored."""

    from_: Offset = msgspec.field(default=0, name="from")
    to: Offset = 0
    id: Text = ""
    dropped: Offset = 0


class LivePayload(msgspec.Struct, gc=False):
    """What a `$live` says."""

    off: Offset = 0


class AckPayload(msgspec.Struct, gc=False):
    """What an `$ack` says; without `off` the room is not stored."""

    ep: Text | None = None
    off: Offset | None = None
    id: Text | None = None
    dup: bool = False


class ErrorPayload(msgspec.Struct, gc=False):
    """What an `$err` and a `$kicked` say."""

    code: Text = INTERNAL
    retry: bool = False
    after_ms: Millis | None = None
    msg: str = ""


class DrainPayload(msgspec.Struct, gc=False):
    """What a `$drain` says."""

    reconnect_in_ms: Millis | None = None


_PAYLOADS: Final = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        HelloPayload,
        AuthPayload,
        JoinPayload,
        HistoryPayload,
        WelcomePayload,
        JoinedPayload,
        GapPayload,
        LivePayload,
        AckPayload,
        ErrorPayload,
        DrainPayload,
    )
}
_Payload = TypeVar(
    "_Payload",
    HelloPayload,
    AuthPayload,
    JoinPayload,
    HistoryPayload,
    WelcomePayload,
    JoinedPayload,
    GapPayload,
    LivePayload,
    AckPayload,
    ErrorPayload,
    DrainPayload,
)


def decode_payload(kind: type[_Payload], payload: bytes | msgspec.Raw) -> _Payload:
    """Reads the payload of a `$` message. Raises: `BadMessage` (`bad_message`)."""
    try:
        return _PAYLOADS[kind].decode(payload)  # type: ignore[return-value]  # The table maps a kind to its decoder.
    except msgspec.MsgspecError as exc:
        raise BadMessage(BAD_MESSAGE, f"expected another payload: {exc}") from None
