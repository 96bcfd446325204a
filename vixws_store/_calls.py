"""What both stores do with a caller's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from vixws_core.effects import StoreAppend
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import StoreAppended, StoreFailed
from vixws_core.message import Json, JsonMessage, payload_json

__all__ = ["append_ask", "batch_asks", "settled", "wall_time"]

BATCH_APPENDS_MAX = 10_000
"""Most appends of one `append_batch`: one transaction, during which other publishers wait."""


def wall_time() -> str:
    """The time as RFC 3339 UTC text with milliseconds: `2026-01-02T03:04:05.678Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def append_ask(arguments: tuple[Json, ...]) -> StoreAppend:
    """Makes the ask of `append(kind, room, type, payload)` or `append(message)`.

    Raises: `LocalError` that names the wrong argument and what was expected.
    """
    match arguments:
        case (JsonMessage() as message,):
            kind, room, type_, payload = message.kind, message.room, message.type, message.payload
        case (kind, room, type_, payload):
            pass
        case _:
            raise LocalError(
                f"append takes one JsonMessage or kind, room, type and payload, got {len(arguments)} arguments"
            )
    for name, value in (("kind", kind), ("room", room), ("type", type_)):
        if not isinstance(value, str):
            raise LocalError(f"{name} must be a string, got {value!r:.80}")
    if not type_:
        raise LocalError("type must be a non-empty string, got ''")
    ask = StoreAppend(0, room, kind, type_, payload_json(payload))
    check_storable(ask)
    return ask


def batch_asks(appends: Sequence[StoreAppend]) -> tuple[StoreAppend, ...]:
    """Checks what was given to `append_batch`.

    Raises: `LocalError` for too many appends, or text that UTF-8 cannot hold.
    """
    if len(appends) > BATCH_APPENDS_MAX:
        raise LocalError(f"a batch must hold at most {BATCH_APPENDS_MAX} appends, got {len(appends)}")
    for ask in appends:
        check_storable(ask)
    return tuple(appends)


def check_storable(ask: StoreAppend) -> None:
    """Raises: `LocalError` where a text of the append is not valid Unicode."""
    try:
        f"{ask.room}{ask.kind}{ask.type}{ask.scope}{ask.mid}{ask.sender}".encode()
        ask.payload.decode()
    except UnicodeError as exc:
        raise LocalError(f"an append must hold valid UTF-8 text only: {exc}") from None


def settled(answer: StoreAppended | StoreFailed) -> str:
    """The id of an append.

    Raises: `StoreError` where it failed.
    """
    if isinstance(answer, StoreFailed):
        raise StoreError(answer.code, answer.message, retry=answer.retry)
    return answer.id
