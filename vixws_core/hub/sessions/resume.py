"""Sessions that come back: the token of a `$welcome` names one, and whoever shows it takes it over (PROTOCOL §2).

It proves no identity: that is proved again, and must be the same.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ...codes import CLOSE_REPLACED
from ..model import FAR, SENDABLE, Session
from ..step import Step
from .lifecycle import Lifecycle

__all__ = ["RESUME_S", "Resume"]

RESUME_S: Final = 30.0
"""How long after its connection was lost a session may come back."""


class _Known:
    """A session that has a token, while it is open and for a while after."""

    __slots__ = ("at", "conn", "last_received", "lost_at", "old", "token", "user")

    def __init__(self, token: str, old: str, conn: int, user: str | None, at: float) -> None:
        self.token: str = token
        self.old: str = old
        """The token that it showed: it holds until a frame arrives behind the `$welcome`, which may have been lost."""
        self.conn: int = conn
        self.user: str | None = user
        self.at: float = at
        self.lost_at: float = FAR
        self.last_received: float = at


class Resume:
    """Gives sessions their tokens, and knows those of whom were lost."""

    __slots__ = ("_by_conn", "_by_token", "_lifecycle", "_lost", "_step")

    def __init__(self, step: Step, lifecycle: Lifecycle) -> None:
        self._step = step
        self._lifecycle = lifecycle
        self._by_token: dict[str, _Known] = {}
        self._by_conn: dict[int, _Known] = {}
        self._lost: deque[_Known] = deque()
        """In the order of their loss: as many at most as said `$hello` and were lost within `RESUME_S`."""

    @property
    def remembered(self) -> int:
        """Sessions that are open or may come back."""
        return len(self._by_conn)

    def begin(self, session: Session, shown: str | None) -> tuple[str, bool]:
        """A session said `$hello` and showed a token, or none: returns its own, and whether it is that one's session.

        A connection that still has the session is closed: one session is one connection's.
        """
        self._forget_lost()
        conn, identity = session.connection.id, session.identity
        user = None if identity is None else identity.user
        known = None if shown is None else self._find(shown)
        resumed = known is not None and known.user == user
        if known is not None and resumed:
            self._forget(known)
            other = self._step.connections.get(known.conn)
            if other is not None and other.state in SENDABLE:
                self._lifecycle.close(other, CLOSE_REPLACED, "replaced: another connection took this session over")
        token = "s_" + self._step.token("session")
        mine = _Known(token, shown if resumed and shown is not None else "", conn, user, self._step.now)
        self._by_conn[conn] = self._by_token[token] = mine
        if mine.old:
            self._by_token[mine.old] = mine
        return token, resumed

    def _find(self, shown: str) -> _Known | None:
        """The session that a token names, if it still does."""
        known = self._by_token.get(shown)
        if known is not None and shown == known.old:
            connection = self._step.connections.get(known.conn)
            heard = known.last_received if connection is None else connection.last_received
            if heard > known.at:
                del self._by_token[shown]
                return None
        return known

    def _forget(self, known: _Known) -> None:
        for token in (known.token, known.old):
            if self._by_token.get(token) is known:
                del self._by_token[token]
        if self._by_conn.get(known.conn) is known:
            del self._by_conn[known.conn]

    def _forget_lost(self) -> None:
        """Takes in who was lost, and forgets those who did not come back in time."""
        now, lost = self._step.now, self._step.lost
        while lost:
            conn, at, last_received = lost.popleft()
            known = self._by_conn.get(conn)
            if known is not None and at == -FAR:
                self._forget(known)
            elif known is not None:
                known.lost_at, known.last_received = at, last_received
                self._lost.append(known)
        while self._lost and self._lost[0].lost_at + RESUME_S < now:
            self._forget(self._lost.popleft())
