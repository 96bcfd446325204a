"""The application's side of the door: tells become calls of handlers, and calls become commands.

Plain handlers run at once, inside the call that told of the message. A record of messages is a generator:
where a handler has to wait (it is `async`, or blocks in a thread) it yields a `Waiting`, and a shell runs
that and sends the outcome back in. So the rules of order and failure are written once, here, for every loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from ..codes import CLOSE_OWN_FIRST, CLOSE_OWN_LAST, SENDABLE_CLOSES, STORE_UNAVAILABLE
from ..effects import (
    Closed,
    Drained,
    Effect,
    HistoryListed,
    MessageReceived,
    Opened,
    Published,
    PublishFailed,
    Requested,
    SendBytes,
)
from ..errors import BadRoom, LocalError
from ..inputs import (
    Accept,
    Close,
    HandlerFinished,
    Input,
    Join,
    Leave,
    LeaveAll,
    ListHistory,
    Publish,
    Refuse,
    Reject,
    Send,
    SendToAll,
    Since,
)
from ..message import encode_json, payload_json
from ..names import check_room
from .dispatch import Report, Runner, Steps, Waiting
from .router import Router
from .session import Session

__all__ = ["App", "BadRoom", "Router", "Session", "Steps", "Views", "Waiting"]

T = TypeVar("T")
Pages: TypeAlias = Callable[[str, str, tuple[tuple[str, str], ...]], tuple[int, tuple[tuple[str, str], ...], bytes]]
Arrived: TypeAlias = Callable[[int, tuple[tuple[str, str], ...]], tuple[str, bool | None] | None]
"""Of a connection and its request's headers: the peer's address and whether rates hold for it; None: it is refused."""
Done: TypeAlias = Callable[[Published | PublishFailed], object]
Listed: TypeAlias = Callable[[HistoryListed], object]

_MID_MAX: Final = 128
"""Characters of an idempotency key (the wire protocol's §1)."""


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


def _here(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _anybody(conn: int, headers: tuple[tuple[str, str], ...]) -> tuple[str, bool | None]:
    return str(conn), None


def _no_pages(
    method: str, path: str, headers: tuple[tuple[str, str], ...]
) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    return 404, (("content-type", "text/plain; charset=utf-8"),), b"not found\n"


class App:
    """Dispatches what a hub tells to the handlers of `routes`, and turns calls into commands.

    `do` runs one command in the hub at once; `call` runs a function where the hub may be looked at; `wait`
    takes the steps of a record whose next step has to wait; `report` hears of a handler's exception, by
    name; `pages` answers plain HTTP requests, `(method, target, headers)`. Give `calls` to the pump.
    """

    def __init__(
        self,
        hub: Views,
        do: Callable[[Input], list[Effect]],
        routes: Mapping[str, tuple[Router, tuple[str, ...]]],
        *,
        clock: Callable[[], float],
        report: Report,
        wait: Callable[[Steps, Waiting], object],
        call: Callable[..., Any] = _here,
        pages: Pages = _no_pages,
        message_bytes_max: int = 65_536,
        arrived: Arrived = _anybody,
        drained: Callable[[], object] = lambda: None,
    ) -> None:
        self._hub = hub
        self._do = do
        self._routes = routes
        self._report = report
        self._runner = Runner(do, clock, report, wait)
        self._call = call
        self._pages = pages
        self.message_bytes_max = message_bytes_max
        self._arrived = arrived
        self._sessions: dict[int, Session] = {}
        self._requests = count(1)
        self._publishes: dict[int, tuple[str, Done]] = {}
        self._lists: dict[int, Listed] = {}
        self._over = ""
        self.calls: dict[type, Callable[[Any], object]] = {
            Requested: self._requested,
            Opened: self._opened,
            MessageReceived: self._received,
            Closed: self._closed,
            Published: self._published,
            PublishFailed: self._published,
            HistoryListed: self._listed,
            Drained: lambda effect: drained(),
        }

    # ---- what the application calls -------------------------------------------------------------

    def join_room(
        self, session: Session, room: str, since: Since | Mapping[str, Any] | None = None, last: int = 0
    ) -> None:
        """Puts `session` into `room`: members see what is published from now on.

        `since` (a `Since`, or a mapping with `ep`, `off` and perhaps `id`) resumes behind a message seen
        before; without it the newest `last` messages are sent first. A session that is gone is ignored.
        Raises: `LocalError` for a bad room name, `since` or `last`.
        """
        if since is not None and not isinstance(since, Since):
            try:
                since = msgspec.convert(since, Since)
            except msgspec.ValidationError as exc:
                raise LocalError(f"since must have ep, off and perhaps id: {exc}") from None
        if last < 0:
            raise LocalError(f"last must be 0 or more, got {last}")
        check_room(room)
        self._do(Join(session.id, room, since, last))

    def leave_room(self, session: Session, room: str) -> None:
        """Takes `session` out of `room`; nothing happens where it is not a member."""
        check_room(room)
        self._do(Leave(session.id, room))

    def leave_all_rooms(self, session: Session) -> None:
        """Takes `session` out of all its rooms."""
        self._do(LeaveAll(session.id))

    def broadcast_json(self, type: str, payload: object = None, but: Session | None = None) -> None:
        """Sends one typed message to every open session, except `but`; never stored."""
        data = self.encode_envelope(type, payload)
        self._do(SendToAll(data, but=None if but is None else but.id))

    def broadcast_room_json(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        store: bool = True,
        kind: str = "event",
        mid: str | None = None,
        session: Session | None = None,
        ref: str | None = None,
        done: Done | None = None,
    ) -> None:
        """Publishes into `room`: appends to its log, then sends to its members; with `store=False` only sends.

        `payload` is an object, flat pairs, or encoded JSON as bytes. `mid` makes a repeat harmless. `session`
        is the one in whose name it is published: with `ref` it gets the `$ack` or `$err`. `done` is called
        once, with the outcome.
        Raises: `LocalError` for a bad room name, type, kind, mid or payload, or one that is too large.
        """
        check_room(room)
        if type.startswith("$"):
            raise LocalError(f"type must not start with '$', got {type!r:.80}")
        if not type or not kind:
            raise LocalError(f"type and kind must be non-empty strings, got {type!r:.80} and {kind!r:.80}")
        if mid is not None and not 0 < len(mid) <= _MID_MAX:
            raise LocalError(f"mid must have 1 to {_MID_MAX} characters, got {mid!r:.140}")
        data = payload_json(payload)
        if len(data) > self.message_bytes_max:
            raise LocalError(f"payload must be at most {self.message_bytes_max} bytes, got {len(data)}")
        conn = None if session is None else session.id
        request = None if done is None else next(self._requests)
        if request is not None and done is not None:
            self._publishes[request] = (room, done)
        try:
            self._do(Publish(room, type, data, kind, mid, store, request, conn, ref))
        except BaseException:
            self._publishes.pop(request or 0, None)
            raise
        if session is not None and ref is not None:
            session.answer_later(ref)  # The hub answers it.
        if self._over:
            self.abandon(self._over)

    def history(
        self, room: str, limit: int, before_id: str | None, done: Listed, session: Session | None = None
    ) -> None:
        """Reads the newest `limit` stored messages of `room` below the id `before_id`; `done` gets them once.

        `session` is the one that it is for: one that asks for too much at once is not read meanwhile.
        Raises: `LocalError` for a bad room name or a limit below 1.
        """
        check_room(room)
        if limit < 1:
            raise LocalError(f"limit must be 1 or more, got {limit}")
        request = next(self._requests)
        self._lists[request] = done
        self._do(ListHistory(request, room, limit, before_id, None if session is None else session.id))
        if self._over:
            self.abandon(self._over)

    def members(self, room: str) -> list[Session]:
        """The sessions in `room` now, in no particular order."""
        check_room(room)
        found: tuple[int, ...] = self._call(self._hub.members, room)
        sessions = self._sessions
        return [sessions[conn] for conn in found if conn in sessions]

    def rooms(self) -> list[str]:
        """Names of the rooms that have members now."""
        names: list[str] = self._call(self._hub.rooms)
        return names

    def sessions(self) -> list[Session]:
        """All open sessions, oldest first."""
        found: list[Session] = self._call(list, self._sessions.values())
        return found

    # ---- what sessions call ---------------------------------------------------------------------

    def rooms_of(self, session: Session) -> tuple[str, ...]:
        """The rooms of one session."""
        names: tuple[str, ...] = self._call(self._hub.rooms_of, session.id)
        return names

    def send(self, command: Send) -> bool:
        """Runs a `Send`; whether bytes went into the outbox."""
        return SendBytes in map(type, self._do(command))

    def refuse(self, session: Session, ref: str, code: str, message: str) -> None:
        """Answers a message of `session` with `$err`."""
        self._do(Refuse(session.id, code, message, ref))

    def close(self, session: Session, command: Close) -> None:
        """Runs a `Close` of an open session. Raises: `LocalError` for a code or reason that cannot be sent."""
        code, reason = command.code, command.reason
        if not (code in SENDABLE_CLOSES or CLOSE_OWN_FIRST <= code <= CLOSE_OWN_LAST):
            raise LocalError(f"close code must be one of {SENDABLE_CLOSES} or 3000 to 4999, got {code!r}")
        if len(self.encode_text(reason)) > 123:
            raise LocalError(f"close reason must have at most 123 bytes, got {reason!r:.140}")
        if session.is_open:
            session.is_open = False
            self._do(command)

    @staticmethod
    def encode_text(text: str) -> bytes:
        """UTF-8 of a text. Raises: `LocalError` for lone surrogates."""
        try:
            return text.encode()
        except UnicodeEncodeError as exc:
            raise LocalError(f"text must be valid Unicode: {exc}") from None

    @staticmethod
    def encode_envelope(type: str, payload: object = None, ref: str | None = None) -> bytes:
        """Encodes `{"type", "payload"}` and perhaps `ref`, as UTF-8 JSON."""
        if not type:
            raise LocalError("type must be a non-empty string")
        head = b'{"type":' + encode_json(type)
        if ref is not None:
            head += b',"ref":' + encode_json(ref)
        return head + b',"payload":' + payload_json(payload) + b"}"

    # ---- what the hub tells ---------------------------------------------------------------------

    def abandon(self, message: str) -> None:
        """Answers every call that waits for the hub, now or later, with a failure; for a shell whose hub is gone."""
        self._over = message
        publishes, self._publishes = self._publishes, {}
        lists, self._lists = self._lists, {}
        for request, (room, done) in publishes.items():
            self._answer(done, PublishFailed(request, room, STORE_UNAVAILABLE, message, True))
        for request, listed in lists.items():
            self._answer(listed, HistoryListed(request, (), STORE_UNAVAILABLE, message))

    def _requested(self, effect: Requested) -> None:
        path = effect.target.partition("?")[0]
        arrival = self._arrived(effect.conn, effect.headers)
        if arrival is None:
            self._do(Reject(effect.conn, 503, (("retry-after", "5"),), b"too many connections\n"))
            return
        peer, limited = arrival
        if not effect.upgrade:
            try:
                answer = self._pages(effect.method, effect.target, effect.headers)
            except Exception as exc:
                self._report(None, exc, "pages")
                answer = (500, (("content-type", "text/plain; charset=utf-8"),), b"internal error\n")
            self._do(Reject(effect.conn, *answer))
            return
        route = self._routes.get(path)
        if route is None:
            self._do(Reject(effect.conn, *_no_pages(effect.method, path, effect.headers)))
            return
        router, known = route
        subprotocol = next((name for name in effect.subprotocols if name in known), None)
        session = Session(self, effect.conn, peer, effect.target, effect.headers, router)
        self._sessions[effect.conn] = session
        accept = Accept(effect.conn, subprotocol, router.is_typed, router.guarded, limited)
        if not any(type(told) is Opened for told in self._do(accept)):
            del self._sessions[effect.conn]  # The handshake failed, or the connection is gone.

    def _opened(self, effect: Opened) -> None:
        session = self._sessions[effect.conn]
        session.subprotocol = effect.subprotocol
        session.is_open = True
        self._runner.start(self._runner.opening(session))

    def _received(self, effect: MessageReceived) -> None:
        session = self._sessions.get(effect.conn)
        if session is None:
            self._do(HandlerFinished(effect.conn))
            return
        self._runner.start(self._runner.record(session, effect.messages))

    def _closed(self, effect: Closed) -> None:
        session = self._sessions.pop(effect.conn, None)
        if session is None:
            return
        session.is_open = False
        session.close_code = effect.code
        session.close_reason = effect.reason
        session.over = True
        if not session.busy:
            self._runner.start(self._runner.closing(session))

    def _published(self, effect: Published | PublishFailed) -> None:
        asked = self._publishes.pop(effect.request, None)
        if asked is not None:
            self._answer(asked[1], effect)

    def _listed(self, effect: HistoryListed) -> None:
        done = self._lists.pop(effect.request, None)
        if done is not None:
            self._answer(done, effect)

    def _answer(self, done: Callable[[Any], object], effect: Effect) -> None:
        try:
            done(effect)
        except Exception as exc:
            self._report(None, exc, getattr(done, "__qualname__", repr(done)))
