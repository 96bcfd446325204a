"""One open WebSocket as the application sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from operator import attrgetter
from typing import Any, Unpack

from ..inputs import Since
from .access import AuthRequest, User
from .commands import Commands, Listed, Publishing, Signal, encode_envelope, encode_text
from .router import Router

__all__ = ["Session", "SessionState", "state_of"]


class SessionState:
    """What the dispatcher keeps of a session: how far its life is, and which message is being handled."""

    __slots__ = (
        "began",
        "busy",
        "close_code",
        "close_reason",
        "ending",
        "handles",
        "is_open",
        "over",
        "owes",
        "request",
        "root",
        "router",
        "subprotocol",
        "user",
    )

    def __init__(
        self, router: Router, root: Router, request: AuthRequest | None = None, user: User | None = None
    ) -> None:
        self.router: Router = router
        self.root: Router = root
        """The server's own, whose guards hold where the route has none."""
        self.request: AuthRequest | None = request
        """What `authenticate` was asked with; None where there is no such hook."""
        self.user: User | None = user
        self.began: bool = False
        """Whether the application heard of it."""
        self.subprotocol: str | None = None
        self.is_open: bool = False
        self.handles: bool = False
        """Whether its messages are handled: until its end, or a close of our own."""
        self.ending: Signal | None = None
        """Set when its end begins, for those who wait for that."""
        self.close_code: int | None = None
        self.close_reason: str = ""
        self.busy: bool = False
        """Whether one of its handlers is running."""
        self.over: bool = False
        """Whether its end was told while a handler was running."""
        self.owes: str | None = None
        """The `ref` of the message being handled, until it is answered."""

    def opened(self, subprotocol: str | None) -> None:
        """The WebSocket is open, and `on_open` runs."""
        self.subprotocol = subprotocol
        self.began = self.is_open = self.handles = self.busy = True

    def is_now(self, user: User) -> None:
        """It proved who it is, or proved it anew; another user is the hub's to refuse."""
        if self.user is None or self.user.id == user.id:
            self.user = user

    def handling(self, ref: str | None) -> None:
        """A message is being handled; where it has a `ref` it is to be answered."""
        self.owes = ref

    def finished(self) -> bool:
        """The handler is done; whether the end of the session was told meanwhile."""
        self.busy = False
        self.owes = None
        return self.over

    def ended(self, code: int, reason: str) -> bool:
        """The session is over; whether no handler is running, so that `on_close` may."""
        self.end_begins()
        self.handles = False
        self.close_code, self.close_reason = code, reason
        self.over = True
        return not self.busy

    def begin(self) -> None:
        """A record of messages is being handled."""
        self.busy = True

    def answered(self, ref: str | None) -> None:
        """Somebody answers the message `ref`, now or later."""
        if ref == self.owes:
            self.owes = None

    def closing(self) -> bool:
        """A close begins, unless one has; whether it does."""
        begins, self.handles = self.handles, False
        self.end_begins()
        return begins

    def end_begins(self) -> bool:
        """Its end begins, from either side; whether that is new."""
        begins, self.is_open = self.is_open, False
        if self.ending is not None:
            self.ending.set()
        return begins


