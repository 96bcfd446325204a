"""Asks the two hooks of an application, `authenticate` and `authorize`, and tells the hub what they say.

A hook that fails is no pass: an exception, a wrong answer or one that takes too long grants nothing, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from ..codes import DENIED, INTERNAL
from ..effects import Authenticate, Authorize, Effect
from ..errors import Refused, text_of
from ..inputs import Authenticated, Authorized, Input, Respond
from .access import AuthRequest, Denied, Grant, RootRouter, User
from .dispatch import Report, Steps, Waiting, call
from .router import Handler
from .session import Session, state_of

__all__ = ["Gate"]

_PLAIN = ("content-type", "text/plain; charset=utf-8")


class Gate:
    """Runs the hooks of `root`. `wall` is the time in Unix seconds, in which users and grants end."""

    __slots__ = ("_deadline_s", "_do", "_report", "_root", "_wall")

    def __init__(
        self,
        root: RootRouter,
        do: Callable[[Input], list[Effect]],
        report: Report,
        wall: Callable[[], float],
        deadline_s: float,
    ) -> None:
        self._root = root
        self._do = do
        self._report = report
        self._wall = wall
        self._deadline_s = deadline_s

    @property
    def asks_who(self) -> bool:
        """Whether upgrades are shown to `authenticate`."""
        return self._root.authenticator is not None

    def _ask(self, handler: Handler | None, *args: Any) -> Generator[Waiting, object, Any]:
        """Runs a hook; its answer is what the generator returns."""
        assert handler is not None  # It is asked only where it is registered.
        if handler.waits:
            return (yield Waiting(handler, args, self._deadline_s))
        return call(handler, *args)

    def _left(self, until: float | None) -> float | None:
        """Seconds until a time of the wall clock."""
        return None if until is None else max(0.0, until - self._wall())

    # ---- who is it? -------------------------------------------------------------------------------

    def _whom(self, found: object) -> User | None:
        """What `authenticate` returned. Raises: `TypeError` for anything else; `Denied` for a proof that is over."""
        if found is not None and not isinstance(found, User):
            raise TypeError(f"authenticate must return a User or None, got one of type {type(found).__name__}")
        if found is not None and self._left(found.expires) == 0.0:
            raise Denied("the proof is over")
        return found

    def upgrade(self, conn: int, request: AuthRequest, accept: Callable[[User | None, float | None], object]) -> Steps:
        """Asks who wants an upgrade: it is accepted, as somebody or as nobody yet, or answered."""
        try:
            user = self._whom((yield from self._ask(self._root.authenticator, request)))
            accept(user, None if user is None else self._left(user.expires))
        except Denied as exc:
            challenge = () if exc.status != 401 else (("www-authenticate", "Bearer"),)
            self._respond(conn, exc.status, (*challenge, *exc.headers), f"{text_of(exc)}\n")
        except TimeoutError as exc:
            self._report(request, exc, self._name(self._root.authenticator))
            self._respond(conn, 503, (("retry-after", "5"),), "who you are could not be told in time\n")
        except Exception as exc:
            self._report(request, exc, self._name(self._root.authenticator))
            self._respond(conn, 500, (), "internal error\n")

    def _respond(self, conn: int, status: int, headers: tuple[tuple[str, str], ...], text: str) -> None:
        try:
            self._do(Respond(conn, status, (_PLAIN, *headers), text.encode(errors="replace")))
        except Exception as exc:  # A header of the application's that cannot be sent.
            self._report(None, exc, self._name(self._root.authenticator))
            self._do(Respond(conn, 500, (_PLAIN,), b"internal error\n"))

    def token(self, asked: Authenticate, session: Session | None) -> Steps:
        """Asks who shows a token in a message."""
        answer = Authenticated(asked.request)
        request = None if session is None else state_of(session).request
        if session is None or request is None:
            self._do(answer)
            return
        shown = msgspec.structs.replace(request, token=asked.token, in_message=True)
        try:
            user = self._whom((yield from self._ask(self._root.authenticator, shown)))
            if user is not None:
                answer = Authenticated(asked.request, user.id, self._left(user.expires), user.expires)
                state_of(session).is_now(user)
        except Denied as exc:
            answer = Authenticated(asked.request, code=DENIED, message=text_of(exc))
        except Exception as exc:
            self._report(shown, exc, self._name(self._root.authenticator))
            answer = Authenticated(asked.request, code=INTERNAL)
        self._do(answer)

    # ---- may they? --------------------------------------------------------------------------------

    def grant(self, asked: Authorize, session: Session | None) -> Steps:
        """Asks whether somebody may do something in a room."""
        answer = Authorized(asked.request)
        if session is None:
            self._do(answer)
            return
        try:
            found = yield from self._ask(self._root.authorizer, session.user, asked.action, asked.room)
            if found is not None and not isinstance(found, Grant):
                raise TypeError(f"authorize must return a Grant or None, got {found!r:.80}")
            if found is not None:
                actions = found.actions or (asked.action,)
                answer = Authorized(asked.request, actions, self._left(found.until))
        except (Denied, Refused):
            pass
        except Exception as exc:
            self._report(session, exc, self._name(self._root.authorizer))
            answer = Authorized(asked.request, code=INTERNAL)
        self._do(answer)

    @staticmethod
    def _name(handler: Handler | None) -> str:
        return "" if handler is None else handler.name
