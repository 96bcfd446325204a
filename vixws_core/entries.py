"""What may be an entry of a room's log: one rule for every entrance, the wire, the application and the store itself.

What came in by one entrance goes out by all others: an entry that a client cannot read would stop its room there.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .errors import LocalError
from .mids import is_mid
from .names import check_texts
from .nesting import depth_of

__all__ = ["DEPTH_MAX", "KIND_MAX", "MID_MAX", "REF_MAX", "TYPE_MAX", "check_head", "check_payload"]

TYPE_MAX: Final = 128
"""Characters of a type (PROTOCOL §1)."""
KIND_MAX: Final = 64
"""Characters of a kind."""
MID_MAX: Final = 128
"""Characters of an idempotency key."""
REF_MAX: Final = 64
"""Characters of a request's id."""
DEPTH_MAX: Final = 64
"""Deepest nesting of a message, where no setting says otherwise."""

_JSON: Final = msgspec.json.Decoder(msgspec.Raw)


def check_head(type: str, kind: str, mid: str | None = None, ref: str | None = None) -> None:
    """Raises: `LocalError`, which names the value, for a type, kind, `mid` or `ref` that no client could send."""
    if not 0 < len(type) <= TYPE_MAX or type[0] == "$":
        raise LocalError(f"type must have 1 to {TYPE_MAX} characters and not begin with $, got {type!r:.140}")
    if not 0 < len(kind) <= KIND_MAX:
        raise LocalError(f"kind must have 1 to {KIND_MAX} characters, got {kind!r:.80}")
    if mid is not None and not 0 < len(mid) <= MID_MAX:
        raise LocalError(f"mid must have 1 to {MID_MAX} characters, got {mid!r:.140}")
    if mid is not None and not is_mid(mid):
        raise LocalError(f"mid that begins with ~ must be ~producer:epoch:seq, got {mid!r:.140}")
    if ref is not None and not 0 < len(ref) <= REF_MAX:
        raise LocalError(f"ref must have 1 to {REF_MAX} characters, got {ref!r:.80}")
    check_texts(type, kind, mid, ref)


def check_payload(data: bytes, bytes_max: int | None, depth_max: int = DEPTH_MAX) -> None:
    """Raises: `LocalError` for bytes that are not the JSON of an object, too many of them, or nested too deep.

    `bytes_max`: the limit of a message (`maxMessageSize`); None for none.
    """
    if bytes_max is not None and len(data) > bytes_max:
        raise LocalError(f"payload must be at most {bytes_max} bytes (maxMessageSize), got {len(data)}")
    try:
        data.decode()
        _JSON.decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
        raise LocalError(f"payload must be JSON, got {data!r:.80}: {exc}") from None
    if data.lstrip()[:1] != b"{":
        raise LocalError(f"payload must be an object, got {data!r:.80}")
    if data.count(b"{") + data.count(b"[") > depth_max and depth_of(data) > depth_max:
        raise LocalError(f"payload must be nested at most {depth_max} deep (maxJsonDepth)")
