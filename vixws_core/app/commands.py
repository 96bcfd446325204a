"""What an application asks of a hub, checked and turned into commands; and its questions that wait for an answer.

`App`, `Session` and a server stand on this: a publish, and everything else, is checked in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Final, Protocol, TypeAlias, TypedDict, TypeVar, Unpack

import msgspec

from ..codes import CLOSE_OWN_FIRST, CLOSE_OWN_LAST, SENDABLE_CLOSES, STORE_UNAVAILABLE
from ..effects import Effect, HistoryListed, Published, PublishFailed, SendBytes
from ..errors import LocalError
from ..inputs import Close, Input, Join, Leave, LeaveAll, ListHistory, Publish, Refuse, Send, SendToAll, Since
from ..message import encode_json, payload_json
from ..names import check_name

__all__ = ["Commands", "Done", "Listed", "Publishing", "Signal", "Views", "encode_envelope", "encode_text"]

T = TypeVar("T")
Done: TypeAlias = Callable[[Published | PublishFailed], object]
"""Hears, once, what became of a publish."""
Listed: TypeAlias = Callable[[HistoryListed], object]
"""Hears, once, the answer to a question for history."""
Failed: TypeAlias = Callable[[Exception, str], object]
"""Hears that a callback raised: the exception, and the callback's name."""

_REASON_MAX: Final = 123
"""Bytes of a close reason (RFC 6455 §5.5)."""


class Publishing(TypedDict, total=False):
    """How a message is published, besides its room, type and payload."""

    store: bool
    """Whether it is appended to the room's log (the default), or only sent to the members."""
    kind: str
    """What sort of record it is: `event`, or the application's own word."""
    mid: str | None
    """Makes a repeat harmless: at most 128 characters."""
    ref: str | None
    """The client's request that this answers: its session gets the `$ack` or `$err`."""
    done: Done | None
    """Called once, with the outcome."""


class Views(Protocol):
    """What an application may see of a hub."""

    def rooms(self) -> list[str]:
        """Names of the rooms that have members."""
        ...

    def members(self, room: str, /) -> tuple[int, ...]:
        """The connections in `room`."""
        ...

    def rooms_of(self, conn: int, /) -> tuple[str, ...]:
        """The rooms of one connection."""
        ...


class Signal(Protocol):
    """What a loop gives to wait for: `anyio.Event` is one."""

    def set(self) -> object:
        """It has happened."""
        ...

    def wait(self) -> Awaitable[None]:
        """Waits until it has."""
        ...


def no_signal() -> Signal:
    """For a hub that is driven without a loop. Raises: `LocalError`."""
    raise LocalError("nothing can wait here: the hub is driven without a loop (App.make_signal)")


def here(function: Callable[..., T], *args: Any) -> T:
    """Calls a function where the caller is."""
    return function(*args)


