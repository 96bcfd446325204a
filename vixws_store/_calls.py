"""What both stores do with a caller's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from vixws_core.effects import StoreAppend
from vixws_core.entries import check_head, check_payload
from vixws_core.errors import LocalError, StoreError
from vixws_core.inputs import StoreAppended, StoreFailed
from vixws_core.message import Json, JsonMessage, payload_json
from vixws_core.names import check_name, check_texts

__all__ = ["append_ask", "batch_asks", "settled", "wall_time"]

BATCH_APPENDS_MAX = 10_000
"""Most appends of one `append_batch`: one transaction, during which other publishers wait."""


def wall_time() -> str:
    """The time as RFC 3339 UTC text with milliseconds: `2026-01-02T03:04:05.678Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def append_ask(arguments: tuple[Json, ...], bytes_max: int | None) -> StoreAppend:
    """Makes the ask of `append(kind, room, type, payload)` or `append(message)`; a payload has `bytes_max` at most.

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
    ask = StoreAppend(0, room, kind, type_, payload_json(payload))
    check_entry(ask, bytes_max)
    return ask


def batch_asks(appends: Sequence[StoreAppend], bytes_max: int | None) -> tuple[StoreAppend, ...]:
    """Checks what was given to `append_batch`; `bytes_max` is the limit of a payload, where there is one.

    Raises: `LocalError` for too many appends, or one that no client could publish.
    """
    if len(appends) > BATCH_APPENDS_MAX:
        raise LocalError(f"a batch must hold at most {BATCH_APPENDS_MAX} appends, got {len(appends)}")
    for ask in appends:
        check_entry(ask, bytes_max)
    return tuple(appends)


def check_entry(ask: StoreAppend, bytes_max: int | None) -> None:
    """Raises: `LocalError` for what no client could publish, and so none could read."""
    check_name(ask.room)
    check_head(ask.type, ask.kind, ask.mid)
    check_texts(ask.scope, ask.sender)
    check_payload(ask.payload, bytes_max)


def settled(answer: StoreAppended | StoreFailed) -> str:
    """The id of an append.

    Raises: `StoreError` where it failed.
    """
    if isinstance(answer, StoreFailed):
        raise StoreError(answer.code, answer.message, retry=answer.retry, expected=answer.expected)
    return answer.id
