"""The application's side of the door: tells become calls of handlers, and calls become commands.

Plain handlers run at once, inside the call that told of the message. A record of messages is a generator:
where a handler has to wait (it is `async`, or blocks in a thread) it yields a `Waiting`, and a shell runs
that and sends the outcome back in. So the rules of order and failure are written once, here, for every loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, Unpack

from msgspec.structs import replace

from ..effects import (
    Authenticate,
    Authorize,
    Closed,
    Closing,
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
from ..inputs import Accept, HandlerFinished, Input, Respond, Revoke, Since
from ..names import check_name
from .access import BEARER, AuthRequest, RootRouter, User, credentials, without_cookies
from .commands import Commands, Listed, Publishing, Signal, Views, encode_envelope, here, no_signal
from .dispatch import Report, Runner, Steps, Waiting
from .gate import Gate
from .origins import Origins
from .router import Router
from .session import Session, SessionState, state_of

__all__ = ["SUBPROTOCOL", "App"]

SUBPROTOCOL: Final = "vixws.v1"
"""The subprotocol that names the wire protocol, version 1 (PROTOCOL §2)."""

_PLAIN: Final = (("content-type", "text/plain; charset=utf-8"),)

Pages: TypeAlias = Callable[[str, str, tuple[tuple[str, str], ...]], tuple[int, tuple[tuple[str, str], ...], bytes]]
Arrived: TypeAlias = Callable[[int, tuple[tuple[str, str], ...]], tuple[str, bool | str | None] | None]
"""Of a connection and its request's headers: the peer's address and whether rates hold for it; None: it is refused."""


def _anybody(conn: int, headers: tuple[tuple[str, str], ...]) -> tuple[str, bool | None]:
    return str(conn), None


def _no_pages(
    method: str, path: str, headers: tuple[tuple[str, str], ...]
) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    return 404, _PLAIN, b"not found\n"


class App:
    """Dispatches what a hub tells to the handlers of `routes`, and turns calls into commands.

    `do` runs one command in the hub at once; `call` runs a function where the hub may be looked at; `wait`
    takes the steps of a record whose next step has to wait; `report` hears of a handler's exception, by
    name; `pages` answers plain HTTP requests, `(method, target, headers)`. `root` has the hooks that say who somebody
    is and what they may do (the hub's policy says that they are asked), `wall` is their clock, in Unix seconds;
    `origins` says which pages may connect; `make_signal` makes what `Session.wait_closed` waits for, and `ending` hears
    of sessions whose end begins. Give `calls` to the pump.
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
        call: Callable[..., Any] = here,
        pages: Pages = _no_pages,
        message_bytes_max: int = 65_536,
        arrived: Arrived = _anybody,
        drained: Callable[[], object] = lambda: None,
        root: RootRouter | None = None,
        origins: Origins | None = None,
        wall: Callable[[], float] = lambda: 0.0,
        auth_deadline_s: float = 5.0,
        make_signal: Callable[[], Signal] = no_signal,
        ending: Callable[[Session], object] = lambda session: None,
    ) -> None:
        self._do = do
        self._routes = routes
        self._report = report
        self._runner = Runner(do, clock, report, wait)
        self._pages = pages
        self._arrived = arrived
        self._origins = origins
        self._root = root or RootRouter()
        self._gate = Gate(self._root, do, report, wall, auth_deadline_s)
        self._sessions: dict[int, Session] = {}
        self._commands = Commands(
            hub, do, call, lambda exc, name: report(None, exc, name), message_bytes_max, make_signal
        )
        self._ending = ending
        self.calls: dict[type, Callable[[Any], object]] = {
            Requested: self._requested,
            Opened: self._opened,
            MessageReceived: self._received,
            Closing: self._closing,
            Closed: self._closed,
            Published: self._commands.published,
            PublishFailed: self._commands.published,
            HistoryListed: self._commands.listed,
            Drained: lambda effect: drained(),
            Authenticate: self._authenticate,
            Authorize: self._authorize,
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
        session.join(room, since, last)

    def leave_room(self, session: Session, room: str) -> None:
        """Takes `session` out of `room`; nothing happens where it is not a member."""
        session.leave(room)

    def leave_all_rooms(self, session: Session) -> None:
        """Takes `session` out of all its rooms."""
        session.leave_all()

    def broadcast_json(self, type: str, payload: object = None, but: Session | None = None) -> None:
        """Sends one typed message to every open session, except `but`; never stored."""
        self._commands.send_to_all(encode_envelope(type, payload), None if but is None else but.id)

    def broadcast_room_json(
        self,
        room: str,
        type: str,
        payload: object = None,
        *,
        session: Session | None = None,
        **how: Unpack[Publishing],
    ) -> None:
        """Publishes into `room`: appends to its log, then sends to its members; with `store=False` only sends.

        `payload` is an object, flat pairs, or encoded JSON as bytes. `mid` makes a repeat harmless. `session`
        is the one in whose name it is published: with `ref` it gets the `$ack` or `$err`. `done` is called
        once, with the outcome.
        Raises: `LocalError` for a bad room name, type, kind, mid or payload, or one that is too large.
        """
        if session is None:
            self._commands.publish(room, type, payload, **how)
        else:
            session.publish(room, type, payload, **how)

    def history(
        self, room: str, limit: int, before_id: str | None, done: Listed, session: Session | None = None
    ) -> None:
        """Reads the newest `limit` stored messages of `room` below the id `before_id`; `done` gets them once.

        `session` is the one that it is for: one that asks for too much at once is not read meanwhile.
        Raises: `LocalError` for a bad room name or a limit below 1.
        """
        self._commands.history(room, limit, before_id, done, None if session is None else session.id)

    def members(self, room: str) -> list[Session]:
        """The sessions in `room` now, in no particular order."""
        found: tuple[int, ...] = self._commands.look(self._commands.views.members, check_name(room))
        sessions = self._sessions
        return [sessions[conn] for conn in found if conn in sessions]

    def rooms(self) -> list[str]:
        """Names of the rooms that have members now."""
        names: list[str] = self._commands.look(self._commands.views.rooms)
        return names

    def sessions(self) -> list[Session]:
        """All open sessions, oldest first."""
        found: list[Session] = self._commands.look(list, self._sessions.values())
        return [session for session in found if state_of(session).began]

    def revoke(self, user: str, room: str | None = None, *, now: bool = False) -> None:
        """Takes back what `user` was granted, in `room` or everywhere; `authorize` is asked again.

        Until it has answered nothing more of those rooms is sent; whoever may not stay hears `$kicked`. `now` closes
        their connections instead (4003), and what waits to be sent is dropped.
        Raises: `LocalError` for a bad room name.
        """
        self._do(Revoke(user, None if room is None else check_name(room), now))

    def abandon(self, message: str) -> None:
        """Answers every call that waits for the hub, now or later, with a failure; for a shell whose hub is gone."""
        self._commands.abandon(message)

    # ---- what the hub tells ---------------------------------------------------------------------

    def _requested(self, effect: Requested) -> None:
        path = effect.target.partition("?")[0]
        arrival = self._arrived(effect.conn, effect.headers)
        if arrival is None:
            self._do(Respond(effect.conn, 503, (("retry-after", "5"),), b"too many connections\n"))
            return
        peer, limited = arrival
        if not effect.upgrade:
            try:
                answer = self._pages(effect.method, effect.target, effect.headers)
            except Exception as exc:
                self._report(AuthRequest(effect.target, effect.headers, peer=peer), exc, "pages")
                answer = (500, _PLAIN, b"internal error\n")
            self._do(Respond(effect.conn, *answer))
            return
        route = self._routes.get(path)
        if route is None:
            self._do(Respond(effect.conn, *_no_pages(effect.method, path, effect.headers)))
            return
        cookies_count = False
        if self._origins is not None:
            verdict = self._origins.judge(effect.headers)
            if verdict is None:
                self._do(Respond(effect.conn, 403, _PLAIN, b"this page may not connect here (allowed_origins)\n"))
                return
            cookies_count = verdict
            if not cookies_count:
                effect = replace(effect, headers=without_cookies(effect.headers))
        if not self._gate.asks_who:
            self._accept(effect, route, peer, limited, None, None, None)
            return
        request = credentials(effect.target, effect.headers, effect.subprotocols, peer, cookies_count)
        accept = partial(self._accept, effect, route, peer, limited, request)
        self._runner.start(self._gate.upgrade(effect.conn, request, accept))

    def _accept(
        self,
        effect: Requested,
        route: tuple[Router, tuple[str, ...]],
        peer: str,
        limited: bool | str | None,
        request: AuthRequest | None,
        user: User | None,
        expires_in_s: float | None,
    ) -> None:
        """Completes an upgrade; `request`: what was shown to `authenticate`, and `user` what it said."""
        conn, (router, known) = effect.conn, route
        # A browser fails a handshake that echoes none of what it offered, so our own name is known on every route.
        offered = [name for name in effect.subprotocols if not name.startswith(BEARER)]
        subprotocol = next((name for name in offered if name in known or name == SUBPROTOCOL), None)
        accept = Accept(conn, subprotocol, router.is_typed, router.guarded | self._root.guarded, limited)
        if user is not None:
            accept = replace(accept, headers=user.headers, user=user.id, expires_in_s=expires_in_s)
        state = SessionState(router, self._root, request, user)
        self._sessions[conn] = Session(self._commands, state, conn, peer, effect.target, effect.headers)
        accepted = False
        try:
            accepted = any(type(told) is SendBytes for told in self._do(accept))
        finally:
            if not accepted:
                self._sessions.pop(conn, None)  # The handshake failed, or the connection is gone.

    def _authenticate(self, effect: Authenticate) -> None:
        self._runner.start(self._gate.token(effect, self._sessions.get(effect.conn)))

    def _authorize(self, effect: Authorize) -> None:
        self._runner.start(self._gate.grant(effect, self._sessions.get(effect.conn)))

    def _opened(self, effect: Opened) -> None:
        session = self._sessions[effect.conn]
        self._runner.start(self._runner.opening(session, effect.subprotocol))

    def _received(self, effect: MessageReceived) -> None:
        session = self._sessions.get(effect.conn)
        if session is None:
            self._do(HandlerFinished(effect.conn))
            return
        self._runner.start(self._runner.record(session, effect.messages))

    def _closing(self, effect: Closing) -> None:
        session = self._sessions.get(effect.conn)
        if session is not None and state_of(session).end_begins():
            self._ending(session)

    def _closed(self, effect: Closed) -> None:
        session = self._sessions.pop(effect.conn, None)
        if session is not None and state_of(session).began:
            self._runner.ended(session, effect.code, effect.reason)