class Commands:
    """Checks what is asked, and runs it in the hub.

    `do` runs one command at once; `call` runs a function where the hub may be looked at; `failed` hears of callbacks
    that raise. Connections are named by their numbers; those that are gone are ignored.
    """

    __slots__ = (
        "_call",
        "_do",
        "_failed",
        "_lists",
        "_over",
        "_publishes",
        "_requests",
        "make_signal",
        "message_bytes_max",
        "views",
    )

    def __init__(
        self,
        views: Views,
        do: Callable[[Input], list[Effect]],
        call: Callable[..., Any],
        failed: Failed,
        message_bytes_max: int,
        make_signal: Callable[[], Signal] = no_signal,
    ) -> None:
        self.views: Views = views
        self.message_bytes_max: int = message_bytes_max
        self._do = do
        self._call = call
        self._failed = failed
        self.make_signal: Callable[[], Signal] = make_signal
        self._requests = count(1)
        self._publishes: dict[int, tuple[str, Done]] = {}
        self._lists: dict[int, Listed] = {}
        self._over = ""

    def look(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs a function where the hub may be looked at; returns its result."""
        return self._call(function, *args)

    # ---- rooms ------------------------------------------------------------------------------------

    def join(self, conn: int, room: str, since: Since | Mapping[str, Any] | None = None, last: int = 0) -> None:
        """Puts a connection into `room`. Raises: `LocalError` for a bad room name, `since` or `last`."""
        if since is not None and not isinstance(since, Since):
            try:
                since = msgspec.convert(since, Since)
            except msgspec.ValidationError as exc:
                raise LocalError(f"since must have ep, off and perhaps id: {exc}") from None
        if last < 0:
            raise LocalError(f"last must be 0 or more, got {last}")
        self._do(Join(conn, check_name(room), since, last))

    def leave(self, conn: int, room: str) -> None:
        """Takes a connection out of `room`. Raises: `BadRoom`."""
        self._do(Leave(conn, check_name(room)))

    def leave_all(self, conn: int) -> None:
        """Takes a connection out of all its rooms."""
        self._do(LeaveAll(conn))

    def rooms_of(self, conn: int) -> tuple[str, ...]:
        """The rooms of a connection."""
        names: tuple[str, ...] = self._call(self.views.rooms_of, conn)
        return names

    # ---- messages ---------------------------------------------------------------------------------

    def publish(
        self, room: str, type: str, payload: object, conn: int | None = None, **how: Unpack[Publishing]
    ) -> None:
        """Publishes into `room`, in the name of a connection or the application's own.

        `payload` is an object, flat pairs, or encoded JSON as bytes.
        Raises: `LocalError` for a bad room name, type, kind, mid or payload, or one that is too large.
        """
        kind, mid, done = how.get("kind", "event"), how.get("mid"), how.get("done")
        data = payload_json(payload)  # The hub checks everything else, for whoever asks it.
        request: int | None = None
        if done is not None:
            request = next(self._requests)
            self._publishes[request] = (room, done)
        try:
            self._do(Publish(room, type, data, kind, mid, how.get("store", True), request, conn, how.get("ref")))
        except BaseException:
            self._publishes.pop(request or 0, None)
            raise
        if self._over:
            self.abandon(self._over)

    def history(self, room: str, limit: int, before_id: str | None, done: Listed, conn: int | None = None) -> None:
        """Reads the newest `limit` stored messages of `room` below the id `before_id`; `done` gets them once.

        `conn` is the connection that it is for: one that asks for too much at once is not read meanwhile.
        Raises: `LocalError` for a bad room name or a limit below 1.
        """
        check_name(room)
        if limit < 1:
            raise LocalError(f"limit must be 1 or more, got {limit}")
        request = next(self._requests)
        self._lists[request] = done
        try:
            self._do(ListHistory(request, room, limit, before_id, conn))
        except BaseException:
            self._lists.pop(request, None)
            raise
        if self._over:
            self.abandon(self._over)

    def send(self, conn: int, data: bytes, *, binary: bool = False, answer: bool = False) -> bool:
        """Sends one message; whether bytes went into the outbox. An `answer` is taken above the mark too."""
        return SendBytes in map(type, self._do(Send(conn, data, binary, answer)))

    def send_to_all(self, data: bytes, but: int | None = None) -> None:
        """Sends one text message to every open connection, except `but`; never stored."""
        self._do(SendToAll(data, but=but))

    def refuse(self, conn: int, ref: str | None, code: str, message: str) -> None:
        """Answers a message of a connection with `$err`."""
        self._do(Refuse(conn, code, message, ref))

    def check_close(self, code: int, reason: str) -> None:
        """Raises: `LocalError` for a close code or reason that cannot be sent (RFC 6455 §7.4, §5.5)."""
        if not (code in SENDABLE_CLOSES or CLOSE_OWN_FIRST <= code <= CLOSE_OWN_LAST):
            raise LocalError(f"close code must be one of {SENDABLE_CLOSES} or 3000 to 4999, got {code!r}")
        if len(encode_text(reason)) > _REASON_MAX:
            raise LocalError(f"close reason must have at most {_REASON_MAX} bytes, got {reason!r:.140}")

    def close(self, conn: int, code: int, reason: str) -> None:
        """Starts the closing handshake of a connection."""
        self._do(Close(conn, code, reason))

    # ---- answers ------------------------------------------------------------------------------------

    def published(self, effect: Published | PublishFailed) -> None:
        """A publish is done, or failed."""
        asked = self._publishes.pop(effect.request, None)
        if asked is not None:
            self._answer(asked[1], effect)

    def listed(self, effect: HistoryListed) -> None:
        """A question for history is answered."""
        done = self._lists.pop(effect.request, None)
        if done is not None:
            self._answer(done, effect)

    def abandon(self, message: str) -> None:
        """Answers every call that waits for the hub, now or later, with a failure; for a shell whose hub is gone."""
        self._over = message
        publishes, self._publishes = self._publishes, {}
        lists, self._lists = self._lists, {}
        for request, (room, done) in publishes.items():
            self._answer(done, PublishFailed(request, room, STORE_UNAVAILABLE, message, True))
        for request, listed in lists.items():
            self._answer(listed, HistoryListed(request, (), STORE_UNAVAILABLE, message))

    def _answer(self, done: Callable[[Any], object], effect: Effect) -> None:
        try:
            done(effect)
        except Exception as exc:
            self._failed(exc, getattr(done, "__qualname__", repr(done)))


def encode_text(text: str) -> bytes:
    """UTF-8 of a text. Raises: `LocalError` for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise LocalError(f"text must be valid Unicode: {exc}") from None


def encode_envelope(type: str, payload: object = None, ref: str | None = None) -> bytes:
    """Encodes `{"type", "payload"}` and perhaps `ref`, as UTF-8 JSON. Raises: `LocalError`."""
    if not type:
        raise LocalError("type must be a non-empty string")
    head = b'{"type":' + encode_json(type)
    if ref is not None:
        head += b',"ref":' + encode_json(ref)
    return head + b',"payload":' + payload_json(payload) + b"}"
