"""The built-in chat: rooms, history and typing notes, as plain handlers over the application's own API.

Messages, all `{"type", "payload"}`:

- `chat.join {room, user, last?, since?}`: the room hears `chat.system {room, text: "<user> joined"}`.
- `chat.leave {room, user}`: the room hears `chat.system {room, text: "<user> left"}`.
- `chat.message {room, user, text, …}`: stored as it is, then sent to the room with its id and offset.
- `chat.typing {room, user, …}`: sent to the room, not stored.
- `chat.history {room, limit?, before?}`: answered `chat.history {room, messages, more}`, oldest first, each
  `{id, off, ts, type, payload}`; `before` is an id.
- `chat.error {message, for}` goes to the sender of what could not be done; a message with a `ref` gets `$err`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ..effects import AppMessage, HistoryListed, Published, PublishFailed
from ..errors import Refused
from ..inputs import Since
from ..message import StoredMessage
from ..wire.envelope import store_error
from .router import Router
from .session import Session

__all__ = ["HistoryPayload", "JoinPayload", "LeavePayload", "MessagePayload", "TypingPayload", "build"]

PAGE_MAX: Final = 500
"""Messages of one history answer."""

ENTRY_BYTES: Final = 160
"""What a message costs in a history answer besides its payload and type, rounded up."""

UserName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]
Payload = TypeVar("Payload")


class JoinPayload(msgspec.Struct, frozen=True, gc=False):
    """`chat.join`: `last` messages are sent first, or those since a position."""

    room: str
    user: UserName
    last: Annotated[int, msgspec.Meta(ge=0, le=PAGE_MAX)] = 0
    since: Since | None = None


class LeavePayload(msgspec.Struct, frozen=True, gc=False):
    """`chat.leave`."""

    room: str
    user: UserName


class MessagePayload(msgspec.Struct, frozen=True, gc=False):
    """What `chat.message` must have; other keys are kept and sent on."""

    room: str
    user: UserName
    text: str


class TypingPayload(msgspec.Struct, frozen=True, gc=False):
    """What `chat.typing` must have; other keys are sent on."""

    room: str
    user: UserName


class HistoryPayload(msgspec.Struct, frozen=True, gc=False):
    """`chat.history`: the newest `limit` messages older than the id `before`."""

    room: str
    limit: PageSize = 50
    before: str | None = None


def build(router: Router) -> None:
    """Registers the chat's handlers. Raises: `LocalError` where one of its events is taken already."""
    router.on_open(welcome)
    router.on_bad_payload(bad_payload)
    router.on("chat.join")(join)
    router.on("chat.leave")(leave)
    router.on("chat.message")(message)
    router.on("chat.typing")(typing)
    router.on("chat.history")(history)


def welcome(session: Session) -> None:
    """Greets a new session."""
    session.send_json("chat.system", {"user": "server", "text": "Welcome!"})


def bad_payload(session: Session, type: str, detail: str) -> None:
    """Tells the sender what was expected."""
    _error(session, type, detail)


def _answering(
    handler: Callable[[Session, Payload, AppMessage], None],
) -> Callable[[Session, Payload, AppMessage], None]:
    """What is refused is told as `chat.error`, unless a `ref` asks for `$err`."""

    @wraps(handler)
    def answered(session: Session, payload: Payload, message: AppMessage) -> None:
        try:
            handler(session, payload, message)
        except Refused as exc:
            if message.ref is not None:
                raise
            _error(session, message.type, str(exc))

    return answered


@_answering
def join(session: Session, payload: JoinPayload, message: AppMessage) -> None:
    """Joins, then tells the room, the newcomer included."""
    session.join(payload.room, payload.since, payload.last)
    _announce(session, payload.room, f"{payload.user} joined")


@_answering
def leave(session: Session, payload: LeavePayload, message: AppMessage) -> None:
    """Leaves, then tells those who stay; nothing happens where it was not a member."""
    if payload.room in session.rooms:
        session.leave(payload.room)
        _announce(session, payload.room, f"{payload.user} left")


@_answering
def message(session: Session, payload: MessagePayload, message: AppMessage) -> None:
    """Stores the message as it came, and sends it to the room."""

    def done(outcome: Published | PublishFailed) -> None:
        if isinstance(outcome, PublishFailed) and message.ref is None:
            _error(session, message.type, store_error(outcome.code, outcome.message) or outcome.code)

    session.publish(
        payload.room,
        message.type,
        message.payload,
        kind=message.kind,
        mid=message.mid,
        ref=message.ref,
        done=done,
    )


@_answering
def typing(session: Session, payload: TypingPayload, message: AppMessage) -> None:
    """Tells the room, and forgets."""
    session.publish(payload.room, message.type, message.payload, store=False, ref=message.ref)


@_answering
def history(session: Session, payload: HistoryPayload, message: AppMessage) -> None:
    """Answers a page of stored messages, to the sender alone."""

    def done(listed: HistoryListed) -> None:
        if listed.code:
            text = store_error(listed.code, listed.message) or listed.code
            if message.ref is None:
                _error(session, message.type, text)
            else:
                session.refuse(message.ref, listed.code, text)
            return
        rows = _newest_that_fit(listed.rows, session.message_bytes_max)
        session.send_json(
            "chat.history",
            {
                "room": payload.room,
                "messages": [_entry(row) for row in rows],
                "more": len(rows) < len(listed.rows) or len(listed.rows) == payload.limit,
            },
            ref=message.ref,
        )

    session.history(payload.room, payload.limit, payload.before, done)
    session.answer_later(message.ref)


def _announce(session: Session, room: str, text: str) -> None:
    session.announce(room, "chat.system", {"room": room, "text": text}, store=False)


def _error(session: Session, type: str, text: str) -> None:
    session.send_json("chat.error", {"message": text, "for": type})


def _newest_that_fit(rows: tuple[StoredMessage, ...], bytes_max: int) -> tuple[StoredMessage, ...]:
    """The newest rows whose answer stays about as small as one message may be; at least one."""
    size = 0
    for count, row in enumerate(reversed(rows)):
        size += len(row.payload_json) + len(row.type.encode()) + ENTRY_BYTES
        if size > bytes_max and count:
            return rows[len(rows) - count :]
    return rows


def _entry(row: StoredMessage) -> dict[str, Any]:
    return {
        "id": row.id,
        "off": row.off,
        "ts": row.ts,
        "type": row.type,
        "payload": msgspec.Raw(row.payload_json),
    }