class Session:
    """One WebSocket, from `on_open` to `on_close`. Created by the server only.

    `id` is its number, never used twice. `target` is the path with its query as requested; `headers` are the
    request's, names in lower case; `peer` is the address, for logs.
    """

    __slots__ = ("_commands", "_data", "_state", "headers", "id", "peer", "target")

    def __init__(
        self,
        commands: Commands,
        state: SessionState,
        id: int,
        peer: str,
        target: str,
        headers: tuple[tuple[str, str], ...],
    ) -> None:
        self._commands = commands
        self._state = state
        self._data: dict[str, Any] | None = None
        self.id: int = id
        self.peer: str = peer
        self.target: str = target
        self.headers: tuple[tuple[str, str], ...] = headers

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.path!r:.80} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether it is open: False as soon as a close is begun by either side, or the server shuts down.

        What was received before is handled all the same, and its answers are sent.
        """
        return self._state.is_open

    @property
    def user(self) -> User | None:
        """Who it is, as `authenticate` last said; None where there is no such hook."""
        return self._state.user

    def wait_closed(self) -> Awaitable[None]:
        """Waits until it is not open any more: `await session.wait_closed()`, for handlers that run for long.

        Raises: `LocalError` where nothing can wait: a hub that is driven without a loop.
        """
        state = self._state
        if state.ending is None:
            state.ending = self._commands.make_signal()
            if not state.is_open:
                state.ending.set()
        return state.ending.wait()

    @property
    def close_code(self) -> int | None:
        """How it was closed, set before `on_close` (RFC 6455 §7.1.5); None before its end."""
        return self._state.close_code

    @property
    def close_reason(self) -> str:
        """Why it was closed, set before `on_close`."""
        return self._state.close_reason

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on."""
        return self._state.subprotocol

    @property
    def message_bytes_max(self) -> int:
        """Largest message that the server takes, in bytes."""
        return self._commands.message_bytes_max

    @property
    def data(self) -> dict[str, Any]:
        """The application's own notes on this session; empty at first."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def path(self) -> str:
        """The requested path, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the `?` of the request, as sent; see `urllib.parse.parse_qs`."""
        return self.target.partition("?")[2]

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms it is in now."""
        return self._commands.rooms_of(self.id)

    def send_text(self, text: str) -> bool:
        """Sends one text message. False where the connection is gone or takes no more; then nothing is sent.

        Raises: `LocalError` for text that UTF-8 cannot hold (lone surrogates).
        """
        return self._commands.send(self.id, encode_text(text))

    def send_binary(self, data: bytes | bytearray | memoryview) -> bool:
        """Sends one binary message. False where the connection is gone or takes no more."""
        return self._commands.send(self.id, bytes(data), binary=True)

    def send_json(self, type: str, payload: object = None, *, ref: str | None = None) -> bool:
        """Sends `{"type", "payload"}`; `payload` is an object or flat pairs, `["text", "Hi"]`.

        `ref` echoes the request that this answers, which a connection takes even while it takes no more of
        others. False where the connection is gone or takes no more.
        Raises: `LocalError` for an empty type or a payload that JSON cannot hold.
        """
        sent = self._commands.send(self.id, encode_envelope(type, payload, ref), answer=ref is not None)
        if ref is not None:
            self._state.answered(ref)
        return sent

    def answer_later(self, ref: str | None) -> None:
        """Takes over the answer to the message `ref`: none is sent when its handler returns.

        Whoever calls this sends exactly one, with `send_json(…, ref=ref)`. For handlers whose answer comes from
        a callback or a task; any other message with a `ref` gets `$ack` when its handler returns without one.
        """
        self._state.answered(ref)

    def refuse(self, ref: str, code: str, message: str) -> None:
        """Answers the message `ref` with `$err`; for handlers that answer later, where others raise `Refused`."""
        self._commands.refuse(self.id, ref, code, message)
        self._state.answered(ref)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Starts the closing handshake after what was sent before; a second call does nothing.

        Raises: `LocalError` for a code an endpoint may not send (RFC 6455 §7.4) or a reason over 123 bytes.
        """
        self._commands.check_close(code, reason)
        if self._state.closing():
            self._commands.close(self.id, code, reason)

    def join(self, room: str, since: Since | Mapping[str, Any] | None = None, last: int = 0) -> None:
        """Joins `room`: members see what is published from now on.

        `since` (a `Since`, or a mapping with `ep`, `off` and perhaps `id`) resumes behind a message seen
        before; without it the newest `last` messages are sent first. A session that is gone is ignored.
        Raises: `LocalError` for a bad room name, `since` or `last`.
        """
        self._commands.join(self.id, room, since, last)

    def leave(self, room: str) -> None:
        """Leaves `room`; nothing happens where it is not a member."""
        self._commands.leave(self.id, room)

    def leave_all(self) -> None:
        """Leaves all its rooms."""
        self._commands.leave_all(self.id)

    def publish(self, room: str, type: str, payload: object = None, **how: Unpack[Publishing]) -> None:
        """Publishes into `room` in the name of this session: appends to its log, then sends to its members.

        `payload` is an object, flat pairs, or encoded JSON as bytes. With `store=False` it is only sent; `mid` makes a
        repeat harmless; with `ref` the session gets the `$ack` or `$err`; `done` is called once, with the outcome.
        Raises: `LocalError` for a bad room name, type, kind, mid or payload, or one that is too large; and where the
        session is over (its handlers have ended too): then nothing is published, for it would be in another name.
        """
        self._commands.publish(room, type, payload, self.id, **how)
        if (ref := how.get("ref")) is not None:
            self._state.answered(ref)  # The hub answers it.

    def announce(self, room: str, type: str, payload: object = None, **how: Unpack[Publishing]) -> None:
        """Publishes into `room` in the server's own name; see `publish`."""
        self._commands.publish(room, type, payload, **how)

    def history(self, room: str, limit: int, before_id: str | None, done: Listed) -> None:
        """Reads the newest `limit` stored messages of `room` below the id `before_id`; `done` gets them once.

        A session that asks for too much at once is not read meanwhile.
        Raises: `LocalError` for a bad room name or a limit below 1.
        """
        self._commands.history(room, limit, before_id, done, self.id)


state_of: Callable[[Session], SessionState] = attrgetter("_state")
"""What the dispatcher keeps of a session; for the dispatcher."""
