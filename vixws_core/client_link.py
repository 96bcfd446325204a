"""What the parts of a client's machine share: the effects of the step, keyed randomness, frames, the JSON read."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Final, TypeVar

import msgspec

from .client_records import ClientEffect
from .effects import PeerMisbehaved, SendBytes
from .errors import BadMessage, LocalError
from .frames import TEXT, encode_frame

__all__ = ["FAR", "Incoming", "Link", "decode", "decode_payload", "envelope"]

FAR: Final = float("inf")
"""Never, as a time."""

Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Millis = Annotated[float, msgspec.Meta(ge=0, le=1 << 53)]
Text = Annotated[str, msgspec.Meta(max_length=256)]

_EMPTY: Final = msgspec.Raw(b"{}")
_encode = msgspec.json.Encoder().encode


class Incoming(msgspec.Struct, gc=False):
    """The head of one message from a server; `payload` is raw JSON."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
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
    head: Offset = 0
    floor: Offset = 0
    recovered: bool = False
    reason: Text | None = None
    stored: bool = True


class GapPayload(msgspec.Struct, gc=False):
    """What a `$gap` says: offsets, bounds included, or how many messages of a room that is not stored."""

    from_: Offset = msgspec.field(default=0, name="from")
    to: Offset = 0
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

    code: Text = "internal"
    retry: bool = False
    after_ms: Millis | None = None
    msg: str = ""


class DrainPayload(msgspec.Struct, gc=False):
    """What a `$drain` says."""

    reconnect_in_ms: Millis | None = None


_INCOMING: Final = msgspec.json.Decoder(Incoming)
_PAYLOADS: Final = {
    kind: msgspec.json.Decoder(kind)
    for kind in (WelcomePayload, JoinedPayload, GapPayload, LivePayload, AckPayload, ErrorPayload, DrainPayload)
}
_Payload = TypeVar(
    "_Payload", WelcomePayload, JoinedPayload, GapPayload, LivePayload, AckPayload, ErrorPayload, DrainPayload
)


def decode(text: str) -> Incoming | None:
    """Reads one message; None where the text is no envelope."""
    try:
        found = _INCOMING.decode(text)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors.
        return None
    return found if memoryview(found.payload)[0] == 0x7B else None


def decode_payload(kind: type[_Payload], payload: bytes | msgspec.Raw) -> _Payload:
    """Reads the payload of a `$` message. Raises: `BadMessage`."""
    try:
        return _PAYLOADS[kind].decode(payload)  # type: ignore[return-value]  # The table maps a kind to its decoder.
    except msgspec.MsgspecError as exc:
        raise BadMessage("bad_message", f"expected another payload: {exc}") from None


def envelope(
    type: str,
    payload: bytes,
    *,
    ref: str | None = None,
    room: str | None = None,
    mid: str | None = None,
    kind: str = "event",
) -> bytes:
    """One message of ours as UTF-8 JSON. Raises: `LocalError` for text that is not Unicode."""
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


class Link:
    """The present connection and the present step. Only `ClientMachine.handle` and what it calls change it."""

    __slots__ = ("_counter", "_masks", "_seed", "conn", "failures", "is_open", "now", "out")

    def __init__(self, seed: bytes) -> None:
        if not 1 <= len(seed) <= 64:
            raise LocalError(f"seed must have 1 to 64 bytes, got {len(seed)}")
        self._seed = seed
        self._counter = 0
        self._masks = b""
        self.conn = 0
        """The number of the transport in use or asked for; 0: none."""
        self.is_open = False
        """Whether rooms may be joined and messages sent."""
        self.failures = 0
        """Attempts and connections that ended since the last progress."""
        self.now = 0.0
        self.out: list[ClientEffect] = []

    def secret(self, purpose: str, size: int = 16) -> str:
        """A secret of this client alone, the same at each call, in hexadecimal."""
        return blake2b(purpose.encode(), key=self._seed, digest_size=size, person=b"vixws client").hexdigest()

    def draw(self, size: int) -> bytes:
        """Fresh bytes: the keyed hash of a counter; at most 64."""
        self._counter += 1
        return blake2b(self._counter.to_bytes(8, "big"), key=self._seed, digest_size=size).digest()

    def uniform(self, spread_s: float) -> float:
        """A time between 0 and `spread_s`, every one as likely."""
        return int.from_bytes(self.draw(8), "big") / (1 << 64) * spread_s

    def backoff(self, failures: int, min_s: float, max_s: float) -> float:
        """Full jitter: a time between 0 and `min_s`·2^`failures`, at most `max_s`."""
        return self.uniform(min(max_s, min_s * 2.0 ** min(failures, 30)))

    def mask(self) -> bytes:
        """A fresh masking key (RFC 6455 §5.3: unpredictable to whoever chose the payload)."""
        masks = self._masks or self.draw(64)
        self._masks = masks[4:]
        return masks[:4]

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        """Sends one frame."""
        self.out.append(SendBytes(self.conn, encode_frame(opcode, payload, self.mask())))

    def tell(self, effect: ClientEffect) -> None:
        """Adds an effect to the step."""
        self.out.append(effect)

    def blame(self, kind: str, detail: str) -> None:
        """Tells that the server broke a rule."""
        self.out.append(PeerMisbehaved(self.conn, kind, detail[:300]))

    def progress(self) -> None:
        """Takes note that the connection is good for something: back-off begins anew."""
        self.failures = 0
